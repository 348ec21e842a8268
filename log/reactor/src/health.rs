//! How a reactor is doing, for whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use events::Position;

/// How a reactor is doing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Status>>);

/// What it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this process is the one that works.
    pub holds: bool,
    /// Everything up to here was taken in.
    pub position: Position,
    /// How many events there are after that.
    pub lag: u64,
    /// The cursor that is kept: everything up to here is done. `None` where none is.
    pub cursor: Option<Position>,
    /// Entities that wait for their turn.
    pub waiting: usize,
    /// Effects that are under way.
    pub in_flight: usize,
    /// Entities whose last effect failed.
    pub failing: usize,
    /// What went wrong last, and when.
    pub last_error: Option<(DateTime<Utc>, String)>,
}

impl Health {
    /// What it is at now.
    pub fn status(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the metrics of all reactors are called.
pub(crate) const LAG: &str = "stacyvm_reactor_lag_events";
pub(crate) const FAILING: &str = "stacyvm_reactor_entities_failing";
pub(crate) const EFFECTS: &str = "stacyvm_reactor_effects_total";
/// What becomes of an effect.
pub(crate) const OUTCOMES: [&str; 3] = ["done", "failed", "dropped"];

/// Says what the metrics are, and gives them their first values: they are there from the first scrape on.
pub(crate) fn describe(name: &'static str) {
    metrics::describe_gauge!(LAG, "Recorded events that a reactor has not looked at");
    metrics::describe_gauge!(FAILING, "Entities of a reactor whose last effect failed and is tried again");
    metrics::describe_counter!(EFFECTS, "Effects of a reactor, by what became of them");
    metrics::gauge!(LAG, "reactor" => name).set(0.0);
    metrics::gauge!(FAILING, "reactor" => name).set(0.0);
    for outcome in OUTCOMES {
        metrics::counter!(EFFECTS, "reactor" => name, "outcome" => outcome).increment(0);
    }
}
