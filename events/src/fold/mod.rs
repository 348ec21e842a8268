//! Pure and total folds: state is what events make of it, here and nowhere else. No I/O, no clock.

mod exec;
mod job;
mod sandbox;
mod schedule;
mod template;
mod webhook;

pub use exec::{ExecEnd, ExecState, OutputClosed};
pub use job::{
    JobAttempt, JobAttemptEnd, JobCancel, JobHold, JobOutcome, JobPhase, JobProgress, JobState, MAX_ARTIFACTS,
};
pub use sandbox::{Ending, SandboxPhase, SandboxState};
pub use schedule::{LastMissed, LastTick, LatestJob, ScheduleState, WaitingJob};
pub use template::TemplateState;
pub use webhook::{WebhookFailure, WebhookPhase, WebhookState};

#[cfg(test)]
mod judged_tests;
#[cfg(test)]
mod tests;
