//! The record as everybody sees it: what an append holds, what readers are given, and what every store owes: [`EventStore`], and the parts
//! beside it that make a [`Record`].
//!
//! No database is in here: who reads the record, or is handed a store, needs no more than this. It knows nothing of SQL, of the
//! transport, or of where keys come from.

mod batch;
mod body;
mod columns;
mod data_keys;
mod error;
mod event_store;
mod evidence;
mod output;
mod past;
mod record;
mod typed;
mod upkeep;

pub use batch::{AppendBatch, AppendEvent, DataKeyChange, Floor, KeyFate, Row};
pub use body::{AppendBody, BodyStream, DATA_KEY, Encoding, StoredBody};
pub use columns::{ROW_COLUMNS, row_columns, signed};
pub use data_keys::{DataKey, DataKeys, Protection};
pub use error::{AppendError, StoreError};
pub use event_store::{
    AuditFilter, AuditRow, EventFilter, EventQuery, EventStore, ExecPage, FoundEvent, Head, Order, RowQuery,
    StoredRow, Turn,
};
pub use evidence::{BodyColumns, ChainedFrame, Columns, Evidence, WholeRow};
pub use output::{OutputBytes, OutputChunk};
pub use past::Past;
pub use record::Record;
pub use upkeep::Upkeep;
