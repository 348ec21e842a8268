//! The words of the log: events tell what happened, commands ask for something to happen.

mod command;
mod event;
mod exec;
mod sandbox;
mod template;

pub use command::{Command, CommandEnvelope, SecretMap};
pub use event::{Actor, Event, EventData, UnknownActor, UnknownEventType};
pub use exec::{
    ExecEnded, ExecExited, ExecFailed, ExecKilled, ExecOutcomeUnknown, ExecOutput, ExecSpec, ExecStarted,
    ExecTimedOut, OutputStream, TerminalSize,
};
pub use sandbox::{
    DestroyReason, FailureCode, FileDeleted, FileModeChanged, FileMoved, FileRead, FileWritten, Network,
    NodeDraining, NodeJoined, ProviderName, SandboxDestroyed, SandboxFailed, SandboxLost, SandboxPulling,
    SandboxRequested, SandboxRunning, SandboxSpec, SandboxStarting, SandboxTtlExtended, SandboxUnhealthy,
};
pub use template::{Template, TemplateDeleted, TemplateSaved};
