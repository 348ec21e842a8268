//! `stacyvm list`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use serde_json::Value;

use super::error::VerbError;
use super::get::read;
use crate::output::{self, Format, Style, Table, age, plain};
use client::{Client, Sandbox, SandboxState};

/// List sandboxes.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Those that have ended too, the newest first.
    #[arg(long, short)]
    pub all: bool,
    /// Only their ids.
    #[arg(long, short)]
    pub quiet: bool,
    /// With --all, the last so many; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, requires = "all")]
    pub last: usize,
}

pub async fn list(api: &Client, format: Format, args: ListArgs) -> Result<ExitCode, VerbError> {
    let values: Vec<Value> = match args.all {
        true => api.past_sandboxes_as(if args.last == 0 { usize::MAX } else { args.last }).await?,
        false => api.get(&["sandboxes"]).await?,
    };
    let sandboxes =
        || values.iter().map(|value| read(value, "a sandbox")).collect::<Result<Vec<Sandbox>, _>>();
    match (args.quiet, format) {
        (true, _) => {
            output::print(&sandboxes()?.iter().map(|it| format!("{}\n", plain(&it.id))).collect::<String>())
        }
        (false, Format::Json) => output::print_json(&values),
        (false, Format::Table) => {
            output::print(&table(&sandboxes()?, SystemClock.now()).render(Style::of(&stdout())))
        }
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn table(sandboxes: &[Sandbox], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["ID", "STATE", "PROVIDER", "IMAGE", "CPUS", "MEMORY", "AGE", "TTL", "OWNER"]);
    for sandbox in sandboxes {
        let since = age(now - sandbox.created_at);
        // What has ended has no time left.
        let ended = sandbox.state == SandboxState::Destroyed || sandbox.state == SandboxState::Error;
        let left = if ended { String::new() } else { age(sandbox.expires_at - now) };
        table.row([
            &sandbox.id,
            sandbox.state.as_str(),
            &sandbox.provider,
            &sandbox.image,
            &sandbox.vcpus.to_string(),
            &format!("{} MiB", sandbox.memory_mb),
            &since,
            &left,
            sandbox.owner_id.as_deref().unwrap_or_default(),
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
        let sandboxes = [
            json!({"id": "sb-01", "state": "running", "provider": "docker", "image": "alpine:latest", "memory_mb": 512,
                "vcpus": 1, "created_at": "2026-01-02T03:04:05.000001Z", "expires_at": "2026-01-02T03:34:05Z", "network": "none",
                "new": 1}),
            json!({"id": "sb-02", "state": "creating", "provider": "bubblewrap", "image": "größe", "memory_mb": 64,
                "vcpus": 2, "created_at": "2026-01-02T03:09:00Z", "expires_at": "2026-01-03T03:09:05Z", "network": "bridge",
                "owner_id": "carol"}),
            json!({"id": "sb-03", "state": "hibernated", "provider": "docker", "image": "b", "memory_mb": 8, "vcpus": 1,
                "created_at": "2026-01-02T03:09:04Z", "expires_at": "2026-01-02T03:09:06Z", "network": "mesh"}),
        ];
        let sandboxes: Vec<Sandbox> =
            sandboxes.iter().map(|value| read(value, "a sandbox").unwrap()).collect();
        let now = "2026-01-02T03:09:05Z".parse().unwrap();
        let expected = "\
ID     STATE       PROVIDER    IMAGE          CPUS  MEMORY   AGE    TTL  OWNER
sb-01  running     docker      alpine:latest  1     512 MiB  4m59s  25m  -
sb-02  creating    bubblewrap  größe          2     64 MiB   5s     24h  carol
sb-03  hibernated  docker      b              1     8 MiB    1s     1s   -
";
        assert_eq!(table(&sandboxes, now).render(Style::PLAIN), expected);
        assert!(read::<Sandbox>(&json!({"state": "running"}), "a sandbox").is_err());
        assert!(read::<Sandbox>(&json!([]), "a sandbox").is_err());
    }
}
