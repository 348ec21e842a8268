use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Aggregate, Asked, Category, DropReason, EndCause, Event, EventData, ExecEnded, ExecEvent, ExecExited,
    ExecId, ExecKilled, ExecOutput, ExecSpec, ExecTimedOut, FailureCode, Fields, FoundBy, Key,
    OutputCloseReason, OutputStream, SandboxId, TenantId,
};

/// What the log says about one exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its id.
    pub id: ExecId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Where it runs.
    pub sandbox: SandboxId,
    /// What runs; nothing when it failed before it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<ExecSpec>,
    /// When the log first heard of it.
    pub started_at: DateTime<Utc>,
    /// Bytes of stdout in the log: the offset to go on from.
    pub stdout_bytes: u64,
    /// The same for stderr.
    pub stderr_bytes: u64,
    /// Whether it was asked for and has not begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// That it was asked to end, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The digest of its request, where that had an `Idempotency-Key` and there is no `spec` that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_digest: Option<String>,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ExecEnd>,
    /// Whether it has ended and something that it left running still writes its output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_open: bool,
    /// How the output was closed of one that had ended with it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_closed: Option<OutputClosed>,
}

/// How the output of an exec was closed after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputClosed {
    /// The reason.
    pub reason: OutputCloseReason,
    /// When that was.
    pub at: DateTime<Utc>,
    /// Bytes past the output limit that were thrown away, from the start of the exec on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ExecEnd {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// The signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// When that was.
        at: DateTime<Utc>,
        /// Lengths and duration.
        ended: ExecEnded,
    },
    /// Its time was up.
    TimedOut {
        /// The exit code with which it left by itself all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        /// The signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// When that was.
        at: DateTime<Utc>,
        /// Lengths and duration.
        ended: ExecEnded,
    },
    /// By a signal, after it was asked to end.
    Killed {
        /// The signal that ended it.
        signal: i32,
        /// When that was.
        at: DateTime<Utc>,
        /// Lengths and duration.
        ended: ExecEnded,
    },
    /// It never started.
    Failed {
        /// The kind of failure.
        code: FailureCode,
        /// One sentence.
        message: String,
        /// When that was.
        at: DateTime<Utc>,
    },
    /// Nobody can say.
    OutcomeUnknown {
        /// One sentence.
        message: String,
        /// When that was.
        at: DateTime<Utc>,
    },
}

impl ExecState {
    /// The state after `event`, given the state before it. The first terminal event wins; what does not fit changes
    /// nothing.
    pub fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let (Some(sandbox), EventData::Exec(data)) = (event.sandbox, &event.data) else { return state };
        let id = data.exec();
        let begin = |spec, pending| Self {
            id,
            tenant: event.tenant.clone(),
            sandbox,
            spec,
            started_at: event.time,
            stdout_bytes: 0,
            stderr_bytes: 0,
            pending,
            asked: None,
            request_digest: None,
            end: None,
            output_open: false,
            output_closed: None,
        };
        let mut state = match (state, data) {
            (Some(state), _) => state,
            (None, ExecEvent::Requested(requested)) => begin(Some(requested.spec.clone()), true),
            (None, ExecEvent::Started(started)) => begin(Some(started.spec.clone()), false),
            (None, ExecEvent::Failed(_) | ExecEvent::OutcomeUnknown(_)) => begin(None, false),
            (None, _) => return None,
        };
        if state.id == id && state.end.is_none() {
            state.advance(event, data);
            // Only an end says so; whatever has no such word has its output closed with it.
            state.output_open =
                state.end.as_ref().and_then(ExecEnd::ended).is_some_and(|ended| ended.output_open);
        } else if state.id == id && state.output_open {
            state.advance_open(event, data);
        }
        Some(state)
    }

    /// Whether nothing more comes: it has ended, and its output is closed.
    pub const fn is_over(&self) -> bool {
        self.end.is_some() && !self.output_open
    }

    /// What still happens to one that has ended and whose output is open.
    fn advance_open(&mut self, event: &Event, data: &ExecEvent) {
        if let ExecEvent::Output(output) = data {
            self.note_output(output);
        } else if let ExecEvent::OutputClosed(closed) = data {
            self.output_open = false;
            self.output_closed = Some(OutputClosed {
                reason: closed.reason,
                at: event.time,
                truncated_bytes: closed.truncated_bytes,
            });
        }
    }

    fn note_output(&mut self, output: &ExecOutput) {
        let end = output.offset + output.length();
        let recorded = match output.stream {
            OutputStream::Stdout => &mut self.stdout_bytes,
            OutputStream::Stderr => &mut self.stderr_bytes,
        };
        *recorded = (*recorded).max(end);
    }

    fn advance(&mut self, event: &Event, data: &ExecEvent) {
        let at = event.time;
        match data {
            ExecEvent::Output(output) => self.note_output(output),
            ExecEvent::Exited(exited) => {
                self.note_asked(exited.asked.as_ref());
                self.end = Some(ExecEnd::Exited {
                    code: exited.code,
                    signal: exited.signal,
                    at,
                    ended: exited.ended,
                });
            }
            ExecEvent::TimedOut(timed_out) => {
                self.end = Some(ExecEnd::TimedOut {
                    code: timed_out.code,
                    signal: timed_out.signal,
                    at,
                    ended: timed_out.ended,
                });
            }
            ExecEvent::Killed(killed) => {
                self.note_asked(killed.asked.as_ref());
                self.end = Some(ExecEnd::Killed { signal: killed.signal, at, ended: killed.ended });
            }
            ExecEvent::Failed(failed) => {
                self.request_digest.clone_from(&failed.request_digest);
                self.end = Some(ExecEnd::Failed { code: failed.code, message: failed.message.clone(), at });
            }
            ExecEvent::OutcomeUnknown(unknown) => {
                self.end = Some(ExecEnd::OutcomeUnknown { message: unknown.message.clone(), at });
            }
            ExecEvent::Started(started) => {
                self.pending = false;
                self.spec = Some(started.spec.clone());
            }
            ExecEvent::Resized(resized) => {
                if let Some(spec) = &mut self.spec {
                    spec.tty = Some(resized.size);
                }
            }
            ExecEvent::Signaled(signaled) => {
                if signaled.kill && self.asked.is_none() {
                    let by = Some(event.actor.clone());
                    self.asked = Some(Asked { cause: EndCause::Request, by, signal: signaled.signal });
                }
            }
            ExecEvent::Requested(_)
            | ExecEvent::Input(_)
            | ExecEvent::Attached(_)
            | ExecEvent::Detached(_)
            | ExecEvent::OutputClosed(_) => {}
        }
    }

    /// Whoever tells the end knows best why; who asked may have been told before.
    fn note_asked(&mut self, told: Option<&Asked>) {
        let Some(told) = told else { return };
        let by = match self.asked.take() {
            Some(before) if told.by.is_none() && before.cause == told.cause => before.by,
            _ => told.by.clone(),
        };
        self.asked = Some(Asked { by, ..told.clone() });
    }

    /// Where it stands, in one word: as the end is written in the state, where there is one.
    pub const fn status(&self) -> &'static str {
        match &self.end {
            None if self.pending => "requested",
            None => "running",
            Some(ExecEnd::Exited { .. }) => "exited",
            Some(ExecEnd::TimedOut { .. }) => "timed_out",
            Some(ExecEnd::Killed { .. }) => "killed",
            Some(ExecEnd::Failed { .. }) => "failed",
            Some(ExecEnd::OutcomeUnknown { .. }) => "outcome_unknown",
        }
    }

    /// The digest of its request, where that had an `Idempotency-Key`.
    pub fn request_digest(&self) -> Option<&str> {
        let of_spec = self.spec.as_ref().and_then(|spec| spec.request_digest.as_deref());
        of_spec.or(self.request_digest.as_deref())
    }

    /// Bytes of a stream in the log.
    pub const fn recorded(&self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout_bytes,
            OutputStream::Stderr => self.stderr_bytes,
        }
    }
}

impl ExecEnd {
    /// Lengths and duration, where they are known.
    pub const fn ended(&self) -> Option<&ExecEnded> {
        match self {
            Self::Exited { ended, .. } | Self::TimedOut { ended, .. } | Self::Killed { ended, .. } => {
                Some(ended)
            }
            Self::Failed { .. } | Self::OutcomeUnknown { .. } => None,
        }
    }

    /// The exit code to show: as a shell would have it, and nothing where nothing ran to an end.
    pub const fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code, .. } => Some(*code),
            Self::TimedOut { .. } => Some(124),
            Self::Killed { signal, .. } => Some(128_i32.saturating_add(*signal)),
            Self::Failed { .. } | Self::OutcomeUnknown { .. } => None,
        }
    }
}

impl Aggregate for ExecState {
    const KIND: &'static str = "exec";
    const TAKES: &'static [Category] = &[Category::Exec];
    const FOUND_BY: FoundBy = FoundBy::Exec;

    fn changed_by(event: &Event) -> Option<Key> {
        event.data.exec().map(Key::from)
    }

    fn judge(state: Option<&Self>, event: &Event) -> Result<usize, DropReason> {
        let EventData::Exec(said) = &event.data else { return Ok(0) };
        let Some(sandbox) = event.sandbox else { return Err(DropReason::Contradiction) };
        if let Some(state) = state {
            if state.tenant != event.tenant || state.sandbox != sandbox {
                return Err(DropReason::Contradiction);
            }
            // Viewers come and go also before an exec begins, and long after it has ended.
            if said.word().beside {
                return Ok(0);
            }
            if state.is_over() {
                return Err(DropReason::AfterEnd);
            }
            if state.output_open && !matches!(said, ExecEvent::Output(_) | ExecEvent::OutputClosed(_)) {
                return Err(DropReason::AfterEnd);
            }
        }
        let begun = || state.filter(|state| !state.pending).ok_or(DropReason::Gap);
        match said {
            ExecEvent::Requested(_) if state.is_none() => Ok(0),
            ExecEvent::Started(_) if state.is_none_or(|state| state.pending) => Ok(0),
            ExecEvent::Requested(_) | ExecEvent::Started(_) => Err(DropReason::Duplicate),
            ExecEvent::Failed(_) | ExecEvent::OutcomeUnknown(_) => Ok(0),
            ExecEvent::Output(output) => judge_output(begun()?.recorded(output.stream), output),
            ExecEvent::Exited(ExecExited { ended, .. })
            | ExecEvent::TimedOut(ExecTimedOut { ended, .. })
            | ExecEvent::Killed(ExecKilled { ended, .. }) => {
                follows(begun()?, ended.stdout_bytes, ended.stderr_bytes)
            }
            ExecEvent::OutputClosed(closed) => {
                // It follows an end that says that the output stays open.
                let state = Some(begun()?).filter(|state| state.output_open).ok_or(DropReason::Gap)?;
                follows(state, closed.stdout_bytes, closed.stderr_bytes)
            }
            ExecEvent::Input(_)
            | ExecEvent::Resized(_)
            | ExecEvent::Signaled(_)
            | ExecEvent::Attached(_)
            | ExecEvent::Detached(_) => begun().map(|_| 0),
        }
    }

    fn begins_once(event: &Event) -> bool {
        matches!(event.data, EventData::Exec(ExecEvent::Started(_)))
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        Self::apply(state, event)
    }

    fn key(&self) -> Key {
        self.id.into()
    }

    fn fields(&self) -> Fields {
        Fields {
            parent: Some(self.sandbox.into()),
            ended: self.is_over(),
            sort_us: self.started_at.timestamp_micros(),
            ..Fields::new(self.tenant.clone(), self.status())
        }
    }
}

/// Whether all output that is to come before an event is recorded.
fn follows(state: &ExecState, stdout_bytes: u64, stderr_bytes: u64) -> Result<usize, DropReason> {
    let complete = stdout_bytes <= state.recorded(OutputStream::Stdout)
        && stderr_bytes <= state.recorded(OutputStream::Stderr);
    if complete { Ok(0) } else { Err(DropReason::Gap) }
}

/// How many of the bytes are recorded already, where so many are.
fn judge_output(recorded: u64, output: &ExecOutput) -> Result<usize, DropReason> {
    let end = output.offset.checked_add(output.bytes.len() as u64).ok_or(DropReason::Contradiction)?;
    if output.offset > recorded {
        return Err(DropReason::Gap);
    }
    if end <= recorded {
        return Err(DropReason::Duplicate);
    }
    // Less than the length of the bytes, by the check above.
    Ok((recorded - output.offset) as usize)
}
