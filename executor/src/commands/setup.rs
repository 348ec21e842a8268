//! What is run in a new sandbox before it counts as running. Each line is an exec like any other: its output and its end are in
//! the log, under an id that follows from the sandbox, so that a repeated command goes on where the first one was.

use std::sync::Arc;
use std::time::Duration;

use events::{CommandId, ExecEnd, ExecId, ExecSpec, SecretMap};

use super::{Outcome, start_exec};
use crate::context::Context;
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How often is looked whether a line has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How much of a line a message shows, in characters.
const SHOWN: usize = 80;

/// What became of the lines.
pub(super) enum SetupOutcome {
    /// All of them ended with 0.
    Done,
    /// One did not.
    Failed(String),
    /// The sandbox is being destroyed.
    Unwanted,
}

/// Runs one line after the other, each for at most `time_left`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    context: &Context,
    hosted: &Hosted,
    lines: &[String],
    time_left: Duration,
    attempt: i64,
) -> Result<SetupOutcome, Outcome> {
    for (index, line) in lines.iter().enumerate() {
        let parts = ["setup", &context.sandbox.to_string(), &index.to_string()];
        let exec = ExecId::derived(&parts);
        // Of its own: ids of events follow from the command that they are of.
        let context = context.because_of(CommandId::derived(&parts));
        if !hosted.execs.contains(&exec) {
            let started = start_exec::run(
                shared,
                &context,
                exec,
                &spec(line, time_left),
                &SecretMap::default(),
                attempt,
            )
            .await;
            if let Outcome::Retry(delay) = started {
                return if hosted.is_closing() {
                    Ok(SetupOutcome::Unwanted)
                } else {
                    Err(Outcome::Retry(delay))
                };
            }
        }
        let end = end_of(shared, hosted, exec).await?;
        if hosted.is_closing() {
            return Ok(SetupOutcome::Unwanted);
        }
        if end.as_ref().and_then(ExecEnd::exit_code) != Some(0) {
            return Ok(SetupOutcome::Failed(message(index, line, exec, end.as_ref())));
        }
    }
    Ok(SetupOutcome::Done)
}

fn spec(line: &str, time_left: Duration) -> ExecSpec {
    ExecSpec {
        argv: ["/bin/sh", "-c", line].map(str::to_owned).into(),
        cwd: None,
        user: None,
        tty: None,
        stdin: false,
        linger_ms: None,
        timeout_ms: u64::try_from(time_left.as_millis()).ok(),
        env_hmac: Default::default(),
        secret_names: Vec::new(),
        request_digest: None,
    }
}

/// Waits for the end. `None`: the record knows of none, which the next delivery of the command looks into.
async fn end_of(shared: &Shared, hosted: &Hosted, exec: ExecId) -> Result<Option<ExecEnd>, Outcome> {
    let retry = || Outcome::Retry(Duration::from_secs(1));
    // What a line leaves running does not hold up the next one.
    while hosted.execs.contains(&exec) && !hosted.open.contains(&exec) && !hosted.is_closing() {
        tokio::time::sleep(LOOK).await;
    }
    if hosted.is_closing() {
        return Ok(None);
    }
    let record = shared.log.exec_record(exec).await.map_err(|error| {
        tracing::debug!(exec.id = %exec, error = %error, "cannot ask how a setup command ended");
        retry()
    })?;
    match record.and_then(|state| state.end) {
        Some(end) => Ok(Some(end)),
        // Not recorded yet, or a start that was refused and is on its way into the record.
        None => Err(retry()),
    }
}

fn message(index: usize, line: &str, exec: ExecId, end: Option<&ExecEnd>) -> String {
    let mut shown: String = line.chars().take(SHOWN).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    let how = match end {
        Some(ExecEnd::Failed { message, .. } | ExecEnd::OutcomeUnknown { message, .. }) => {
            format!(": {message}")
        }
        Some(end) => format!(" ended with exit code {}", end.exit_code().unwrap_or(-1)),
        None => " did not end".to_owned(),
    };
    format!("setup command {} ({shown:?}){how}: its output is that of {exec}", index + 1)
}
