//! Where things are in a box, whoever made it.

use std::time::Duration;

/// The agent, read-only.
pub(super) const AGENT: &str = "/.stacyvm/agent";
/// The directory that the box shares with the executor.
pub(super) const RUN_DIR: &str = "/.stacyvm/run";
/// The agent's socket in it, seen from either side.
pub(super) const SOCKET_NAME: &str = "agent.sock";
/// Where work happens.
pub(super) const WORKSPACE: &str = "/workspace";

/// PID 1 of a box and its arguments.
pub(super) fn agent_command(time_left: Duration) -> Vec<String> {
    // Rounded down: the box may end early by a second, never late.
    let seconds = time_left.as_secs().max(1);
    vec![
        AGENT.to_owned(),
        "--socket".to_owned(),
        format!("{RUN_DIR}/{SOCKET_NAME}"),
        "--run-dir".to_owned(),
        RUN_DIR.to_owned(),
        "--workspace".to_owned(),
        WORKSPACE.to_owned(),
        "--deadline-seconds".to_owned(),
        seconds.to_string(),
    ]
}
