//! `GET /execs/{id}`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use events::{Asked, EndCause, ExecEnd, ExecId, ExecState, format_go_duration};
use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::ExecPath;
use crate::gateway::Gateway;
use crate::stream::record::{is_zero, outcome};

/// An exec, as the record knows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Exec {
    /// Its id.
    pub id: String,
    /// Where it runs.
    pub sandbox_id: String,
    /// `pending`, `running`, `exited`, `timed_out`, `killed`, `failed` or `outcome_unknown`.
    pub state: &'static str,
    /// As in a shell; absent while it runs, and where nothing ran to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The working directory, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The terminal's size, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Size>,
    /// Whether it was started with its stdin open.
    pub stdin: bool,
    /// When it started; when it was asked for, while it is pending.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it ran, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes of stdout in the record.
    pub stdout_bytes: u64,
    /// Bytes of stderr in the record.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were thrown away.
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// `true`: the memory of the sandbox was used up, and the kernel ended it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// Why it did not run, or why nobody can say how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// That it was asked to end. How it ended after that is told above: it may have left by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedToEnd>,
    /// Where it is read, watched and fed.
    pub links: ExecLinks,
}

/// Who or what asked an exec to end, and how.
#[derive(Debug, Serialize, ToSchema)]
pub struct AskedToEnd {
    /// `request` (a client asked), or `sandbox` (its sandbox was destroyed, or its deadline passed).
    #[schema(value_type = String)]
    pub cause: EndCause,
    /// Who asked, as events name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The signal that it was sent first.
    pub signal: i32,
}

impl AskedToEnd {
    fn of(asked: &Asked) -> Self {
        let Asked { cause, by, signal } = asked;
        Self { cause: *cause, by: by.as_ref().map(ToString::to_string), signal: *signal }
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = TerminalSize)]
pub struct Size {
    /// The height.
    pub rows: u16,
    /// The width.
    pub cols: u16,
}

/// Paths about one exec.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExecLinks {
    /// The exec itself.
    #[serde(rename = "self")]
    pub itself: String,
    /// Its output as raw bytes.
    pub output: String,
    /// Its output as NDJSON.
    pub stream: String,
    /// A WebSocket to watch it and to type.
    pub attach: String,
}

impl ExecLinks {
    /// The paths about this exec.
    pub fn of(exec: ExecId) -> Self {
        let path = format!("/api/v1/execs/{exec}");
        Self {
            output: format!("{path}/output"),
            stream: format!("{path}/stream"),
            attach: format!("{path}/attach"),
            itself: path,
        }
    }
}

/// The name of an exec's state.
pub fn state_name(state: &ExecState) -> &'static str {
    match &state.end {
        Some(end) => outcome(end),
        None if state.pending => "pending",
        None => "running",
    }
}

impl Exec {
    /// The exec as clients see it.
    pub fn of(state: &ExecState) -> Self {
        let end = state.end.as_ref();
        let ended = end.and_then(ExecEnd::ended);
        let (signal, ended_at, message) = match end {
            None => (None, None, None),
            Some(ExecEnd::Exited { signal, at, .. }) => (*signal, Some(*at), None),
            Some(ExecEnd::Killed { signal, at, .. }) => (Some(*signal), Some(*at), None),
            Some(ExecEnd::TimedOut { signal, at, .. }) => (*signal, Some(*at), None),
            Some(ExecEnd::Failed { message, at, .. } | ExecEnd::OutcomeUnknown { message, at }) => {
                (None, Some(*at), Some(message.clone()))
            }
        };
        Self {
            id: state.id.to_string(),
            sandbox_id: state.sandbox.to_string(),
            state: state_name(state),
            exit_code: end.and_then(ExecEnd::exit_code),
            signal,
            argv: state.spec.as_ref().map(|spec| spec.argv.clone()).unwrap_or_default(),
            workdir: state.spec.as_ref().and_then(|spec| spec.cwd.clone()),
            tty: state
                .spec
                .as_ref()
                .and_then(|spec| spec.tty)
                .map(|size| Size { rows: size.rows, cols: size.cols }),
            stdin: state.spec.as_ref().is_some_and(|spec| spec.stdin),
            started_at: state.started_at,
            ended_at,
            duration: ended.map(|ended| format_go_duration(Duration::from_micros(ended.duration_us))),
            stdout_bytes: state.stdout_bytes,
            stderr_bytes: state.stderr_bytes,
            truncated_bytes: ended.map_or(0, |ended| ended.truncated_bytes),
            oom: ended.is_some_and(|ended| ended.oom),
            message,
            asked: state.asked.as_ref().map(AskedToEnd::of),
            links: ExecLinks::of(state.id),
        }
    }
}

/// One exec, running or ended, also after its sandbox is gone.
#[utoipa::path(
    get,
    path = "/execs/{id}",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    responses(
        (status = 200, description = "The exec", body = Exec),
        (status = 404, description = "No such exec, or it has not started yet", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
) -> Result<Json<Exec>, ApiError> {
    Ok(Json(Exec::of(&*find(&gateway, &caller.tenant, id).await?)))
}
