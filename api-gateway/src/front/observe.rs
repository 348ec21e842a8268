//! The outermost layer: request id, span, counts, and the form of errors.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use events::RequestId;
use tokio::time::Instant;
use tracing::Instrument;

use crate::error::{BUG_MARK, ErrorBody, problem};
use crate::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS};

/// Gives the request its id and its span, and the answer the id and, where it is asked for, the form of RFC 9457.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    // The template of the path, never the path: ids as labels would grow without bound.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_name(request.method());
    let wants_problem = wants_problem(request.headers());
    let span = tracing::info_span!(
        "request",
        request.id = request_id.as_str(),
        http.method = method,
        http.route = route.as_ref().map(MatchedPath::as_str),
        sandbox.id = tracing::field::Empty,
        exec.id = tracing::field::Empty,
    );
    request.extensions_mut().insert(request_id.clone());
    let mut response = next.run(request).instrument(span.clone()).await;
    let explained = response.extensions().get::<ErrorBody>().is_some();
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR && !explained {
        // An `ApiError` has said so itself.
        span.in_scope(|| tracing::error!("{BUG_MARK}"));
    }
    if wants_problem && let Some(body) = response.extensions_mut().remove::<ErrorBody>() {
        let mut headers = std::mem::take(response.headers_mut());
        response = problem(&body, request_id.as_str());
        // What describes the body that was; all else is said of the error.
        headers.remove(header::CONTENT_TYPE);
        headers.remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(headers);
    }
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert("x-request-id", value);
    }
    let status = response.status().as_u16();
    let took = started.elapsed();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    metrics::counter!(HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!(HTTP_REQUEST_SECONDS, "method" => method, "route" => route).record(took);
    span.in_scope(|| tracing::debug!(http.status = status, took_us = took.as_micros() as u64, "answered"));
    response
}

/// The client's own id if it is a good one, else a new one. Good ones can be shown anywhere as they are.
fn request_id(headers: &HeaderMap) -> RequestId {
    headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte)))
        .and_then(|text| RequestId::try_from(text.to_owned()).ok())
        .unwrap_or_else(RequestId::new)
}

fn wants_problem(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/problem+json")
        })
}

/// A closed set: a client that makes methods up must not make labels up.
pub fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::error::ApiError;

    async fn ask(headers: &[(&str, &str)]) -> (Response, serde_json::Value) {
        let router: Router = Router::new()
            .route("/", get(|| async { Err::<(), _>(ApiError::not_found("nothing")) }))
            .layer(axum::middleware::from_fn(observe));
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let json = serde_json::from_slice(&to_bytes(body, 10_000).await.unwrap()).unwrap();
        (Response::from_parts(parts, Body::empty()), json)
    }

    #[tokio::test]
    async fn errors_are_flat_unless_problem_json_is_asked_for() {
        let (response, body) = ask(&[("accept", "*/*")]).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(body, serde_json::json!({"code": "NOT_FOUND", "message": "nothing"}));

        let (response, body) = ask(&[("accept", "text/html, application/problem+json;q=0.9")]).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.status(), 404);
        assert_eq!(
            (&body["status"], &body["title"], &body["detail"], &body["code"]),
            (&404.into(), &"Not Found".into(), &"nothing".into(), &"NOT_FOUND".into())
        );
    }

    #[tokio::test]
    async fn a_good_request_id_comes_back_and_a_bad_one_is_replaced() {
        let (response, _) = ask(&[("x-request-id", "abc-1")]).await;
        assert_eq!(response.headers()["x-request-id"], "abc-1");
        let long = "x".repeat(129);
        for bad in ["", "a b", "<script>", &long] {
            let (response, _) = ask(&[("x-request-id", bad)]).await;
            let id = response.headers()["x-request-id"].to_str().unwrap();
            assert!(id != bad && id.len() == 32, "{id}");
        }
        let (response, _) = ask(&[]).await;
        assert_eq!(response.headers()["x-request-id"].len(), 32);
    }
}
