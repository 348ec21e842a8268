//! Answers of any length, passed on as they come from the executor: a JSON array, item by item.

use std::io;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::gateway::{OpenCall, link_failed};

/// An array that is no longer than this is answered whole, with its length; what goes wrong with it has its status.
const WHOLE: usize = 256 * 1024;
/// The longest line of an executor: a path or two, each byte escaped.
const LONGEST_LINE: usize = 256 * 1024;

/// Answers with the items that a stream carries, one a line, each made into what clients see.
pub async fn respond<T: DeserializeOwned + 'static, S: Serialize + 'static>(
    lines: OpenCall,
    shown: fn(T) -> S,
) -> Result<Response, ApiError> {
    let mut array = Array { lines, rest: BytesMut::new(), shown, begun: false, over: false };
    let mut first = BytesMut::new();
    while first.len() < WHOLE {
        match array.next().await? {
            Some(bytes) => first.extend_from_slice(&bytes),
            None => return Ok(json(Body::from(first.freeze()))),
        }
    }
    let rest = futures::stream::try_unfold(array, |mut array| async move {
        match array.next().await {
            Ok(bytes) => Ok(bytes.map(|bytes| (bytes, array))),
            Err(error) => {
                // The array has no end then, which no client takes for a whole one.
                let error = io::Error::other(error.into_body().message);
                tracing::warn!(error = %error, "a listing broke off");
                Err(error)
            }
        }
    });
    let first = futures::stream::once(async { Ok(first.freeze()) });
    Ok(json(Body::from_stream(futures::StreamExt::chain(first, rest))))
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

struct Array<T, S> {
    lines: OpenCall,
    /// The beginning of a line.
    rest: BytesMut,
    shown: fn(T) -> S,
    begun: bool,
    over: bool,
}

impl<T: DeserializeOwned, S: Serialize> Array<T, S> {
    /// The next piece of JSON.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.over {
            return Ok(None);
        }
        let mut out = BytesMut::new();
        match self.lines.read().await.map_err(link_failed)? {
            Some(bytes) => self.take(&bytes, &mut out)?,
            None if self.rest.is_empty() => {
                self.over = true;
                out.put_slice(if self.begun { b"]" } else { b"[]" });
            }
            None => return Err(no_item()),
        }
        Ok(Some(out.freeze()))
    }

    fn take(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), ApiError> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1);
            let item = serde_json::from_slice(&line).map_err(|_| no_item())?;
            out.put_u8(if self.begun { b',' } else { b'[' });
            self.begun = true;
            serde_json::to_writer(out.writer(), &(self.shown)(item)).map_err(ApiError::internal)?;
        }
        if self.rest.len() > LONGEST_LINE { Err(no_item()) } else { Ok(()) }
    }
}

fn no_item() -> ApiError {
    ApiError::internal("the executor sent something that is no item of a listing")
}
