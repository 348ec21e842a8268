//! One stream of input from a gateway, on its way to the agent: over one connection, which is kept as long as somebody types.

use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, InputConnection, InputEvent};
use agent::protocol::{ExecRefusal, MAX_CHUNK, STDIN_WINDOW, WriterId};
use bytes::{Buf, Bytes, BytesMut};
use events::{EventId, ExecId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::input::agent_id;
use crate::hosted::Hosted;

/// How long a connection is kept over which nothing comes. The next key opens another one.
const IDLE: Duration = Duration::from_secs(60);
/// For how long, and how often, a connection that broke is opened again.
const RETRY_FOR: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Bytes that come in order and reach the agent in order, each once, over however many connections.
pub(super) struct Typing<'a> {
    hosted: &'a Hosted,
    exec: ExecId,
    /// Under this name the agent counts what it has taken.
    writer: WriterId,
    places: &'a Arc<Semaphore>,
    connection: Option<Kept>,
    /// What the agent is not known to have taken, from byte `taken` of this stream on.
    waiting: BytesMut,
    taken: u64,
    /// When something last came or was taken.
    moved: Instant,
}

struct Kept {
    input: InputConnection,
    /// Absent where as many as may be are kept already: then it goes as soon as it has nothing more to do.
    place: Option<OwnedSemaphorePermit>,
}

impl<'a> Typing<'a> {
    /// `places` bounds how many connections of this node are kept while nothing comes over them.
    pub(super) fn new(hosted: &'a Hosted, exec: ExecId, places: &'a Arc<Semaphore>) -> Self {
        Self {
            hosted,
            exec,
            writer: WriterId(*EventId::new().as_bytes()),
            places,
            connection: None,
            waiting: BytesMut::new(),
            taken: 0,
            moved: Instant::now(),
        }
    }

    /// Whether more may come: so much waits for a process that does not read, and no more.
    pub(super) fn has_room(&self) -> bool {
        (self.waiting.len() as u64) < STDIN_WINDOW
    }

    /// Whether the agent has taken all that came.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When a connection that is not used has been kept for long enough; nothing where none is kept.
    pub(super) fn rests_at(&self) -> Option<Instant> {
        let kept = self.connection.as_ref().filter(|_| self.is_settled())?;
        Some(if kept.place.is_some() { self.moved + IDLE } else { self.moved })
    }

    /// Lets go of a connection that is not used.
    pub(super) fn rest(&mut self) {
        self.connection = None;
    }

    /// Takes bytes and sends them on. Not cancel safe.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), CallError<ExecRefusal>> {
        self.moved = Instant::now();
        self.waiting.extend_from_slice(&bytes);
        if let Some(kept) = &mut self.connection {
            match send(&mut kept.input, bytes).await {
                Ok(()) => return Ok(()),
                Err(error) => self.lost(error)?,
            }
        }
        self.connect().await
    }

    /// Waits until the agent says something, or is heard again after its connection broke. For ever where there is nothing to wait for.
    /// Cancel safe.
    pub(super) async fn settle(&mut self) -> Result<(), CallError<ExecRefusal>> {
        let Some(kept) = &mut self.connection else {
            if self.is_settled() {
                std::future::pending::<()>().await;
            }
            return self.connect().await;
        };
        match kept.input.next().await {
            Ok(InputEvent::Taken(offset)) => {
                self.moved = Instant::now();
                self.note_taken(offset);
                Ok(())
            }
            Ok(InputEvent::Closed) => Ok(()),
            Err(error) => self.lost(error),
        }
    }

    /// A connection that broke is opened again when it is needed; what the agent refuses it refuses.
    fn lost(&mut self, error: CallError<ExecRefusal>) -> Result<(), CallError<ExecRefusal>> {
        self.connection = None;
        if let CallError::Transport { .. } = error {
            tracing::debug!(error = %error, exec.id = %self.exec, "a stream of input broke");
            return Ok(());
        }
        // To whom nothing is being sent it does not matter that the process reads no more.
        if self.is_settled() { Ok(()) } else { Err(error) }
    }

    fn note_taken(&mut self, offset: u64) {
        let news = usize::try_from(offset.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        self.waiting.advance(news.min(self.waiting.len()));
        self.taken = self.taken.max(offset);
    }

    /// Opens a connection and sends what the agent has not taken.
    async fn connect(&mut self) -> Result<(), CallError<ExecRefusal>> {
        // By hand: a try changes what is known of the input, which a retry that owns its tries cannot lend them.
        let give_up_at = Instant::now() + RETRY_FOR;
        loop {
            match self.try_connect().await {
                Err(CallError::Transport { .. })
                    if Instant::now() < give_up_at && !self.hosted.is_closing() =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                connected => return connected,
            }
        }
    }

    async fn try_connect(&mut self) -> Result<(), CallError<ExecRefusal>> {
        let mut input = self.hosted.agent.open_input(agent_id(self.exec), self.writer).await?;
        let taken = input.taken();
        if !(self.taken..=self.taken + self.waiting.len() as u64).contains(&taken) {
            let detail = format!("{} bytes of input were taken, and now {taken}", self.taken);
            return Err(CallError::Violation { operation: "open input", detail });
        }
        self.note_taken(taken);
        send(&mut input, Bytes::copy_from_slice(&self.waiting)).await?;
        let place = Arc::clone(self.places).try_acquire_owned().ok();
        self.connection = Some(Kept { input, place });
        Ok(())
    }
}

async fn send(input: &mut InputConnection, mut bytes: Bytes) -> Result<(), CallError<ExecRefusal>> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(MAX_CHUNK));
        input.send(piece).await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "typing_tests.rs"]
mod tests;
