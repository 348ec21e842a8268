use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{Position, RetentionClass};

use crate::StoreError;

/// What keeps a store in order: what retention asks of it, and its end.
#[async_trait]
pub trait Upkeep: std::fmt::Debug + Send + Sync + 'static {
    /// What time the database says it is, where it has a clock that may be another than ours.
    async fn clock(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }

    /// The first event of the oldest sandbox or exec that is not terminal.
    async fn first_live(&self) -> Result<Option<Position>, StoreError>;

    /// Drops some of what is at or below the floor of a class, the oldest first. Zero: there is nothing left to drop.
    /// Bounded, so that appends come in between.
    async fn drop_some(&self, class: RetentionClass) -> Result<u64, StoreError>;

    /// Ends all connections, after which the files of the store are complete by themselves. It is of no use afterwards.
    async fn close(&self) {}
}
