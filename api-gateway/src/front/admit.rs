//! The layer that lets in as many requests of each tenant as there may be.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::share::visit::Visit;

/// Counts the request in, or answers that there are too many.
pub async fn admit(State(gateway): State<Gateway>, caller: Caller, request: Request, next: Next) -> Response {
    let Some(visit) = request.extensions().get::<Visit>().cloned() else {
        return next.run(request).await;
    };
    let shares = gateway.shares();
    if let Err(error) = shares.admit(&caller, &visit) {
        return error.into_response();
    }
    let is_read = request.method() == Method::GET;
    let turn = if is_read && caller.action.reads_much() {
        match shares.reading(&caller).await {
            Ok(turn) => Some(turn),
            Err(error) => return error.into_response(),
        }
    } else {
        None
    };
    let response = next.run(request).await;
    drop(turn);
    // What only watches has done nothing yet. What does something says itself that it is a stream, before it does it.
    if is_read
        && is_stream(&response)
        && let Err(error) = shares.stream(&caller, &visit)
    {
        return error.into_response();
    }
    response
}

/// Whether an answer is one that goes on.
fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || matches!(kind, Some(b"text/event-stream" | b"application/x-ndjson" | b"application/octet-stream"))
}
