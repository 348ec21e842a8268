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

use crate::patience::{Patience, Stopwatch};

/// How much is thrown away, in bytes, and how long it may take.
const MAX_BYTES: u64 = 256 << 20;
const MAX_TIME: Duration = Duration::from_secs(10);

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or what came is no body.
    #[error("the body broke off")]
    BrokenOff(#[source] hyper::Error),
    /// The client sent nothing for this long.
    #[error("the body stalled: nothing of it came for {} s", .0.as_secs_f64())]
    Stalled(Duration),
}

/// A body whose rest is thrown away when it is dropped too early, and that ends when its client sends nothing for too
/// long.
pub struct Lingering {
    body: Option<Incoming>,
    ended: bool,
    stopwatch: Stopwatch,
    limit: Duration,
}

impl Lingering {
    /// Wraps the body of a request. A client that waits for `100 Continue` sends nothing that had to be thrown away.
    pub fn new(body: Incoming, expects_continue: bool, patience: &Patience) -> Self {
        let ended = expects_continue || body.is_end_stream();
        Self { body: Some(body), ended, stopwatch: patience.for_body(), limit: patience.limit() }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = match Pin::new(body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending if self.stopwatch.poll_limit(context).is_pending() => return Poll::Pending,
            Poll::Pending => {
                metrics::counter!(crate::metrics::STALLED_CLIENTS_CLOSED, "of" => "body").increment(1);
                self.ended = true;
                return Poll::Ready(Some(Err(BodyError::Stalled(self.limit))));
            }
        };
        self.stopwatch.stop();
        if matches!(frame, None | Some(Err(_))) {
            self.ended = true;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::BrokenOff)))
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
