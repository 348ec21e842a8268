//! A line of cron, on the clock on the wall and on the line of time.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::{TimingError, Zone};

/// No two times that a schedule is due are closer together, but for those that a change of the clock moves together.
pub const SHORTEST: Duration = Duration::from_secs(10);
/// The [`HORIZON`](crate::HORIZON), in seconds.
pub(crate) const HORIZON_SECONDS: i64 = 40 * 366 * 24 * 3600;
/// The length of an expression, in characters.
pub const MAX_EXPRESSION: usize = 256;

/// A line of cron that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CronRule {
    cron: Cron,
    /// It is about elapsed time, and not about the clock on the wall.
    is_interval: bool,
}

impl CronRule {
    /// Reads five fields, or six with seconds before them, or a word such as `@daily`.
    pub fn new(expression: &str) -> Result<Self, TimingError> {
        if expression.chars().count() > MAX_EXPRESSION {
            return Err(TimingError::TooLong);
        }
        let expression = match expression.trim() {
            word if word.eq_ignore_ascii_case("@midnight") => "@daily",
            other => other,
        };
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| TimingError::Syntax(error.to_string()))?;
        let fields: Vec<&str> = expression.split_whitespace().collect();
        // The last three are days. Of a word there is one field, and only one of them is an interval.
        let times = fields.get(..fields.len().saturating_sub(3)).unwrap_or_default();
        let is_interval = expression.eq_ignore_ascii_case("@hourly")
            || (fields.len() > 1 && times.iter().any(|field| field.starts_with('*')));
        let rule = Self { cron, is_interval };
        match rule.closest() {
            closest if closest < SHORTEST => Err(TimingError::TooOften(closest)),
            _ => Ok(rule),
        }
    }

    /// How close together two matches can be.
    fn closest(&self) -> Duration {
        let pattern = &self.cron.pattern;
        let (seconds, minutes, hours) =
            (pattern.seconds.values(), pattern.minutes.values(), pattern.hours.values());
        let follows = |values: &[u16]| values.windows(2).any(|pair| pair[1] == pair[0] + 1);
        let wraps = |values: &[u16], last: u16| values.first() == Some(&0) && values.last() == Some(&last);
        // Whether something can match in a minute and in the one after it.
        let next_minute =
            follows(&minutes) || (wraps(&minutes, 59) && (follows(&hours) || wraps(&hours, 23)));
        let inside = seconds.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(60);
        let across = match (seconds.first(), seconds.last()) {
            (Some(first), Some(last)) if next_minute => 60 - last + first,
            _ => 60,
        };
        Duration::from_secs(inside.min(across).into())
    }

    /// The first instant after another one at which it is due; both in seconds since 1970.
    pub fn next(&self, zone: &Zone, after: i64) -> Option<i64> {
        let limit = after.checked_add(HORIZON_SECONDS)?;
        let (mut from, mut offset) = (after, zone.offset(after));
        let (mut wall, mut inclusive) = (after + offset, false);
        if !self.is_interval
            && let Some(until) = zone.repeats_until(after)
        {
            (wall, inclusive) = (until, true);
        }
        let mut found = self.next_on_wall(wall, inclusive)?;
        // Stretch by stretch: within each the clock on the wall and the line of time go the same way.
        while from <= limit {
            let change = match zone.change_after(from) {
                Some(change) if found - offset >= change.at => change,
                _ => return Some(found - offset).filter(|at| *at <= limit),
            };
            let (shown_before, shown_after) = (change.at + offset, change.at + change.offset);
            if self.is_interval {
                // What was found is still the first, unless the wall clock goes back and shows something again.
                if found < shown_after || shown_after < shown_before {
                    found = self.next_on_wall(shown_after, true)?;
                }
            } else if found < shown_after {
                return Some(change.at);
            } else if found < shown_before.max(shown_after) {
                found = self.next_on_wall(shown_before.max(shown_after), true)?;
            }
            (from, offset) = (change.at, change.offset);
        }
        None
    }

    /// The first match on the clock on the wall, in seconds as if it were UTC's.
    fn next_on_wall(&self, wall: i64, inclusive: bool) -> Option<i64> {
        let wall: NaiveDateTime = DateTime::from_timestamp(wall, 0)?.naive_utc();
        let found = self.cron.find_next_occurrence(&wall, inclusive).ok()?;
        Some(found.and_utc().timestamp())
    }
}
