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

    async fn answered(headers: &[(&str, &str)]) -> (Response, serde_json::Value) {
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
        let (response, body) = answered(&[("accept", "*/*")]).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(body, serde_json::json!({"code": "NOT_FOUND", "message": "nothing"}));

        let (response, body) = answered(&[("accept", "text/html, application/problem+json;q=0.9")]).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.status(), 404);
        assert_eq!(
            (&body["status"], &body["title"], &body["detail"], &body["code"]),
            (&404.into(), &"Not Found".into(), &"nothing".into(), &"NOT_FOUND".into())
        );
    }

    /// Whatever an error says beside its body, it says in either form.
    #[tokio::test]
    async fn problem_json_keeps_every_header_of_the_answer_that_it_replaces() {
        use events::{ExecId, Gone, Position};
        use record::StoreError;

        use crate::limit::Limit;

        let second = std::time::Duration::from_secs(1);
        type Make = fn(std::time::Duration) -> ApiError;
        let errors: [(Make, &[&str]); 6] = [
            (
                |_| ApiError::store(StoreError::Gone { why: Gone::Expired, next_offset: 7 }),
                &["x-next-offset"],
            ),
            (|_| ApiError::store(StoreError::Trimmed { floor: Position(9) }), &["x-log-floor"]),
            (|_| ApiError::audit_unavailable(), &["retry-after"]),
            (|_| ApiError::conflict("x").with_exec(ExecId::from_bytes([7; 16])), &["x-exec-id"]),
            (
                |second| ApiError::limited(Limit::TenantRate, "x", second).rated(60),
                &["retry-after", "x-limit", "x-ratelimit-limit", "x-ratelimit-remaining"],
            ),
            (
                |second| ApiError::limited(Limit::Connections, "x", second).closing(),
                &["connection", "x-limit"],
            ),
        ];
        for (make, named) in errors {
            // What stands between the endpoint and this layer adds to answers too, twice under one name if it likes.
            let answer = move || async move {
                let mut response = axum::response::IntoResponse::into_response(make(second));
                response.headers_mut().append("vary", HeaderValue::from_static("origin"));
                response.headers_mut().append("vary", HeaderValue::from_static("accept"));
                response
            };
            let router: Router =
                Router::new().route("/", get(answer)).layer(axum::middleware::from_fn(observe));
            let of = async |accept: &str| {
                let request = Request::get("/").header("accept", accept).header("x-request-id", "r-1");
                let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let mut headers = response.headers().clone();
                headers.remove("content-length");
                (response.status(), headers.remove("content-type").unwrap(), headers)
            };
            let (status, kind, flat) = of("*/*").await;
            let (problem_status, problem_kind, problem) = of("application/problem+json").await;
            assert_eq!(
                (kind, problem_kind),
                ("application/json".parse().unwrap(), "application/problem+json".parse().unwrap())
            );
            assert_eq!((status, &flat), (problem_status, &problem));
            for name in named.iter().chain(&["vary", "x-request-id"]) {
                assert!(problem.contains_key(*name), "{name}: {problem:?}");
            }
            assert_eq!(problem.get_all("vary").iter().count(), 2);
        }
    }

    #[tokio::test]
    async fn a_good_request_id_comes_back_and_a_bad_one_is_replaced() {
        let (response, _) = answered(&[("x-request-id", "abc-1")]).await;
        assert_eq!(response.headers()["x-request-id"], "abc-1");
        let long = "x".repeat(129);
        for bad in ["", "a b", "<script>", &long] {
            let (response, _) = answered(&[("x-request-id", bad)]).await;
            let id = response.headers()["x-request-id"].to_str().unwrap();
            assert!(id != bad && id.len() == 32, "{id}");
        }
        let (response, _) = answered(&[]).await;
        assert_eq!(response.headers()["x-request-id"].len(), 32);
    }
}
