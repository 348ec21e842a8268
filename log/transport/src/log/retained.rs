//! What was published and may still be lost with the transport's disk.
//!
//! The server acknowledges what is on its disk; the record is the store. In between a disk may die with what it alone
//! holds, and a client has been told that its wish is done. So a publisher keeps what it published until the recorder
//! says that it has it, and publishes it again when the stream was made anew. Output of execs is not kept here: agents
//! have it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use events::{ErrorChain, StreamMark};
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Log;

/// How much is kept. Past that the oldest go: the recorder is a second behind at most, or nothing is admitted.
const MAX_BYTES: usize = 32 << 20;
/// How long a command is kept: nobody says when it has been carried out, but long before this it has, or it waits for
/// room and ends at its deadline.
const KEEP_COMMAND: Duration = Duration::from_secs(60);

/// Something that was published.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub subject: String,
    pub id: String,
    pub payload: Bytes,
    pub is_command: bool,
}

#[derive(Debug)]
struct Held {
    kept: Kept,
    sequence: u64,
    generation: u64,
    at: Instant,
}

/// What this process has published and what is not known to be safe.
#[derive(Default)]
pub(super) struct Retained {
    state: Mutex<State>,
    listening: Mutex<Option<DropGuard>>,
}

#[derive(Default)]
struct State {
    /// Which stream of events there is, as far as known, and how many there were before it.
    incarnation: String,
    generation: u64,
    held: VecDeque<Held>,
    bytes: usize,
}

impl Retained {
    /// Which stream of events is there at the start.
    pub fn begin(&self, incarnation: String) {
        self.lock().incarnation = incarnation;
    }

    /// Which stream is there now: what is published from here on is in it, or in a later one.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Keeps what was acknowledged with this sequence; `generation` is from before it was sent.
    pub fn keep(&self, kept: Kept, sequence: u64, generation: u64) {
        let mut state = self.lock();
        state.bytes += kept.payload.len();
        state.held.push_back(Held { kept, sequence, generation, at: Instant::now() });
        while state.bytes > MAX_BYTES {
            state.pop();
        }
    }

    /// The recorder has everything up to this message of this stream. Gives back what was lost with an earlier stream.
    pub fn hear(&self, mark: &StreamMark) -> Vec<Kept> {
        let mut state = self.lock();
        if state.incarnation != mark.incarnation {
            state.generation += 1;
            state.incarnation.clone_from(&mark.incarnation);
        }
        let (now, generation) = (Instant::now(), state.generation);
        let (mut lost, mut left) = (Vec::new(), VecDeque::with_capacity(state.held.len()));
        for held in std::mem::take(&mut state.held) {
            let done = if held.kept.is_command {
                now.duration_since(held.at) > KEEP_COMMAND
            } else {
                held.generation == generation && held.sequence <= mark.sequence
            };
            if done {
                continue;
            }
            if held.generation < generation {
                lost.push(held.kept);
            } else {
                left.push_back(held);
            }
        }
        state.bytes = left.iter().map(|held| held.kept.payload.len()).sum();
        state.held = left;
        lost
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) {
        if let Some(held) = self.held.pop_front() {
            self.bytes -= held.kept.payload.len();
        }
    }
}

impl Log {
    /// Tells publishers what is recorded. A loss is made good by the next time.
    pub async fn say_recorded(&self, mark: &StreamMark) {
        let payload = format!("{} {}", mark.sequence, mark.incarnation);
        if let Err(error) = self.client().publish(self.subjects().recorded(), payload.into()).await {
            tracing::debug!(error = %error, "what is recorded was not told");
        }
    }

    /// Publishes again what is lost, from now until the last clone of this log is dropped.
    pub(super) async fn retain(&self) -> Result<(), async_nats::SubscribeError> {
        let news = self.client().subscribe(self.subjects().recorded()).await?;
        let stop = CancellationToken::new();
        let retained = Arc::downgrade(&self.retained);
        *self.retained.listening.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(stop.clone().drop_guard());
        // It must not keep alive what its own end depends on.
        let log = Self { retained: Arc::default(), condition: Arc::default(), ..self.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = listen(news, log, retained) => {}
            }
        });
        Ok(())
    }
}

async fn listen(mut news: Subscriber, log: Log, retained: Weak<Retained>) {
    while let Some(message) = news.next().await {
        let Some(mark) = read(&message.payload) else { continue };
        let Some(retained) = retained.upgrade() else { return };
        let lost = retained.hear(&mark);
        if lost.is_empty() {
            continue;
        }
        tracing::warn!(messages = lost.len(), "the transport lost what it held: publishing it again");
        for kept in lost {
            let generation = retained.generation();
            let sequence = match log.persist_again(&kept).await {
                Ok(sequence) => (sequence, generation),
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), "not published again yet");
                    // As of an older stream: the next news finds it lost again.
                    (0, generation.saturating_sub(1))
                }
            };
            retained.keep(kept, sequence.0, sequence.1);
        }
    }
}

pub(crate) fn read(payload: &[u8]) -> Option<StreamMark> {
    let (sequence, incarnation) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(StreamMark { sequence: sequence.parse().ok()?, incarnation: incarnation.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retained(kept: &[(&str, u64)]) -> Retained {
        let retained = Retained::default();
        retained.begin("one".to_owned());
        for (id, sequence) in kept {
            retained.keep(message(id, false), *sequence, 0);
        }
        retained
    }

    fn message(id: &str, is_command: bool) -> Kept {
        Kept { subject: "s".to_owned(), id: id.to_owned(), payload: Bytes::from_static(b"x"), is_command }
    }

    fn hear(retained: &Retained, incarnation: &str, sequence: u64) -> Vec<String> {
        let mark = StreamMark { sequence, incarnation: incarnation.to_owned() };
        retained.hear(&mark).into_iter().map(|kept| kept.id).collect()
    }

    #[test]
    fn what_was_not_recorded_when_the_stream_was_made_anew_is_lost_in_order() {
        let retained = retained(&[("a", 1), ("b", 2), ("c", 3)]);
        assert!(hear(&retained, "one", 1).is_empty());
        assert_eq!(hear(&retained, "two", 0), ["b", "c"]);
        assert!(hear(&retained, "two", 0).is_empty());
    }

    #[test]
    fn sequences_of_another_stream_say_nothing() {
        let retained = retained(&[("a", 1)]);
        assert_eq!(hear(&retained, "two", 900), ["a"]);
        retained.keep(message("a", false), 4, 1);
        assert!(hear(&retained, "two", 4).is_empty());
        assert!(hear(&retained, "three", 0).is_empty());
    }

    #[test]
    fn a_command_is_kept_though_the_events_after_it_are_recorded() {
        let retained = retained(&[]);
        retained.keep(message("a", true), 1, 0);
        assert!(hear(&retained, "one", 100).is_empty());
        assert_eq!(hear(&retained, "two", 0), ["a"]);
    }

    #[test]
    fn the_oldest_go_when_too_much_is_held() {
        let retained = retained(&[]);
        for (id, sequence) in [("a", 1), ("b", 2), ("c", 3)] {
            let payload = Bytes::from(vec![0; MAX_BYTES / 2]);
            retained.keep(Kept { payload, ..message(id, false) }, sequence, 0);
        }
        assert_eq!(hear(&retained, "two", 0), ["b", "c"]);
    }

    #[test]
    fn the_news_is_read_as_it_is_written() {
        let mark = read(b"17 1764010800000000000").unwrap();
        assert_eq!((mark.sequence, mark.incarnation.as_str()), (17, "1764010800000000000"));
        assert!(read(b"x y").is_none() && read(b"17").is_none() && read(b"\xff").is_none());
    }
}
