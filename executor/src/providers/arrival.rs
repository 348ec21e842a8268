use std::convert::Infallible;
use std::time::Duration;

use agent::client::{CallError, Client, Connector};
use backon::{ExponentialBuilder, Retryable as _};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::provider::Source;

/// How long an agent may take from the start of its box to its first answer. It takes milliseconds; this is for a
/// machine that is badly overloaded.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one ping may take: an agent that is there answers at once.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look whether the box is still there.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An agent is there within a millisecond or so of its box's start, so a short retry is quicker than watching for it.
const AGAIN: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_micros(500))
    .with_max_delay(Duration::from_millis(20))
    .without_max_times();

/// Waits until an agent answers. The `way` to it may change meanwhile. `look` is called now and then and says why waiting is pointless.
pub(super) async fn agent_answers<F>(way: impl Fn() -> Connector, look: impl Fn() -> F) -> Result<(), Source>
where
    F: Future<Output = Option<Source>>,
{
    let give_up_at = Instant::now() + PATIENCE;
    let ping = || async {
        match timeout(PING_TIMEOUT, Client::with(way()).ping()).await {
            Ok(answered) => answered.map_err(Unanswered::Refused),
            Err(elapsed) => Err(Unanswered::Silent(elapsed)),
        }
    };
    // Whoever answers something else than an agent would goes on doing so.
    let may_come = |failure: &Unanswered| match failure {
        Unanswered::Refused(error) => {
            matches!(error, CallError::Transport { .. }) && Instant::now() < give_up_at
        }
        Unanswered::Silent(_) => Instant::now() < give_up_at,
    };
    let watch = async {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(reason) = look().await {
                return reason;
            }
        }
    };
    tokio::select! {
        biased;
        answered = ping.retry(AGAIN).when(may_come) => answered.map_err(|failure| match failure {
            Unanswered::Refused(error) => Box::new(error) as Source,
            Unanswered::Silent(elapsed) => Box::new(elapsed),
        }),
        reason = watch => Err(reason),
    }
}

/// Why one ping was not answered.
enum Unanswered {
    Refused(CallError<Infallible>),
    Silent(Elapsed),
}
