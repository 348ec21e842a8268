//! What makes the log evidence: the hash chain of each tenant, signed checkpoints of all chains, verification of both,
//! and the forms in which the log leaves the house.
//!
//! A chain shows a change to whoever holds a later link. A checkpoint is such a link that is kept elsewhere and signed.
//! What that proves and what not is written in every [`Report`].

mod beside;
mod checkpoint_file;
mod checkpointer;
mod claim;
mod cloud_events;
mod columns;
mod csv;
mod export;
mod export_file;
mod keys;
mod link;
mod listing;
mod merkle;
mod refold;
mod report;
mod restored;
mod source;
mod statement;
mod verify;

pub use checkpoint_file::{
    CheckpointFile, CheckpointFileError, FileStatement, read_checkpoints, read_statements,
};
pub use checkpointer::{CheckpointConfig, CheckpointError, Checkpointer};
pub use claim::{CheckpointProof, Claim, ClaimSource, SignedRoot};
pub use cloud_events::cloud_event;
pub use csv::{CSV_HEADING, csv_row};
pub use export::{EXPORT_FORMAT, EndLine, EventLine, ExportLine, StartLine};
pub use export_file::ExportFile;
pub use keys::{AuditKey, AuditKeyError, AuditPublicKey, PublicKeys};
pub use link::link;
pub use listing::{AuditPage, AuditQuery, list};
pub use merkle::ProofStep;
pub use refold::refold_kinds;
pub use report::{CheckpointCounts, Fault, Finding, Refolded, Report};
pub use restored::key_changed;
pub use source::{ChainItem, ChainSource, StoreSource};
pub use statement::Signable;
pub use verify::{VerifyError, verify, verify_store};
