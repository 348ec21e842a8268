use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filter::Filter;
use crate::output::{self, Format, plain};
use crate::verbs::details::details;
use crate::verbs::error::VerbError;
use client::{Client, Method, Url};

/// How often it is looked for more.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub struct TailArgs {
    /// Wait for more at the end.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the newest.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub lines: u16,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Entry>,
    next_after: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    position: u64,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

impl Entry {
    fn text(&self, name: &str) -> &str {
        self.rest.get(name).and_then(Value::as_str).unwrap_or("-")
    }

    fn line(&self) -> String {
        let details = details(self.text("type"), self.rest.get("data").unwrap_or(&Value::Null));
        let text = format!(
            "{:>8}  {:<27}  {:<12}  {:<20}  {:<24}  {:<29}  {}",
            self.position,
            plain(self.text("time")),
            plain(self.text("tenant")),
            plain(self.text("type")),
            plain(self.text("actor")),
            plain(self.text("sandbox_id")),
            plain(&details),
        );
        text.trim_end().to_owned()
    }
}

pub async fn tail(api: &Client, format: Format, args: TailArgs) -> Result<ExitCode, VerbError> {
    // Pages may be short: what is rare is found in several.
    let mut newest: Vec<Entry> = Vec::new();
    let mut after = None;
    loop {
        let left = usize::from(args.lines) - newest.len();
        let page = page(api, query(api, &args, "desc", after, left)).await?;
        newest.extend(page.events);
        after = page.next_after;
        if after.is_none() || newest.len() >= usize::from(args.lines) {
            break;
        }
    }
    newest.reverse();
    show(&newest, format)?;
    let mut last = newest.last().map_or(0, |entry| entry.position);
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let mut after = Some(last);
        while let Some(from) = after {
            let page = match page(api, query(api, &args, "asc", Some(from), 500)).await {
                Ok(page) => page,
                Err(error) if error.is_passing() => break,
                Err(error) => return Err(error),
            };
            show(&page.events, format)?;
            last = page.events.last().map_or(last, |entry| entry.position).max(page.next_after.unwrap_or(0));
            after = page.next_after;
        }
    }
}

fn query(api: &Client, args: &TailArgs, order: &str, after: Option<u64>, limit: usize) -> Url {
    let mut url = api.url(&["audit"]);
    args.filter.put(&mut url);
    let mut pairs = url.query_pairs_mut();
    pairs.append_pair("order", order).append_pair("limit", &limit.to_string());
    if let Some(after) = after {
        pairs.append_pair("after", &after.to_string());
    }
    drop(pairs);
    url
}

async fn page(api: &Client, url: Url) -> Result<Page, VerbError> {
    Ok(api.fetch(api.request(Method::GET, url)).await?)
}

fn show(entries: &[Entry], format: Format) -> Result<(), VerbError> {
    let mut text = String::new();
    for entry in entries {
        match format {
            Format::Table => text.push_str(&entry.line()),
            Format::Json => {
                let json = serde_json::to_string(entry);
                let json = json.map_err(|error| VerbError::Unexpected(error.to_string()))?;
                text.push_str(&output::json(&json));
            }
        }
        text.push('\n');
    }
    output::print(&text).map_err(VerbError::output)
}
