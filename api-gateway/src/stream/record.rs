//! Records of an exec as JSON, one a line.
//!
//! Clients split lines at every line boundary of Unicode, not only at `\n` (httpx does), so U+0085, U+2028 and U+2029 are
//! escaped although JSON does not ask for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};
use events::{ExecEnd, ExecId, Gone, OutputStream, format_go_duration};
use serde::Serialize;
use std::borrow::Cow;
use std::io;
use std::time::Duration;
use utoipa::ToSchema;

use super::utf8::Chunk;
use crate::error::{ErrorBody, ErrorCode};

/// A piece of output.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputRecord<'a> {
    /// `stdout` or `stderr`, in the documented WebSocket framing only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The text, with U+FFFD in place of bytes that are not UTF-8.
    pub data: Cow<'a, str>,
    /// The exact bytes in base 64, only where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_b64: Option<String>,
    /// Where the first byte stands in its stream.
    pub offset: u64,
    /// Where to go on from: the offset after the last byte.
    pub next_offset: u64,
}

/// Bytes that were recorded and are not kept any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GoneRecord {
    /// `gone`
    pub r#type: &'static str,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Empty.
    pub data: &'static str,
    /// Where the first of them stood in its stream.
    pub offset: u64,
    /// Where to go on from: the offset after the last of them.
    pub next_offset: u64,
    /// `erased`: their key was destroyed. `expired`: they were older than what is kept.
    #[schema(value_type = String)]
    pub why: Gone,
}

/// How an exec ended: the last record of a stream. It has no `stream`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct EndRecord {
    /// `exit` or `done`, in WebSocket framings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    /// The exec.
    pub exec_id: String,
    /// `exited`, `timed_out`, `killed`, `failed`, `outcome_unknown`, or `interrupted`: the stream ends here, the exec does
    /// not.
    pub outcome: &'static str,
    /// As in a shell: 124 when its time was up, 128 plus the number of a signal. Absent where nothing ran to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it ran, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes of stdout up to here: the offset to resume from.
    pub stdout_bytes: u64,
    /// Bytes of stderr up to here: the offset to resume from.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were thrown away.
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// `true`: the memory of the sandbox was used up, and the kernel ended it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Why there is no more output, for clients that are told nothing but output: a line on stderr, as a shell would write it.
/// `error` tells it from what the command wrote.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureRecord<'a> {
    /// `stderr`
    pub stream: &'static str,
    /// One line for people.
    pub data: String,
    /// What went wrong.
    pub error: Cow<'a, ErrorBody>,
}

impl<'a> OutputRecord<'a> {
    /// The record of a chunk.
    pub fn new(stream: OutputStream, chunk: &'a Chunk) -> Self {
        let data = chunk.text();
        let data_b64 = matches!(data, Cow::Owned(_)).then(|| BASE64.encode(&chunk.bytes));
        Self {
            r#type: None,
            stream: stream.as_str(),
            data,
            data_b64,
            offset: chunk.offset,
            next_offset: chunk.next_offset(),
        }
    }
}

impl<'a> FailureRecord<'a> {
    /// What there is to tell of an ending; nothing of a command that ended by itself.
    pub fn of(end: &'a EndRecord) -> Option<Self> {
        let error = match &end.error {
            Some(error) => Cow::Borrowed(error),
            None if end.outcome == TIMED_OUT => Cow::Owned(ErrorBody {
                code: ErrorCode::Timeout,
                message: "the time of the command was up, and it was ended".into(),
            }),
            None => return None,
        };
        Some(Self {
            stream: OutputStream::Stderr.as_str(),
            data: format!("stacyvm: {}\n", error.message),
            error,
        })
    }
}

impl EndRecord {
    /// The record of an ending.
    pub fn new(exec: ExecId, end: &ExecEnd, stdout_bytes: u64, stderr_bytes: u64) -> Self {
        let mut record = Self {
            exec_id: exec.to_string(),
            outcome: outcome(end),
            exit_code: end.exit_code(),
            stdout_bytes,
            stderr_bytes,
            ..Self::default()
        };
        if let Some(ended) = end.ended() {
            record.duration = Some(format_go_duration(Duration::from_micros(ended.duration_us)));
            record.truncated_bytes = ended.truncated_bytes;
            record.oom = ended.oom;
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

    /// Whether the stream ends here, and the exec does not.
    pub fn is_interrupted(&self) -> bool {
        self.outcome == INTERRUPTED
    }

    /// The record of a stream that ends before its exec does.
    pub fn interrupted(exec: ExecId, error: ErrorBody, stdout_bytes: u64, stderr_bytes: u64) -> Self {
        Self {
            exec_id: exec.to_string(),
            outcome: INTERRUPTED,
            stdout_bytes,
            stderr_bytes,
            error: Some(error),
            ..Self::default()
        }
    }
}

const INTERRUPTED: &str = "interrupted";
const TIMED_OUT: &str = "timed_out";

/// The name of an ending on the wire.
pub const fn outcome(end: &ExecEnd) -> &'static str {
    match end {
        ExecEnd::Exited { .. } => "exited",
        ExecEnd::TimedOut { .. } => TIMED_OUT,
        ExecEnd::Killed { .. } => "killed",
        ExecEnd::Failed { .. } => "failed",
        ExecEnd::OutcomeUnknown { .. } => "outcome_unknown",
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
        write_line(&OutputRecord::new(OutputStream::Stdout, &chunk), &mut out);
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
