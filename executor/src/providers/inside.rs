//! Where things are in a box, whoever made it.

use super::image::ImageConfig;
use crate::provider::BoxOrder;

/// The agent, read-only.
pub(super) const AGENT: &str = "/.stacyvm/agent";
/// The directory that the box shares with the executor.
pub(super) const RUN_DIR: &str = "/.stacyvm/run";
/// The agent's socket in it, seen from either side.
pub(super) const SOCKET_NAME: &str = "agent.sock";
/// Where work happens, unless the image says otherwise.
pub(super) const WORKSPACE: &str = "/workspace";

/// PID 1 of a box and its arguments. Its environment is the image's. Where users cannot change, the image's is not asked
/// for.
pub(super) fn agent_command(order: &BoxOrder, image: &ImageConfig, users_can_change: bool) -> Vec<String> {
    // Rounded down: the box may end early by a second, never late.
    let seconds = order.time_left.as_secs().max(1);
    let mut command = vec![
        AGENT.to_owned(),
        "--socket".to_owned(),
        format!("{RUN_DIR}/{SOCKET_NAME}"),
        "--run-dir".to_owned(),
        RUN_DIR.to_owned(),
        "--workspace".to_owned(),
        image.directory().unwrap_or(WORKSPACE).to_owned(),
        // It is there in any case: clients name it.
        "--give".to_owned(),
        WORKSPACE.to_owned(),
        "--keep-environment".to_owned(),
        "--deadline-seconds".to_owned(),
        seconds.to_string(),
    ];
    if let Some(user) = image.user().filter(|_| users_can_change) {
        command.extend(["--default-user".to_owned(), user.to_owned()]);
    }
    command
}
