use std::time::Duration;

use crate::{LONGEST, MAX_EXPRESSION, SHORTEST};

/// Why something does not say when a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A time zone that the IANA database does not have.
    #[error("{0:?} is no time zone of the IANA database, such as Europe/Berlin or UTC")]
    Zone(String),
    /// More characters than any rule needs.
    #[error("a cron expression has {MAX_EXPRESSION} characters at most")]
    TooLong,
    /// Not a line of cron.
    #[error("not a cron expression: {0}")]
    Syntax(String),
    /// The 30th of February.
    #[error("the rule matches no day of the next 40 years")]
    Never,
    /// Closer together than is allowed.
    #[error("the rule is due every {}: at most every {} is allowed", seconds(.0), seconds(&SHORTEST))]
    TooOften(Duration),
    /// A length of time that is too great.
    #[error("a schedule is due every {} at the longest", seconds(&LONGEST))]
    TooRare,
    /// Not a length of whole seconds.
    #[error("a schedule is due at whole seconds")]
    Fraction,
    /// Not a time.
    #[error(
        "not a time: 2027-03-28T02:30:00 in the schedule's time zone, or with an offset from UTC behind it"
    )]
    Time,
}

fn seconds(length: &Duration) -> String {
    format!("{} s", length.as_secs())
}
