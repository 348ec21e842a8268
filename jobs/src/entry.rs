//! One job in memory: little of those that wait, all of those that are at work.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Aggregate, CancelReason, Event, EventData, ExecId, ExecState, HoldReason, JobEvent, JobId, JobOutcome,
    JobPhase, JobPlace, JobState, NeedCondition, PoolName, ProviderName, SandboxId, SandboxState, TenantId,
};

use crate::effect::{Step, Whole};
use crate::queue::{Gate, Owner};

/// What is kept of every job that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Light {
    /// Which.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// And whose there.
    pub user: Option<String>,
    /// Where it waits.
    pub queue: String,
    /// How urgent it is there.
    pub priority: i16,
    /// Where it runs.
    pub place: Place,
    /// The key that counts those that run with it, and how many may.
    pub key: Option<(String, u32)>,
    /// The jobs that it needs, and how those ended that have.
    pub needs: Vec<Need>,
    /// Not before then.
    pub run_at: Option<DateTime<Utc>>,
    /// When all of it has to be over.
    pub deadline: Option<DateTime<Utc>>,
    /// Since when it waits in its queue.
    pub queued_at: DateTime<Utc>,
    /// How long its sandbox is kept after a failure.
    pub keep: TimeDelta,
    /// How many attempts there were.
    pub attempt: u32,
    /// Whether something is sealed beside the log that nobody needs after its end.
    pub has_sealed: bool,
    /// That its end was asked for.
    pub cancel: Option<CancelReason>,
    /// What keeps it in its queue.
    pub held: Option<(HoldReason, String)>,
    /// Where it stands.
    pub phase: Phase,
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In sandboxes of its own.
    Fresh {
        /// The pool that makes them.
        pool: PoolName,
        /// With what.
        provider: ProviderName,
        /// With so many thousandths of a CPU.
        cpu_millis: u32,
        /// And so much memory.
        memory_mib: u32,
    },
    /// In this one.
    Existing(SandboxId),
}

/// A job that another one needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Which.
    pub job: JobId,
    /// How it has to end.
    pub condition: NeedCondition,
    /// How it ended; outer `None`: it has not, as far as is known. Inner `None`: there is no such job.
    pub outcome: Option<Option<JobOutcome>>,
    /// Whether the log has to be asked how it ended.
    pub is_looked_for: bool,
}

/// Where a job stands, as far as the driver minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for other jobs or a time.
    Waiting,
    /// It waits for its turn.
    Queued,
    /// It waits for its next attempt.
    Retrying(DateTime<Utc>),
    /// An attempt is under way.
    Active,
    /// It has ended.
    Ended(JobOutcome, DateTime<Utc>),
}

impl Light {
    pub fn of(job: &JobState) -> Self {
        let spec = &job.spec;
        let place = match &spec.place {
            JobPlace::Existing(sandbox) => Place::Existing(*sandbox),
            JobPlace::Fresh(spec) => Place::Fresh {
                pool: spec.pool(),
                provider: spec.provider.clone(),
                cpu_millis: spec.cpu_millis,
                memory_mib: spec.memory_mib,
            },
        };
        let need = |need: &events::JobNeed| Need {
            job: need.job,
            condition: need.condition,
            outcome: None,
            is_looked_for: true,
        };
        let waits = matches!(job.phase, JobPhase::Waiting);
        Self {
            id: job.id,
            tenant: job.tenant.clone(),
            user: job.owner.clone(),
            queue: spec.queue.clone(),
            priority: spec.priority,
            place,
            key: spec.concurrency_key.clone().map(|key| (key, spec.concurrency_limit.unwrap_or(1).max(1))),
            needs: if waits { spec.needs.iter().map(need).collect() } else { Vec::new() },
            run_at: spec.run_at,
            deadline: job.deadline(),
            queued_at: job.queued_at.unwrap_or(job.submitted_at),
            keep: spec
                .keep_sandbox_ms
                .and_then(|ms| i64::try_from(ms).ok())
                .and_then(TimeDelta::try_milliseconds)
                .unwrap_or_default(),
            attempt: job.attempt(),
            // Of its callback the token is needed after its end.
            has_sealed: spec.has_sealed && spec.callback.is_none(),
            cancel: job.cancel.as_ref().map(|cancel| cancel.reason),
            held: job.held.as_ref().map(|held| (held.reason, held.message.clone())),
            phase: match &job.phase {
                JobPhase::Waiting => Phase::Waiting,
                JobPhase::Queued => Phase::Queued,
                JobPhase::Retrying { due_at } => Phase::Retrying(*due_at),
                JobPhase::Starting | JobPhase::Running | JobPhase::Settling => Phase::Active,
                JobPhase::Ended { outcome, at, .. } => Phase::Ended(*outcome, *at),
            },
        }
    }

    /// As the state of the job says it, of which all that is needed is here.
    pub fn sandbox_of(&self, attempt: u32) -> SandboxId {
        match self.place {
            Place::Existing(sandbox) => sandbox,
            Place::Fresh { .. } => SandboxId::derived(&["job", &self.id.to_string(), &attempt.to_string()]),
        }
    }

    pub fn exec_of(&self, attempt: u32) -> ExecId {
        ExecId::derived(&["job", &self.id.to_string(), &attempt.to_string()])
    }

    pub fn owner(&self) -> Owner {
        Owner { tenant: self.tenant.clone(), user: self.user.clone() }
    }

    pub fn gate(&self) -> Gate {
        Gate { pool: self.pool().cloned(), key: self.key.clone() }
    }

    /// Whether it may be let out of its queue, now or when its pause is over.
    pub const fn waits_for_turn(&self) -> bool {
        self.cancel.is_none() && matches!(self.phase, Phase::Queued | Phase::Retrying(_))
    }

    pub const fn pool(&self) -> Option<&PoolName> {
        match &self.place {
            Place::Fresh { pool, .. } => Some(pool),
            Place::Existing(_) => None,
        }
    }

    /// What an event changes here while the whole state is not in memory. The recorder has judged it: it fits.
    fn take(&mut self, event: &Event, said: &JobEvent) {
        match said {
            JobEvent::Queued(_) => {
                self.phase = Phase::Queued;
                self.queued_at = event.time;
                self.needs.clear();
            }
            JobEvent::Held(held) => {
                self.held = held.reason.map(|reason| (reason, held.message.clone()));
            }
            JobEvent::Admitted(admitted) => {
                self.phase = Phase::Active;
                self.held = None;
                self.attempt = self.attempt.max(admitted.attempt);
            }
            JobEvent::RetryScheduled(retry) => self.phase = Phase::Retrying(retry.due_at),
            JobEvent::CancelRequested(cancel) => self.cancel = Some(cancel.reason),
            JobEvent::Succeeded(_) => self.phase = Phase::Ended(JobOutcome::Succeeded, event.time),
            JobEvent::Failed(_) => self.phase = Phase::Ended(JobOutcome::Failed, event.time),
            JobEvent::Cancelled(_) => self.phase = Phase::Ended(JobOutcome::Cancelled, event.time),
            JobEvent::TimedOut(_) => self.phase = Phase::Ended(JobOutcome::TimedOut, event.time),
            JobEvent::OutcomeUnknown(_) => self.phase = Phase::Ended(JobOutcome::Unknown, event.time),
            JobEvent::Submitted(_)
            | JobEvent::AttemptStarted(_)
            | JobEvent::AttemptRunning(_)
            | JobEvent::AttemptEnded(_)
            | JobEvent::ArtifactStored(_)
            | JobEvent::Progressed(_) => {}
        }
    }
}

/// One job in memory.
#[derive(Debug)]
pub struct Entry {
    /// What is always there; `None`: it is only known that it has sandboxes.
    pub light: Option<Light>,
    /// All of it, where that is needed or room is there.
    pub job: Option<Box<JobState>>,
    /// Whether `job`, the sandbox and the exec of its attempt are what the log says of them.
    pub is_whole: bool,
    /// What happened since they were asked for.
    missed: Vec<Event>,
    /// Its sandboxes that live, and that of the attempt that is under way also when it has ended.
    pub sandboxes: HashMap<SandboxId, SandboxState>,
    /// The exec of the attempt that is under way.
    pub exec: Option<ExecState>,
    /// What was done last, and when on the boot clock.
    pub asked: Option<(Step, Duration)>,
    /// Sandboxes that were asked to end: when last on the boot clock, and how often.
    pub destroys: HashMap<SandboxId, (Duration, u32)>,
    /// Why the attempt that is under way cannot begin.
    pub refused: Option<(u32, String)>,
    /// Of which attempt the files are kept, or why they cannot be.
    pub collected: Option<(u32, Result<(), String>)>,
    /// That it was let out of its queue, and when on the boot clock, while that is not recorded.
    pub promised: Option<Duration>,
    /// The sandbox and the exec whose events are brought here.
    pub indexed: Option<(SandboxId, ExecId)>,
}

impl Entry {
    pub fn new(light: Option<Light>) -> Self {
        Self {
            light,
            job: None,
            is_whole: false,
            missed: Vec::new(),
            sandboxes: HashMap::new(),
            exec: None,
            asked: None,
            destroys: HashMap::new(),
            refused: None,
            collected: None,
            promised: None,
            indexed: None,
        }
    }

    /// One that was just submitted: nothing else happened to it.
    pub fn submitted(job: JobState) -> Self {
        let light = Light::of(&job);
        Self { job: Some(Box::new(job)), is_whole: true, ..Self::new(Some(light)) }
    }

    /// Which sandbox and exec are those of the attempt that is under way.
    pub fn attempt(&self) -> Option<(SandboxId, ExecId)> {
        let light = self.light.as_ref()?;
        let active = light.phase == Phase::Active;
        active.then(|| (light.sandbox_of(light.attempt), light.exec_of(light.attempt)))
    }

    /// Forgets all but the little that is always there.
    pub fn slim(&mut self) {
        self.job = None;
        self.is_whole = false;
        self.missed.clear();
    }

    /// Takes in an event of it, of one of its sandboxes, or of its exec.
    pub fn apply(&mut self, event: &Event) {
        if let EventData::Job(said) = &event.data {
            self.take(event, said);
        } else if let EventData::Sandbox(_) = &event.data {
            self.take_sandbox(event);
        } else if let Some(exec) = event.data.exec()
            && self.attempt().is_some_and(|(_, current)| current == exec)
        {
            self.exec = ExecState::apply(self.exec.take(), event);
        }
        if !self.is_whole && self.attempt().is_some() {
            self.missed.push(event.clone());
        }
    }

    fn take(&mut self, event: &Event, said: &JobEvent) {
        let before = self.attempt();
        match self.job.take() {
            Some(job) => {
                self.job = JobState::apply(Some(*job), event).map(Box::new);
                let needs = self.light.take().map(|light| light.needs);
                self.light = self.job.as_deref().map(Light::of);
                if let (Some(light), Some(needs)) = (&mut self.light, needs)
                    && light.phase == Phase::Waiting
                {
                    light.needs = needs;
                }
            }
            None => {
                if let Some(light) = &mut self.light {
                    light.take(event, said);
                }
            }
        }
        if self.light.as_ref().is_none_or(|light| !light.waits_for_turn()) {
            self.promised = None;
        }
        if self.attempt() != before {
            // Another attempt, or none any more.
            let existing = self.light.as_ref().is_some_and(|light| matches!(light.place, Place::Existing(_)));
            self.exec = None;
            self.refused = None;
            self.is_whole = self.job.is_some() && !(existing && self.attempt().is_some());
            let current = self.attempt().map(|(sandbox, _)| sandbox);
            self.sandboxes.retain(|id, state| Some(*id) == current || (!existing && !state.is_terminal()));
        }
    }

    fn take_sandbox(&mut self, event: &Event) {
        let Some(id) = event.sandbox else { return };
        let current = self.attempt().is_some_and(|(sandbox, _)| sandbox == id);
        if let Some(state) = SandboxState::apply(self.sandboxes.remove(&id), event)
            && (current || !state.is_terminal())
        {
            self.sandboxes.insert(id, state);
        }
    }

    /// Takes in what the log says of it.
    pub fn settle(&mut self, whole: Whole) {
        let Some(job) = whole.job else { return };
        let missed = std::mem::take(&mut self.missed);
        let loaded = Light::of(&job);
        let attempt = (loaded.phase == Phase::Active)
            .then(|| (loaded.sandbox_of(loaded.attempt), loaded.exec_of(loaded.attempt)));
        if self.attempt() != attempt && self.light.is_some() {
            // The feed has not come as far, or has gone on: what was read beside it is of another attempt.
            self.missed = missed;
            return;
        }
        self.light = Some(loaded);
        self.job = Some(Box::new(job));
        self.is_whole = true;
        self.exec = whole.exec;
        if let Some(sandbox) = whole.sandbox {
            self.sandboxes.insert(sandbox.id, sandbox);
        }
        for event in missed {
            self.apply(&event);
        }
    }

    /// What it holds: whether it is counted as running, and the slots of its pool that it takes.
    pub fn claim(&self) -> Claim {
        let Some(light) = &self.light else { return Claim::default() };
        let promised = self.promised.is_some();
        let active = light.phase == Phase::Active || promised;
        let live = self.sandboxes.values().filter(|state| !state.is_terminal()).count();
        let slots = match &light.place {
            Place::Existing(_) => 0,
            Place::Fresh { .. } => {
                let current = light.sandbox_of(light.attempt + u32::from(promised));
                live + usize::from(active && !self.sandboxes.contains_key(&current))
            }
        };
        Claim {
            running: usize::from(active),
            slots: light.pool().cloned().map(|pool| (pool, slots)),
            key: light.key.clone().filter(|_| active).map(|(key, _)| (light.tenant.clone(), key)),
        }
    }
}

/// What a job holds.
#[derive(Debug, Default)]
pub struct Claim {
    /// One, if it is counted as running.
    pub running: usize,
    /// Slots of a pool.
    pub slots: Option<(PoolName, usize)>,
    /// A place under a key.
    pub key: Option<(TenantId, String)>,
}
