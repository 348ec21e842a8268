//! `stacyvm list`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use serde_json::Value;

use super::api::Api;
use super::error::ClientError;
use super::sandbox::Sandbox;
use crate::output::{self, Format, Style, Table, age};

pub async fn list(api: &Api, format: Format) -> Result<ExitCode, ClientError> {
    let values: Vec<Value> = api.get(&["sandboxes"]).await?;
    match format {
        Format::Json => output::print_json(&values),
        Format::Table => {
            let sandboxes = values.iter().map(Sandbox::read).collect::<Result<Vec<_>, _>>()?;
            output::print(&table(&sandboxes, SystemClock.now()).render(Style::of(&stdout())))
        }
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn table(sandboxes: &[Sandbox], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["ID", "STATE", "PROVIDER", "IMAGE", "CPUS", "MEMORY", "AGE", "TTL", "OWNER"]);
    for sandbox in sandboxes {
        let since = sandbox.created_at.map(|at| age(now - at)).unwrap_or_default();
        let left = sandbox.expires_at.map(|at| age(at - now)).unwrap_or_default();
        table.row([
            &sandbox.id,
            &sandbox.state,
            &sandbox.provider,
            &sandbox.image,
            &sandbox.vcpus.to_string(),
            &format!("{} MiB", sandbox.memory_mb),
            &since,
            &left,
            &sandbox.owner_id,
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
                "vcpus": 1, "created_at": "2026-01-02T03:04:05.000001Z", "expires_at": "2026-01-02T03:34:05Z", "new": 1}),
            json!({"id": "sb-02", "state": "creating", "provider": "bubblewrap", "image": "größe", "memory_mb": 64,
                "vcpus": 2, "created_at": "2026-01-02T03:09:00Z", "expires_at": "2026-01-03T03:09:05Z", "owner_id": "carol"}),
            json!({"id": "sb-03"}),
        ];
        let sandboxes: Vec<Sandbox> = sandboxes.iter().map(|value| Sandbox::read(value).unwrap()).collect();
        let now = "2026-01-02T03:09:05Z".parse().unwrap();
        let expected = "\
ID     STATE     PROVIDER    IMAGE          CPUS  MEMORY   AGE    TTL  OWNER
sb-01  running   docker      alpine:latest  1     512 MiB  4m59s  25m  -
sb-02  creating  bubblewrap  größe          2     64 MiB   5s     24h  carol
sb-03  -         -           -              0     0 MiB    -      -    -
";
        assert_eq!(table(&sandboxes, now).render(Style::PLAIN), expected);
        assert!(Sandbox::read(&json!({"state": "running"})).is_err());
        assert!(Sandbox::read(&json!([])).is_err());
    }
}
