//! Time zones, as stretches of time in which the offset from UTC stays the same.

use chrono::{DateTime, NaiveDateTime, Utc};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::TimingError;

const DAY: i64 = 24 * 3600;

/// A time zone of the IANA database. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone(TimeZone);

/// The clock on the wall is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What is added to UTC from then on, in seconds.
    pub offset: i64,
}

impl Zone {
    /// The zone of this name. Capital and small letters are the same.
    pub fn new(name: &str) -> Result<Self, TimingError> {
        let unknown = || TimingError::Zone(name.chars().take(64).collect());
        if name.is_empty() || name.len() > 64 {
            return Err(unknown());
        }
        TimeZone::get(name).map(Self).map_err(|_| unknown())
    }

    /// UTC.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The name, as the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the clock on the wall shows at an instant.
    pub fn wall(&self, at: DateTime<Utc>) -> NaiveDateTime {
        let wall = at.timestamp() + self.offset(at.timestamp());
        DateTime::from_timestamp(wall, 0).unwrap_or(at).naive_utc()
    }

    /// When the clock on the wall shows this: the first time, if it does so twice; right after, if it skips it. Whole seconds.
    pub fn instant(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let wall = wall.and_utc().timestamp();
        // No zone is as far from UTC as that: from here on it is looked for forwards.
        let mut from = wall - 2 * DAY;
        let mut offset = self.offset(from);
        // Every step is one change of the clock, and there are few in four days.
        for _ in 0..16 {
            match self.change_after(from) {
                Some(change) if wall - offset >= change.at => {
                    if wall < change.at + change.offset {
                        return DateTime::from_timestamp(change.at, 0);
                    }
                    (from, offset) = (change.at, change.offset);
                }
                _ => return DateTime::from_timestamp(wall - offset, 0),
            }
        }
        None
    }

    /// What is added to UTC at an instant.
    pub(crate) fn offset(&self, at: i64) -> i64 {
        Timestamp::from_second(at).map_or(0, |at| i64::from(self.0.to_offset(at).seconds()))
    }

    /// The next change after an instant.
    pub(crate) fn change_after(&self, at: i64) -> Option<Change> {
        let change = self.0.following(Timestamp::from_second(at).ok()?).next()?;
        Some(Change { at: change.timestamp().as_second(), offset: i64::from(change.offset().seconds()) })
    }

    /// Until when the clock on the wall shows at this instant what it has shown before, as it shows it itself; `None` if it does not.
    pub(crate) fn repeats_until(&self, at: i64) -> Option<i64> {
        let next = Timestamp::from_second(at.checked_add(1)?).ok()?;
        let change = self.0.preceding(next).next()?;
        let (changed_at, after) = (change.timestamp().as_second(), i64::from(change.offset().seconds()));
        let before = self.offset(changed_at - 1);
        (at + after < changed_at + before).then_some(changed_at + before)
    }
}
