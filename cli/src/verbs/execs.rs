//! `stacyvm execs`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use serde_json::Value;

use super::details::words;
use super::error::VerbError;
use super::get::read;
use crate::output::{self, Format, Style, Table, age};
use client::{Client, Exec, ExecsQuery};

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

pub async fn execs(api: &Client, format: Format, args: ExecsArgs) -> Result<ExitCode, VerbError> {
    let last = if args.last == 0 { usize::MAX } else { args.last };
    let query = ExecsQuery { running: args.running, last };
    let values: Vec<Value> = api.execs_as(&args.id, query).await?;
    match format {
        Format::Json => output::print_json(&values),
        Format::Table => {
            output::print(&table(&execs_of(&values)?, SystemClock.now()).render(Style::of(&stdout())))
        }
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn execs_of(values: &[Value]) -> Result<Vec<Exec>, VerbError> {
    values.iter().map(|value| read(value, "an exec")).collect()
}

fn table(execs: &[Exec], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["ID", "STATE", "CODE", "TTY", "AGE", "DURATION", "OUTPUT", "COMMAND"]);
    for exec in execs {
        table.row([
            &exec.id,
            exec.state.as_str(),
            &exec.exit_code.map(|code| code.to_string()).unwrap_or_default(),
            if exec.has_terminal() { "yes" } else { "no" },
            &age(now - exec.started_at),
            exec.duration.as_deref().unwrap_or_default(),
            &output::bytes(exec.stdout_bytes + exec.stderr_bytes),
            &words(&exec.argv),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use client::TerminalSize;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let links = json!({"self": "/a", "output": "/b", "stream": "/c", "attach": "/d"});
        let execs = execs_of(&[
            json!({"id": "ex-1", "sandbox_id": "sb-1", "state": "exited", "exit_code": 3, "argv": ["sh", "-c", "a b"],
                "stdin": false, "stdout_bytes": 2048, "stderr_bytes": 0, "started_at": "2026-01-02T03:04:05Z",
                "duration": "1.5s", "links": links}),
            json!({"id": "ex-2", "sandbox_id": "sb-1", "state": "running", "argv": ["vi"], "tty": {"rows": 3, "cols": 4},
                "stdin": true, "stdout_bytes": 0, "stderr_bytes": 0, "started_at": "2026-01-02T03:04:09Z", "new": 1,
                "links": links}),
        ])
        .unwrap();
        let expected = "\
ID    STATE    CODE  TTY  AGE  DURATION  OUTPUT    COMMAND
ex-1  exited   3     no   5s   1.5s      2.00 KiB  sh -c 'a b'
ex-2  running  -     yes  1s   -         0 B       vi
";
        assert_eq!(table(&execs, "2026-01-02T03:04:10Z".parse().unwrap()).render(Style::PLAIN), expected);
        assert_eq!(execs[1].tty, Some(TerminalSize { rows: 3, cols: 4 }));
        assert!(execs_of(&[json!(5)]).is_err());
    }
}
