//! Nothing is changed that cannot be recorded.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::readiness;

/// The layer that refuses requests that change something while the recorder is silent or too far behind. Reads go through:
/// what is recorded can be shown.
pub async fn require(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if changes_something(request.method(), route.unwrap_or_default()) {
        if let Some(reason) = readiness::refusal(&gateway) {
            metrics::counter!("stacyvm_unaudited_refused_total").increment(1);
            tracing::debug!(reason = reason.code, "refused: what it would change could not be recorded");
            return Err(ApiError::audit_unavailable());
        }
        if makes_more(request.method(), route.unwrap_or_default())
            && let Some(reason) = readiness::disk_low(&gateway)
        {
            return Err(ApiError::not_now(format!("{}: {}", reason.code, reason.message)));
        }
    }
    Ok(next.run(request).await)
}

fn changes_something(method: &Method, route: &str) -> bool {
    // A WebSocket on which commands are started is asked for with GET; a ticket is asked for with POST, and for reading.
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads {
        route.ends_with("/exec/ws")
    } else {
        !["/tickets", "/admission"].iter().any(|end| route.ends_with(end))
    }
}

/// Whether it is new work, or makes more to keep. What ends or removes something makes room, and is allowed to the last.
fn makes_more(method: &Method, route: &str) -> bool {
    let ends = ["/signal", "/erase"].iter().any(|end| route.ends_with(end));
    *method != Method::DELETE && !ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_room_is_allowed_on_a_full_disk() {
        for (method, route) in [
            (Method::DELETE, "/api/v1/sandboxes/{id}"),
            (Method::DELETE, "/api/v1/sandboxes/{id}/files"),
            (Method::DELETE, "/api/v1/execs/{id}"),
            (Method::POST, "/api/v1/execs/{id}/signal"),
            (Method::POST, "/api/v1/sandboxes/{id}/erase"),
        ] {
            assert!(!makes_more(&method, route), "{method} {route}");
        }
        for (method, route) in [
            (Method::POST, "/api/v1/sandboxes"),
            (Method::POST, "/api/v1/sandboxes/{id}/exec"),
            (Method::GET, "/api/v1/sandboxes/{id}/exec/ws"),
            (Method::PUT, "/api/v1/sandboxes/{id}/files/raw"),
        ] {
            assert!(makes_more(&method, route), "{method} {route}");
        }
    }

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
