//! How people write things: lengths of time, and names that are nearly right.

mod duration;
mod nearest;

pub use duration::{DurationError, format_go_duration, parse_go_duration};
pub use nearest::nearest;
