use async_trait::async_trait;
use bytes::Bytes;
use events::{ChainHash, Key, Kind, Position, TenantId};

use crate::{StoreError, StoredBody};

/// An event with its link of the hash chain, as verification reads it: what is stored, not what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainedFrame {
    /// Where it stands.
    pub position: Position,
    /// The chain that it is in.
    pub tenant: TenantId,
    /// Its exact header.
    pub header: Bytes,
    /// What the link covers of its body, if it ever had one.
    pub body_hash: Option<[u8; 32]>,
    /// Its body, if it is still there.
    pub body: Option<StoredBody>,
    /// The link.
    pub hash: ChainHash,
    /// What queries find it by; `None` where it does not come from a database.
    pub columns: Option<Box<Columns>>,
}

/// What queries find an event by. No hash covers it: it must be what the event itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The id, 16 bytes.
    pub id: Bytes,
    /// The name of its type.
    pub type_name: String,
    /// When, in microseconds since 1970.
    pub time_us: i64,
    /// The sandbox, 16 bytes.
    pub sandbox: Option<Bytes>,
    /// The exec, 16 bytes.
    pub exec: Option<Bytes>,
    /// The thing that it is about, where its events are found by that.
    pub subject: Option<Bytes>,
    /// How long its body is, before it was encoded.
    pub body_length: Option<i64>,
    /// What its body is found by, if that is still there.
    pub body: Option<BodyColumns>,
}

/// What queries find a body by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyColumns {
    /// The exec, 16 bytes.
    pub exec: Bytes,
    /// The stream's number.
    pub stream: i64,
    /// Where it begins in the stream.
    pub offset: Option<i64>,
    /// How long it is, before it was encoded.
    pub length: i64,
}

/// A row with all that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeRow {
    /// What it is found by, as text: the columns of [`ROW_COLUMNS`](crate::ROW_COLUMNS).
    pub columns: Vec<Option<String>>,
    /// The state as JSON; `None`: it was deleted.
    pub state: Option<String>,
}

/// What is stored, exactly as it is: what verification and audit compare with what it should be.
#[async_trait]
pub trait Evidence: std::fmt::Debug + Send + Sync + 'static {
    /// Up to `limit` events after a position and up to another, of one tenant or of all, in order, with their links of the
    /// hash chain. What is trimmed is left out in silence.
    async fn read_chain(
        &self,
        tenant: Option<&TenantId>,
        after: Position,
        up_to: Position,
        limit: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError>;

    /// The row of one thing with all that it is found by, deleted or not: what is stored, not what it should be.
    async fn whole_row(&self, kind: &'static str, key: &Key) -> Result<Option<WholeRow>, StoreError>;

    /// The first thing of a kind after `after` in the order of keys, that there are events of or a row.
    async fn next_key(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError>;
}
