//! The record as everybody sees it: what an append holds, what readers are given, and what every store owes, [`EventStore`].
//!
//! No database is in here: who reads the record, or is handed a store, needs no more than this. It knows nothing of SQL, of the
//! transport, or of where keys come from.

mod batch;
mod body;
mod columns;
mod error;
mod event_store;

pub use batch::{AppendBatch, AppendEvent, DataKeyChange, Floor, KeyFate, TemplateChange, WebhookChange};
pub use body::{AppendBody, BodyStream, DATA_KEY, Encoding, StoredBody};
pub use columns::{exec_columns, sandbox_columns, searchable, signed};
pub use error::{AppendError, StoreError};
pub use event_store::{
    AuditFilter, AuditRow, BodyColumns, ChainedFrame, Columns, DataKey, EventFilter, EventStore, ExecPage,
    Head, OutputChunk, Protection, Shown, ShownRow,
};
