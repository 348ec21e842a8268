//! NDJSON, in two forms. All records: `{"exec_id"}` first, then output as it is recorded, then how it ended. Output only: what
//! clients that print every record are made for; the id of the exec rides in `X-Exec-ID`. Blank lines show that the stream
//! lives, and every client skips them.

use std::io;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::exec::{ExecRecord, ExecRecords};
use super::record::{failure, write_line};
use crate::error::ApiError;

/// How much is put into one write at most before the socket is asked again.
const GATHER_BYTES: usize = 64 << 10;

/// Which records.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordsQuery {
    /// Of an NDJSON answer. `output` (the default here): output and nothing else. `all`: the id of the exec first, how it
    /// ended last, and what is not kept any more.
    #[param(pattern = "^(output|all)$")]
    pub records: Option<String>,
}

/// Which records go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Each of them.
    All,
    /// Those with output.
    Output,
}

impl Records {
    /// What the client asks for.
    pub fn read(text: Option<&str>, default: Self) -> Result<Self, ApiError> {
        match text {
            None => Ok(default),
            Some("all") => Ok(Self::All),
            Some("output") => Ok(Self::Output),
            Some(_) => Err(ApiError::bad_request("records must be output or all")),
        }
    }
}

#[derive(Serialize)]
struct FirstRecord {
    exec_id: String,
}

/// Lines on their way out.
struct Lines {
    source: ExecRecords,
    records: Records,
    /// What goes out before anything is read.
    first: Option<BytesMut>,
    /// Why the connection has to break, once what was gathered is out.
    broken: Option<io::Error>,
}

/// Answers with the records of an exec. Nothing is read ahead of what the socket takes.
pub fn respond(source: ExecRecords, records: Records) -> Response {
    let exec = source.exec().to_string();
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-ndjson"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Proxies that buffer would hold a live stream back.
        ("x-accel-buffering", "no"),
        ("x-exec-id", exec.as_str()),
    ];
    let mut first = BytesMut::with_capacity(64);
    match records {
        Records::All => write_line(&FirstRecord { exec_id: exec.clone() }, &mut first),
        // Proxies pass the head on when the body has begun.
        Records::Output => first.extend_from_slice(b"\n"),
    }
    let lines = Lines { source, records, first: Some(first), broken: None };
    let lines = futures::stream::try_unfold(lines, |mut lines| async move {
        Ok::<_, io::Error>(lines.next().await?.map(|bytes| (bytes, lines)))
    });
    (headers, Body::from_stream(lines)).into_response()
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, io::Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first.freeze()));
        }
        loop {
            if let Some(error) = self.broken.take() {
                // What was written before goes out only when there is nothing to do for a moment.
                tokio::task::yield_now().await;
                return Err(error);
            }
            let Some(record) = self.source.next().await else { return Ok(None) };
            let mut lines = BytesMut::new();
            let mut last = self.write(record, &mut lines);
            // Many small pieces in one write, and a short exec in one packet.
            while !last && lines.len() < GATHER_BYTES {
                let Some(record) = self.source.next_recorded().await else {
                    break;
                };
                last = self.write(record, &mut lines);
            }
            // An end that has no line of its own adds none: the same exec is the same bytes, whenever it is read.
            if !lines.is_empty() {
                return Ok(Some(lines.freeze()));
            }
        }
    }

    /// Writes a record in the form that is asked for. True: it is the last one.
    fn write(&mut self, record: ExecRecord, into: &mut BytesMut) -> bool {
        match (self.records, record) {
            (Records::All, record) => {
                record.write_line(into);
                matches!(record, ExecRecord::End(_))
            }
            (Records::Output, record @ (ExecRecord::Output(..) | ExecRecord::Silence)) => {
                record.write_line(into);
                false
            }
            (Records::Output, ExecRecord::Gone(gone)) => {
                // The connection breaks, so that nobody misses the hole.
                let text = format!("output up to byte {} is not kept any more", gone.next_offset);
                self.broken = Some(io::Error::other(text));
                true
            }
            (Records::Output, ExecRecord::End(end)) => {
                if let Some(failure) = failure(&end) {
                    write_line(&failure, into);
                }
                if end.is_interruption() {
                    // So that nobody takes this for the end of the command.
                    self.broken = Some(io::Error::other("the stream ends before its exec does"));
                }
                true
            }
        }
    }
}
