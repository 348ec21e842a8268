use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Actor, Aggregate, AttemptOutcome, CancelReason, Category, DropReason, Event, EventData, ExecId, Fields,
    FoundBy, HoldReason, JobArtifact, JobEndReason, JobEvent, JobId, JobPlace, JobSpec, Key, NodeId,
    SandboxId, TenantId, searchable,
};

/// What the log says about one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobState {
    /// Which.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// The user of the tenant whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Who submitted it.
    pub submitted_by: Actor,
    /// When it was submitted.
    pub submitted_at: DateTime<Utc>,
    /// What it is to do.
    pub spec: Box<JobSpec>,
    /// Where it stands.
    pub phase: JobPhase,
    /// Since when it waits in its queue, or did last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<DateTime<Utc>>,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// What keeps it in its queue beside those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<JobHold>,
    /// Its attempts, the first first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<JobAttempt>,
    /// The files that its last attempt left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<JobArtifact>,
    /// What it said of itself last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
    /// That its end was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<JobCancel>,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum JobPhase {
    /// Other jobs have to end before it, or its time has not come.
    Waiting,
    /// It waits for its turn.
    Queued,
    /// It has left the queue, and its attempt begins.
    Starting,
    /// Its command runs.
    Running,
    /// Its attempt has ended; what follows from that has not been said.
    Settling,
    /// Another attempt follows, which waits for its turn from then on.
    Retrying {
        /// When.
        due_at: DateTime<Utc>,
    },
    /// It has ended.
    Ended {
        /// How.
        outcome: JobOutcome,
        /// Why.
        reason: JobEndReason,
        /// The exit code of the last attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// One sentence.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// When.
        at: DateTime<Utc>,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// Its command exited with 0.
    Succeeded,
    /// It failed.
    Failed,
    /// Its end was asked for.
    Cancelled,
    /// Its time was up.
    TimedOut,
    /// Nobody can say.
    Unknown,
}

impl JobOutcome {
    /// As the wire writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Unknown => "unknown",
        }
    }
}

/// What keeps a job in its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHold {
    /// The kind of reason.
    pub reason: HoldReason,
    /// What is missing.
    pub message: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAttempt {
    /// When it was admitted.
    pub admitted_at: DateTime<Utc>,
    /// The sandbox, once it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The exec that it is, or would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecId>,
    /// Where its command runs, or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// When its command began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<JobAttemptEnd>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAttemptEnd {
    /// When.
    pub at: DateTime<Utc>,
    /// How.
    pub outcome: AttemptOutcome,
    /// The exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a job said of itself last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// When.
    pub at: DateTime<Utc>,
    /// How much is done, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// A few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// That the end of a job was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCancel {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: Actor,
    /// How long the command has, in milliseconds.
    pub grace_ms: u64,
    /// Because of what.
    pub reason: CancelReason,
}

/// The greatest number of artifacts that the state of a job lists. More are refused where they are collected.
pub const MAX_ARTIFACTS: usize = 1_000;

impl JobPhase {
    /// As the API calls it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running | Self::Settling => "running",
            Self::Retrying { .. } => "retrying",
            Self::Ended { outcome, .. } => outcome.as_str(),
        }
    }

    /// Whether it has left the queue and has not ended: it counts where a number of running jobs is bounded.
    pub const fn is_admitted(&self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Settling => true,
            Self::Waiting | Self::Queued | Self::Retrying { .. } | Self::Ended { .. } => false,
        }
    }
}

impl JobState {
    /// Whether nothing can happen to it any more.
    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, JobPhase::Ended { .. })
    }

    /// When it ended.
    pub const fn ended_at(&self) -> Option<DateTime<Utc>> {
        match &self.phase {
            JobPhase::Ended { at, .. } => Some(*at),
            JobPhase::Waiting
            | JobPhase::Queued
            | JobPhase::Starting
            | JobPhase::Running
            | JobPhase::Settling
            | JobPhase::Retrying { .. } => None,
        }
    }

    /// When the whole job has to be over.
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        let length = i64::try_from(self.spec.deadline_ms?).map(TimeDelta::milliseconds).ok()?;
        self.submitted_at.checked_add_signed(length)
    }

    /// The number of the last attempt that was admitted, from 1 on; 0 before the first.
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.attempts.len()).unwrap_or(u32::MAX)
    }

    /// The sandbox of an attempt: a fresh one has an id that follows from job and attempt.
    pub fn sandbox_of(&self, attempt: u32) -> SandboxId {
        match &self.spec.place {
            JobPlace::Existing(sandbox) => *sandbox,
            JobPlace::Fresh(_) => SandboxId::derived(&["job", &self.id.to_string(), &attempt.to_string()]),
        }
    }

    /// The exec of an attempt.
    pub fn exec_of(&self, attempt: u32) -> ExecId {
        ExecId::derived(&["job", &self.id.to_string(), &attempt.to_string()])
    }

    /// As it was right after its submission.
    pub fn as_submitted(&self) -> Self {
        let waits = Self::waits(&self.spec, self.submitted_at);
        Self {
            phase: if waits { JobPhase::Waiting } else { JobPhase::Queued },
            queued_at: (!waits).then_some(self.submitted_at),
            started_at: None,
            held: None,
            attempts: Vec::new(),
            artifacts: Vec::new(),
            progress: None,
            cancel: None,
            ..self.clone()
        }
    }

    fn waits(spec: &JobSpec, submitted_at: DateTime<Utc>) -> bool {
        !spec.needs.is_empty() || spec.run_at.is_some_and(|at| at > submitted_at)
    }

    fn submitted(event: &Event, said: &crate::JobSubmitted) -> Self {
        let waits = Self::waits(&said.spec, event.time);
        Self {
            id: said.job,
            tenant: event.tenant.clone(),
            owner: said.owner.clone(),
            submitted_by: event.actor.clone(),
            submitted_at: event.time,
            spec: said.spec.clone(),
            phase: if waits { JobPhase::Waiting } else { JobPhase::Queued },
            queued_at: (!waits).then_some(event.time),
            started_at: None,
            held: None,
            attempts: Vec::new(),
            artifacts: Vec::new(),
            progress: None,
            cancel: None,
        }
    }

    fn end(
        &mut self,
        event: &Event,
        outcome: JobOutcome,
        reason: JobEndReason,
        exit_code: Option<i32>,
        message: &str,
    ) {
        self.held = None;
        self.phase =
            JobPhase::Ended { outcome, reason, exit_code, message: message.to_owned(), at: event.time };
    }

    /// What an event changes that belongs in the record.
    fn take(&mut self, event: &Event, said: &JobEvent) {
        match said {
            JobEvent::Submitted(_) => {}
            JobEvent::Queued(_) => {
                self.phase = JobPhase::Queued;
                self.queued_at = Some(event.time);
            }
            JobEvent::Held(held) => {
                self.held = held.reason.map(|reason| JobHold {
                    reason,
                    message: held.message.clone(),
                    since: event.time,
                });
            }
            JobEvent::Admitted(_) => {
                self.phase = JobPhase::Starting;
                self.held = None;
                self.artifacts.clear();
                self.progress = None;
                self.started_at.get_or_insert(event.time);
                self.attempts.push(JobAttempt {
                    admitted_at: event.time,
                    sandbox: None,
                    exec: None,
                    node: None,
                    running_at: None,
                    ended: None,
                });
            }
            JobEvent::AttemptStarted(started) => {
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.sandbox = Some(started.sandbox);
                    attempt.exec = Some(started.exec);
                }
            }
            JobEvent::AttemptRunning(running) => {
                self.phase = JobPhase::Running;
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.node.clone_from(&running.node);
                    attempt.running_at = Some(event.time);
                }
            }
            JobEvent::AttemptEnded(ended) => {
                self.phase = JobPhase::Settling;
                if let Some(attempt) = self.attempts.last_mut() {
                    attempt.ended = Some(JobAttemptEnd {
                        at: event.time,
                        outcome: ended.outcome,
                        exit_code: ended.exit_code,
                        message: ended.message.clone(),
                    });
                }
            }
            JobEvent::RetryScheduled(retry) => {
                self.phase = JobPhase::Retrying { due_at: retry.due_at };
            }
            JobEvent::ArtifactStored(stored) => {
                match self.artifacts.iter_mut().find(|known| known.path == stored.artifact.path) {
                    Some(known) => known.clone_from(&stored.artifact),
                    None => self.artifacts.push(stored.artifact.clone()),
                }
            }
            JobEvent::Progressed(progressed) => {
                let before = self.progress.take();
                self.progress = Some(JobProgress {
                    at: event.time,
                    percent: progressed.percent.or_else(|| before.as_ref().and_then(|known| known.percent)),
                    message: match before {
                        Some(known) if progressed.message.is_empty() => known.message,
                        Some(_) | None => progressed.message.clone(),
                    },
                });
            }
            JobEvent::CancelRequested(cancel) => {
                self.cancel = Some(JobCancel {
                    at: event.time,
                    by: event.actor.clone(),
                    grace_ms: cancel.grace_ms,
                    reason: cancel.reason,
                });
            }
            JobEvent::Succeeded(end) => {
                self.end(event, JobOutcome::Succeeded, end.reason, end.exit_code, &end.message);
            }
            JobEvent::Failed(end) => {
                self.end(event, JobOutcome::Failed, end.reason, end.exit_code, &end.message);
            }
            JobEvent::Cancelled(end) => {
                self.end(event, JobOutcome::Cancelled, end.reason, end.exit_code, &end.message);
            }
            JobEvent::TimedOut(end) => {
                self.end(event, JobOutcome::TimedOut, end.reason, end.exit_code, &end.message);
            }
            JobEvent::OutcomeUnknown(end) => {
                self.end(event, JobOutcome::Unknown, end.reason, end.exit_code, &end.message);
            }
        }
    }

    /// Whether an event fits where the job stands. Two drivers may both believe to be at work: of what they say the first counts.
    fn fits(&self, said: &JobEvent) -> Result<(), DropReason> {
        let expect = |fits: bool| if fits { Ok(()) } else { Err(DropReason::Duplicate) };
        let current = |attempt: u32| {
            if attempt == self.attempt() { Ok(()) } else { Err(DropReason::Duplicate) }
        };
        let open = || self.attempts.last().is_some_and(|attempt| attempt.ended.is_none());
        match said {
            JobEvent::Submitted(_) => Err(DropReason::Duplicate),
            JobEvent::Queued(_) => expect(matches!(self.phase, JobPhase::Waiting)),
            JobEvent::Held(held) => {
                let known = self.held.as_ref().map(|held| (held.reason, held.message.as_str()));
                let waits = matches!(self.phase, JobPhase::Queued | JobPhase::Retrying { .. });
                expect(waits && known != held.reason.map(|reason| (reason, held.message.as_str())))
            }
            JobEvent::Admitted(admitted) => {
                let waits = matches!(self.phase, JobPhase::Queued | JobPhase::Retrying { .. });
                expect(waits && admitted.attempt == self.attempt().saturating_add(1))
            }
            JobEvent::AttemptStarted(started) => {
                current(started.attempt)?;
                expect(open() && self.attempts.last().is_some_and(|attempt| attempt.sandbox.is_none()))
            }
            JobEvent::AttemptRunning(running) => {
                current(running.attempt)?;
                expect(open() && matches!(self.phase, JobPhase::Starting))
            }
            JobEvent::AttemptEnded(ended) => {
                current(ended.attempt)?;
                expect(open())
            }
            JobEvent::RetryScheduled(retry) => expect(
                matches!(self.phase, JobPhase::Settling) && retry.attempt == self.attempt().saturating_add(1),
            ),
            JobEvent::ArtifactStored(stored) => {
                current(stored.attempt)?;
                let known = self.artifacts.contains(&stored.artifact);
                expect(!known && self.artifacts.len() < MAX_ARTIFACTS)
            }
            JobEvent::Progressed(progressed) => {
                current(progressed.attempt)?;
                expect(open())
            }
            JobEvent::CancelRequested(_) => expect(self.cancel.is_none()),
            // What still runs has to end first: its exec would be nobody's.
            JobEvent::Succeeded(_)
            | JobEvent::Failed(_)
            | JobEvent::Cancelled(_)
            | JobEvent::TimedOut(_)
            | JobEvent::OutcomeUnknown(_) => {
                if open() {
                    Err(DropReason::Contradiction)
                } else {
                    Ok(())
                }
            }
        }
    }
}

impl Aggregate for JobState {
    const KIND: &'static str = "job";
    const TAKES: &'static [Category] = &[Category::Job];
    const FOUND_BY: FoundBy = FoundBy::Subject;

    fn changed_by(event: &Event) -> Option<Key> {
        event.data.job().map(Key::from)
    }

    fn judge(state: Option<&Self>, event: &Event) -> Result<usize, DropReason> {
        let EventData::Job(said) = &event.data else { return Ok(0) };
        let Some(state) = state else {
            return if said.word().begins { Ok(0) } else { Err(DropReason::Gap) };
        };
        if state.tenant != event.tenant {
            return Err(DropReason::Contradiction);
        }
        if state.has_ended() {
            return Err(DropReason::AfterEnd);
        }
        state.fits(said).map(|()| 0)
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::Job(said) = &event.data else { return state };
        let Some(mut state) = state else {
            let JobEvent::Submitted(submitted) = said else { return None };
            return Some(Self::submitted(event, submitted));
        };
        // What does not fit changes nothing, so a part of the log may be applied again, from any event on to its end.
        let ours = said.job() == state.id && event.tenant == state.tenant && !state.has_ended();
        if ours && state.fits(said).is_ok() {
            state.take(event, said);
        }
        Some(state)
    }

    fn key(&self) -> Key {
        self.id.into()
    }

    fn fields(&self) -> Fields {
        let due = match &self.phase {
            JobPhase::Waiting => self.spec.run_at,
            JobPhase::Retrying { due_at } => Some(*due_at),
            JobPhase::Queued => self.queued_at,
            JobPhase::Starting | JobPhase::Running | JobPhase::Settling | JobPhase::Ended { .. } => {
                self.deadline()
            }
        };
        Fields {
            owner: self.owner.clone(),
            place: Some(searchable(&self.spec.queue)),
            label: self.spec.schedule.as_deref().map(searchable),
            ended: self.has_ended(),
            // The least rank goes first, the greatest priority does.
            rank: -i64::from(self.spec.priority),
            sort_us: self.submitted_at.timestamp_micros(),
            due_us: due.map(|due| due.timestamp_micros()),
            ..Fields::new(self.tenant.clone(), self.phase.as_str())
        }
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
