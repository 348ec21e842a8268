//! `stacyvm logs`

use std::collections::VecDeque;
use std::process::ExitCode;

use super::details::details;
use super::error::VerbError;
use super::events::RECONNECT;
use super::kill::is_exec;
use super::session;
use super::signals::Signals;
use crate::output::{self, Format, plain};
use client::{Client, EventUpdate, EventsQuery, FeedEvent};

/// Show what happened to a sandbox, or what a command has written.
#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    /// Sandbox or exec.
    pub id: String,
    /// Also what comes, until the sandbox or the command has ended.
    #[arg(long, short)]
    pub follow: bool,
    /// The last so many lines, of a sandbox.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub lines: Option<u32>,
    /// Write output to a terminal as it is, also what would ask it something or set the clipboard.
    #[arg(long)]
    pub raw: bool,
}

pub async fn logs(api: &Client, format: Format, args: LogsArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    tokio::select! {
        biased;
        caught = signals.next() => Err(VerbError::Interrupted(caught.exit_code())),
        shown = show(api, format, &args) => shown.map(|()| ExitCode::SUCCESS),
    }
}

async fn show(api: &Client, format: Format, args: &LogsArgs) -> Result<(), VerbError> {
    if is_exec(&args.id) {
        if args.lines.is_some() {
            return Err(VerbError::Usage("--lines is for sandboxes".to_owned()));
        }
        return session::recorded(api, &args.id, format, args.follow, args.raw).await;
    }
    if args.follow {
        return follow(api, format, &args.id, args.lines).await;
    }
    let lines = api.logs(&args.id, args.lines).await?;
    match format {
        Format::Json => output::print_json(&lines),
        Format::Table => {
            output::print(&lines.iter().map(|line| format!("{}\n", plain(line))).collect::<String>())
        }
    }
    .map_err(VerbError::output)
}

/// What is there, and then what comes: both from the record, so nothing falls between the two.
async fn follow(api: &Client, format: Format, sandbox: &str, lines: Option<u32>) -> Result<(), VerbError> {
    // Says that there is no such sandbox; the record of one that is not there is empty.
    let known = api.logs(sandbox, Some(1)).await?;
    let mut query =
        EventsQuery { after: Some(0), sandbox: Some(sandbox.to_owned()), ..EventsQuery::default() };
    let api = api.with_patience(RECONNECT);
    let most = lines.map_or(usize::MAX, |lines| lines as usize);
    let mut newest = VecDeque::new();
    let mut has_ended = known.is_empty();
    let mut feed = api.events(query.clone()).await?;
    while let Some(update) = feed.next().await {
        let EventUpdate::Event(event) = update? else { continue };
        query.after = Some(event.position);
        has_ended |= is_end(&event);
        newest.extend(line(&event));
        if newest.len() > most {
            newest.pop_front();
        }
    }
    for line in &newest {
        print(line, format)?;
    }
    if has_ended {
        return Ok(());
    }
    query.follow = true;
    let mut feed = api.events(query).await?;
    while let Some(update) = feed.next().await {
        let EventUpdate::Event(event) = update? else { continue };
        if let Some(line) = line(&event) {
            print(&line, format)?;
        }
        if is_end(&event) {
            break;
        }
    }
    Ok(())
}

fn is_end(event: &FeedEvent) -> bool {
    matches!(event.event.r#type.as_str(), "sandbox.destroyed" | "sandbox.failed")
}

/// A line as the server makes them. What execs write is not part of a sandbox's log.
fn line(event: &FeedEvent) -> Option<String> {
    let body = &event.event;
    if matches!(body.r#type.as_str(), "exec.output" | "exec.input") {
        return None;
    }
    let line = format!("{} {} {}", body.timestamp, body.r#type, details(&body.r#type, &body.data));
    Some(line.trim_end().to_owned())
}

fn print(line: &str, format: Format) -> Result<(), VerbError> {
    match format {
        Format::Json => output::print_json_line(&line),
        Format::Table => output::print(&format!("{}\n", plain(line))),
    }
    .map_err(VerbError::output)
}
