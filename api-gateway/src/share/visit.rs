//! One request, and what it holds until its answer has ended.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};

use super::connections::{Busy, Connection};
use super::memory::Held;

/// A request under way. Rides on it; whatever goes on after the answer has begun keeps it.
#[derive(Clone)]
pub struct Visit(Arc<Inner>);

struct Inner {
    busy: Option<Busy>,
    held: Mutex<Holdings>,
}

#[derive(Default)]
struct Holdings {
    counted: Vec<Box<dyn Any + Send>>,
    bodies: Option<Held>,
}

impl Visit {
    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its connection is one of those that are there for health and operators.
    pub fn is_reserved(&self) -> bool {
        self.0.busy.as_ref().is_some_and(Busy::is_reserved)
    }

    /// Counts until the answer has ended.
    pub fn keep(&self, counted: impl Any + Send) {
        self.holdings().counted.push(Box::new(counted));
    }

    /// Bytes of the request, until the answer begins.
    pub fn hold(&self, more: Held) {
        self.holdings().bodies.get_or_insert_default().add(more);
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Without the layer nothing is counted to its end.
        let alone = || Self(Arc::new(Inner { busy: None, held: Mutex::default() }));
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(alone))
    }
}

/// The layer around all others. Behind it, [`Visit`] is there.
pub async fn receive(mut request: Request, next: Next) -> Response {
    let busy = request.extensions().get::<Arc<Connection>>().map(Connection::begin);
    let visit = Visit(Arc::new(Inner { busy, held: Mutex::default() }));
    request.extensions_mut().insert(visit.clone());
    let response = next.run(request).await;
    visit.holdings().bodies = None;
    response.map(|body| if body.is_end_stream() { body } else { Body::new(Answer { body, _visit: visit }) })
}

/// The body of an answer, with what its request holds.
struct Answer {
    body: Body,
    _visit: Visit,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
