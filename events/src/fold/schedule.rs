use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Aggregate, Category, DropReason, Event, EventData, EventId, Fields, JobId, Key, Schedule, ScheduleEvent,
    ScheduleMissed, ScheduleTicked, TenantId, TickOutcome,
};

/// What the log says about one schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// What it is.
    pub schedule: Schedule,
    /// Whose.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last made, updated, paused or resumed, and by which event. What was decided before that counts no more.
    pub changed_at: DateTime<Utc>,
    /// See [`changed_at`](Self::changed_at).
    pub epoch: EventId,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// What was due up to here is dealt with.
    pub cursor: DateTime<Utc>,
    /// Jobs that wait for the one before them, in order.
    pub waiting: Vec<WaitingJob>,
    /// The job that was submitted last.
    pub latest: Option<LatestJob>,
    /// Its last tick.
    pub last_tick: Option<LastTick>,
    /// What was missed last.
    pub last_missed: Option<LastMissed>,
}

/// A job that waits for the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingJob {
    /// What it will be.
    pub job: JobId,
    /// The time of the tick, or when somebody asked.
    pub at: DateTime<Utc>,
}

/// The job that was submitted last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestJob {
    /// Which one.
    pub job: JobId,
    /// The time of the tick, or when somebody asked.
    pub at: DateTime<Utc>,
    /// The one before it, which is cancelled for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<JobId>,
}

/// A tick, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTick {
    /// When it was due.
    pub at: DateTime<Utc>,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: TickOutcome,
}

/// Times that passed while nobody was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastMissed {
    /// The first of them.
    pub from: DateTime<Utc>,
    /// The last of them.
    pub until: DateTime<Utc>,
    /// How many.
    pub count: u32,
}

impl ScheduleState {
    /// How many jobs may wait for the one before them.
    pub const MOST_WAITING: usize = 100;

    /// What the tick at an instant makes the job's id.
    pub fn job_of_tick(&self, at: DateTime<Utc>) -> JobId {
        JobId::derived(&["schedule", &self.schedule.id.to_string(), &at.timestamp().to_string()])
    }

    /// Whether the times up to one of those that were decided upon are dealt with, or decided upon no more.
    fn judge_times(&self, epoch: EventId, first: DateTime<Utc>) -> Result<usize, DropReason> {
        match () {
            () if first <= self.cursor => Err(DropReason::Duplicate),
            () if epoch != self.epoch || self.paused_at.is_some() => Err(DropReason::Contradiction),
            () => Ok(0),
        }
    }

    /// It stands anew: what was decided before counts no more, and what was due before is not due any more.
    fn begin(&mut self, event: &Event) {
        self.epoch = event.id;
        self.changed_at = event.time;
        self.cursor = self.cursor.max(event.time);
    }

    fn wait(&mut self, job: JobId, at: DateTime<Utc>) {
        if !self.waiting.iter().any(|waiting| waiting.job == job) {
            self.waiting.push(WaitingJob { job, at });
        }
    }

    fn tick(&mut self, ticked: &ScheduleTicked) {
        let at = ticked.at;
        match ticked.outcome {
            TickOutcome::Submitted { job } => self.latest = Some(LatestJob { job, at, cancelled: None }),
            TickOutcome::Replaced { job, cancelled } => {
                self.latest = Some(LatestJob { job, at, cancelled: Some(cancelled) });
            }
            TickOutcome::Queued { job } => self.wait(job, at),
            TickOutcome::Skipped { .. } | TickOutcome::Full => {}
        }
        self.cursor = self.cursor.max(at);
        self.last_tick = Some(LastTick { at, outcome: ticked.outcome.clone() });
    }

    fn miss(&mut self, missed: &ScheduleMissed) {
        let ScheduleMissed { from, until, count, .. } = *missed;
        self.cursor = self.cursor.max(until);
        self.last_missed = Some(LastMissed { from, until, count });
    }
}

impl Aggregate for ScheduleState {
    const KIND: &'static str = "schedule";
    const TAKES: &'static [Category] = &[Category::Schedule];

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::Schedule(said) = &event.data else { return None };
        Some(said.schedule().into())
    }

    /// Of all that may have decided about one time, the first counts: it is what is done.
    fn judge(state: Option<&Self>, event: &Event) -> Result<usize, DropReason> {
        let EventData::Schedule(said) = &event.data else { return Ok(0) };
        let Some(state) = state else {
            return match said {
                ScheduleEvent::Created(_) => Ok(0),
                ScheduleEvent::Updated(_)
                | ScheduleEvent::Deleted(_)
                | ScheduleEvent::Paused(_)
                | ScheduleEvent::Resumed(_)
                | ScheduleEvent::Triggered(_)
                | ScheduleEvent::Ticked(_)
                | ScheduleEvent::Missed(_)
                | ScheduleEvent::Released(_) => Err(DropReason::AfterEnd),
            };
        };
        match said {
            ScheduleEvent::Created(_) => Err(DropReason::Duplicate),
            ScheduleEvent::Updated(_) | ScheduleEvent::Deleted(_) => Ok(0),
            ScheduleEvent::Paused(_) if state.paused_at.is_some() => Err(DropReason::Duplicate),
            ScheduleEvent::Resumed(_) if state.paused_at.is_none() => Err(DropReason::Duplicate),
            ScheduleEvent::Paused(_) | ScheduleEvent::Resumed(_) => Ok(0),
            ScheduleEvent::Triggered(triggered) => match () {
                () if state.waiting.iter().any(|waiting| waiting.job == triggered.job) => {
                    Err(DropReason::Duplicate)
                }
                () if state.waiting.len() >= Self::MOST_WAITING => Err(DropReason::Contradiction),
                () => Ok(0),
            },
            ScheduleEvent::Ticked(ticked) => state.judge_times(ticked.epoch, ticked.at),
            ScheduleEvent::Missed(missed) => state.judge_times(missed.epoch, missed.from),
            ScheduleEvent::Released(released) => {
                let is_next = state.waiting.first().is_some_and(|waiting| waiting.job == released.job);
                if is_next { Ok(0) } else { Err(DropReason::Duplicate) }
            }
        }
    }

    /// Everything that is said is what is the case from then on, and nothing is counted: so that any part of the log may be applied
    /// again.
    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::Schedule(said) = &event.data else { return state };
        if let (None, ScheduleEvent::Created(created)) = (&state, said) {
            return Some(Self {
                schedule: created.schedule.clone(),
                tenant: event.tenant.clone(),
                created_at: event.time,
                changed_at: event.time,
                epoch: event.id,
                paused_at: None,
                cursor: event.time,
                waiting: Vec::new(),
                latest: None,
                last_tick: None,
                last_missed: None,
            });
        }
        let mut state = state?;
        if said.schedule() != state.schedule.id || event.tenant != state.tenant {
            return Some(state);
        }
        match said {
            ScheduleEvent::Created(_) => {}
            ScheduleEvent::Updated(updated) => {
                state.schedule = updated.schedule.clone();
                state.begin(event);
            }
            ScheduleEvent::Deleted(_) => return None,
            ScheduleEvent::Paused(_) => {
                state.paused_at = Some(event.time);
                state.begin(event);
            }
            ScheduleEvent::Resumed(_) => {
                state.paused_at = None;
                state.begin(event);
            }
            ScheduleEvent::Triggered(triggered) => state.wait(triggered.job, event.time),
            ScheduleEvent::Ticked(ticked) => state.tick(ticked),
            ScheduleEvent::Missed(missed) => state.miss(missed),
            ScheduleEvent::Released(released) => {
                let Some(index) = state.waiting.iter().position(|waiting| waiting.job == released.job) else {
                    return Some(state);
                };
                let WaitingJob { job, at } = state.waiting.remove(index);
                state.latest = Some(LatestJob { job, at, cancelled: released.cancelled });
            }
        }
        Some(state)
    }

    fn key(&self) -> Key {
        self.schedule.id.into()
    }

    fn fields(&self) -> Fields {
        let status = if self.paused_at.is_some() { "paused" } else { "active" };
        Fields {
            owner: self.schedule.owner.clone(),
            sort_us: self.created_at.timestamp_micros(),
            ..Fields::new(self.tenant.clone(), status)
        }
    }
}
