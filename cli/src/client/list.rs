//! `stacyvm list`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::Value;

use super::api::Api;
use super::error::ClientError;
use super::sandbox::Sandbox;
use crate::output::{self, Format, Style, Table, age, plain};

/// The longest page that a server gives.
const PAGE: usize = 1000;

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

pub async fn list(api: &Api, format: Format, args: ListArgs) -> Result<ExitCode, ClientError> {
    let values: Vec<Value> = match args.all {
        true => pages(api, if args.last == 0 { usize::MAX } else { args.last }).await?,
        false => api.get(&["sandboxes"]).await?,
    };
    let read = || values.iter().map(Sandbox::read).collect::<Result<Vec<_>, _>>();
    match (args.quiet, format) {
        (true, _) => {
            output::print(&read()?.iter().map(|it| format!("{}\n", plain(&it.id))).collect::<String>())
        }
        (false, Format::Json) => output::print_json(&values),
        (false, Format::Table) => {
            output::print(&table(&read()?, SystemClock.now()).render(Style::of(&stdout())))
        }
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}

async fn pages(api: &Api, last: usize) -> Result<Vec<Value>, ClientError> {
    let mut values = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let limit = (last - values.len()).min(PAGE);
        let mut request = api
            .request(Method::GET, api.url(&["sandboxes"]))
            .query(&[("all", "true"), ("limit", &limit.to_string())]);
        if let Some(before) = &before {
            request = request.query(&[("before", before)]);
        }
        let response = api.send(request).await?;
        let next = response.headers().get("x-next-before").and_then(|next| next.to_str().ok());
        before = next.map(str::to_owned);
        let page: Vec<Value> = api.read(response).await?;
        values.extend(page);
        if before.is_none() || values.len() >= last {
            return Ok(values);
        }
    }
}

fn table(sandboxes: &[Sandbox], now: DateTime<Utc>) -> Table {
    let mut table =
        Table::new(&["ID", "STATE", "PROVIDER", "IMAGE", "CPUS", "MEMORY", "AGE", "TTL", "OWNER"]);
    for sandbox in sandboxes {
        let since = sandbox.created_at.map(|at| age(now - at)).unwrap_or_default();
        // What has ended has no time left.
        let ended = matches!(sandbox.state.as_str(), "destroyed" | "error");
        let left = sandbox.expires_at.filter(|_| !ended).map(|at| age(at - now)).unwrap_or_default();
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
