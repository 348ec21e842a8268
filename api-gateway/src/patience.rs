//! Clients that stop: one that takes nothing of an answer, and one that sends nothing of a body. Either would hold its
//! connection, and all that stands behind it, for as long as it likes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a connection may expect of its client. Cheap to clone: requests carry it.
#[derive(Debug, Clone)]
pub struct Patience {
    limit: Duration,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ended: AtomicBool,
    waits_for_bodies: AtomicBool,
}

impl Patience {
    /// A client may do nothing for so long.
    pub fn new(limit: Duration) -> Self {
        Self { limit, inner: Arc::default() }
    }

    /// How long that is.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// The connection is none of HTTP any more: who has it now looks after it.
    pub fn end(&self) {
        self.inner.ended.store(true, Ordering::Relaxed);
    }

    /// The body of this request comes as somebody types it, however long that takes.
    pub fn wait_for_body(&self) {
        self.inner.waits_for_bodies.store(true, Ordering::Relaxed);
    }

    fn is_ended(&self) -> bool {
        self.inner.ended.load(Ordering::Relaxed)
    }

    fn waits_for_body(&self) -> bool {
        self.is_ended() || self.inner.waits_for_bodies.load(Ordering::Relaxed)
    }

    /// A request begins, of which nothing is known yet.
    pub fn begin_request(&self) {
        self.inner.waits_for_bodies.store(false, Ordering::Relaxed);
    }

    /// For the body of a request.
    pub fn for_body(&self) -> Stopwatch {
        Stopwatch { patience: self.clone(), waiting: None, is_body: true }
    }

    fn for_answers(&self) -> Stopwatch {
        Stopwatch { patience: self.clone(), waiting: None, is_body: false }
    }
}

/// Measures how long nothing happens.
#[derive(Debug)]
pub struct Stopwatch {
    patience: Patience,
    waiting: Option<Pin<Box<Sleep>>>,
    is_body: bool,
}

impl Stopwatch {
    /// Something happened.
    pub fn stop(&mut self) {
        self.waiting = None;
    }

    /// Nothing happens now. Ready as soon as that has lasted too long.
    pub fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let never = if self.is_body { self.patience.waits_for_body() } else { self.patience.is_ended() };
        if never {
            return Poll::Pending;
        }
        let until = Instant::now() + self.patience.limit;
        self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until))).as_mut().poll(context)
    }
}

/// A connection that breaks when its client takes nothing for too long.
#[derive(Debug)]
pub struct Impatient<T> {
    io: T,
    answers: Stopwatch,
}

impl<T> Impatient<T> {
    /// A connection of a client of which that much is expected.
    pub fn new(io: T, patience: &Patience) -> Self {
        Self { io, answers: patience.for_answers() }
    }

    fn measure<R>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.answers.stop();
            return polled;
        }
        if self.answers.poll_limit(context).is_pending() {
            return Poll::Pending;
        }
        metrics::counter!(crate::metrics::STALLED_CLIENTS_CLOSED, "of" => "answer").increment(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Impatient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Impatient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.measure(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.measure(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
