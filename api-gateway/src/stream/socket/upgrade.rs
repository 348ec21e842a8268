//! From a request to a WebSocket.

use std::future::Future;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::PROTOCOL;
use super::conversation::Socket;
use crate::error::ApiError;
use crate::patience::Patience;
use crate::share::visit::Visit;

/// A request that wants to become a WebSocket.
pub struct Upgrade {
    accept_key: String,
    offered: Vec<HeaderValue>,
    connection: OnUpgrade,
    patience: Option<Patience>,
    visit: Option<Visit>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let wrong = |what: &'static str| ApiError::bad_request(format!("not a WebSocket request: {what}"));
        let headers = &parts.headers;
        if parts.method != Method::GET || parts.version < Version::HTTP_11 {
            return Err(wrong("it must be a GET of HTTP/1.1"));
        }
        if !lists(headers, &header::CONNECTION, "upgrade") || !lists(headers, &header::UPGRADE, "websocket") {
            return Err(wrong("it has no `Connection: Upgrade` with `Upgrade: websocket`"));
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(wrong("`Sec-WebSocket-Version` must be 13"));
        }
        let accept_key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16))
            .map(|key| derive_accept_key(key.as_bytes()))
            .ok_or_else(|| wrong("`Sec-WebSocket-Key` must be 16 bytes in base 64"))?;
        let offered = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|offers| offers.as_bytes().split(|byte| *byte == b','))
            .filter_map(|offer| HeaderValue::from_bytes(offer.trim_ascii()).ok())
            .collect();
        let connection = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(|| wrong("this connection cannot become anything else"))?;
        let (patience, visit) = (parts.extensions.get().cloned(), parts.extensions.get().cloned());
        Ok(Self { accept_key, offered, connection, patience, visit })
    }
}

/// Whether a header that is a list has this item.
fn lists(headers: &HeaderMap, name: &HeaderName, item: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(item))
}

impl Upgrade {
    /// Becomes a WebSocket whose client sends messages of at most `max_bytes`, and hands it to `serve`. Of the subprotocols
    /// that the client offers, `own` is taken before the one of all WebSockets.
    pub fn accept<F>(
        self,
        sessions: &TaskTracker,
        own: Option<&'static str>,
        max_bytes: usize,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let Self { accept_key, offered, connection, patience, visit } = self;
        let session = async move {
            // What the request holds, the session holds.
            let _visit = visit;
            match connection.await {
                Ok(upgraded) => {
                    // From here on the conversation says how long a client may take nothing.
                    if let Some(patience) = patience {
                        patience.end();
                    }
                    serve(Socket::new(TokioIo::new(upgraded), max_bytes).await).await;
                }
                Err(error) => tracing::debug!(error = %error, "a connection ended before it was a WebSocket"),
            }
        };
        tokio::spawn(sessions.track_future(session.instrument(tracing::Span::current())));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(key) = HeaderValue::try_from(accept_key) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
        }
        if let Some(protocol) =
            own.into_iter().chain([PROTOCOL]).find(|known| offered.iter().any(|offer| offer == known))
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        response
    }
}
