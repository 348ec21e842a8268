//! The language of StacyVM: what services say to each other.
//!
//! Ids, commands, events, the pure folds over them, their wire form, and the names of subjects. This crate does no I/O; it knows
//! nothing of NATS, of databases, of HTTP, of sandbox providers or of the agent, and depends on no other crate of the workspace.

mod aggregate;
#[cfg(test)]
mod any_event;
mod chain_hash;
mod clock;
mod error_chain;
mod fold;
mod ids;
mod registry;
mod stream_mark;
mod subjects;
mod vocabulary;
mod wire;
mod without_values;

pub use aggregate::{Aggregate, DropReason, Fields, FoundBy, Key, Subject, searchable};
pub use chain_hash::{ChainHash, NotAHash};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error_chain::ErrorChain;
pub use fold::{
    Ending, ExecEnd, ExecState, JobAttempt, JobAttemptEnd, JobCancel, JobHold, JobOutcome, JobPhase,
    JobProgress, JobState, LastMissed, LastTick, LatestJob, MAX_ARTIFACTS, OutputClosed, SandboxPhase,
    SandboxState, ScheduleState, TemplateState, WaitingJob, WebhookFailure, WebhookPhase, WebhookState,
};
pub use ids::{
    ApiKeyId, CommandId, EventId, ExecId, IdError, JobId, NodeId, Position, RequestId, SandboxId, ScheduleId,
    TenantId, WebhookId,
};
pub use registry::{Kind, Registry, Slot, StateError};
pub use stream_mark::StreamMark;
pub use subjects::Subjects;
pub use vocabulary::*;
pub use wire::{DecodeError, Frame, decode_batch, encode_batch, encode_frame, encode_recorded_batch};
pub use without_values::without_values;
