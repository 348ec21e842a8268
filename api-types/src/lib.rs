//! What the HTTP API is asked and what it answers, once: the gateway writes these types and the crate `client` reads them.
//!
//! A reader ignores fields that it does not know and keeps words that it does not know ([`Open`]), so a newer server does not
//! break an older client. With the feature `openapi` the types have schemas for the OpenAPI document.
//!
//! `Debug` never shows the value of an environment variable, a secret, a token or the contents of a file ([`Environment`],
//! [`Hidden`]): requests end up in logs.

mod admission;
mod artifacts;
mod audit;
mod diagnostics;
mod error;
mod events;
mod execs;
mod files;
mod health;
mod hidden;
mod history;
mod jobs;
mod providers;
mod quotas;
mod records;
mod reply;
mod sandboxes;
mod schedules;
mod server;
mod signals;
mod templates;
mod viewers;
mod webhooks;
mod word;

pub use admission::{Admission, AdmissionReason, Pruned, SandboxStats};
pub use artifacts::{JobArtifact, JobArtifacts};
pub use audit::{AuditEntry, AuditList, CheckpointList};
pub use diagnostics::{
    Diagnostics, LogHealth, PartHealth, ProcessHealth, SandboxCounts, SpawnLimits, Worker, WorkerState,
    Workers,
};
pub use error::{ErrorBody, ErrorCode};
pub use events::EventRecord;
pub use execs::{
    AskedToEnd, Detached, EndCause, Exec, ExecLinks, ExecList, ExecReply, ExecRequest, ExecState,
    OutputCloseReason, OutputClosed, TerminalSize, Tty,
};
pub use files::{ChmodRequest, FileInfo, MoveRequest, WriteRequest};
pub use health::{
    Build, Health, Liveness, ProbeAnswer, ProviderReadiness, ProviderTrouble, Readiness, Unready,
    UnreadyCause, UnreadyReason,
};
pub use hidden::{Environment, Hidden};
pub use history::{DestroyReason, EventCategory, PastSandbox, Timeline, TimelineEntry, TimelineExec};
pub use jobs::{
    AttemptList, AttemptOutcome, BatchAnswer, BatchEntry, BatchRequest, CallbackRequest, CancelRequest, Job,
    JobAttempt, JobEndReason, JobFileRequest, JobHold, JobHoldReason, JobLinks, JobList, JobOutput,
    JobOutputPart, JobProgress, JobRequest, JobState, JobTimeline, JobTimelineEntry, NeedRequest,
    RetriesRequest,
};
pub use providers::{Provider, ProviderCapability, ProviderDetail};
pub use quotas::{Quota, QuotaSummary, QuotaUsage};
pub use records::{
    EndRecord, ExecOutcome, FailureRecord, GoneRecord, OutputRecord, OutputStream, WhyGone, is_zero,
};
pub use reply::Reply;
pub use sandboxes::{Capabilities, ExtendRequest, Network, Sandbox, SandboxState, SpawnRequest};
pub use schedules::{
    MissedTicks, Schedule, ScheduleCatchUp, ScheduleList, ScheduleOverlap, ScheduleRequest, ScheduleState,
    ScheduleTick, ScheduledJob, TickOutcome, TriggeredJob,
};
pub use server::{HostStats, Metrics, PoolStatus, Snapshot};
pub use signals::{ResizeRequest, SignalName, SignalRequest};
pub use templates::{Template, TemplateRequest};
pub use viewers::{SharedLink, Ticket, ViewerLink, ViewerList, ViewerRequest};
pub use webhooks::{RedeliverRequest, Webhook, WebhookPing, WebhookRequest, WebhookState};
pub use word::{Open, Word};
