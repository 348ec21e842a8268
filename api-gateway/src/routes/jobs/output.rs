//! `GET /jobs/{id}/output`

use std::io;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use events::{ExecId, JobId, JobState, OutputStream, TenantId};
use feed::{After, FeedReader, Topic};
use futures::stream::{BoxStream, StreamExt as _};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{find, recorded};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::start::read;
use crate::extract::{JobPath, QueryOf, whole};
use crate::gateway::Gateway;
use crate::routes::execs::output::{self as of_exec, OutputQuery};
use crate::routes::range;
use crate::stream::raw;

/// Of which attempts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttemptQuery {
    /// `last` (the default), `all` one after the other, or the number of one.
    pub attempt: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempts {
    Last,
    All,
    One(usize),
}

impl AttemptQuery {
    pub(crate) fn read(&self) -> Result<Attempts, ApiError> {
        match self.attempt.as_deref() {
            None | Some("last") => Ok(Attempts::Last),
            Some("all") => Ok(Attempts::All),
            Some(text) => match whole::<u32>(text).and_then(|n| usize::try_from(n).ok()) {
                Some(n) if n > 0 => Ok(Attempts::One(n)),
                Some(_) | None => {
                    Err(ApiError::bad_request("attempt must be last, all or the number of one"))
                }
            },
        }
    }
}

/// What a job wrote, as raw bytes, as of an exec. While it waits there is nothing; with `follow` the answer goes on until the attempt
/// has ended, or with `attempt=all` until the job has.
#[utoipa::path(
    get,
    path = "/jobs/{id}/output",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        OutputQuery,
        AttemptQuery,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 400, description = "No such stream, no offset, or no number of an attempt", body = ErrorBody),
        (status = 404, description = "No such job, or no such attempt", body = ErrorBody),
        (status = 410, description = "These bytes are not kept any more; `X-Next-Offset` says where output goes on", body = ErrorBody),
        (status = 416, description = "The range begins past the end", body = ErrorBody),
    )
)]
pub(crate) async fn output(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
    QueryOf(query): QueryOf<OutputQuery>,
    QueryOf(attempts): QueryOf<AttemptQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = query.read(range::read(&headers))?;
    let attempts = attempts.read()?;
    let reader = gateway.feed().subscribe(Topic::Job(id), After::Now);
    let state = find(&gateway, &caller, id).await?;
    let count = state.attempts.len();
    let first = match attempts {
        Attempts::All if wanted.is_partial() => {
            return Err(ApiError::bad_request("offsets count the bytes of one attempt: name it"));
        }
        Attempts::All => 0,
        Attempts::Last => count.saturating_sub(1),
        Attempts::One(n) if n <= count => n - 1,
        Attempts::One(n) => return Err(ApiError::absent("attempt", n)),
    };
    if attempts != Attempts::All
        && let Some(exec) = exec_of(&gateway, &state, first).await?
    {
        return of_exec::respond(gateway, &exec, &wanted).await;
    }
    let last = if attempts == Attempts::All { None } else { Some(first) };
    let (stream, offset, follow) = (wanted.stream(), wanted.offset(), wanted.follows());
    let follower = Follower {
        tenant: state.tenant.clone(),
        id,
        reader,
        next: first,
        last,
        stream,
        offset,
        follow,
        current: None,
        gateway,
    };
    let mut response = raw::respond(follower.bytes());
    response.headers_mut().insert("accept-ranges", HeaderValue::from_static("bytes"));
    Ok(response)
}

/// The exec of an attempt, if it has come to be.
async fn exec_of(
    gateway: &Gateway,
    state: &JobState,
    attempt: usize,
) -> Result<Option<events::ExecState>, ApiError> {
    let Some(exec) = state.attempts.get(attempt).and_then(|attempt| attempt.exec) else { return Ok(None) };
    gateway.store().exec_of(&state.tenant, exec).await.map_err(ApiError::store)
}

/// Reads one attempt after the other.
struct Follower {
    gateway: Gateway,
    tenant: TenantId,
    id: JobId,
    reader: FeedReader,
    /// The attempt that is read next, from 0 on, and the last that is.
    next: usize,
    last: Option<usize>,
    stream: Option<OutputStream>,
    /// Where the first of them begins, where it is the only one.
    offset: u64,
    follow: bool,
    current: Option<BoxStream<'static, io::Result<Bytes>>>,
}

impl Follower {
    fn bytes(self) -> BoxStream<'static, io::Result<Bytes>> {
        futures::stream::try_unfold(self, |mut this| async move {
            loop {
                if let Some(current) = &mut this.current {
                    match current.next().await {
                        Some(bytes) => return Ok(Some((bytes?, this))),
                        None => this.current = None,
                    }
                }
                if !this.advance().await? {
                    return Ok(None);
                }
            }
        })
        .boxed()
    }

    /// Goes on to the next attempt that wrote something, or waits for it. `false`: there is none.
    async fn advance(&mut self) -> io::Result<bool> {
        loop {
            if self.last.is_some_and(|last| self.next > last) {
                return Ok(false);
            }
            let state = recorded(&self.gateway, &self.tenant, self.id).await.map_err(io::Error::other)?;
            let Some(state) = state else { return Ok(false) };
            let exec = exec_of(&self.gateway, &state, self.next).await.map_err(io::Error::other)?;
            if let Some(exec) = exec {
                self.next += 1;
                let wanted = (self.stream, self.offset, self.follow);
                self.current = Some(open(self.gateway.clone(), exec.id, wanted).await?);
                return Ok(true);
            }
            let is_over = state.attempts.get(self.next).is_some_and(|attempt| attempt.ended.is_some());
            if is_over {
                // It never ran.
                self.next += 1;
                continue;
            }
            if state.has_ended() || !self.follow {
                return Ok(false);
            }
            tokio::select! {
                next = self.reader.next() => drop(next.map_err(io::Error::other)?),
                // The connection breaks, so that nobody takes this for the end.
                () = self.gateway.closing().cancelled() => return Err(io::Error::other("the gateway stops")),
            }
        }
    }
}

/// What an exec wrote, and writes.
async fn open(
    gateway: Gateway,
    exec: ExecId,
    (stream, offset, follow): (Option<OutputStream>, u64, bool),
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    // The other stream is of no interest, from wherever it would begin.
    let skip = i64::MAX.unsigned_abs();
    let (stdout, stderr) = match stream {
        None => (0, 0),
        Some(OutputStream::Stdout) => (offset, skip),
        Some(OutputStream::Stderr) => (skip, offset),
    };
    let reader = read(&gateway, exec, stdout, stderr).await.map_err(io::Error::other)?;
    Ok(of_exec::live(gateway, reader, stream, follow).boxed())
}
