//! Moments on the command line: a time, how long ago it was, or a position in the log.

use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use events::{Clock as _, SystemClock};

/// A time: `2026-01-02T03:04:05Z`, or `10m` for ten minutes ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(DateTime<Utc>);

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After this position; 0 is before the first event.
    After(u64),
    /// The first event at this time or later.
    At(Time),
}

impl Time {
    /// As the API takes it.
    pub fn wire(self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// In UTC.
    pub const fn utc(self) -> DateTime<Utc> {
        self.0
    }

    fn read(text: &str, now: DateTime<Utc>) -> Result<Self, String> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self(time.with_timezone(&Utc)));
        }
        let ago = spelling::parse_go_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
        ago.and_then(|ago| now.checked_sub_signed(ago)).map(Self).ok_or_else(|| {
            "write a time such as 2026-01-02T03:04:05Z, or how long ago it was: 10m, 1h30m".to_owned()
        })
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, SystemClock.now())
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(position) => Ok(Self::After(position)),
            Err(_) => text.parse().map(Self::At).map_err(|error| format!("not a position; {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago_it_was() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let read = |text: &str| Time::read(text, now).map(Time::wire);
        assert_eq!(read("2026-01-01T01:00:00+01:00").unwrap(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(read("1h30m").unwrap(), "2026-01-02T01:34:05.000000Z");
        assert_eq!(read("250ms").unwrap(), "2026-01-02T03:04:04.750000Z");
        for text in ["", "yesterday", "-5m", "5", "2026-01-01"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_a_position() {
        assert_eq!("0".parse(), Ok(Start::After(0)));
        assert_eq!("18446744073709551615".parse(), Ok(Start::After(u64::MAX)));
        assert!(matches!("10m".parse(), Ok(Start::At(_))));
        assert!("-1".parse::<Start>().is_err());
    }
}
