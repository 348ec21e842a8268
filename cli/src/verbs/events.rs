//! `stacyvm events`

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;

use super::details::details;
use super::error::VerbError;
use super::moment::Start;
use crate::output::{self, Format, Style, plain};
use client::{Client, EventUpdate, EventsQuery, FeedEvent};

/// How many events are written at once at most.
const GATHER: usize = 256;
/// How long a server may be away. Who follows is patient.
pub const RECONNECT: Duration = Duration::from_secs(300);

/// Show what happened, from the record: everything up to now, or with --follow what happens from now on.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArgs {
    /// Wait for more at the end.
    #[arg(long, short)]
    pub follow: bool,
    /// Begin after this position (0 is before the first event), at this time (2026-01-02T03:04:05Z), or so long ago (10m).
    #[arg(long, value_name = "POSITION|TIME")]
    pub from: Option<Start>,
    /// Only those of this sandbox.
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// Only those of these types: exec.exited,sandbox.destroyed.
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',')]
    pub types: Vec<String>,
}

pub async fn events(api: &Client, format: Format, args: EventsArgs) -> Result<ExitCode, VerbError> {
    let (after, from) = match args.from {
        None => (Some(0).filter(|_| !args.follow), None),
        Some(Start::After(position)) => (Some(position), None),
        Some(Start::At(time)) => (None, Some(time.utc())),
    };
    let query = EventsQuery { after, from, sandbox: args.sandbox, types: args.types, follow: args.follow };
    let feed = api.with_patience(RECONNECT).events(query).await?;
    let style = Style::of(&stdout());
    if format == Format::Table && stdout().is_terminal() {
        let heading = line("POSITION", "TIME", "TYPE", "SANDBOX", "DETAILS");
        output::print(&format!("{}\n", style.bold(&heading))).map_err(VerbError::output)?;
    }
    let mut gathered = feed.ready_chunks(GATHER);
    while let Some(updates) = gathered.next().await {
        let mut text = String::new();
        let mut failed = None;
        let mut misses = false;
        for update in updates {
            match update {
                Ok(EventUpdate::Event(event)) => show(&event, format, &mut text),
                Ok(EventUpdate::Interrupted { may_miss, .. }) => misses |= may_miss,
                Err(error) => failed = Some(error),
            }
        }
        output::print(&text).map_err(VerbError::output)?;
        if misses {
            output::note(
                "the stream broke before its first event: what happens until it is there again is not shown",
            );
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(event: &FeedEvent, format: Format, text: &mut String) {
    match format {
        Format::Json => text.push_str(&output::json(&json_line(event))),
        Format::Table => text.push_str(&table_line(event)),
    }
    text.push('\n');
}

/// The event as the server told it, with its position in front.
fn json_line(event: &FeedEvent) -> String {
    let position = event.position;
    match event.json.trim().strip_prefix('{') {
        Some("}") | None => format!("{{\"position\":{position}}}"),
        Some(rest) => format!("{{\"position\":{position},{rest}"),
    }
}

fn table_line(event: &FeedEvent) -> String {
    let body = &event.event;
    let sandbox = body.sandbox_id.as_deref().unwrap_or("-");
    let details = details(&body.r#type, &body.data);
    line(
        &event.position.to_string(),
        &plain(&body.timestamp),
        &plain(&body.r#type),
        &plain(sandbox),
        &plain(&details),
    )
}

/// Columns of fixed widths: what comes later is not known yet.
fn line(position: &str, time: &str, kind: &str, sandbox: &str, details: &str) -> String {
    let text = format!("{position:>8}  {time:<27}  {kind:<20}  {sandbox:<29}  {details}");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(position: u64, body: serde_json::Value) -> FeedEvent {
        FeedEvent { position, json: body.to_string(), event: serde_json::from_value(body).unwrap() }
    }

    #[test]
    fn a_line_has_position_time_type_sandbox_and_details() {
        let event = event(
            12,
            json!({"id": "e", "type": "exec.exited", "sandbox_id": "sb-01jd2x5c0pe3tt4m1q5a8z0v9k",
                "timestamp": "2026-01-02T03:04:05.000001Z", "data": {"exec": "ex-1", "code": 3, "duration_us": 1500}}),
        );
        assert_eq!(
            table_line(&event),
            "      12  2026-01-02T03:04:05.000001Z  exec.exited           sb-01jd2x5c0pe3tt4m1q5a8z0v9k  ex-1 code 3 after 1.5ms"
        );
    }

    #[test]
    fn json_keeps_what_the_server_said() {
        let mut told = event(3, json!({"type": "new.type"}));
        told.json = r#"{"type":"new.type","x":[1]}"#.to_owned();
        assert_eq!(json_line(&told), r#"{"position":3,"type":"new.type","x":[1]}"#);
        told.json = "{}".to_owned();
        assert_eq!(json_line(&told), r#"{"position":3}"#);
    }

    #[test]
    fn an_event_cannot_break_its_line() {
        let event = event(1, json!({"type": "file.written", "data": {"path": "a\nb\u{1b}[2J", "size": 1}}));
        assert!(table_line(&event).ends_with("a\\nb\\u{1b}[2J 1 bytes"), "{}", table_line(&event));
    }
}
