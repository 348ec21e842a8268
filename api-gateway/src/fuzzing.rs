//! Doors for the fuzz targets: what reads the bytes of clients and of sandboxes, without what is behind it. No service uses it.

use api_types::{
    ChmodRequest, ExecRequest, ExtendRequest, MoveRequest, RedeliverRequest, ResizeRequest, SignalRequest,
    WriteRequest,
};
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use bytes::{Bytes, BytesMut};
use events::{Event, ExecId, OutputStream, Position, TenantId};
use secrets::MasterKey;
use serde::de::DeserializeOwned;

use crate::auth::{Action, Caller, Role, user_id};
use crate::config::{ExecLimits, SandboxLimits, WebhookLimits};
use crate::error::ApiError;
use crate::exec::request::{interactive, runnable};
use crate::origin::Origin;
use crate::routes::{audit, events as feed, execs, files, range, sandboxes, templates, webhooks};
use crate::stream::asciicast::{Asciicast, Form};
use crate::stream::attach_frame::AttachInput;
use crate::stream::ndjson::{Records, RecordsQuery};
use crate::stream::record::{output, write_line};
use crate::stream::utf8::Utf8Splitter;
use crate::stream::ws_frame::{ClientFrame, opening};
use crate::strict::{Handling, Unread};

/// A frame of a client, as each kind of WebSocket reads it. Whether it is one.
pub fn socket_frame(kind: u8, bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    match kind % 5 {
        0 => opening(bytes, &ExecLimits::default(), &Unread::default()).is_ok(),
        1 => text.is_ok_and(|text| ClientFrame::read(text, &Unread::default()).is_ok()),
        2 => AttachInput::binary(Bytes::copy_from_slice(bytes)).is_ok(),
        3 => AttachInput::control(bytes).is_ok(),
        _ => text.is_ok_and(|text| sandboxes::replay::wish(text).is_ok()),
    }
}

/// The body of a request, as each route reads it. Whether it is one.
pub fn body(kind: u8, bytes: &[u8]) -> bool {
    let (sandbox, exec) = (SandboxLimits::default(), ExecLimits::default());
    fn of<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
        let unread = Unread::default();
        let value = unread.body(bytes);
        // What nothing reads is named in a header and in the log.
        unread.log("fuzz");
        value
    }
    match kind % 12 {
        0 => of::<ExecRequest>(bytes).and_then(|it| runnable(it, &exec)).is_ok(),
        1 => of::<ExecRequest>(bytes).and_then(|it| interactive(it, &exec, true)).is_ok(),
        2 => of(bytes).and_then(|it| sandboxes::plan::plan(it, None, None, &sandbox)).is_ok(),
        3 => of(bytes).and_then(|it| templates::save::checked(it, &sandbox)).is_ok(),
        4 => webhooks::reads(of(bytes), &WebhookLimits::default(), Position(9)),
        5 => of::<WriteRequest>(bytes).is_ok(),
        6 => of::<ChmodRequest>(bytes)
            .is_ok_and(|it| files::path::mode_change(&it.mode.unwrap_or_default()).is_ok()),
        7 => of::<MoveRequest>(bytes).is_ok_and(|it| files::path::path(it.old_path, "old_path").is_ok()),
        8 => of::<SignalRequest>(bytes)
            .is_ok_and(|it| it.signal.is_some_and(|signal| crate::exec::signal::number(&signal).is_ok())),
        9 => of::<ResizeRequest>(bytes).is_ok(),
        10 => of::<ExtendRequest>(bytes)
            .is_ok_and(|it| sandboxes::plan::ttl(&it.ttl.unwrap_or_default()).is_ok()),
        _ => of::<RedeliverRequest>(bytes).is_ok(),
    }
}

/// The parameters of a request, as each route reads them. Whether they are good.
pub fn query(kind: u8, text: &str, headers: &HeaderMap) -> bool {
    let Ok(uri) = format!("/?{text}").parse::<Uri>() else { return false };
    fn of<T: DeserializeOwned>(uri: &Uri) -> Option<T> {
        Query::<T>::try_from_uri(uri).ok().map(|Query(value)| value)
    }
    let caller = |role| Caller::new(TenantId::default_tenant(), role, Action::AuditList);
    let good = match kind % 12 {
        0 => of::<sandboxes::replay::ReplayQuery>(&uri).map(|it| it.read().is_ok()),
        1 => of::<feed::query::EventsQuery>(&uri).map(|it| {
            it.read(headers, &caller(Role::DeploymentAdmin)).is_ok() && it.wants_lines(headers).is_ok()
        }),
        2 => of::<audit::query::AuditParams>(&uri).map(|it| it.read(&caller(Role::DeploymentAdmin)).is_ok()),
        3 => of::<audit::query::AuditParams>(&uri).map(|it| it.read(&caller(Role::Member)).is_ok()),
        4 => of::<execs::output::OutputQuery>(&uri).map(|it| it.read(range::read(headers)).is_ok()),
        5 => of::<execs::list::ListQuery>(&uri).map(|it| it.read().is_ok()),
        6 => of::<sandboxes::list::ListQuery>(&uri).map(|it| it.page().is_ok()),
        7 => of::<sandboxes::timeline::TimelineQuery>(&uri).map(|it| it.read().is_ok()),
        8 => of::<sandboxes::past::AtQuery>(&uri).map(|it| it.read().is_ok()),
        9 => of::<files::glob::GlobQuery>(&uri).map(|it| files::path::pattern(it.pattern, "pattern").is_ok()),
        10 => of::<files::upload::UploadQuery>(&uri).map(|it| {
            files::path::path(it.path, "path").is_ok()
                && files::path::mode_or_kept(it.mode.as_deref()).is_ok()
        }),
        _ => of::<RecordsQuery>(&uri).map(|it| Records::read(it.records.as_deref(), Records::All).is_ok()),
    };
    good.unwrap_or(false)
}

/// Headers, a line each as HTTP has them; what is none is left out.
pub fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// What stands in front of all routes reads the headers of a request. How many of them say something that holds.
pub fn read_headers(headers: &HeaderMap, total: u64) -> usize {
    let range = range::read(headers).and_then(|asked| asked.of(total));
    // No range reaches past what there is.
    let range = range.is_some_and(|range| range.end <= total);
    let value = |name| headers.get(name).map(HeaderValue::as_bytes);
    let user = value("x-user-id").and_then(|user| std::str::from_utf8(user).ok());
    let holds = [
        range,
        crate::origin::check(headers, &[]).is_ok(),
        crate::origin::check_loopback(headers).is_ok(),
        Handling::of(headers).applied().is_some(),
        crate::body::plain(headers).is_ok(),
        crate::body::declared_length(headers).is_some(),
        value("idempotency-key").is_some_and(|key| crate::idempotency::parse(key).is_ok()),
        user.is_some_and(|user| user_id(user, "X-User-ID").is_ok()),
        crate::auth::presented(headers).is_some(),
    ];
    holds.into_iter().filter(|holds| *holds).count()
}

/// Texts that stand for a key: tickets and the tokens of viewer links, by a deployment of another key. True would be a forgery.
pub fn is_let_in(text: &str) -> bool {
    let key = MasterKey::from_bytes([7; 32]);
    crate::auth::ticket::reads(text, &key) || crate::auth::viewer::reads(text, &key)
}

/// An origin, written again; `None` for what is none.
pub fn origin(text: &str) -> Option<String> {
    text.parse::<Origin>().ok().map(|origin| origin.to_string())
}

/// What a sandbox wrote, in these pieces, as the lines of a stream of records.
pub fn records(offset: u64, pieces: &[&[u8]]) -> Bytes {
    let (mut splitter, mut lines) = (Utf8Splitter::default(), BytesMut::new());
    let mut at = offset;
    let mut write = |chunk: Option<_>| {
        if let Some(chunk) = chunk {
            write_line(&output(OutputStream::Stdout, &chunk), &mut lines);
        }
    };
    for piece in pieces {
        write(splitter.push(at, Bytes::copy_from_slice(piece)));
        at = at.saturating_add(piece.len() as u64);
    }
    write(splitter.finish());
    lines.freeze()
}

/// The recording of an exec with these events.
pub fn recording(events: &[Event], newest: bool) -> Bytes {
    let form = if newest { Form::V3 } else { Form::V2 };
    let mut cast = Asciicast::new(form, ExecId::from_bytes([1; 16]).to_string());
    let mut out = BytesMut::new();
    for event in events {
        cast.event(event, &mut out);
    }
    cast.finish(&mut out);
    out.freeze()
}

/// Events as the feed shows them, a line each.
pub fn event_lines(frames: &[events::Frame]) -> String {
    let mut lines = String::new();
    for frame in frames {
        crate::stream::lines::write_line(frame, &mut lines);
    }
    lines
}
