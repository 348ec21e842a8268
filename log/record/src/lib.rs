//! The record as everybody sees it: what an append holds, what readers are given, and what every store owes, [`EventStore`].
//!
//! No database is in here: who reads the record, or is handed a store, needs no more than this. It knows nothing of SQL, of the
//! transport, or of where keys come from.

mod batch;
mod body;
mod columns;
mod error;
mod event_store;
mod layer;
mod past;
mod typed;

pub use batch::{AppendBatch, AppendEvent, DataKeyChange, Floor, KeyFate, Row};
pub use body::{AppendBody, BodyStream, DATA_KEY, Encoding, StoredBody};
pub use columns::{ROW_COLUMNS, row_columns, signed};
pub use error::{AppendError, StoreError};
pub use event_store::{
    AuditFilter, AuditRow, BodyColumns, ChainedFrame, Columns, DataKey, EventFilter, EventQuery, EventStore,
    ExecPage, FoundEvent, Head, Order, OutputChunk, Protection, RowQuery, StoredRow, WholeRow,
};
pub use layer::{Layer, Layered};
pub use past::Past;
