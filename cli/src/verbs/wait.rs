//! `stacyvm wait`

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::duration;
use super::ending::shell_code;
use super::error::VerbError;
use super::get::read;
use super::kill::is_exec;
use super::signals::Signals;
use crate::output::{self, Format, plain};
use client::{Client, Exec, ExecState, Method, Patience};

/// How long a server may be away.
const RECONNECT: Duration = Duration::from_secs(300);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);

/// Wait until an exec or a sandbox has ended.
///
/// Prints the exit code of an exec, which is also that of this program; of a sandbox, why it ended.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// Exec or sandbox.
    pub id: String,
    /// Give up after this time (30s, 1h30m); the exit code is then 124.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

pub async fn wait(api: &Client, format: Format, args: WaitArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let limit = args.timeout.unwrap_or(Duration::MAX);
    let ended = tokio::select! {
        biased;
        caught = signals.next() => return Err(VerbError::Interrupted(caught.exit_code())),
        ended = tokio::time::timeout(limit, until_ended(api, &args.id)) => ended,
    };
    let Ok(ended) = ended else {
        output::note(&format!("{} has not ended", args.id));
        return Ok(ExitCode::from(124));
    };
    let (text, code, value) = ended?;
    match format {
        Format::Table => output::print(&format!("{}\n", plain(&text))),
        Format::Json => output::print_json_line(&value),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::from(code))
}

async fn until_ended(api: &Client, id: &str) -> Result<(String, u8, Value), VerbError> {
    let mut patience = Patience::new(RECONNECT);
    loop {
        let looked = match is_exec(id) {
            true => exec(api, id).await,
            false => sandbox(api, id).await,
        };
        match looked {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {
                patience = Patience::new(RECONNECT);
                tokio::time::sleep(LOOK).await;
            }
            Err(error) if error.is_passing() => {
                if !patience.again().await {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn exec(api: &Client, id: &str) -> Result<Option<(String, u8, Value)>, VerbError> {
    let value: Value = api.get(&["execs", id]).await?;
    let exec: Exec = read(&value, "an exec")?;
    if !exec.has_ended() {
        return Ok(None);
    }
    if exec.exit_code.is_none() {
        output::note(&format!("{id} ended as {}", exec.state));
    }
    let text = exec.exit_code.map_or_else(|| exec.state.to_string(), |code| code.to_string());
    Ok(Some((text, shell_code(exec.state == ExecState::TimedOut, exec.exit_code), value)))
}

async fn sandbox(api: &Client, id: &str) -> Result<Option<(String, u8, Value)>, VerbError> {
    match api.get::<Value>(&["sandboxes", id]).await {
        Ok(value) => {
            let state = value.get("state").and_then(Value::as_str).unwrap_or_default();
            // What failed is still shown for a while.
            if matches!(state, "error" | "destroyed") {
                return Ok(Some((state.to_owned(), 0, value.clone())));
            }
            Ok(None)
        }
        Err(error) if error.is_not_found() => {
            // One that is gone is in the record, one that never was is not.
            let url = api.url(&["sandboxes", id, "timeline"]);
            let timeline = api.fetch::<Value>(api.request(Method::GET, url).query(&[("limit", 1)])).await;
            let timeline = timeline.map_err(|_| error)?;
            let part = |name: &str| timeline.get(name).cloned().unwrap_or_default();
            let state = part("sandbox").get("state").cloned().unwrap_or_default();
            let reason = part("reason");
            let text = reason.as_str().or(state.as_str()).unwrap_or("destroyed").to_owned();
            let value = json!({"id": id, "state": state, "reason": reason, "ended_at": part("ended_at")});
            Ok(Some((text, 0, value)))
        }
        Err(error) => Err(error.into()),
    }
}
