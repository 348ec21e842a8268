//! `POST /sandboxes/{id}/exec`

use std::time::Duration;

use api_types::{Detached, ExecLinks, ExecReply, ExecRequest, ExecState};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::{ExecEnd, ExecId, OutputStream};
use feed::OutputItem;
use record::StoreError;
use spelling::format_go_duration;

use super::reply::{self, Written};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::end::{failure, outcome_unknown, timed_out};
use crate::exec::request::{interactive, is_interactive, runnable};
use crate::exec::shown::state_name;
use crate::exec::start::{Started, known, start, start_detached, verify};
use crate::extract::{QueryOf, RawJsonBody, SandboxPath};
use crate::gateway::Gateway;
use crate::idempotency::IdempotencyKey;
use crate::share::visit::Visit;
use crate::stream::exec::{ExecRecords, failed};
use crate::stream::ndjson::{self, Records, RecordsQuery};

/// Why a sync exec has no reply.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error("the command wrote more than {limit} bytes, which is more than a reply holds")]
    TooMuch { exec: ExecId, limit: usize },
    #[error("the command did not end within {0:?}, the time for its way to the node included")]
    Late(Duration),
    #[error("nothing can be recorded at the moment, of this command neither")]
    Unrecorded,
    #[error("cannot read the exec")]
    Feed(#[from] feed::FeedError),
    #[error(transparent)]
    Gone(StoreError),
    #[error("nobody can say whether it began: {0}")]
    NotStarted(ApiError),
}

impl From<CollectError> for ApiError {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::TooMuch { exec, .. } => Self::too_large(format!(
                "{error}: use \"stream\": true; all of it is at /api/v1/execs/{exec}/output"
            )),
            CollectError::Gone(gone) => Self::store(gone),
            CollectError::NotStarted(error) => error,
            CollectError::Unrecorded => Self::not_now(
                "nothing can be recorded at the moment: look later under its id whether the command ran",
            ),
            CollectError::Late(_) | CollectError::Feed(_) => Self::unavailable(error),
        }
    }
}

/// Runs a command: answers with all of its output when it is over, or with `"stream": true` as NDJSON while it runs.
///
/// NDJSON: `{"stream","data","offset","next_offset"}`, with `data_b64` beside `data` for bytes that are not UTF-8. `offset`
/// is where the first byte of the chunk stands in its stream, `next_offset` where to go on from. Blank lines keep the
/// connection alive. The exec's id is in `X-Exec-ID`. With `records=all` the first record is `{"exec_id"}`, and the last has
/// no `stream` and carries `exec_id`, `outcome`, `exit_code` and the lengths of both streams. Without it nothing but output
/// comes; a failure is then a last line on stderr with `error` beside `data`.
///
/// With `"detach": true` the answer is 202 with the exec's id, at once.
///
/// A client that goes away does not end the command. It is read again by its id: `/execs/{id}`, `/execs/{id}/output`,
/// `/execs/{id}/stream`.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/exec",
    tag = "execs",
    params(
        ("id" = String, Path, description = "The sandbox"),
        RecordsQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body runs once and gives the first result again"),
    ),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "It ended; an exit code that is not 0 is no error", content(
            (ExecReply = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 202, description = "`detach`: it was asked for", body = Detached),
        (status = 400, description = "A field is wrong, or the command cannot be run", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 408, description = "Its time was up, and it was ended", body = ErrorBody),
        (status = 409, description = "The key was used with another body, or nobody can say how it ended", body = ErrorBody),
        (status = 413, description = "More output than a reply holds", body = ErrorBody),
    )
)]
pub(crate) async fn run(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<RecordsQuery>,
    key: IdempotencyKey,
    visit: Visit,
    body: RawJsonBody<ExecRequest>,
) -> Result<Response, ApiError> {
    let records = Records::read(query.records.as_deref(), Records::Output)?;
    let idempotent = key.with(&caller.tenant, &format!("exec {id}"), &body.bytes);
    // What was asked for before has its answer, whatever has become of its sandbox.
    let known = match &idempotent {
        Some(idempotent) => known(&gateway, idempotent).await?,
        None => None,
    };
    let place = match known {
        Some(_) => None,
        None => Some(gateway.placed_sandbox(&caller, id).await?),
    };
    let limits = &gateway.config().execs;
    let stream = body.value.stream == Some(true);
    if body.value.detach == Some(true) {
        if stream {
            return Err(ApiError::bad_request("detach and stream exclude each other"));
        }
        let runnable = interactive(body.value, limits, false)?;
        let exec =
            start_detached(&gateway, &caller, (id, place), known, runnable, idempotent.as_ref()).await?;
        return detached(&gateway, exec).await;
    }
    if is_interactive(&body.value) {
        return Err(ApiError::bad_request("tty and stdin need \"detach\": true, or the WebSocket"));
    }
    let mut runnable = runnable(body.value, limits)?;
    if stream {
        gateway.shares().stream(&caller, &visit)?;
        let Started { exec, output, asked } =
            start(&gateway, &caller, place, known, runnable, idempotent.as_ref()).await?;
        let closing = gateway.closing().clone();
        let source = ExecRecords::new(exec, output, gateway.config().heartbeat, closing).asked_for(asked);
        return Ok(ndjson::respond(source, records));
    }
    let timeout = match runnable.spec.timeout_ms {
        Some(ms) => Duration::from_millis(ms),
        None => limits.sync_timeout(),
    };
    runnable.spec.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let started = start(&gateway, &caller, place, known, runnable, idempotent.as_ref()).await?;
    let exec = started.exec;
    let patience = timeout + limits.delivery_grace;
    let reply = tokio::time::timeout(patience, collect(&gateway, started, limits.max_sync_output_bytes))
        .await
        .unwrap_or(Err(CollectError::Late(patience)))
        .map_err(ApiError::from)
        .map_err(|error| error.with_exec(exec))?;
    verify(&gateway, exec, idempotent.as_ref()).await.map_err(|error| error.with_exec(exec))?;
    respond(&gateway, exec, reply)
}

/// It is not waited for: the record need not know of it yet, and then it is pending.
async fn detached(gateway: &Gateway, exec: ExecId) -> Result<Response, ApiError> {
    let state = gateway.store().exec(exec).await.map_err(ApiError::store)?;
    let reply = Detached {
        exec_id: exec.to_string(),
        state: state.as_ref().map_or(ExecState::Pending, state_name).into(),
        links: ExecLinks::of(exec),
    };
    let id = HeaderValue::try_from(reply.exec_id.as_str()).map_err(ApiError::internal)?;
    let headers = [(HeaderName::from_static("x-exec-id"), id)];
    Ok((StatusCode::ACCEPTED, headers, Json(reply)).into_response())
}

/// What an exec wrote and how it ended. Of what is long only the lengths are kept: the record has the rest.
struct Collected {
    stdout: Written,
    stderr: Written,
    end: ExecEnd,
}

async fn collect(gateway: &Gateway, started: Started, limit: usize) -> Result<Collected, CollectError> {
    let Started { exec, mut output, mut asked } = started;
    let (mut stdout, mut stderr) = (Written::default(), Written::default());
    let mut next = tokio::select! {
        next = output.next() => next?,
        () = gateway.readiness().hopeless() => return Err(CollectError::Unrecorded),
        error = failed(&mut asked) => return Err(CollectError::NotStarted(error)),
    };
    if let Some(asked) = asked {
        asked.settle();
    }
    let hopeless = gateway.readiness().hopeless_for_begun();
    tokio::pin!(hopeless);
    loop {
        match next {
            Some(OutputItem::Output { stream, bytes, .. }) => {
                if stdout.len() + stderr.len() + bytes.len() as u64 > limit as u64 {
                    return Err(CollectError::TooMuch { exec, limit });
                }
                match stream {
                    OutputStream::Stdout => stdout.add(&bytes),
                    OutputStream::Stderr => stderr.add(&bytes),
                }
            }
            Some(OutputItem::Gone { next_offset, why, .. }) => {
                return Err(CollectError::Gone(StoreError::Gone { why, next_offset }));
            }
            Some(OutputItem::Started | OutputItem::Resized(_) | OutputItem::Closed(_)) => {}
            Some(OutputItem::Ended { end, .. }) => return Ok(Collected { stdout, stderr, end }),
            None => return Err(feed::FeedError::Disconnected.into()),
        }
        next = tokio::select! {
            biased;
            next = output.next() => next?,
            () = &mut hopeless => return Err(CollectError::Unrecorded),
        };
    }
}

fn respond(gateway: &Gateway, exec: ExecId, collected: Collected) -> Result<Response, ApiError> {
    let Collected { stdout, stderr, end } = collected;
    let (exit_code, signal, ended) = match &end {
        ExecEnd::Exited { code, signal, ended, .. } => (*code, *signal, ended),
        ExecEnd::Killed { signal, ended, .. } => (128_i32.saturating_add(*signal), Some(*signal), ended),
        ExecEnd::TimedOut { .. } => return Err(timed_out(exec)),
        ExecEnd::Failed { code, message, .. } => return Err(failure(*code, message).with_exec(exec)),
        ExecEnd::OutcomeUnknown { message, .. } => return Err(outcome_unknown(message).with_exec(exec)),
    };
    let reply = ExecReply {
        exec_id: exec.to_string(),
        exit_code,
        stdout: stdout.text().unwrap_or_default(),
        stderr: stderr.text().unwrap_or_default(),
        duration: format_go_duration(Duration::from_micros(ended.duration_us)),
        signal,
        truncated_bytes: ended.truncated_bytes,
        oom: ended.oom,
    };
    let id = HeaderValue::try_from(reply.exec_id.as_str()).map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("x-exec-id"), id),
    ];
    let body = if stdout.is_whole() && stderr.is_whole() {
        Body::from(serde_json::to_vec(&reply).map_err(ApiError::internal)?)
    } else {
        reply::stream(gateway.clone(), exec, &reply, [stdout, stderr]).map_err(ApiError::internal)?
    };
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn too_much_output_points_to_where_it_is() {
        let error: ApiError = CollectError::TooMuch { exec: ExecId::from_bytes([0; 16]), limit: 5 }.into();
        assert_eq!(error.code(), ErrorCode::TooLarge);
        assert!(error.to_string().contains("/api/v1/execs/ex-0"), "{error}");
    }
}
