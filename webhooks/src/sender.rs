//! One request and its answer.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use secrets::WebhookSecret;
use tokio::time::timeout;

use crate::config::WebhooksConfig;
use crate::connector::{ConnectError, Connector};
use crate::message::Message;

/// How much of an answer is read: what a person may need is the status; the rest is read so that the connection can be used
/// again.
const MAX_ANSWER: usize = 4 << 10;
const IDLE: Duration = Duration::from_secs(30);

/// Sends messages. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    allow_http: bool,
    timeout: Duration,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    /// One sentence for the webhook's owner.
    pub message: String,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// When the receiver wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None, retry_after: None }
    }

    /// Whether the receiver has said that it wants nothing more.
    pub fn is_final(&self) -> bool {
        self.status == Some(StatusCode::GONE.as_u16())
    }
}

impl Sender {
    /// One that obeys this configuration.
    pub fn new(config: &WebhooksConfig) -> Result<Self, rustls::Error> {
        Ok(Self::with(Connector::new(config.addresses.clone()), tls()?, config))
    }

    pub(crate) fn with(connector: Connector, tls: ClientConfig, config: &WebhooksConfig) -> Self {
        let connector = HttpsConnector::from((connector, Arc::new(tls)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(2)
            .build(connector);
        Self { client, allow_http: config.allow_http, timeout: config.timeout }
    }

    /// Sends a message once. `Ok` with the status when it was taken.
    pub async fn send(
        &self,
        url: &str,
        secret: &WebhookSecret,
        message: &Message,
        now: DateTime<Utc>,
    ) -> Result<u16, Refusal> {
        let uri: Uri = url.parse().map_err(|_| Refusal::new("the URL cannot be used"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.allow_http => {}
            Some(_) | None => return Err(Refusal::new("the URL must begin with https://")),
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
            .header(USER_AGENT, concat!("stacyvm-webhooks/", env!("CARGO_PKG_VERSION")));
        for (name, value) in message.signature(secret, now) {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(message.body.clone()))
            .map_err(|_| Refusal::new("the URL cannot be used"))?;
        match timeout(self.timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::new(format!("no answer within {} s", self.timeout.as_secs_f32()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<u16, Refusal> {
        let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
        let (status, retry_after) = (answer.status(), retry_after(&answer));
        drain(answer).await;
        if status.is_success() {
            return Ok(status.as_u16());
        }
        let more = if status.is_redirection() { "; redirects are not followed" } else { "" };
        Err(Refusal {
            message: format!("answered {}{more}", status.as_u16()),
            status: Some(status.as_u16()),
            retry_after,
        })
    }
}

/// Reads the rest of an answer, as long as it is short.
async fn drain(answer: Response<hyper::body::Incoming>) {
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MAX_ANSWER {
            return;
        }
    }
}

fn retry_after(answer: &Response<hyper::body::Incoming>) -> Option<Duration> {
    // The form with a date is as good as never used, and no date is needed where the backoff stands in.
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What is told of a failed exchange: our own words where there are some, never a library's, which may tell addresses.
fn failed(error: &hyper_util::client::legacy::Error) -> Refusal {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return Refusal::new(error.to_string());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Refusal::new(format!("TLS failed: {error}"));
        }
        // A TLS error travels inside of an I/O error, which does not name it as its source.
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Refusal::new(format!("TLS failed: {inner}"));
        }
        cause = error.source();
    }
    tracing::debug!(error = error as &dyn Error, "a delivery failed");
    Refusal::new(if error.is_connect() { "cannot connect" } else { "the connection broke" })
}

/// TLS with the certificates that the system trusts, or those that `SSL_CERT_FILE` names.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(match builder.clone().with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "no certificate authority is trusted: https will fail"
            );
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    })
}
