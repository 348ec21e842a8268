//! A point of the past, as clients name it: by a position of the log, or by the time.

use chrono::{DateTime, TimeDelta, Utc};
use events::Position;

use crate::error::ApiError;
use crate::gateway::Gateway;

/// A point in the past that a client asks about: by the clock, or by a position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// With all events up to this one, and none after it.
    Position(Position),
    /// With all that had happened by then.
    Time(DateTime<Utc>),
}

impl Moment {
    /// Reads what a parameter says: a number is a position, anything else an RFC 3339 time.
    pub fn read(text: &str, name: &'static str) -> Result<Self, ApiError> {
        let wrong = || ApiError::bad_request(format!("{name} must be a position or an RFC 3339 time"));
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // 63 bits are what every database counts in.
            let position = text.parse::<i64>().map_err(|_| wrong())?;
            return Ok(Self::Position(Position(position.unsigned_abs())));
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?;
        Ok(Self::Time(time.with_timezone(&Utc)))
    }

    /// The last position that belongs to it: what lies ahead is read as the present.
    pub async fn last(self, gateway: &Gateway) -> Result<Position, ApiError> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(time) => {
                // Events have their times in microseconds.
                let after = time.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(time);
                let first = gateway.store().position_at(after).await.map_err(ApiError::store)?;
                Ok(Position(first.0.saturating_sub(1)))
            }
        }
    }

    /// The first position that belongs to what follows from it on.
    pub async fn first(self, gateway: &Gateway) -> Result<Position, ApiError> {
        match self {
            Self::Position(position) => Ok(position),
            Self::Time(time) => gateway.store().position_at(time).await.map_err(ApiError::store),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_position_and_the_rest_is_time() {
        assert_eq!(Moment::read("17", "at").unwrap(), Moment::Position(Position(17)));
        let time = DateTime::from_timestamp(1_750_000_000, 500_000_000).unwrap();
        assert_eq!(Moment::read("2025-06-15T15:06:40.5Z", "at").unwrap(), Moment::Time(time));
        assert_eq!(Moment::read("2025-06-15T17:06:40.5+02:00", "at").unwrap(), Moment::Time(time));
        for bad in ["", "now", "-1", "1.5", "+1", "9223372036854775808", "2025-06-15", "2025-06-15T15:06:40"]
        {
            assert!(Moment::read(bad, "at").is_err(), "{bad}");
        }
    }
}
