//! What a schedule goes by.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};
use events::{Schedule, Timing};

use crate::cron::{CronRule, HORIZON_SECONDS, SHORTEST};
use crate::{TimingError, Zone};

/// How far ahead a rule is followed: past the longest time between two 29ths of February that are the same day of the week.
pub const HORIZON: Duration = Duration::from_secs(HORIZON_SECONDS as u64);
/// The longest time between two ticks of a length of time.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar(Rule);

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Cron(Box<CronRule>, Zone),
    Every { seconds: i64, anchor: i64 },
    Once(i64),
}

impl Calendar {
    /// That of a schedule in the log. A rule that a newer build took may not be one of this build's.
    pub fn of(schedule: &Schedule) -> Result<Self, TimingError> {
        match &schedule.timing {
            Timing::Cron(expression) => Self::cron(expression, &Zone::new(&schedule.timezone)?),
            Timing::Every { seconds, anchor } => Self::every(Duration::from_secs(*seconds), *anchor),
            Timing::At(at) => Ok(Self::once(*at)),
        }
    }

    /// By a line of cron: five fields, six with seconds in front, or a word such as `@daily`.
    ///
    /// Fields have numbers, names (`MON`, `jan`), lists, ranges and steps. In the day of the month `L` is the last one and `15W` the
    /// working day closest to the 15th; in the day of the week `5#2` is the second Friday and `5L` the last; `?` is `*`. Where both
    /// days are given, either will do; with a `+` before the day of the week, both must be right.
    pub fn cron(expression: &str, zone: &Zone) -> Result<Self, TimingError> {
        let rule = CronRule::new(expression)?;
        // Whether there is ever a match depends on the calendar and not on the day of asking, as the horizon is long enough.
        rule.next(zone, 0).ok_or(TimingError::Never)?;
        Ok(Self(Rule::Cron(Box::new(rule), zone.clone())))
    }

    /// Each time that a length of time has passed since an instant, first one such length after it. However late one is dealt with,
    /// the next does not move.
    pub fn every(length: Duration, anchor: DateTime<Utc>) -> Result<Self, TimingError> {
        if length.subsec_nanos() != 0 {
            return Err(TimingError::Fraction);
        }
        if length < SHORTEST {
            return Err(TimingError::TooOften(length));
        }
        if length > LONGEST {
            return Err(TimingError::TooRare);
        }
        let seconds = i64::try_from(length.as_secs()).map_err(|_| TimingError::TooRare)?;
        Ok(Self(Rule::Every { seconds, anchor: anchor.timestamp() }))
    }

    /// Once. Parts of a second are left out.
    pub fn once(at: DateTime<Utc>) -> Self {
        Self(Rule::Once(at.timestamp()))
    }

    /// Reads a time for [`once`](Self::once): what the clock on the wall shows in a zone (`2027-03-28T02:30:00`), or an instant with
    /// its offset from UTC behind it.
    pub fn time(text: &str, zone: &Zone) -> Result<DateTime<Utc>, TimingError> {
        if text.len() > 64 {
            return Err(TimingError::Time);
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(at.to_utc().trunc_subsecs(0));
        }
        let wall = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
            .into_iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
        wall.and_then(|wall| zone.instant(wall)).ok_or(TimingError::Time)
    }

    /// The first time that it is due after an instant: a whole second. `None`: never again, or not within the [`HORIZON`].
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = after.timestamp();
        let at = match &self.0 {
            Rule::Cron(rule, zone) => rule.next(zone, after)?,
            Rule::Every { seconds, anchor } => {
                let passed = after.checked_sub(*anchor)?.max(0).div_euclid(*seconds);
                anchor.checked_add(passed.checked_add(1)?.checked_mul(*seconds)?)?
            }
            Rule::Once(at) => Some(*at).filter(|at| *at > after)?,
        };
        DateTime::from_timestamp(at, 0)
    }

    /// The times that it is due after an instant, in order. Without an end, unless it is for once.
    pub fn after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next(after), |at| self.next(*at))
    }
}
