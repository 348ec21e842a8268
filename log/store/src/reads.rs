//! The store as everybody sees it, for both databases. The SQL is plain enough to be the same text for both, so that there is one
//! query to get right and not two.

use chrono::{DateTime, Utc};
use events::{
    ChainHash, ChainPoint, EventId, ExecId, Key, Kind, OutputStream, Position, RetentionClass, SandboxId,
    TenantId,
};
use record::{
    AppendBatch, AppendError, ChainedFrame, DataKey, DataKeys, EventQuery, EventStore, Evidence, Floor,
    FoundEvent, Head, OutputBytes, OutputChunk, Protection, RowQuery, StoreError, StoredRow, Upkeep,
    WholeRow,
};

use super::asking::Cells;
use super::chain;
use super::events::position;
use super::sql::{Dialect, SqlStore, damaged, failed};
use super::statement::Statement;

pub(super) fn chain_hash(bytes: &[u8]) -> Result<ChainHash, StoreError> {
    bytes.try_into().map(ChainHash).map_err(|_| damaged("read the hash chain", "a hash is not 32 bytes long"))
}

#[async_trait::async_trait]
impl<DB: Dialect> EventStore for SqlStore<DB> {
    async fn head(&self) -> Result<Head, StoreError> {
        const OPERATION: &str = "read the head of the log";
        let failed = failed::<DB>(OPERATION);
        let head = Statement::new("SELECT position, stream_sequence, incarnation FROM head", []);
        let row = self.only(OPERATION, head).await?;
        Ok(Head {
            position: position(row.number(0).map_err(&failed)?),
            stream_sequence: position(row.number(1).map_err(&failed)?).0,
            incarnation: row.text(2).map_err(&failed)?.to_owned(),
        })
    }

    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        DB::append(self, batch).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        self.find_events(query).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        self.find_position(time).await
    }

    async fn chain_ends(&self, tenant: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        chain::chain_ends(self, tenant).await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        self.find(query).await
    }

    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError> {
        self.find_live(kind).await
    }

    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        self.find_ids(ids).await
    }

    async fn floors(&self) -> Result<Vec<Floor>, StoreError> {
        self.risen_floors().await
    }
}

#[async_trait::async_trait]
impl<DB: Dialect> OutputBytes for SqlStore<DB> {
    async fn start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError> {
        self.find_output_start(exec, stdout_offset, stderr_offset).await
    }

    async fn read(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        self.read_output(exec, stream, offset, max_bytes).await
    }
}

#[async_trait::async_trait]
impl<DB: Dialect> DataKeys for SqlStore<DB> {
    async fn of(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError> {
        self.find_data_keys(sandboxes).await
    }

    async fn any(&self) -> Result<bool, StoreError> {
        let any = Statement::new("SELECT 1 FROM data_keys LIMIT 1", []);
        Ok(self.first("read keys", any).await?.is_some())
    }

    async fn protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError> {
        self.find_protection(sandbox).await
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        DB::sweep(self).await
    }
}

#[async_trait::async_trait]
impl<DB: Dialect> Evidence for SqlStore<DB> {
    async fn read_chain(
        &self,
        tenant: Option<&TenantId>,
        after: Position,
        up_to: Position,
        limit: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError> {
        chain::read_chain(self, tenant, (after, up_to), limit).await
    }

    async fn whole_row(&self, kind: &'static str, key: &Key) -> Result<Option<WholeRow>, StoreError> {
        self.find_whole(kind, key).await
    }

    async fn next_key(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError> {
        self.find_next(kind, after).await
    }
}

#[async_trait::async_trait]
impl<DB: Dialect> Upkeep for SqlStore<DB> {
    async fn clock(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        DB::clock(self).await
    }

    async fn first_live(&self) -> Result<Option<Position>, StoreError> {
        self.first_of_the_living().await
    }

    async fn drop_some(&self, class: RetentionClass) -> Result<u64, StoreError> {
        let floor = self.risen_floors().await?.into_iter().find(|floor| floor.class == class);
        match floor {
            Some(floor) => DB::drop_some(self, class, floor.up_to).await,
            None => Ok(0),
        }
    }

    async fn close(&self) {
        self.readers.close().await;
        // The last connection to go writes what is in the write-ahead log into the database itself.
        self.writer.close().await;
    }
}
