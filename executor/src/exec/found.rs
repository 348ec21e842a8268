//! An exec that runs in an agent, found again by whoever knows only what is recorded of it.

use agent::client::{CallError, Client, ExecConnection};
use agent::protocol::{Attach, AttachRefusal, Stream};
use events::ExecId;

use super::pump::Offsets;

/// Where its output goes on.
pub struct Found {
    pub connection: ExecConnection,
    /// From where on the agent tells.
    pub read: Offsets,
    /// How much of its output may be recorded in all.
    pub limit: u64,
}

/// Attaches to an exec of which so much is recorded. `back`: so much before that is looked at once more, because a secret may reach
/// over the bound.
pub async fn find_again(
    agent: &Client,
    exec: ExecId,
    recorded: Offsets,
    back: u64,
) -> Result<Found, CallError<AttachRefusal>> {
    let mut read = recorded.map(|offset| offset.saturating_sub(back));
    // The agent may have forgotten more than is recorded only where the output limit was reached; for each stream it says so once.
    let mut refusals = Stream::BOTH.len();
    loop {
        let attach = Attach {
            exec_id: exec.as_bytes().to_owned().into(),
            stdout_offset: read[0],
            stderr_offset: read[1],
        };
        match agent.attach_exec(attach).await {
            Ok(connection) => return Ok(Found { connection, read, limit: limit(read, recorded) }),
            Err(CallError::Refused(AttachRefusal::Released { stream, retained_from })) if refusals > 0 => {
                refusals -= 1;
                read[stream.index()] = retained_from;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where the agent has forgotten what is not recorded, nothing after it may be recorded either: the record has no holes.
fn limit(read: Offsets, recorded: Offsets) -> u64 {
    if read[0] <= recorded[0] && read[1] <= recorded[1] { u64::MAX } else { recorded[0] + recorded[1] }
}
