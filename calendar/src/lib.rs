//! When schedules are due: from a rule, a time zone and an instant to the next instants. Pure functions: no clock, no I/O.
//!
//! A rule is a line of cron, a length of time, or one instant. What a day is where the clock is changed is decided the way Vixie's
//! cron decides it, whose rule people know:
//!
//! - A rule with **fixed times** (none of its fields for seconds, minutes and hours begins with `*`) is about the clock on the wall.
//!   A time that the wall clock skips is due right after the gap; a time that it shows twice is due the first time only. A day in the
//!   rule is a day on which something happens, once.
//! - A rule that is **an interval** (one of these fields begins with `*`) is about elapsed time. It matches whatever the clock on the
//!   wall shows, whenever it shows it: nothing is made up for where the wall clock skips, and both passes count where it goes back.
//!
//! The rules of time zones are those that this build brings along. What is due does not depend on the machine, and a name from
//! outside never becomes the path of a file.

mod cron;
mod due;
mod error;
#[cfg(test)]
mod tests;
mod zone;

pub use cron::{MAX_EXPRESSION, SHORTEST};
pub use due::{Calendar, HORIZON, LONGEST};
pub use error::TimingError;
pub use zone::Zone;
