//! `GET /sandboxes/{id}/logs`

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use chrono::SecondsFormat;
use events::{
    AccessEvent, Event, EventData, ExecEvent, FileEvent, JobEndReason, JobEvent, Position, SandboxEvent,
};
use record::EventFilter;
use serde::{Deserialize, Serialize};
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
    gateway.sandbox(&caller, id).await?;
    let filter = EventFilter {
        subject: None,
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
    match data {
        EventData::Sandbox(event) => sandbox(event),
        EventData::Exec(event) => exec(event),
        EventData::Access(event) => Some(access(event)),
        EventData::File(event) => Some(file(event)),
        EventData::Job(event) => job(event),
        EventData::Template(_)
        | EventData::Node(_)
        | EventData::Audit(_)
        | EventData::Log(_)
        | EventData::Webhook(_)
        | EventData::Schedule(_) => None,
    }
}

fn took(us: u64) -> String {
    format_go_duration(Duration::from_micros(us))
}

fn sandbox(event: &SandboxEvent) -> Option<String> {
    Some(match event {
        SandboxEvent::Requested(it) => format!("{} on {}", it.spec.image, it.spec.provider),
        SandboxEvent::Starting(it) => it.node.to_string(),
        SandboxEvent::Pulling(it) => {
            format!("{} {}/{} bytes", it.image, it.fetched_bytes, it.total_bytes)
        }
        SandboxEvent::Running(it) => format!("on {} after {}", it.node, took(it.took_us)),
        SandboxEvent::Failed(it) => it.message.clone(),
        SandboxEvent::TtlExtended(it) => {
            format!("until {}", it.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        SandboxEvent::Destroying(it) => return wire_name(it.reason),
        SandboxEvent::Destroyed(it) => return wire_name(it.reason),
        SandboxEvent::Erased(_) => return None,
    })
}

fn exec(event: &ExecEvent) -> Option<String> {
    Some(match event {
        ExecEvent::Requested(it) => format!("{} {:?}", it.exec, it.spec.argv),
        ExecEvent::Started(it) => format!("{} {:?}", it.exec, it.spec.argv),
        ExecEvent::Input(it) => format!("{} {} bytes", it.exec, it.bytes.len()),
        ExecEvent::Resized(it) => format!("{} to {}x{}", it.exec, it.size.cols, it.size.rows),
        ExecEvent::Signaled(it) if it.kill => format!("{} signal {}, then 9", it.exec, it.signal),
        ExecEvent::Signaled(it) => format!("{} signal {}", it.exec, it.signal),
        ExecEvent::Attached(it) => {
            let mode = if it.writes { "rw" } else { "ro" };
            let source = it.source.as_deref().unwrap_or("an unknown address");
            format!("{} {} {mode} from {source}", it.exec, it.attachment)
        }
        ExecEvent::Detached(it) => {
            let (stdout, stderr) = (it.stdout_offset, it.stderr_offset);
            format!("{} {} at stdout {stdout}, stderr {stderr}", it.exec, it.attachment)
        }
        ExecEvent::Output(_) => return None,
        ExecEvent::Exited(it) => {
            format!("{} code {} after {}", it.exec, it.code, took(it.ended.duration_us))
        }
        ExecEvent::TimedOut(it) => format!("{} after {}", it.exec, took(it.ended.duration_us)),
        ExecEvent::Killed(it) => format!("{} signal {}", it.exec, it.signal),
        ExecEvent::Failed(it) => format!("{} {}", it.exec, it.message),
        ExecEvent::OutcomeUnknown(it) => format!("{} {}", it.exec, it.message),
        ExecEvent::OutputClosed(it) => format!("{} {}", it.exec, wire_name(it.reason)?),
    })
}

fn job(event: &JobEvent) -> Option<String> {
    let ended = |reason: JobEndReason, message: &str| match message {
        "" => reason.as_str().to_owned(),
        message => format!("{}: {message}", reason.as_str()),
    };
    Some(match event {
        JobEvent::Submitted(it) => format!("{} {:?} in {}", it.job, it.spec.command.argv, it.spec.queue),
        JobEvent::Queued(it) => it.job.to_string(),
        JobEvent::Held(it) => match it.reason {
            Some(reason) => format!("{} {}: {}", it.job, wire_name(reason)?, it.message),
            None => format!("{} not any more", it.job),
        },
        JobEvent::Admitted(it) => format!("{} for attempt {}", it.job, it.attempt),
        JobEvent::AttemptStarted(it) => format!("{} attempt {} in {}", it.job, it.attempt, it.sandbox),
        JobEvent::AttemptRunning(it) => format!("{} attempt {}", it.job, it.attempt),
        JobEvent::AttemptEnded(it) => {
            format!("{} attempt {} {} {}", it.job, it.attempt, wire_name(it.outcome)?, it.message)
        }
        JobEvent::RetryScheduled(it) => {
            let due = it.due_at.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("{} attempt {} at {due}", it.job, it.attempt)
        }
        JobEvent::ArtifactStored(it) => {
            format!("{} {:?} {} bytes", it.job, it.artifact.path, it.artifact.object.size)
        }
        JobEvent::Progressed(it) => match it.percent {
            Some(percent) => format!("{} {percent} % {}", it.job, it.message),
            None => format!("{} {}", it.job, it.message),
        },
        JobEvent::CancelRequested(it) => format!("{} {}", it.job, wire_name(it.reason)?),
        JobEvent::Succeeded(it) => format!("{} {}", it.job, ended(it.reason, &it.message)),
        JobEvent::Failed(it) => format!("{} {}", it.job, ended(it.reason, &it.message)),
        JobEvent::Cancelled(it) => format!("{} {}", it.job, ended(it.reason, &it.message)),
        JobEvent::TimedOut(it) => format!("{} {}", it.job, ended(it.reason, &it.message)),
        JobEvent::OutcomeUnknown(it) => format!("{} {}", it.job, ended(it.reason, &it.message)),
    })
}

fn access(event: &AccessEvent) -> String {
    match event {
        AccessEvent::Granted(it) => {
            format!("{} until {}", it.exec, it.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        AccessEvent::Revoked(it) => format!("{} {}", it.exec, it.viewer),
        AccessEvent::Denied(it) => {
            let source = it.source.as_deref().unwrap_or("many addresses");
            format!("{}: {}, {} times from {source}", it.route, it.reason, it.count)
        }
    }
}

fn file(event: &FileEvent) -> String {
    match event {
        FileEvent::Written(it) => format!("{:?} {} bytes", it.path, it.size),
        FileEvent::Read(it) => match it.range {
            None => format!("{:?} {} bytes", it.path, it.size),
            Some((first, end)) => format!("{:?} bytes {first} to {end} of {}", it.path, it.size),
        },
        FileEvent::Deleted(it) => format!("{:?}", it.path),
        FileEvent::Moved(it) => format!("{:?} to {:?}", it.from, it.to),
        FileEvent::ModeChanged(it) => format!("{:?} to {:04o}", it.path, it.mode),
    }
}

/// As in the events.
fn wire_name(reason: impl Serialize) -> Option<String> {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => Some(name),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use events::{Actor, DestroyReason, EventId, ExecEnded, ExecExited, ExecId, TenantId};

    use super::*;

    #[test]
    fn a_reason_has_its_name_of_the_events() {
        assert_eq!(wire_name(DestroyReason::AgentLost).as_deref(), Some("agent_lost"));
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
            data: EventData::from(ExecExited {
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
