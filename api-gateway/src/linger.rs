//! Early answers to large bodies.
//!
//! An answer that is given before the whole body has come (too large, no such sandbox) would be followed by a reset of
//! the connection, because the rest of the body lies unread, and the client could lose the answer before it reads it. So
//! what is left of a body that nobody wants is read and thrown away, within bounds, while the answer goes out.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How much is thrown away, in bytes, and how long it may take.
const MAX_BYTES: u64 = 256 << 20;
const MAX_TIME: Duration = Duration::from_secs(10);

/// A body whose rest is thrown away when it is dropped too early.
pub struct Lingering {
    body: Option<Incoming>,
    ended: bool,
}

impl Lingering {
    /// Wraps the body of a request. A client that waits for `100 Continue` sends nothing that had to be thrown away.
    pub fn new(body: Incoming, expects_continue: bool) -> Self {
        let ended = expects_continue || body.is_end_stream();
        Self { body: Some(body), ended }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.ended = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.ended && !body.is_end_stream()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MAX_TIME, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut thrown: u64 = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, |data| data.len() as u64);
        if thrown > MAX_BYTES {
            return;
        }
    }
}
