//! `stacyvm execs`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use serde::Deserialize;
use serde_json::Value;

use super::api::Api;
use super::details::words_of;
use super::error::ClientError;
use super::terminal::Size;
use crate::output::{self, Format, Style, Table, age};

/// List what ran and runs in a sandbox.
#[derive(Debug, Clone, clap::Args)]
pub struct ExecsArgs {
    /// Sandbox.
    pub id: String,
}

/// An exec, as far as this client needs to know it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub id: String,
    pub sandbox_id: String,
    pub state: String,
    pub exit_code: Option<i32>,
    pub argv: Value,
    /// The size that its terminal was begun with.
    pub tty: Option<Size>,
    pub started_at: Option<DateTime<Utc>>,
    pub duration: Option<String>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
}

impl Exec {
    /// Asks for one.
    pub async fn get(api: &Api, id: &str) -> Result<Self, ClientError> {
        api.get(&["execs", id]).await
    }

    /// Whether it runs on a terminal.
    pub const fn has_terminal(&self) -> bool {
        self.tty.is_some()
    }
}

pub async fn execs(api: &Api, format: Format, args: ExecsArgs) -> Result<ExitCode, ClientError> {
    let value: Value = api.get(&["sandboxes", &args.id, "execs"]).await?;
    match format {
        Format::Json => output::print_json(&value),
        Format::Table => output::print(&table(&read(value)?, SystemClock.now()).render(Style::of(&stdout()))),
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// All execs of a sandbox, as they began.
pub async fn list(api: &Api, sandbox: &str) -> Result<Vec<Exec>, ClientError> {
    let mut execs = read(api.get(&["sandboxes", sandbox, "execs"]).await?)?;
    execs.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok(execs)
}

fn read(value: Value) -> Result<Vec<Exec>, ClientError> {
    serde_json::from_value(value)
        .map_err(|error| ClientError::Unexpected(format!("no list of execs: {error}")))
}

fn table(execs: &[Exec], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["ID", "STATE", "CODE", "TTY", "AGE", "DURATION", "OUTPUT", "COMMAND"]);
    for exec in execs {
        table.row([
            &exec.id,
            &exec.state,
            &exec.exit_code.map(|code| code.to_string()).unwrap_or_default(),
            if exec.has_terminal() { "yes" } else { "no" },
            &exec.started_at.map(|at| age(now - at)).unwrap_or_default(),
            exec.duration.as_deref().unwrap_or_default(),
            &output::bytes(exec.stdout_bytes + exec.stderr_bytes),
            &words_of(Some(&exec.argv)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let execs = read(json!([
            {"id": "ex-1", "state": "exited", "exit_code": 3, "argv": ["sh", "-c", "a b"], "stdout_bytes": 2048,
                "stderr_bytes": 0, "started_at": "2026-01-02T03:04:05Z", "duration": "1.5s"},
            {"id": "ex-2", "state": "running", "argv": ["vi"], "tty": {"rows": 3, "cols": 4}, "new": 1},
        ]))
        .unwrap();
        let expected = "\
ID    STATE    CODE  TTY  AGE  DURATION  OUTPUT    COMMAND
ex-1  exited   3     no   5s   1.5s      2.00 KiB  sh -c 'a b'
ex-2  running  -     yes  -    -         0 B       vi
";
        assert_eq!(table(&execs, "2026-01-02T03:04:10Z".parse().unwrap()).render(Style::PLAIN), expected);
        assert_eq!(execs[1].tty, Some(Size { rows: 3, cols: 4 }));
        assert!(read(json!({})).is_err());
    }
}
