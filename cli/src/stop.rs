//! When to stop: SIGINT and SIGTERM; a second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGINT or SIGTERM.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                tracing::warn!("stopping at once");
                // Everything that matters is in the log or with the agents; waiting is what was just declined.
                std::process::abort();
            }
            tracing::info!("stopping; once more to stop at once");
            stop.cancel();
        }
    });
    Ok(token)
}

/// What the future gives, unless it is time to stop first: nothing that is waited for at the start holds up the end.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        outcome = future => outcome,
        () = stop.cancelled() => anyhow::bail!("told to stop before it was ready"),
    }
}
