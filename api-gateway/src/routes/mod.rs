//! The endpoints: one resource a folder, one endpoint a file.

pub mod audit;
pub mod events;
pub mod execs;
pub mod files;
pub mod health;
pub mod jobs;
pub mod metrics;
pub mod pool;
pub mod providers;
pub mod quotas;
pub mod range;
pub mod sandboxes;
pub mod schedules;
pub mod snapshots;
pub mod system;
pub mod templates;
pub mod tickets;
pub mod webhooks;

use std::borrow::Cow;

use api_types::Reply;
use axum::Json;

/// An answer of one word: what was asked for is done.
pub const fn done(status: &'static str) -> Json<Reply> {
    Json(Reply { status: Cow::Borrowed(status) })
}
