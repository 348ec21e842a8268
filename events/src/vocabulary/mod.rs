//! The words of the log: events tell what happened, commands ask for something to happen.

mod audit;
mod command;
mod event;
mod exec;
mod sandbox;
mod template;
mod webhook;

pub use audit::{
    AccessDenied, AccessGranted, AccessRevoked, AuditCheckpoint, AuditKeyChanged, ChainPoint,
    CheckpointStatement, LogRestored, LogTrimmed, RestoreStatement, RetentionClass, SandboxErased,
};
pub use command::{Command, CommandEnvelope, SecretMap};
pub use event::{Actor, Event, EventData, UnknownActor, UnknownEventType};
pub use exec::{
    Asked, DetachReason, EndCause, ExecAttached, ExecDetached, ExecEnded, ExecExited, ExecFailed, ExecInput,
    ExecKilled, ExecOutcomeUnknown, ExecOutput, ExecRequested, ExecResized, ExecSignaled, ExecSpec,
    ExecStarted, ExecTimedOut, Gone, MissingBody, OutputMark, OutputStream, TerminalSize,
};
pub use sandbox::{
    CapabilitySet, DestroyReason, FailureCode, FileDeleted, FileModeChanged, FileMoved, FileRead,
    FileWritten, Network, NodeDraining, NodeJoined, ProviderName, SandboxDestroyed, SandboxDestroying,
    SandboxFailed, SandboxLost, SandboxPulling, SandboxRequested, SandboxRunning, SandboxSpec,
    SandboxStarting, SandboxTtlExtended, SandboxUnhealthy, Term,
};
pub use template::{SealedVariable, Template, TemplateDeleted, TemplateSaved};
pub use webhook::{
    Webhook, WebhookAdvanced, WebhookDeleted, WebhookFailed, WebhookPingEnded, WebhookPinged, WebhookRewound,
    WebhookSaved, WebhookSuspended,
};
