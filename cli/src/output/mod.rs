//! What people and programs see: tables, JSON, progress bars, and errors on stderr.

mod live;
mod piece;
mod progress;
mod style;
mod table;
mod text;

pub use live::{Filter, LiveOutput, Room, Target};
pub use piece::OutputLine;
pub use progress::{PullBar, TransferBar};
pub use style::Style;
pub use table::Table;
pub use text::{age, bytes, is_direction, json, plain};

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::telemetry;

/// How long is waited for whoever reads stderr. Where nobody does, there is nobody to tell either.
const STDERR_PATIENCE: Duration = Duration::from_secs(2);

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes to stdout at once. This and [`LiveOutput`] are the only writers of stdout.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", json(&serde_json::to_string_pretty(value)?)))
}

/// Prints a value as one line of JSON.
pub fn print_json_line(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", json(&serde_json::to_string(value)?)))
}

/// Says something on stderr that is not a result.
pub fn note(message: &str) {
    telemetry::say(&format!("stacyvm: {}\n", plain(message)), STDERR_PATIENCE);
}

/// Says on stderr, below what went wrong, what to do about it.
pub fn remedy(message: &str) {
    telemetry::say(&format!("{}\n", plain(message)), STDERR_PATIENCE);
}

/// Says on stderr what went wrong, with its causes.
pub fn error(error: &anyhow::Error) {
    let style = Style::of(&io::stderr());
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Many libraries repeat their source in their own text.
        if !last.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        last = cause;
    }
    telemetry::say(&format!("{} {}\n", style.red("stacyvm:"), text::lines(&text)), STDERR_PATIENCE);
}
