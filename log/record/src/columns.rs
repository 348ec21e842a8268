//! What rows are found by: written by the store, and compared with the events by whoever verifies it.

use events::{ExecState, SandboxState};
use uuid::Uuid;

/// What the columns of a sandbox's row must be.
pub fn sandbox_columns(state: &SandboxState) -> Vec<Option<String>> {
    vec![
        Some(state.tenant.as_str().to_owned()),
        state.spec.owner.as_deref().map(searchable),
        Some(state.spec.provider.as_str().to_owned()),
        state.node().map(|node| node.as_str().to_owned()),
        Some(i16::from(state.is_terminal()).to_string()),
        Some(state.expires_at.timestamp_micros().to_string()),
    ]
}

/// What the columns of an exec's row must be.
pub fn exec_columns(state: &ExecState) -> Vec<Option<String>> {
    vec![
        Some(state.tenant.as_str().to_owned()),
        Uuid::from_slice(&state.sandbox.as_bytes()[..]).ok().map(|id| id.to_string()),
        Some(i16::from(state.is_over()).to_string()),
        Some(state.started_at.timestamp_micros().to_string()),
    ]
}

/// Text from outside, for a column that it is found by: Postgres has no NUL in its text. The JSON keeps the exact text.
pub fn searchable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// SQL has no unsigned numbers. Nothing real comes near the limit; a hostile offset becomes one past every byte.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
