use bytes::Bytes;

use super::CallError;
use super::bounds::Place;
use super::connect::{Call, Reader, SendError, Writer, bounded, reply, unexpected};
use crate::protocol::{ExecRefusal, FrameError, Input, Reply};

const OPERATION: &str = "write input";

/// One writer's stream of input to an exec, for as long as its connection lasts. What was sent and not yet taken when it breaks is
/// the caller's to send again, over another one: [`taken`](Self::taken) of that tells from where.
pub struct InputConnection {
    reader: Reader,
    writer: Writer,
    /// Bytes of this writer, over all of its connections.
    taken: u64,
    sent: u64,
    _place: Place,
}

/// What the agent says to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputEvent {
    /// So many bytes of this writer were taken, over all of its connections.
    Taken(u64),
    /// Stdin is closed, as it was asked for.
    Closed,
}

impl InputConnection {
    pub(super) async fn begin(mut call: Call) -> Result<Self, CallError<ExecRefusal>> {
        let taken = match call.reply().await? {
            // Nobody has typed so much.
            Reply::StdinTaken { offset } if offset < u64::MAX / 2 => offset,
            other => return Err(call.unexpected(&other)),
        };
        call.reader.limit(4096);
        Ok(Self { reader: call.reader, writer: call.writer, taken, sent: taken, _place: call.place })
    }

    /// How many bytes of this writer were taken, over all of its connections.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes were sent and are not known to be taken.
    pub fn outstanding(&self) -> u64 {
        self.sent - self.taken
    }

    /// Sends bytes, at most [`MAX_CHUNK`](crate::protocol::MAX_CHUNK) at once. An agent that has too much of this exec's input to take
    /// more does not read on: whoever sends no more than [`STDIN_WINDOW`](crate::protocol::STDIN_WINDOW) that is not taken is not kept waiting for
    /// long. Not cancel safe.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), CallError<ExecRefusal>> {
        let count = bytes.len() as u64;
        self.say(Input::Stdin { bytes }).await?;
        self.sent = self.sent.saturating_add(count);
        Ok(())
    }

    /// Ends the exec's input, after what was sent. Not cancel safe.
    pub async fn close_stdin(&mut self) -> Result<(), CallError<ExecRefusal>> {
        self.say(Input::CloseStdin).await
    }

    /// The agent's next word. It takes as long as the process lets its input wait: it is for the caller to give up. Cancel safe.
    pub async fn next(&mut self) -> Result<InputEvent, CallError<ExecRefusal>> {
        match reply(OPERATION, &mut self.reader).await? {
            Reply::StdinTaken { offset } if (self.taken..=self.sent).contains(&offset) => {
                self.taken = offset;
                Ok(InputEvent::Taken(offset))
            }
            Reply::Done => Ok(InputEvent::Closed),
            other => Err(unexpected(OPERATION, &other)),
        }
    }

    async fn say(&mut self, input: Input) -> Result<(), CallError<ExecRefusal>> {
        let sent = bounded(async {
            self.writer.send(&input).await?;
            self.writer.flush().await
        });
        sent.await.map_err(|error| match error {
            SendError::Silent(after) => CallError::Silent { operation: OPERATION, after },
            SendError::Frame(FrameError::Io(source)) => CallError::Transport { operation: OPERATION, source },
            SendError::Frame(error) => CallError::from_frame(OPERATION, error),
        })
    }
}
