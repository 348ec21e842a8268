//! `stacyvm share`

use std::io::stdout;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use events::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};

use super::error::VerbError;
use crate::output::{self, Format, Style, Table, age};
use client::{Client, Method};

/// Make a link with which others may watch a command without a key; or list and revoke such links.
#[derive(Debug, Clone, clap::Args)]
pub struct ShareArgs {
    /// Exec.
    pub id: String,
    /// How long the link is good [default: 1h, at most 168h].
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["list", "revoke"])]
    pub ttl: Option<String>,
    /// List the links that are good.
    #[arg(long, conflicts_with = "revoke")]
    pub list: bool,
    /// Make this link good for nothing, and end what it has opened. May be repeated.
    #[arg(long, value_name = "LINK")]
    pub revoke: Vec<String>,
}

pub async fn share(api: &Client, format: Format, args: ShareArgs) -> Result<ExitCode, VerbError> {
    if args.list {
        list(api, format, &args.id).await?;
    } else if args.revoke.is_empty() {
        make(api, format, args).await?;
    } else {
        for link in &args.revoke {
            api.revoke_viewer(&args.id, link).await?;
            match format {
                Format::Table => output::print(&format!("{}\n", output::plain(link))),
                Format::Json => output::print_json_line(&json!({"id": link, "status": "revoked"})),
            }
            .map_err(VerbError::output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the link's id, by which it is revoked, and the address of the exec's output, which any browser or curl can read.
async fn make(api: &Client, format: Format, args: ShareArgs) -> Result<(), VerbError> {
    let body = Map::from_iter(args.ttl.map(|ttl| ("ttl".to_owned(), json!(ttl))));
    let request = api.request(Method::POST, api.url(&["execs", &args.id, "viewers"])).json(&body);
    let answer: Value = api.fetch(request).await?;
    match format {
        Format::Json => output::print_json(&answer),
        Format::Table => {
            let text = |name: &str| answer[name].as_str().unwrap_or_default();
            let mut address = api.url(&["execs", &args.id, "output"]);
            // Whoever gets the link gets nothing else.
            let _ = address.set_password(None).and_then(|()| address.set_username(""));
            address.query_pairs_mut().append_pair("follow", "true").append_pair("viewer", text("token"));
            output::print(&format!("{}\n{}\n", output::plain(text("id")), output::plain(address.as_str())))
        }
    }
    .map_err(VerbError::output)
}

async fn list(api: &Client, format: Format, exec: &str) -> Result<(), VerbError> {
    let answer: Value = api.get(&["execs", exec, "viewers"]).await?;
    let links = answer["viewers"].as_array().cloned().unwrap_or_default();
    match format {
        Format::Json => output::print_json(&links),
        Format::Table => {
            let now = SystemClock.now();
            let mut table = Table::new(&["ID", "MADE", "BY", "UNTIL"]);
            for link in &links {
                let text = |name: &str| link[name].as_str().unwrap_or_default().to_owned();
                let created_at: Option<DateTime<Utc>> = text("created_at").parse().ok();
                let made = created_at.map(|at| age(now - at)).unwrap_or_default();
                table.row([&text("id"), &made, &text("created_by"), &text("expires_at")]);
            }
            output::print(&table.render(Style::of(&stdout())))
        }
    }
    .map_err(VerbError::output)
}
