use std::time::Duration;

use agent::client::{CallError, Client, Connector};
use tokio::time::{Instant, sleep, timeout};

use crate::provider::Source;

/// How long an agent may take from the start of its box to its first answer. It takes milliseconds; this is for a
/// machine that is badly overloaded.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one ping may take: an agent that is there answers at once.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look whether the box is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until an agent answers. The `way` to it may change meanwhile. `look` is called now and then and says why waiting is pointless.
///
/// It is there within a millisecond or so of the box's start, so a short retry is quicker than watching for it.
pub(super) async fn agent_answers<F>(way: impl Fn() -> Connector, look: impl Fn() -> F) -> Result<(), Source>
where
    F: Future<Output = Option<Source>>,
{
    let give_up_at = Instant::now() + PATIENCE;
    let mut look_at = Instant::now() + LOOK_EVERY;
    let mut pause = Duration::from_micros(500);
    loop {
        let failure: Source = match timeout(PING_TIMEOUT, Client::with(way()).ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error @ CallError::Transport { .. })) => Box::new(error),
            Ok(Err(error)) => return Err(Box::new(error)),
            Err(elapsed) => Box::new(elapsed),
        };
        let now = Instant::now();
        if now >= give_up_at {
            return Err(failure);
        }
        if now >= look_at {
            if let Some(reason) = look().await {
                return Err(reason);
            }
            look_at = now + LOOK_EVERY;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
