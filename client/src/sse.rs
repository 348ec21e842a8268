//! Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, with a bound on what one may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use sse_stream::SseByteStream;

use crate::error::ClientError;

/// The most bytes that are read in search of the end of one event. Those of this API are far below it.
const MAX_EVENT: usize = 16 << 20;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The last id that the stream named.
    pub id: String,
    /// The data, lines joined by line feeds.
    pub data: String,
}

/// Why the bytes of a stream do not go on.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error(transparent)]
    Lost(#[from] ClientError),
    #[error("an event is longer than {MAX_EVENT} bytes")]
    TooLong,
}

/// The events of a stream of bytes.
pub struct SseEvents {
    blocks: SseByteStream<BoxStream<'static, Result<Bytes, Ending>>>,
    /// How many bytes have come since the last event: the parser has no bound of its own.
    since: Arc<AtomicUsize>,
    id: String,
}

impl SseEvents {
    /// Reads events from bytes, in whatever pieces they come.
    pub fn new(bytes: impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static) -> Self {
        let since = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&since);
        let bytes = bytes.map(move |piece| {
            let piece = piece?;
            let total = counted.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
            if total > MAX_EVENT {
                return Err(Ending::TooLong);
            }
            // Nothing is half read after a blank line. Signs of life end in one too and are no events.
            if piece.ends_with(b"\n\n") {
                counted.store(0, Ordering::Relaxed);
            }
            Ok(piece)
        });
        Self { blocks: SseByteStream::new(bytes.boxed()), since, id: String::new() }
    }

    /// The next whole event; `None` where the stream ends. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<SseEvent>, ClientError> {
        while let Some(block) = self.blocks.next().await {
            let block = block.map_err(failed)?;
            self.since.store(0, Ordering::Relaxed);
            // An id holds for all that follows, as the standard has it.
            if let Some(id) = block.id {
                self.id = id;
            }
            // A pause before the next try, and other blocks that tell nothing.
            if let Some(data) = block.data {
                return Ok(Some(SseEvent { id: self.id.clone(), data }));
            }
        }
        Ok(None)
    }
}

fn failed(error: sse_stream::Error) -> ClientError {
    let sse_stream::Error::Body(cause) = error else {
        return ClientError::unexpected("a stream of events", error);
    };
    match cause.downcast::<Ending>().map(|ending| *ending) {
        Ok(Ending::Lost(error)) => error,
        Ok(ending @ Ending::TooLong) => ClientError::Unexpected(ending.to_string()),
        Err(cause) => ClientError::Broken(cause),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn parse(parts: &[&[u8]]) -> Vec<(String, String)> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let mut stream = SseEvents::new(stream::iter(parts));
        let mut events = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            events.push((event.id, event.data));
        }
        events
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(id, data)| ((*id).to_owned(), (*data).to_owned())).collect()
    }

    #[tokio::test]
    async fn events_are_the_same_wherever_they_are_cut() {
        let text = "retry: 1000\n\n: still here\n\nid: 1\ndata: {\"a\":\"é\"}\n\nid:2\r\ndata:x\r\ndata: y\r\n\r\nevent: z\n\ndata\n\n";
        let expected = pairs(&[("1", "{\"a\":\"é\"}"), ("2", "x\ny"), ("2", "")]);
        assert_eq!(parse(&[text.as_bytes()]).await, expected);
        for at in 0..text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(parse(&[head, tail]).await, expected, "cut at {at}");
        }
    }

    #[tokio::test]
    async fn an_event_that_is_not_finished_is_not_told() {
        assert_eq!(parse(&[b"id: 1\ndata: x\n\nid: 2\ndata: y\n"]).await, pairs(&[("1", "x")]));
    }

    #[tokio::test]
    async fn an_event_without_end_is_an_error_and_a_long_stream_is_not() {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let endless = stream::iter(std::iter::repeat_with(move || Ok(piece.clone())));
        let mut events = SseEvents::new(endless);
        let error = events.next().await.unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        assert!(!error.is_passing(), "it would only come again");

        let event = Bytes::from(format!("data: {}\n\n", "y".repeat(1 << 20)));
        let many = stream::iter((0..40).map(move |_| Ok(event.clone())));
        let mut events = SseEvents::new(many);
        for _ in 0..40 {
            assert_eq!(events.next().await.unwrap().unwrap().data.len(), 1 << 20);
        }
        assert_eq!(events.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_stays_one_that_breaks() {
        let parts = vec![Ok(Bytes::from("data: x\n\n")), Err(ClientError::Broken("gone".into()))];
        let mut events = SseEvents::new(stream::iter(parts));
        assert_eq!(events.next().await.unwrap().unwrap().data, "x");
        assert!(matches!(events.next().await, Err(ClientError::Broken(_))));
    }
}
