//! Pure and total folds: state is what events make of it, here and nowhere else. No I/O, no clock.

mod exec;
mod sandbox;
mod template;
mod webhook;

pub use exec::{ExecEnd, ExecState, OutputClosed};
pub use sandbox::{Ending, SandboxPhase, SandboxState};
pub use template::TemplateState;
pub use webhook::{WebhookFailure, WebhookPhase, WebhookState};

#[cfg(test)]
mod judged_tests;
#[cfg(test)]
mod tests;
