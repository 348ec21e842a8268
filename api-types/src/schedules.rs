//! Jobs that are submitted when their time has come.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::word::{Open, words};

words! {
    /// What happens when a schedule is due while its last job has not ended.
    ScheduleOverlap {
        /// Nothing.
        Skip => "skip",
        /// Its job is submitted when the one before has ended.
        Queue => "queue",
        /// The one before is cancelled.
        Replace => "replace",
    }
}

words! {
    /// What happens to the times that passed while no server was there.
    ScheduleCatchUp {
        /// They are missed.
        None => "none",
        /// The last of them counts, late.
        Last => "last",
        /// All of them count, late; of more than 100, the last 100.
        All => "all",
    }
}

words! {
    /// Where a schedule stands.
    ScheduleState {
        /// Its time will come.
        Active => "active",
        /// Nothing is due until it is resumed.
        Paused => "paused",
        /// Its time was, and will not come again.
        Done => "done",
    }
}

words! {
    /// What was decided when the time of a schedule had come.
    TickOutcome {
        /// A job was submitted.
        Submitted => "submitted",
        /// A job waits until those before it have ended.
        Queued => "queued",
        /// A job was submitted, and the one before cancelled.
        Replaced => "replaced",
        /// The one before had not ended.
        Skipped => "skipped",
        /// As many waited as may wait.
        Full => "full",
    }
}

/// A schedule to be. One of `cron`, `every` and `at` says when it is due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleRequest {
    /// 1 to 64 characters of a-z, A-Z, 0-9, `.`, `_` and `-`, not beginning with a dot. No two of a tenant's are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub name: Option<String>,
    /// Five fields of cron (minute, hour, day of the month, month, day of the week), six with seconds in front of them, or a word
    /// such as `@daily`; at most every 10 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "30 2 * * MON-FRI"))]
    pub cron: Option<String>,
    /// A Go duration of whole seconds, from 10 seconds to 366 days, counted from when the schedule was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "15m"))]
    pub every: Option<String>,
    /// Once: an instant, or what the clock on the wall shows in the time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "2030-03-31T02:30:00"))]
    pub at: Option<String>,
    /// The time zone of `cron` and `at`, by its IANA name; `UTC` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "Europe/Berlin"))]
    pub timezone: Option<String>,
    /// What happens when it is due while its last job has not ended: `skip` (the default), `queue` or `replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// What happens to times that passed while no server was there: `none` (the default), `last` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<String>,
    /// The request of its jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<Object>))]
    pub job: Option<ScheduledJob>,
}

/// The request of a job, as it came. `Debug` shows the names of its fields.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScheduledJob(pub Map<String, Value>);

impl fmt::Debug for ScheduledJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A schedule and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// Unique.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// `active`, `paused` or `done` (it was for once, and is over).
    #[cfg_attr(feature = "openapi", schema(value_type = ScheduleState))]
    pub state: Open<ScheduleState>,
    /// The line of cron that it goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The length of time that it goes by, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// The instant of one that is for once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The time zone, by its IANA name.
    pub timezone: String,
    /// `skip`, `queue` or `replace`.
    #[cfg_attr(feature = "openapi", schema(value_type = ScheduleOverlap))]
    pub overlap: Open<ScheduleOverlap>,
    /// `none`, `last` or `all`.
    #[cfg_attr(feature = "openapi", schema(value_type = ScheduleCatchUp))]
    pub catch_up: Open<ScheduleCatchUp>,
    /// The request of its jobs, with `****` for what is not shown: values of variables, contents of files and the like.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub job: Value,
    /// The next times that it is due, five at most, in its time zone; none while it is paused.
    pub next: Vec<String>,
    /// The user whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was made, changed, paused or resumed last.
    pub updated_at: String,
    /// Since when it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<String>,
    /// The last time that had come, and what was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_tick: Option<ScheduleTick>,
    /// The last times that were missed and not made up for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_missed: Option<MissedTicks>,
    /// The job that was submitted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_job: Option<String>,
    /// How many jobs wait for those before them.
    pub waiting: u32,
}

/// A time that had come, and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleTick {
    /// When it was due.
    pub at: String,
    /// What was decided.
    #[cfg_attr(feature = "openapi", schema(value_type = TickOutcome))]
    pub outcome: Open<TickOutcome>,
    /// The job that was or will be submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The one before, which was cancelled for it, or because of which nothing was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
}

/// Times that passed while no server was there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissedTicks {
    /// The first of them.
    pub from: String,
    /// The last of them.
    pub until: String,
    /// How many.
    pub count: u32,
}

/// All schedules of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleList {
    /// The oldest first.
    pub schedules: Vec<Schedule>,
}

/// What came of a request for a job at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TriggeredJob {
    /// The job. It is there as soon as the one before it has ended, and at once if there is none or it is replaced.
    pub job: String,
}
