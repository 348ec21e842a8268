//! One schedule: where it stands, and what is to be done for it now. A pure decision: no I/O and no clock of its own.
//!
//! Whatever has to happen once is an event, and the record takes one of those that say so: a tick names the time that had come,
//! and the first one about a time counts. So any number of processes may decide, each from what it knows; what is done is what was
//! recorded. A job's id follows from the schedule and the time, so a job that is submitted again is the same job.

use std::collections::HashMap;
use std::time::Duration;

use calendar::Calendar;
use chrono::{DateTime, Utc};
use events::{
    Aggregate, CatchUp, Event, EventData, EventId, JobId, LatestJob, Overlap, ScheduleMissed,
    ScheduleReleased, ScheduleState, ScheduleTicked, TickOutcome,
};
use reactor::{Next, Turn};

/// What is dealt with so long after its time, or sooner, is on time. It is longer than another process needs to take over.
pub const ON_TIME: Duration = Duration::from_secs(60);
/// How many missed times are made up for, where all are.
pub const MOST_CAUGHT_UP: usize = 100;
/// How many times are looked at in one decision. More than these were missed in a time that was long and are told of in parts.
const LOOKED_AT: usize = 2_000;
/// What was asked for and is not in the record after so long is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A job that is not in the record after so long will never be: it was not taken.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Something to be done for a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// To be said in the log. The id follows from what is said.
    Say(EventId, Box<EventData>),
    /// The job that was decided upon is to be submitted.
    Submit(JobId, DateTime<Utc>),
    /// A job is to be cancelled: another one has taken its place.
    Cancel(JobId),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Said(EventId),
    Submitted(JobId),
    Cancelled(JobId),
}

impl Step {
    /// What was done when it was done.
    pub const fn done(&self) -> Done {
        match self {
            Self::Say(id, _) => Done::Said(*id),
            Self::Submit(job, _) => Done::Submitted(*job),
            Self::Cancel(job) => Done::Cancelled(*job),
        }
    }
}

/// What is known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStands {
    /// It is in the log, and has not ended.
    Live,
    /// It has ended.
    Ended,
}

/// One schedule, and what is known around it.
#[derive(Debug)]
pub struct Planned {
    state: ScheduleState,
    /// `None`: this build cannot read the rule that it was made with.
    calendar: Option<Calendar>,
    /// When it is due next, after which instant.
    next: Option<(DateTime<Utc>, Option<DateTime<Utc>>)>,
    /// What is known of its last job, and of the one that this replaced.
    jobs: HashMap<JobId, JobStands>,
    said: Option<Asked<EventId>>,
    submitted: Option<Asked<JobId>>,
    cancelled: Option<Asked<JobId>>,
}

/// What was asked for, for the first and the last time, on the boot clock.
#[derive(Debug, Clone, Copy)]
struct Asked<T> {
    what: T,
    first: Duration,
    last: Duration,
}

impl<T: Copy + PartialEq> Asked<T> {
    fn again(before: Option<Self>, what: T, now: Duration) -> Self {
        let first = before.filter(|before| before.what == what).map_or(now, |before| before.first);
        Self { what, first, last: now }
    }

    /// How long it is until this is to be asked for; `None`: now.
    fn wait(asked: Option<Self>, what: T, now: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(asked.filter(|asked| asked.what == what)?.last);
        (passed < AGAIN_AFTER).then(|| AGAIN_AFTER.saturating_sub(passed))
    }
}

impl Planned {
    pub fn new(state: ScheduleState, jobs: HashMap<JobId, JobStands>) -> Self {
        let calendar = Calendar::of(&state.schedule);
        if let Err(error) = &calendar {
            tracing::error!(schedule.id = %state.schedule.id, error = %error, "a schedule cannot be read");
        }
        Self {
            state,
            calendar: calendar.ok(),
            next: None,
            jobs,
            said: None,
            submitted: None,
            cancelled: None,
        }
    }

    pub const fn state(&self) -> &ScheduleState {
        &self.state
    }

    /// The jobs whose beginning and end matter to it.
    pub fn jobs_of(state: &ScheduleState) -> impl Iterator<Item = JobId> {
        state.latest.iter().flat_map(|latest| std::iter::once(latest.job).chain(latest.cancelled))
    }

    /// Takes in an event of it. `None`: it is deleted.
    pub fn apply(mut self, event: &Event) -> Option<Self> {
        let schedule = self.state.schedule.clone();
        self.state = ScheduleState::apply(Some(self.state), event)?;
        let Self { state, jobs, .. } = &mut self;
        jobs.retain(|job, _| Self::jobs_of(state).any(|needed| needed == *job));
        if self.state.schedule != schedule {
            self.calendar = Calendar::of(&self.state.schedule).ok();
            self.next = None;
        }
        Some(self)
    }

    /// Takes in how one of its jobs stands.
    pub fn know(&mut self, job: JobId, stands: JobStands) {
        if Self::jobs_of(&self.state).any(|needed| needed == job)
            && self.jobs.get(&job) != Some(&JobStands::Ended)
        {
            self.jobs.insert(job, stands);
        }
    }

    /// What is to be done now.
    pub fn decide(&mut self, turn: &mut Turn<'_>) -> Next<Step> {
        let now = turn.since_boot();
        if let Some(latest) = self.state.latest.clone() {
            if let Some(replaced) = latest.cancelled
                && self.jobs.get(&replaced) == Some(&JobStands::Live)
                && Asked::wait(self.cancelled, replaced, now).is_none()
            {
                return Next::Act(Step::Cancel(replaced));
            }
            if !self.jobs.contains_key(&latest.job) {
                // Nothing else is decided until it is in the log: what becomes of the next depends on it.
                match Asked::wait(self.submitted, latest.job, now) {
                    Some(wait) => return Next::Wait(wait),
                    None if self.was_not_taken(latest.job, now) => {
                        tracing::error!(
                            schedule.id = %self.state.schedule.id,
                            job.id = %latest.job,
                            "the job of a schedule was not taken"
                        );
                        self.jobs.insert(latest.job, JobStands::Ended);
                    }
                    None => return Next::Act(Step::Submit(latest.job, latest.at)),
                }
            }
        }
        let due = if self.state.paused_at.is_none() { self.next() } else { None };
        let step = match (&self.calendar, due) {
            (Some(calendar), Some(due)) => turn.passed(due).map(|late| self.due(calendar, due, late)),
            _ => None,
        };
        match step.or_else(|| self.release()) {
            Some((id, data)) => match Asked::wait(self.said, id, now) {
                Some(wait) => Next::Wait(wait),
                None => Next::Act(Step::Say(id, Box::new(data))),
            },
            None => due.map_or(Next::Rest, |due| Next::Wait(turn.left(due))),
        }
    }

    /// When it is due next.
    fn next(&mut self) -> Option<DateTime<Utc>> {
        let cursor = self.state.cursor;
        if let Some((after, next)) = self.next
            && after == cursor
        {
            return next;
        }
        let next = self.calendar.as_ref()?.next(cursor);
        self.next = Some((cursor, next));
        next
    }

    fn was_not_taken(&self, job: JobId, now: Duration) -> bool {
        let asked = self.submitted.filter(|asked| asked.what == job);
        asked.is_some_and(|asked| now.saturating_sub(asked.first) > GIVE_UP_AFTER)
    }

    /// Notes that it was done.
    pub fn done(&mut self, done: Done, turn: &Turn<'_>) {
        let now = turn.since_boot();
        match done {
            Done::Said(id) => self.said = Some(Asked::again(self.said, id, now)),
            Done::Submitted(job) => self.submitted = Some(Asked::again(self.submitted, job, now)),
            Done::Cancelled(job) => self.cancelled = Some(Asked::again(self.cancelled, job, now)),
        }
    }

    /// A time has come: what is decided.
    fn due(&self, calendar: &Calendar, due: DateTime<Utc>, late: Duration) -> (EventId, EventData) {
        if late > ON_TIME {
            let on_time_from = due + (late.saturating_sub(ON_TIME));
            let mut missed: Vec<DateTime<Utc>> = calendar
                .after(self.state.cursor)
                .take(LOOKED_AT)
                .take_while(|at| *at < on_time_from)
                .collect();
            let kept = match self.state.schedule.catch_up {
                CatchUp::None => 0,
                CatchUp::Last => 1,
                CatchUp::All => MOST_CAUGHT_UP,
            };
            // What is beyond what was looked at comes in the next decision, which finds out what is the last.
            missed.truncate(missed.len().saturating_sub(kept));
            if let (Some(from), Some(until)) = (missed.first(), missed.last()) {
                return self.missed(*from, *until, missed.len());
            }
        }
        self.tick(due)
    }

    fn missed(&self, from: DateTime<Utc>, until: DateTime<Utc>, count: usize) -> (EventId, EventData) {
        let ScheduleState { schedule, epoch, .. } = &self.state;
        let id = EventId::derived(&[
            "schedule-missed",
            &schedule.id.to_string(),
            &epoch.to_string(),
            &from.timestamp().to_string(),
            &until.timestamp().to_string(),
        ]);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let missed = ScheduleMissed { schedule: schedule.id, epoch: *epoch, from, until, count };
        (id, missed.into())
    }

    fn tick(&self, at: DateTime<Utc>) -> (EventId, EventData) {
        let ScheduleState { schedule, epoch, .. } = &self.state;
        let id = EventId::derived(&[
            "schedule-ticked",
            &schedule.id.to_string(),
            &epoch.to_string(),
            &at.timestamp().to_string(),
        ]);
        let outcome = self.outcome(self.state.job_of_tick(at));
        let ticked = ScheduleTicked { schedule: schedule.id, epoch: *epoch, at, outcome };
        (id, ticked.into())
    }

    fn outcome(&self, job: JobId) -> TickOutcome {
        let last_waiting = self.state.waiting.last().map(|waiting| waiting.job);
        match (self.state.schedule.overlap, self.running().or(last_waiting)) {
            (_, None) => TickOutcome::Submitted { job },
            (Overlap::Skip, Some(running)) => TickOutcome::Skipped { running },
            (Overlap::Queue, Some(_)) if self.state.waiting.len() >= ScheduleState::MOST_WAITING => {
                TickOutcome::Full
            }
            (Overlap::Queue, Some(_)) => TickOutcome::Queued { job },
            (Overlap::Replace, Some(_)) => match self.running() {
                Some(cancelled) => TickOutcome::Replaced { job, cancelled },
                None => TickOutcome::Submitted { job },
            },
        }
    }

    /// The last job, unless it has ended. One that is about to be submitted counts as well.
    fn running(&self) -> Option<JobId> {
        let LatestJob { job, .. } = self.state.latest.as_ref()?;
        (self.jobs.get(job) != Some(&JobStands::Ended)).then_some(*job)
    }

    /// The next of those that wait, if its turn has come.
    fn release(&self) -> Option<(EventId, EventData)> {
        let waiting = self.state.waiting.first()?;
        let cancelled = match (self.running(), self.state.schedule.overlap) {
            (None, _) => None,
            (Some(running), Overlap::Replace) => Some(running),
            (Some(_), Overlap::Skip | Overlap::Queue) => return None,
        };
        let schedule = self.state.schedule.id;
        let id = EventId::derived(&["schedule-released", &schedule.to_string(), &waiting.job.to_string()]);
        let released = ScheduleReleased { schedule, job: waiting.job, cancelled };
        Some((id, released.into()))
    }
}
