//! Records of an exec as JSON, one a line.
//!
//! Clients split lines at every line boundary of Unicode, not only at `\n` (httpx does), so U+0085, U+2028 and U+2029 are
//! escaped although JSON does not ask for it.

use api_types::{EndRecord, ExecOutcome, FailureRecord, GoneRecord, OutputRecord, WhyGone};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use events::{ExecEnd, ExecId, Gone, OutputStream};
use serde::Serialize;
use spelling::format_go_duration;
use std::borrow::Cow;
use std::io;
use std::time::Duration;

use super::utf8::Chunk;
use crate::error::{ErrorBody, ErrorCode};

/// A stream, as the API names it.
pub const fn api_stream(stream: OutputStream) -> api_types::OutputStream {
    match stream {
        OutputStream::Stdout => api_types::OutputStream::Stdout,
        OutputStream::Stderr => api_types::OutputStream::Stderr,
    }
}

/// The record of a chunk.
pub fn output(stream: OutputStream, chunk: &Chunk) -> OutputRecord<'_> {
    let data = chunk.text();
    let data_b64 = matches!(data, Cow::Owned(_)).then(|| BASE64.encode(&chunk.bytes));
    OutputRecord {
        r#type: None,
        stream: api_stream(stream),
        data,
        data_b64,
        offset: chunk.offset,
        next_offset: chunk.next_offset(),
    }
}

/// The record of bytes that are not kept any more.
pub fn gone(stream: OutputStream, offset: u64, next_offset: u64, why: Gone) -> GoneRecord {
    GoneRecord::new(api_stream(stream), offset, next_offset, why_gone(why))
}

/// Why bytes are gone, as the API says it.
pub const fn why_gone(why: Gone) -> WhyGone {
    match why {
        Gone::Erased => WhyGone::Erased,
        Gone::Expired => WhyGone::Expired,
    }
}

/// Tells of an ending where nothing but output is told; of a command that ended by itself there is nothing to tell.
pub fn failure(end: &EndRecord) -> Option<FailureRecord> {
    let error = match &end.error {
        Some(error) => error.clone(),
        None if end.outcome == ExecOutcome::TimedOut => ErrorBody {
            code: ErrorCode::Timeout.into(),
            message: "the time of the command was up, and it was ended".into(),
        },
        None => return None,
    };
    let data = format!("stacyvm: {}\n", error.message);
    Some(FailureRecord { stream: api_types::OutputStream::Stderr, data, error })
}

/// The record of an ending.
pub fn end(exec: ExecId, end: &ExecEnd, stdout_bytes: u64, stderr_bytes: u64) -> EndRecord {
    let mut record = EndRecord {
        exit_code: end.exit_code(),
        stdout_bytes,
        stderr_bytes,
        ..EndRecord::new(exec.to_string(), outcome(end))
    };
    if let Some(ended) = end.ended() {
        record.duration = Some(format_go_duration(Duration::from_micros(ended.duration_us)));
        record.truncated_bytes = ended.truncated_bytes;
        record.oom = ended.oom;
        record.output_open = ended.output_open;
    }
    match end {
        ExecEnd::Exited { signal, .. } => record.signal = *signal,
        ExecEnd::Killed { signal, .. } => record.signal = Some(*signal),
        ExecEnd::TimedOut { signal, .. } => record.signal = *signal,
        ExecEnd::Failed { code, message, .. } => {
            record.error = Some(crate::exec::end::failure(*code, message).into_body());
        }
        ExecEnd::OutcomeUnknown { message, .. } => {
            record.error = Some(crate::exec::end::outcome_unknown(message).into_body());
        }
    }
    record
}

/// The record of a stream that ends before its exec does.
pub fn interrupted(exec: ExecId, error: ErrorBody, stdout_bytes: u64, stderr_bytes: u64) -> EndRecord {
    EndRecord {
        stdout_bytes,
        stderr_bytes,
        error: Some(error),
        ..EndRecord::new(exec.to_string(), ExecOutcome::Interrupted)
    }
}

/// How an exec ended, as the API says it.
pub const fn outcome(end: &ExecEnd) -> ExecOutcome {
    match end {
        ExecEnd::Exited { .. } => ExecOutcome::Exited,
        ExecEnd::TimedOut { .. } => ExecOutcome::TimedOut,
        ExecEnd::Killed { .. } => ExecOutcome::Killed,
        ExecEnd::Failed { .. } => ExecOutcome::Failed,
        ExecEnd::OutcomeUnknown { .. } => ExecOutcome::OutcomeUnknown,
    }
}

/// Appends a value as JSON that holds no line boundary. No newline after it.
pub fn write_json(value: &impl Serialize, into: &mut BytesMut) {
    let mut serializer = serde_json::Serializer::with_formatter(into.writer(), LineSafe);
    if let Err(error) = value.serialize(&mut serializer) {
        // Records are texts and numbers, and memory takes any amount: there is nothing that could fail.
        tracing::error!(error = %error, "a record has no JSON form");
    }
}

/// Appends a value as one line.
pub fn write_line(value: &impl Serialize, into: &mut BytesMut) {
    write_json(value, into);
    into.put_u8(b'\n');
}

struct LineSafe;

impl serde_json::ser::Formatter for LineSafe {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(['\u{85}', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = from.chars();
            if let Some(separator) = chars.next() {
                write!(writer, "\\u{:04x}", separator as u32)?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn line(offset: u64, bytes: &[u8]) -> String {
        let chunk = Chunk { offset, bytes: Bytes::copy_from_slice(bytes) };
        let mut out = BytesMut::new();
        write_line(&output(OutputStream::Stdout, &chunk), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_record_carries_both_offsets() {
        assert_eq!(
            line(7, "é\n".as_bytes()),
            "{\"stream\":\"stdout\",\"data\":\"é\\n\",\"offset\":7,\"next_offset\":10}\n"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_ride_beside_a_lossy_text() {
        let value: serde_json::Value = serde_json::from_str(&line(0, b"a\xff\0")).unwrap();
        assert_eq!((value["data"].as_str(), value["data_b64"].as_str()), (Some("a\u{fffd}\0"), Some("Yf8A")));
    }

    proptest! {
        #[test]
        fn a_record_is_one_line_by_every_rule_and_keeps_its_bytes(bytes: Vec<u8>, text in "[a\u{85}\u{2028}\u{2029}\n\r\u{b}\u{1c}é\u{1f600}]{0,20}") {
            for raw in [&bytes[..], text.as_bytes()] {
                let line = line(0, raw);
                let body = line.strip_suffix('\n').unwrap();
                let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
                prop_assert!(!body.contains(breaks), "{body:?}");
                let value: serde_json::Value = serde_json::from_str(body).unwrap();
                let got = match value.get("data_b64") {
                    Some(encoded) => BASE64.decode(encoded.as_str().unwrap()).unwrap(),
                    None => value["data"].as_str().unwrap().as_bytes().to_vec(),
                };
                prop_assert_eq!(got, raw);
            }
        }
    }
}
