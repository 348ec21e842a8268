//! Sandboxes as they were.

use api_types::{Open, PastSandbox, Sandbox};
use chrono::{DateTime, Utc};
use events::{DestroyReason, SandboxPhase, SandboxState};
use record::Past;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::shown_at;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::moment::Moment;

/// When.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AtQuery {
    /// As it was then: after the event of this position, or at this time (RFC 3339). Now, when absent.
    pub at: Option<String>,
}

impl AtQuery {
    /// The moment that is asked for, if any.
    pub fn read(&self) -> Result<Option<Moment>, ApiError> {
        self.at.as_deref().map(|text| Moment::read(text, "at")).transpose()
    }
}

/// A sandbox, now or then.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Shown {
    /// As it is.
    Now(Sandbox),
    /// As it was.
    Then(PastSandbox),
}

/// The same as clients see it.
pub fn answer(past: Past<SandboxState>, moment: Moment, gateway: &Gateway) -> PastSandbox {
    // A deadline had passed, or not, by the clock of then.
    let now = match moment {
        // What has not come yet is not known: then it is now.
        Moment::Time(time) => time.min(gateway.clock().now()),
        Moment::Position(_) => past.changed_at,
    };
    let (_, reason) = end(&past.state);
    PastSandbox {
        sandbox: shown_at(&past.state, now),
        position: past.position.0,
        changed_at: past.changed_at,
        reason: reason.map(reason_name),
    }
}

/// The word of the API for why a sandbox was destroyed.
pub fn reason_name(reason: DestroyReason) -> Open<api_types::DestroyReason> {
    Open::read(reason.as_str())
}

/// When it ended, and why it was destroyed.
pub const fn end(state: &SandboxState) -> (Option<DateTime<Utc>>, Option<DestroyReason>) {
    match state.phase {
        SandboxPhase::Destroyed { reason, at } => (Some(at), Some(reason)),
        SandboxPhase::Failed { at, .. } => (Some(at), None),
        SandboxPhase::Requested | SandboxPhase::Starting { .. } | SandboxPhase::Running { .. } => {
            (None, None)
        }
    }
}
