//! One pump an exec: reads what its agent says and hands it to the [`Outbox`].

use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, ExecConnection, ExecEvent, ExecReader, ExecWriter};
use agent::protocol::{self, Attach, AttachRefusal, ExecOutcome, KillCause, Stream};
use bytes::Bytes;
use events::{
    Event, EventData, ExecEnded, ExecExited, ExecId, ExecKilled, ExecOutcomeUnknown, ExecOutput, ExecStarted,
    ExecTimedOut, Log, OutputStream,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::outbox::{Durable, Offsets, Outbox};
use crate::context::Context;
use crate::hosted::Hosted;

/// How long the news of a start waits for company: a short exec is one message.
const COMPANY: Duration = Duration::from_millis(2);
/// How often a lost connection to an agent is tried again before its sandbox counts as gone.
const RETRIES: u32 = 20;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Output goes into events of at most this many bytes.
const CHUNK: usize = 64 << 10;

/// An exec that is being pumped.
pub struct Exec {
    pub id: ExecId,
    pub hosted: Arc<Hosted>,
    pub context: Context,
    pub log: Log,
    /// Past this many bytes of output, more is read and thrown away, and the end says how much.
    pub max_output_bytes: u64,
    pub shutdown: CancellationToken,
}

/// Where a pump begins.
pub enum Resume {
    /// At the start, with the news of it; `durable` hears when that news is safe.
    Started {
        started: ExecStarted,
        durable: oneshot::Sender<()>,
    },
    /// In the middle, with so much recorded already.
    Recorded(Offsets),
}

enum Ending {
    /// All is said.
    Told,
    /// Somebody else pumps it, or this process stops: the agent keeps what is not published.
    Left,
    /// The agent is gone, with whatever it had not said.
    Vanished,
}

struct Pump {
    exec: Exec,
    outbox: Outbox,
    /// What has been gathered for the log, which is less than what was read once the limit is reached.
    gathered: Offsets,
    /// What has been read of the agent.
    read: Offsets,
    durable: Option<oneshot::Sender<()>>,
}

impl Exec {
    /// Pumps until the exec has ended and its end is durable.
    pub async fn pump(self, connection: ExecConnection, resume: Resume, read: Offsets) {
        let (id, hosted) = (self.id, Arc::clone(&self.hosted));
        let (gathered, started, durable) = match resume {
            Resume::Started { started, durable } => ([0, 0], Some(started), Some(durable)),
            Resume::Recorded(offsets) => (offsets, None, None),
        };
        let mut pump = Pump {
            outbox: Outbox::new(&self.log, read),
            exec: self,
            gathered,
            read,
            durable,
        };
        if let Some(started) = started {
            let event = pump.exec.context.event_once("started", started);
            pump.add(event, false);
        }
        pump.run(connection).await;
        hosted.execs.remove(&id);
    }
}

impl Pump {
    async fn run(&mut self, connection: ExecConnection) {
        let mut connection = connection;
        loop {
            let (mut reader, writer) = connection.split();
            match self.follow(&mut reader, &writer).await {
                Ending::Told | Ending::Left => return,
                Ending::Vanished => {}
            }
            match self.attach_again().await {
                Some(again) => connection = again,
                None => return,
            }
        }
    }

    /// Reads and publishes until something ends it.
    async fn follow(&mut self, reader: &mut ExecReader, writer: &ExecWriter) -> Ending {
        let mut over = false;
        let company = tokio::time::sleep(COMPANY);
        tokio::pin!(company);
        let mut waits = self.durable.is_some();
        loop {
            if !waits {
                self.outbox.send_if_due().await;
            }
            if over && self.outbox.is_idle() {
                return Ending::Told;
            }
            tokio::select! {
                () = self.exec.shutdown.cancelled() => {
                    self.settle(writer).await;
                    return Ending::Left;
                }
                () = &mut company, if waits => waits = false,
                durable = self.outbox.durable(), if self.outbox.is_under_way() => {
                    if let Some(durable) = durable {
                        self.release(durable, writer).await;
                    }
                }
                event = reader.next(), if !over && self.outbox.has_room() => match event {
                    Ok(Some(ExecEvent::Output { stream, bytes, .. })) => {
                        self.output(stream, bytes);
                        if self.outbox.is_idle() {
                            self.release(Durable { offsets: self.read, terminal: false }, writer).await;
                        }
                    }
                    Ok(Some(ExecEvent::Exited(outcome))) => {
                        self.ended(&outcome);
                        over = true;
                        waits = false;
                    }
                    Ok(Some(ExecEvent::Superseded)) => {
                        tracing::info!(exec.id = %self.exec.id, "another executor took this exec over");
                        return Ending::Left;
                    }
                    Ok(None) => return Ending::Left,
                    Err(error) => {
                        tracing::debug!(error = %error, exec.id = %self.exec.id, "lost the agent");
                        return Ending::Vanished;
                    }
                }
            }
        }
    }

    /// Publishes what was read, as far as that goes quickly; the agent has the rest.
    async fn settle(&mut self, writer: &ExecWriter) {
        let publish = async {
            self.outbox.send_if_due().await;
            while let Some(durable) = self.outbox.durable().await {
                self.release(durable, writer).await;
                self.outbox.send_if_due().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), publish).await;
    }

    async fn release(&mut self, durable: Durable, writer: &ExecWriter) {
        if let Some(started) = self.durable.take() {
            let _ = started.send(());
        }
        // With nothing under way all that was read is either durable or past the limit and thrown away.
        let offsets = if self.outbox.is_idle() {
            self.read
        } else {
            durable.offsets
        };
        for (stream, offset) in Stream::BOTH.into_iter().zip(offsets) {
            // An agent that is gone has nothing to release; the reader will notice.
            if offset > 0 {
                let _ = writer.ack(stream, offset).await;
            }
        }
    }

    fn add(&mut self, event: Event, terminal: bool) {
        if let Err(error) = self.outbox.add(event, self.read, terminal) {
            tracing::error!(error = %error, exec.id = %self.exec.id, "an event cannot be encoded");
        }
    }

    fn output(&mut self, stream: Stream, bytes: Bytes) {
        let index = stream.index();
        let room = self
            .exec
            .max_output_bytes
            .saturating_sub(self.gathered[0] + self.gathered[1]);
        let mut keep = bytes.slice(..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        self.read[index] += bytes.len() as u64;
        while !keep.is_empty() {
            let chunk = keep.split_to(keep.len().min(CHUNK));
            let offset = self.gathered[index];
            self.gathered[index] += chunk.len() as u64;
            let output = ExecOutput {
                exec: self.exec.id,
                stream: match stream {
                    Stream::Stdout => OutputStream::Stdout,
                    Stream::Stderr => OutputStream::Stderr,
                },
                offset,
                bytes: chunk,
            };
            let event = self.exec.context.event(output);
            self.add(event, false);
        }
    }

    fn ended(&mut self, outcome: &ExecOutcome) {
        let exec = self.exec.id;
        let recorded = self.gathered[0] + self.gathered[1];
        let ended = ExecEnded {
            stdout_bytes: self.gathered[0],
            stderr_bytes: self.gathered[1],
            truncated_bytes: (outcome.stdout_len + outcome.stderr_len).saturating_sub(recorded),
            duration_us: u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
        };
        let data: EventData = match outcome.end {
            protocol::ExecEnd::Exited { code } => ExecExited {
                exec,
                code,
                signal: None,
                ended,
            }
            .into(),
            protocol::ExecEnd::Signaled { signal } => ExecExited {
                exec,
                code: 128 + signal,
                signal: Some(signal),
                ended,
            }
            .into(),
            protocol::ExecEnd::TimedOut => ExecTimedOut { exec, ended }.into(),
            protocol::ExecEnd::Killed {
                cause: KillCause::Request | KillCause::Shutdown,
            } => ExecKilled {
                exec,
                signal: 9,
                ended,
            }
            .into(),
        };
        let event = self.exec.context.event(data);
        self.add(event, true);
    }

    /// Finds the agent again after its connection broke; otherwise says that nobody knows how the exec ended.
    async fn attach_again(&mut self) -> Option<ExecConnection> {
        for _ in 0..RETRIES {
            if self.exec.shutdown.is_cancelled() {
                return None;
            }
            let attach = Attach {
                exec_id: self.exec.id.as_bytes().to_owned().into(),
                stdout_offset: self.read[0],
                stderr_offset: self.read[1],
            };
            match self.exec.hosted.agent.attach_exec(attach).await {
                Ok(connection) => return Some(connection),
                Err(CallError::Refused(AttachRefusal::UnknownExec(_))) => break,
                Err(error) if self.exec.hosted.is_closing() => {
                    tracing::debug!(error = %error, exec.id = %self.exec.id, "its sandbox is being destroyed");
                    break;
                }
                Err(error) => {
                    tracing::debug!(error = %error, exec.id = %self.exec.id, "cannot attach again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        let message = "the sandbox went away while the command ran".to_owned();
        let event = self.exec.context.event(ExecOutcomeUnknown {
            exec: self.exec.id,
            message,
        });
        self.add(event, true);
        loop {
            self.outbox.send_if_due().await;
            match self.outbox.durable().await {
                Some(_) if !self.outbox.is_idle() => {}
                _ => return None,
            }
        }
    }
}
