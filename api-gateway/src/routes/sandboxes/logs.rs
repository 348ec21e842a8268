//! `GET /sandboxes/{id}/logs`

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use chrono::SecondsFormat;
use events::{DestroyReason, Event, EventData, Position};
use record::EventFilter;
use serde::Deserialize;
use spelling::format_go_duration;
use std::time::Duration;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::Gateway;

const PAGE: u32 = 500;
const DEFAULT_LINES: usize = 1000;
pub(crate) const MAX_LINES: usize = 10_000;

/// How much of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// The last so many lines: 1 to 10000, 1000 by default.
    pub lines: Option<usize>,
}

/// What happened to a sandbox, from the record: one line an event, the oldest first. Output of execs is not part of it.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/logs",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox"), LogsQuery),
    responses(
        (status = 200, description = "The lines", body = [String]),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn logs(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<LogsQuery>,
) -> Result<Json<VecDeque<String>>, ApiError> {
    let wanted = query.lines.unwrap_or(DEFAULT_LINES);
    if !(1..=MAX_LINES).contains(&wanted) {
        return Err(ApiError::bad_request(format!("lines must be 1 to {MAX_LINES}")));
    }
    gateway.sandbox(&caller.tenant, id).await?;
    let filter = EventFilter {
        tenant: Some(caller.tenant.clone()),
        sandbox: Some(id),
        exec: None,
        types: EventData::TYPES
            .iter()
            .filter(|name| **name != "exec.output")
            .map(|name| (*name).to_owned())
            .collect(),
    };
    let mut lines = VecDeque::new();
    let mut after = Position::ZERO;
    loop {
        let frames = gateway.store().read(&filter, after, PAGE).await.map_err(ApiError::store)?;
        let Some(last) = frames.last() else {
            return Ok(Json(lines));
        };
        after = last.position;
        for frame in &frames {
            // An event of a newer build has no line here.
            let Ok(event) = frame.decode() else { continue };
            lines.push_back(line(&event));
            if lines.len() > wanted {
                lines.pop_front();
            }
        }
        if frames.len() < PAGE as usize {
            return Ok(Json(lines));
        }
    }
}

fn line(event: &Event) -> String {
    let time = event.time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let what = event.data.type_name();
    match detail(&event.data) {
        Some(detail) => format!("{time} {what} {detail}"),
        None => format!("{time} {what}"),
    }
}

/// What there is to say about an event, in a few words.
pub(super) fn detail(data: &EventData) -> Option<String> {
    let took = |us| format_go_duration(Duration::from_micros(us));
    Some(match data {
        EventData::SandboxRequested(it) => format!("{} on {}", it.spec.image, it.spec.provider),
        EventData::SandboxStarting(it) => it.node.to_string(),
        EventData::SandboxPulling(it) => {
            format!("{} {}/{} bytes", it.image, it.fetched_bytes, it.total_bytes)
        }
        EventData::SandboxRunning(it) => format!("on {} after {}", it.node, took(it.took_us)),
        EventData::SandboxFailed(it) => it.message.clone(),
        EventData::SandboxTtlExtended(it) => {
            format!("until {}", it.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        EventData::SandboxUnhealthy(it) => it.message.clone(),
        EventData::SandboxDestroying(it) => return wire_name(it.reason),
        EventData::SandboxDestroyed(it) => return wire_name(it.reason),
        EventData::SandboxLost(it) => it.node.to_string(),
        EventData::ExecRequested(it) => format!("{} {:?}", it.exec, it.spec.argv),
        EventData::ExecStarted(it) => format!("{} {:?}", it.exec, it.spec.argv),
        EventData::ExecInput(it) => format!("{} {} bytes", it.exec, it.bytes.len()),
        EventData::ExecResized(it) => format!("{} to {}x{}", it.exec, it.size.cols, it.size.rows),
        EventData::ExecSignaled(it) if it.kill => format!("{} signal {}, then 9", it.exec, it.signal),
        EventData::ExecSignaled(it) => format!("{} signal {}", it.exec, it.signal),
        EventData::ExecAttached(it) => {
            let mode = if it.writes { "rw" } else { "ro" };
            let source = it.source.as_deref().unwrap_or("an unknown address");
            format!("{} {} {mode} from {source}", it.exec, it.attachment)
        }
        EventData::ExecDetached(it) => {
            let (stdout, stderr) = (it.stdout_offset, it.stderr_offset);
            format!("{} {} at stdout {stdout}, stderr {stderr}", it.exec, it.attachment)
        }
        EventData::AccessGranted(it) => {
            format!("{} until {}", it.exec, it.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        EventData::AccessRevoked(it) => format!("{} {}", it.exec, it.viewer),
        EventData::AccessDenied(it) => {
            let source = it.source.as_deref().unwrap_or("many addresses");
            format!("{}: {}, {} times from {source}", it.route, it.reason, it.count)
        }
        EventData::ExecOutput(_) => return None,
        EventData::ExecExited(it) => {
            format!("{} code {} after {}", it.exec, it.code, took(it.ended.duration_us))
        }
        EventData::ExecTimedOut(it) => format!("{} after {}", it.exec, took(it.ended.duration_us)),
        EventData::ExecKilled(it) => format!("{} signal {}", it.exec, it.signal),
        EventData::ExecFailed(it) => format!("{} {}", it.exec, it.message),
        EventData::ExecOutcomeUnknown(it) => format!("{} {}", it.exec, it.message),
        EventData::FileWritten(it) => format!("{:?} {} bytes", it.path, it.size),
        EventData::FileRead(it) => match it.range {
            None => format!("{:?} {} bytes", it.path, it.size),
            Some((first, end)) => format!("{:?} bytes {first} to {end} of {}", it.path, it.size),
        },
        EventData::FileDeleted(it) => format!("{:?}", it.path),
        EventData::FileMoved(it) => format!("{:?} to {:?}", it.from, it.to),
        EventData::FileModeChanged(it) => format!("{:?} to {:04o}", it.path, it.mode),
        EventData::TemplateSaved(_)
        | EventData::TemplateDeleted(_)
        | EventData::NodeJoined(_)
        | EventData::NodeDraining(_)
        | EventData::SandboxErased(_)
        | EventData::AuditCheckpoint(_)
        | EventData::LogTrimmed(_)
        | EventData::LogRestored(_)
        | EventData::AuditKeyChanged(_)
        | EventData::WebhookSaved(_)
        | EventData::WebhookDeleted(_)
        | EventData::WebhookAdvanced(_)
        | EventData::WebhookRewound(_)
        | EventData::WebhookSuspended(_)
        | EventData::WebhookFailed(_)
        | EventData::WebhookPinged(_)
        | EventData::WebhookPingEnded(_) => return None,
    })
}

/// As in the events.
fn wire_name(reason: DestroyReason) -> Option<String> {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => Some(name),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use events::{Actor, EventId, ExecEnded, ExecExited, ExecId, TenantId};

    use super::*;

    #[test]
    fn a_reason_has_its_name_of_the_events() {
        assert_eq!(wire_name(DestroyReason::JobDone).as_deref(), Some("job_done"));
        assert_eq!(wire_name(DestroyReason::NodeLost).as_deref(), Some("node_lost"));
        assert_eq!(wire_name(DestroyReason::User).as_deref(), Some("user"));
    }

    #[test]
    fn a_line_says_when_and_what() {
        let event = Event {
            id: EventId::from_bytes([0; 16]),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: EventData::ExecExited(ExecExited {
                exec: ExecId::from_bytes([0; 16]),
                code: 3,
                signal: None,
                asked: None,
                ended: ExecEnded { duration_us: 1500, ..ExecEnded::default() },
            }),
        };
        assert_eq!(
            line(&event),
            "2023-11-14T22:13:20.000001Z exec.exited ex-00000000000000000000000000 code 3 after 1.5ms"
        );
    }
}
