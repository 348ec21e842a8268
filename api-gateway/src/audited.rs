//! Nothing is changed that cannot be recorded.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::error::ApiError;
use crate::gateway::Gateway;

/// The layer that refuses requests that change something while the recorder is silent or too far behind. Reads go through:
/// what is recorded can be shown.
pub async fn require(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if changes_something(request.method(), route.unwrap_or_default()) {
        let lag = gateway.feed().recorder_lag();
        if lag.age > gateway.config().audit.max_lag {
            metrics::counter!("stacyvm_unaudited_refused_total").increment(1);
            tracing::warn!(
                recorder.lag_ms = lag.age.as_millis() as u64,
                recorder.lag_messages = lag.messages,
                "refused: what it would change could not be recorded"
            );
            return Err(ApiError::audit_unavailable());
        }
    }
    Ok(next.run(request).await)
}

fn changes_something(method: &Method, route: &str) -> bool {
    // A WebSocket on which commands are started is asked for with GET; a ticket is asked for with POST, and for reading.
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads { route.ends_with("/exec/ws") } else { !route.ends_with("/tickets") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_goes_through_unrecorded() {
        let route = "/api/v1/sandboxes/{id}/exec/ws";
        for (method, route, changes) in [
            (Method::GET, "/api/v1/sandboxes", false),
            (Method::HEAD, "/api/v1/sandboxes", false),
            (Method::OPTIONS, "/api/v1/sandboxes", false),
            (Method::GET, route, true),
            (Method::POST, "/api/v1/sandboxes", true),
            (Method::POST, "/api/v1/tickets", false),
            (Method::DELETE, "/api/v1/sandboxes/{id}", true),
            (Method::PUT, "/api/v1/sandboxes/{id}/files", true),
            (Method::from_bytes(b"MADEUP").unwrap(), "/", true),
        ] {
            assert_eq!(changes_something(&method, route), changes, "{method} {route}");
        }
    }
}
