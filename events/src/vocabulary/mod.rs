//! The words of the log: events tell what happened, commands ask for something to happen.

#[macro_use]
mod word;

mod access;
mod audit;
mod command;
mod event;
mod exec;
mod file;
mod job;
mod node;
mod object;
mod sandbox;
mod schedule;
mod template;
mod webhook;

pub use access::{AccessDenied, AccessEvent, AccessGranted, AccessRevoked};
pub use audit::{
    AuditCheckpoint, AuditEvent, AuditKeyChanged, ChainPoint, CheckpointStatement, LogEvent, LogRestored,
    LogTrimmed, RestoreStatement, RetentionClass, SandboxErased,
};
pub use command::{Command, CommandEnvelope, JobSecrets, SecretMap};
pub use event::{Actor, Category, Event, EventData, UnknownActor, UnknownEventType};
pub use exec::{
    Asked, DetachReason, EndCause, ExecAttached, ExecDetached, ExecEnded, ExecEvent, ExecExited, ExecFailed,
    ExecInput, ExecKilled, ExecOutcomeUnknown, ExecOutput, ExecOutputClosed, ExecRequested, ExecResized,
    ExecSignaled, ExecSpec, ExecStarted, ExecTimedOut, Gone, MissingBody, OutputCloseReason, OutputMark,
    OutputStream, TerminalSize,
};
pub use file::{FileDeleted, FileEvent, FileModeChanged, FileMoved, FileRead, FileWritten};
pub use job::{
    AttemptOutcome, CancelReason, DEFAULT_QUEUE, HoldReason, JobAdmitted, JobArtifact, JobArtifactStored,
    JobAttemptEnded, JobAttemptRunning, JobAttemptStarted, JobCallback, JobCancelRequested, JobCancelled,
    JobContent, JobEndReason, JobEvent, JobFailed, JobFile, JobHeld, JobNeed, JobOutcomeUnknown, JobPlace,
    JobProgressed, JobQueued, JobRetries, JobRetryScheduled, JobSpec, JobSubmitted, JobSucceeded,
    JobTimedOut, NeedCondition, ObjectRef, OnLost, RetryOn,
};
pub use node::{NodeDraining, NodeEvent, NodeJoined};
pub use object::{ContentHash, NotAKey, ObjectKey, ObjectOwner, ObjectPlace};
pub use sandbox::{
    CapabilitySet, DestroyReason, FailureCode, Network, PoolName, ProviderName, SandboxDestroyed,
    SandboxDestroying, SandboxEvent, SandboxFailed, SandboxPulling, SandboxRequested, SandboxRunning,
    SandboxSpec, SandboxStarting, SandboxTtlExtended, Term,
};
pub use schedule::{
    CatchUp, Overlap, Schedule, ScheduleCreated, ScheduleDeleted, ScheduleEvent, ScheduleMissed,
    SchedulePaused, ScheduleReleased, ScheduleResumed, ScheduleTicked, ScheduleTriggered, ScheduleUpdated,
    ScheduledWork, TickOutcome, Timing,
};
pub use template::{SealedVariable, Template, TemplateDeleted, TemplateEvent, TemplateSaved};
pub use webhook::{
    Webhook, WebhookAdvanced, WebhookDeleted, WebhookEvent, WebhookFailed, WebhookPingEnded, WebhookPinged,
    WebhookRewound, WebhookSaved, WebhookSuspended,
};
pub use word::Word;
