//! When to stop: SIGINT and SIGTERM; a second one ends the process at once.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// How long the last lines may take when there is no time.
const LAST_LINES: Duration = Duration::from_millis(100);

/// A token that is cancelled by the first SIGINT or SIGTERM. The second ends the process with 128 and the number of the
/// signal, as a shell would show it.
pub fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    // A thread and a runtime of their own: they are there whatever the others are busy with, or hang in.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("signals")?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for last in [false, true] {
                let code = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                // First what was asked for: saying so comes after, if it comes.
                stop.cancel();
                if last {
                    tracing::warn!("stopping at once");
                    telemetry::flush(LAST_LINES);
                    end(code);
                }
                tracing::info!("stopping; once more to stop at once");
            }
        });
    })?;
    Ok(token)
}

/// Everything that matters is in the log or with the agents; waiting is what was just declined.
#[expect(clippy::disallowed_methods, reason = "destructors are what would be waited for")]
fn end(code: i32) -> ! {
    std::process::exit(code)
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
