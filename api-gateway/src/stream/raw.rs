//! Raw bytes on their way out.

use std::io;

use axum::body::Body;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;

/// Answers with bytes as they come. An error cuts the connection, so that the client notices that something is missing.
pub fn respond(bytes: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // What a sandbox wrote must never run in the origin of the API.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from_stream(bytes)).into_response()
}
