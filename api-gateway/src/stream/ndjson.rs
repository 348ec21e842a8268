//! NDJSON: `{"exec_id"}` first, then output as it is recorded, then how it ended. Blank lines show that the stream lives.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::exec::{ExecRecord, ExecRecords};
use super::record::write_line;

/// How much is put into one write at most before the socket is asked again.
const GATHER_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct FirstRecord {
    exec_id: String,
}

/// Answers with the records of an exec. Nothing is read ahead of what the socket takes.
pub fn respond(records: ExecRecords) -> Response {
    let exec = records.exec().to_string();
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-ndjson"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Proxies that buffer would hold a live stream back.
        ("x-accel-buffering", "no"),
        ("x-exec-id", exec.as_str()),
    ];
    let mut first = BytesMut::with_capacity(64);
    write_line(&FirstRecord { exec_id: exec.clone() }, &mut first);
    let lines = futures::stream::unfold((records, Some(first)), |(mut records, first)| async move {
        if let Some(first) = first {
            return Some((Ok::<Bytes, Infallible>(first.freeze()), (records, None)));
        }
        let record = records.next().await?;
        let mut lines = BytesMut::new();
        record.write_line(&mut lines);
        // Many small pieces in one write, and a short exec in one packet.
        let mut ended = matches!(record, ExecRecord::End(_));
        while !ended && lines.len() < GATHER_BYTES {
            let Some(record) = records.next_recorded().await else {
                break;
            };
            ended = matches!(record, ExecRecord::End(_));
            record.write_line(&mut lines);
        }
        Some((Ok(lines.freeze()), (records, None)))
    });
    (headers, Body::from_stream(lines)).into_response()
}
