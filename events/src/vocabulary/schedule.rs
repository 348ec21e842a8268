//! Schedules: jobs that are submitted when their time has come.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{JobSpec, SecretMap};
use crate::{EventId, JobId, ScheduleId, TenantId};

words! {
    /// What happens to a schedule.
    Schedule(ScheduleEvent) {
        Created(ScheduleCreated) = "schedule.created",
        Updated(ScheduleUpdated) = "schedule.updated",
        Deleted(ScheduleDeleted) = "schedule.deleted",
        Paused(SchedulePaused) = "schedule.paused",
        Resumed(ScheduleResumed) = "schedule.resumed",
        Triggered(ScheduleTriggered) = "schedule.triggered",
        Ticked(ScheduleTicked) = "schedule.ticked",
        Missed(ScheduleMissed) = "schedule.missed",
        Released(ScheduleReleased) = "schedule.released",
    }
}

impl ScheduleEvent {
    /// Which schedule it is about.
    pub const fn schedule(&self) -> ScheduleId {
        match self {
            Self::Created(ScheduleCreated { schedule }) | Self::Updated(ScheduleUpdated { schedule }) => {
                schedule.id
            }
            Self::Deleted(ScheduleDeleted { schedule })
            | Self::Paused(SchedulePaused { schedule })
            | Self::Resumed(ScheduleResumed { schedule })
            | Self::Triggered(ScheduleTriggered { schedule, .. })
            | Self::Ticked(ScheduleTicked { schedule, .. })
            | Self::Missed(ScheduleMissed { schedule, .. })
            | Self::Released(ScheduleReleased { schedule, .. }) => *schedule,
        }
    }
}

/// A job, and when it is to be submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Which one.
    pub id: ScheduleId,
    /// What its owner calls it; no two of a tenant's have the same name.
    pub name: String,
    /// The user of the tenant whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it is due.
    pub timing: Timing,
    /// The time zone whose clock on the wall a line of cron is about, by its IANA name.
    pub timezone: String,
    /// What happens when it is due while its last job has not ended.
    pub overlap: Overlap,
    /// What happens to the times that passed while nobody was there.
    pub catch_up: CatchUp,
    /// The request of its jobs as it may be shown: without values of variables, contents of files and the like.
    pub job: Value,
    /// What they are to do, with all values ([`ScheduledWork`] as JSON), sealed under the master key for this schedule
    /// ([`seal_context`](Self::seal_context)).
    pub sealed: String,
}

impl Schedule {
    /// The purpose that the work of schedules is sealed for.
    pub const SEAL_PURPOSE: &'static str = "schedule";

    /// What ties sealed work to one schedule.
    pub fn seal_context(tenant: &TenantId, id: ScheduleId) -> String {
        format!("{tenant}/{id}")
    }
}

/// What the jobs of a schedule are to do. It is never in an event as it is: only sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduledWork {
    /// What a job of it is submitted with.
    pub spec: Box<JobSpec>,
    /// The values of the environment variables.
    #[serde(default)]
    pub env: SecretMap,
    /// What a job of it is really to do, where what is masked in `spec` made it something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<Box<JobSpec>>,
}

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// By a line of cron.
    Cron(String),
    /// Each time that a length of time has passed.
    Every {
        /// How long, in seconds.
        seconds: u64,
        /// What it is counted from.
        anchor: DateTime<Utc>,
    },
    /// Once.
    At(DateTime<Utc>),
}

/// What happens when a schedule is due while its last job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Nothing.
    Skip,
    /// Its job is submitted when the one before has ended.
    Queue,
    /// The one before is cancelled.
    Replace,
}

/// What happens to the times that passed while nobody was there to submit a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are missed.
    None,
    /// The last of them counts, late.
    Last,
    /// All of them count, late; of very many, the last ones.
    All,
}

/// `schedule.created`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleCreated {
    /// All of it.
    pub schedule: Schedule,
}

/// `schedule.updated`: replaced. What was due until then is dealt with or forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleUpdated {
    /// All of it.
    pub schedule: Schedule,
}

/// `schedule.deleted`: nothing is submitted any more. Its jobs stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleDeleted {
    /// Which one.
    pub schedule: ScheduleId,
}

/// `schedule.paused`: nothing is due until it is resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchedulePaused {
    /// Which one.
    pub schedule: ScheduleId,
}

/// `schedule.resumed`: what would have been due in between is not made up for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleResumed {
    /// Which one.
    pub schedule: ScheduleId,
}

/// `schedule.triggered`: somebody wants its job now. It waits until the one before has ended, unless it replaces that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleTriggered {
    /// Which one.
    pub schedule: ScheduleId,
    /// What the job will be.
    pub job: JobId,
}

/// `schedule.ticked`: its time had come, and this was decided. For each time of a schedule there is at most one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleTicked {
    /// Which one.
    pub schedule: ScheduleId,
    /// The event that it stands as it was decided upon: created, updated, paused or resumed.
    pub epoch: EventId,
    /// The time that had come.
    pub at: DateTime<Utc>,
    /// What was decided.
    #[serde(flatten)]
    pub outcome: TickOutcome,
}

/// What was decided when the time of a schedule had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TickOutcome {
    /// A job is submitted.
    Submitted {
        /// Which one.
        job: JobId,
    },
    /// A job is submitted when those before it have ended.
    Queued {
        /// Which one.
        job: JobId,
    },
    /// A job is submitted, and the one before is cancelled.
    Replaced {
        /// Which one.
        job: JobId,
        /// The one before.
        cancelled: JobId,
    },
    /// Nothing is submitted: the one before has not ended.
    Skipped {
        /// The one before.
        running: JobId,
    },
    /// Nothing is submitted: as many wait as may wait.
    Full,
}

/// `schedule.missed`: times passed while nobody was there, and are not made up for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleMissed {
    /// Which one.
    pub schedule: ScheduleId,
    /// The event that it stands as it was decided upon.
    pub epoch: EventId,
    /// The first of them.
    pub from: DateTime<Utc>,
    /// The last of them.
    pub until: DateTime<Utc>,
    /// How many.
    pub count: u32,
}

/// `schedule.released`: a job that waited is submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleReleased {
    /// Which one.
    pub schedule: ScheduleId,
    /// Which job.
    pub job: JobId,
    /// The one before, which is cancelled for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<JobId>,
}
