//! The one place that turns errors into HTTP: a flat `{"code","message"}`, or RFC 9457 when Accept asks for it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use api_types::Open;
pub use api_types::{ErrorBody, ErrorCode};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::{ErrorChain, ExecId, TenantId};
use record::StoreError;
use serde::Serialize;

use crate::denied::{Denial, Denied};
use crate::limit::Limit;

const INTERNAL_TEXT: &str = "internal error: the server's log has the detail under this request's id";
/// How the log marks each answer that is our fault. Tests look for it.
pub const BUG_MARK: &str = "internal error answered: this is a bug";
const UNAVAILABLE_TEXT: &str = "the service cannot do this at the moment: try again";

/// The status that goes with a code.
pub const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Gone => StatusCode::GONE,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::ResourceLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unavailable | ErrorCode::AuditUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The same of a body. No word but these is ever in one of ours.
fn status_of(body: &ErrorBody) -> StatusCode {
    body.code.known().map_or(StatusCode::INTERNAL_SERVER_ERROR, status)
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'a Open<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

/// What every handler fails with.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// For the log, never for the client.
    detail: Option<String>,
    exec: Option<ExecId>,
    /// When trying again makes sense, in seconds.
    retry_after: Option<u32>,
    /// Where to go on from, after what is gone: the name of a header and its value.
    go_on: Option<Box<(&'static str, u64)>>,
    /// That somebody is turned away, which is counted.
    denied: Option<Box<Denied>>,
    /// Which limit was reached.
    limit: Option<Limit>,
    /// How many requests a minute there may be.
    rate: Option<u32>,
    /// The connection is not to be used again.
    closing: bool,
}

impl ApiError {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            exec: None,
            retry_after: None,
            go_on: None,
            denied: None,
            limit: None,
            rate: None,
            closing: false,
        }
    }

    /// 400
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(ErrorCode::Unauthorized, "a valid API key is needed: send it as X-API-Key")
    }

    /// 401, to somebody who showed something other than a key.
    pub fn unauthorized_because(message: &'static str) -> Self {
        Self::new(ErrorCode::Unauthorized, message)
    }

    /// 403
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// 404
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// 404 of a thing by the name that the client gave it. What is another's is told in the same words.
    pub fn absent(kind: &'static str, named: impl fmt::Display) -> Self {
        /// Of a name no more is said back.
        const MAX_CHARS: usize = 128;
        let named = named.to_string();
        let mut shown: String = named.chars().take(MAX_CHARS).collect();
        if shown.len() < named.len() {
            shown.push_str("...");
        }
        Self::not_found(format!("{kind} {shown:?} does not exist"))
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        Self::new(ErrorCode::MethodNotAllowed, "this route does not have that method")
    }

    /// 408
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Timeout, message)
    }

    /// 409
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// 410
    pub fn gone(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Gone, message)
    }

    /// 413
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::TooLarge, message)
    }

    /// 415
    pub fn unsupported_media_type(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::UnsupportedMediaType, message)
    }

    /// 416
    pub fn range_not_satisfiable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::RangeNotSatisfiable, message)
    }

    /// 429. Trying again helps after a while.
    pub fn resource_limit(message: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        // Rounded up: too early would be refused again.
        let seconds = retry_after.as_secs_f64().ceil().max(1.0);
        Self { retry_after: Some(seconds as u32), ..Self::new(ErrorCode::ResourceLimit, message) }
    }

    /// 429 of a limit that the operator has set. Trying again helps after a while.
    pub fn limited(limit: Limit, message: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        metrics::counter!(crate::metrics::LIMITED, "limit" => limit.as_str()).increment(1);
        Self { limit: Some(limit), ..Self::resource_limit(message, retry_after) }
    }

    /// Says how many requests a minute there may be, of which none is left.
    pub const fn rated(mut self, a_minute: u32) -> Self {
        self.rate = Some(a_minute);
        self
    }

    /// The connection ends with this answer.
    pub const fn closing(mut self) -> Self {
        self.closing = true;
        self
    }

    /// 500. The client gets a fixed text, the log gets the error with all its causes.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            detail: Some(ErrorChain(error.into().as_ref()).to_string()),
            ..Self::new(ErrorCode::InternalError, INTERNAL_TEXT)
        }
    }

    /// 503. The client gets a fixed text, the log gets the error with all its causes.
    pub fn unavailable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            detail: Some(ErrorChain(error.into().as_ref()).to_string()),
            ..Self::new(ErrorCode::Unavailable, UNAVAILABLE_TEXT)
        }
    }

    /// 503 for what was done and could not be recorded: the client has to look before it tries again.
    pub fn unrecorded(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message.into())
    }

    /// 503 to new work, for a reason that a client may know.
    pub fn not_now(message: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(ErrorCode::Unavailable, message.into()) }
    }

    /// 503. Nothing is done that is not recorded.
    pub fn audit_unavailable() -> Self {
        let text = "nothing can be recorded at the moment, so nothing is changed: try again";
        Self { retry_after: Some(2), ..Self::new(ErrorCode::AuditUnavailable, text) }
    }

    /// 503 while the event store is away, 410 for what is not kept any more, 500 where trying again does not help.
    pub fn store(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::unavailable(error),
            StoreError::Unfit { .. } | StoreError::Refused { .. } | StoreError::Damaged { .. } => {
                Self::internal(error)
            }
            StoreError::Gone { next_offset, .. } => Self {
                go_on: Some(Box::new(("x-next-offset", next_offset))),
                ..Self::gone(error.to_string())
            },
            StoreError::Trimmed { floor } => {
                Self { go_on: Some(Box::new(("x-log-floor", floor.0))), ..Self::gone(error.to_string()) }
            }
        }
    }

    /// Somebody is turned away, which is counted; `tenant` is the one whose credential it was, as far as that is known.
    pub fn denied(mut self, denial: Denial, tenant: Option<&TenantId>) -> Self {
        self.denied = Some(Box::new(Denied { denial, tenant: tenant.cloned() }));
        self
    }

    /// Names the exec that it is about, so that its output can still be read.
    pub fn with_exec(mut self, exec: ExecId) -> Self {
        self.exec = Some(exec);
        self
    }

    /// What kind it is.
    #[cfg(test)]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What the client is told. Writes the detail to the log, once.
    pub fn into_body(self) -> ErrorBody {
        let detail = self.detail.as_deref().unwrap_or_default();
        if self.code == ErrorCode::InternalError {
            tracing::error!(error = %detail, error.code = ?self.code, "{BUG_MARK}");
        } else if !detail.is_empty() {
            tracing::error!(error = %detail, error.code = ?self.code, "request failed");
        }
        ErrorBody { code: self.code.into(), message: self.message }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (exec, retry_after, go_on) = (self.exec, self.retry_after, self.go_on.as_deref().copied());
        let (limit, rate, closing) = (self.limit, self.rate, self.closing);
        let denied = self.denied.clone();
        let body = self.into_body();
        let mut response = json_response(status_of(&body), "application/json", &body);
        if let Some(exec) = exec
            && let Ok(value) = HeaderValue::try_from(exec.to_string())
        {
            response.headers_mut().insert("x-exec-id", value);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(limit) = limit {
            response.headers_mut().insert("x-limit", HeaderValue::from_static(limit.as_str()));
        }
        if let Some(a_minute) = rate {
            response.headers_mut().insert("x-ratelimit-limit", a_minute.into());
            response.headers_mut().insert("x-ratelimit-remaining", 0.into());
        }
        if closing {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some((name, value)) = go_on {
            response.headers_mut().insert(name, value.into());
        }
        response.extensions_mut().insert(body);
        if let Some(denied) = denied {
            response.extensions_mut().insert(*denied);
        }
        response
    }
}

/// The same error as RFC 9457 wants it.
pub fn problem(body: &ErrorBody, request_id: &str) -> Response {
    let status = status_of(body);
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: &body.message,
        code: &body.code,
        instance: (!request_id.is_empty()).then_some(request_id),
    };
    json_response(status, "application/problem+json", &problem)
}

fn json_response(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response {
    // Texts and numbers always have a JSON form.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use events::Gone;

    use super::*;

    #[test]
    fn each_row_of_the_error_table_has_its_status_and_code() {
        let rows = [
            (ApiError::bad_request("x"), 400, "BAD_REQUEST"),
            (ApiError::unauthorized(), 401, "UNAUTHORIZED"),
            (ApiError::forbidden("x"), 403, "FORBIDDEN"),
            (ApiError::not_found("x"), 404, "NOT_FOUND"),
            (ApiError::method_not_allowed(), 405, "METHOD_NOT_ALLOWED"),
            (ApiError::timeout("x"), 408, "TIMEOUT"),
            (ApiError::conflict("x"), 409, "CONFLICT"),
            (ApiError::gone("x"), 410, "GONE"),
            (ApiError::too_large("x"), 413, "TOO_LARGE"),
            (ApiError::unsupported_media_type("x"), 415, "UNSUPPORTED_MEDIA_TYPE"),
            (ApiError::range_not_satisfiable("x"), 416, "RANGE_NOT_SATISFIABLE"),
            (ApiError::resource_limit("x", Duration::from_millis(1100)), 429, "RESOURCE_LIMIT"),
            (ApiError::internal("secret"), 500, "INTERNAL_ERROR"),
            (ApiError::unavailable("secret"), 503, "UNAVAILABLE"),
            (ApiError::audit_unavailable(), 503, "AUDIT_UNAVAILABLE"),
        ];
        for (error, status, code) in rows {
            assert_eq!(super::status(error.code()).as_u16(), status);
            let body = serde_json::to_value(error.into_body()).unwrap();
            assert_eq!(body["code"], code);
            assert!(!body["message"].as_str().unwrap().contains("secret"), "{body}");
        }
    }

    #[test]
    fn what_is_gone_says_where_to_go_on() {
        let gone = StoreError::Gone { why: Gone::Expired, next_offset: 7 };
        let response = ApiError::store(gone).into_response();
        assert_eq!(
            (response.status(), &response.headers()["x-next-offset"]),
            (StatusCode::GONE, &"7".parse().unwrap())
        );
        let response = ApiError::store(StoreError::Trimmed { floor: events::Position(9) }).into_response();
        assert_eq!(response.headers()["x-log-floor"], "9");
    }

    #[test]
    fn a_limit_says_when_to_come_again() {
        let response = ApiError::resource_limit("x", Duration::from_millis(1100)).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn only_a_store_that_is_away_is_worth_another_try() {
        let source = || Box::from("away");
        let operation = "read an exec";
        let rows = [
            (StoreError::Unavailable { operation, source: source() }, ErrorCode::Unavailable),
            (StoreError::Unfit { operation, source: source() }, ErrorCode::InternalError),
            (StoreError::Refused { operation, source: source() }, ErrorCode::InternalError),
            (StoreError::Damaged { operation, source: source() }, ErrorCode::InternalError),
            (StoreError::Gone { why: Gone::Erased, next_offset: 7 }, ErrorCode::Gone),
            (StoreError::Trimmed { floor: events::Position(9) }, ErrorCode::Gone),
        ];
        for (error, code) in rows {
            assert_eq!(ApiError::store(error).code(), code);
        }
    }

    #[test]
    fn the_log_gets_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = ApiError::internal(Outer(std::io::Error::other("inner")));
        assert_eq!(error.detail.as_deref(), Some("outer: inner"));
    }
}
