//! A store on top of another: all goes through, but for what the layer does itself.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{
    ChainPoint, EventId, ExecId, Key, Kind, OutputStream, Position, RetentionClass, SandboxId, TenantId,
};

use crate::{
    AppendBatch, AppendError, ChainedFrame, DataKey, EventQuery, EventStore, Floor, FoundEvent, Head,
    OutputChunk, Protection, RowQuery, StoreError, StoredRow, WholeRow,
};

/// What a layer may do otherwise than the store under it. Everything has a default: the store under it does it.
#[async_trait]
pub trait Layer: std::fmt::Debug + Send + Sync + 'static {
    /// The store under it.
    fn under(&self) -> &dyn EventStore;

    /// See [`EventStore::head`].
    async fn head(&self) -> Result<Head, StoreError> {
        self.under().head().await
    }

    /// See [`EventStore::append`].
    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        self.under().append(batch).await
    }

    /// See [`EventStore::events`].
    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        self.under().events(query).await
    }

    /// See [`EventStore::rows`].
    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        self.under().rows(query).await
    }
}

/// A layer as a store.
#[derive(Debug)]
pub struct Layered<L>(pub L);

#[async_trait]
impl<L: Layer> EventStore for Layered<L> {
    async fn head(&self) -> Result<Head, StoreError> {
        self.0.head().await
    }

    async fn clock(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.0.under().clock().await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        self.0.append(batch).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        self.0.events(query).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        self.0.under().position_at(time).await
    }

    async fn read_chain(
        &self,
        tenant: Option<&TenantId>,
        after: Position,
        up_to: Position,
        limit: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError> {
        self.0.under().read_chain(tenant, after, up_to, limit).await
    }

    async fn chain_ends(&self, tenant: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        self.0.under().chain_ends(tenant).await
    }

    async fn output_start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError> {
        self.0.under().output_start(exec, stdout_offset, stderr_offset).await
    }

    async fn output(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        self.0.under().output(exec, stream, offset, max_bytes).await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        self.0.rows(query).await
    }

    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError> {
        self.0.under().live_rows(kind).await
    }

    async fn whole_row(&self, kind: &'static str, key: &Key) -> Result<Option<WholeRow>, StoreError> {
        self.0.under().whole_row(kind, key).await
    }

    async fn next_key(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError> {
        self.0.under().next_key(kind, after).await
    }

    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        self.0.under().known_ids(ids).await
    }

    async fn data_keys(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError> {
        self.0.under().data_keys(sandboxes).await
    }

    async fn has_data_keys(&self) -> Result<bool, StoreError> {
        self.0.under().has_data_keys().await
    }

    async fn protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError> {
        self.0.under().protection(sandbox).await
    }

    async fn floors(&self) -> Result<Vec<Floor>, StoreError> {
        self.0.under().floors().await
    }

    async fn first_live(&self) -> Result<Option<Position>, StoreError> {
        self.0.under().first_live().await
    }

    async fn drop_some(&self, class: RetentionClass) -> Result<u64, StoreError> {
        self.0.under().drop_some(class).await
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        self.0.under().tidy().await
    }

    async fn close(&self) {
        self.0.under().close().await;
    }
}
