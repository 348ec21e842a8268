//! `stacyvm execs`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use reqwest::Method;
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
    /// Sandbox, also one that is gone.
    pub id: String,
    /// Only those that have not ended.
    #[arg(long)]
    pub running: bool,
    /// The last so many; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub last: usize,
}

/// The longest page that a server gives.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    execs: Vec<Value>,
    #[serde(default)]
    next: Option<String>,
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
    let last = if args.last == 0 { usize::MAX } else { args.last };
    let values = pages(api, &args.id, args.running, last).await?;
    match format {
        Format::Json => output::print_json(&values),
        Format::Table => {
            output::print(&table(&read(values)?, SystemClock.now()).render(Style::of(&stdout())))
        }
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// All execs of a sandbox, as they began.
pub async fn list(api: &Api, sandbox: &str) -> Result<Vec<Exec>, ClientError> {
    read(pages(api, sandbox, false, usize::MAX).await?)
}

/// The newest ones, the oldest of them first.
async fn pages(api: &Api, sandbox: &str, running: bool, last: usize) -> Result<Vec<Value>, ClientError> {
    let mut values = Vec::new();
    let mut before: Option<String> = None;
    while values.len() < last {
        let limit = (last - values.len()).min(PAGE);
        let mut request = api
            .request(Method::GET, api.url(&["sandboxes", sandbox, "execs"]))
            .query(&[("limit", limit)])
            .query(&[("before", before)]);
        if running {
            request = request.query(&[("state", "running")]);
        }
        let page: Page = api.fetch(request).await?;
        values.extend(page.execs);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    values.reverse();
    Ok(values)
}

fn read(values: Vec<Value>) -> Result<Vec<Exec>, ClientError> {
    let exec = |value| serde_json::from_value(value);
    values
        .into_iter()
        .map(exec)
        .collect::<Result<_, _>>()
        .map_err(|error| ClientError::Unexpected(format!("not an exec: {error}")))
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
        let execs = read(vec![
            json!({"id": "ex-1", "state": "exited", "exit_code": 3, "argv": ["sh", "-c", "a b"], "stdout_bytes": 2048,
                "stderr_bytes": 0, "started_at": "2026-01-02T03:04:05Z", "duration": "1.5s"}),
            json!({"id": "ex-2", "state": "running", "argv": ["vi"], "tty": {"rows": 3, "cols": 4}, "new": 1}),
        ])
        .unwrap();
        let expected = "\
ID    STATE    CODE  TTY  AGE  DURATION  OUTPUT    COMMAND
ex-1  exited   3     no   5s   1.5s      2.00 KiB  sh -c 'a b'
ex-2  running  -     yes  -    -         0 B       vi
";
        assert_eq!(table(&execs, "2026-01-02T03:04:10Z".parse().unwrap()).render(Style::PLAIN), expected);
        assert_eq!(execs[1].tty, Some(Size { rows: 3, cols: 4 }));
        assert!(read(vec![json!(5)]).is_err());
    }
}
