//! The endpoints: one resource a folder, one endpoint a file.

pub mod audit;
pub mod events;
pub mod execs;
pub mod files;
pub mod health;
pub mod metrics;
pub mod pool;
pub mod providers;
pub mod quotas;
pub mod range;
pub mod sandboxes;
pub mod snapshots;
pub mod system;
pub mod templates;
pub mod tickets;
pub mod webhooks;

use serde::Serialize;
use utoipa::ToSchema;

/// A word that says what happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// The word.
    pub status: &'static str,
}

impl Status {
    /// An answer of one word.
    pub const fn json(status: &'static str) -> axum::Json<Self> {
        axum::Json(Self { status })
    }
}
