//! What is said of a body before and after its bytes.

use axum::http::{HeaderMap, header};

use crate::error::ApiError;
use crate::linger::BodyError;

/// Refuses a body that is something other than its bytes: taken as it comes, it would be what nobody meant.
pub fn plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        let message = "Content-Encoding is not supported: send the body as it is, not compressed";
        return Err(ApiError::unsupported_media_type(message));
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes().trim_ascii_start());
    if kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/")) {
        let message = "multipart bodies are not supported: send the file's bytes as the body";
        return Err(ApiError::unsupported_media_type(message));
    }
    Ok(())
}

/// What to say of a body that ends before its end.
pub fn incomplete(error: &axum::Error) -> ApiError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(BodyError::Stalled(_)) = error.downcast_ref::<BodyError>() {
            return ApiError::timeout(error.to_string());
        }
        cause = error.source();
    }
    ApiError::bad_request("the body broke off")
}

/// `Content-Length`, if it is there and a number.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
