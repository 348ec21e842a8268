//! Records of an exec: lines of NDJSON and control frames of a WebSocket have the same form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::ClientError;

/// Which of a command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output, or all that a command on a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a server tells of an exec.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// It has this id.
    Started(String),
    /// It wrote something.
    Output {
        /// To which stream.
        stream: OutputStream,
        /// Where the first byte stands in the stream, if the server counts.
        offset: Option<u64>,
        /// What.
        bytes: Bytes,
    },
    /// Bytes are not in the record any more: they were erased, or were older than what is kept.
    Gone {
        /// Of which stream.
        stream: OutputStream,
        /// The first one that is there.
        to: u64,
    },
    /// It is over; or, with outcome `interrupted`, this stream is, and the exec goes on.
    Ended(ExecEnd),
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ExecEnd {
    /// The exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// `exited`, `timed_out`, `killed`, `failed`, `outcome_unknown`, or `interrupted`: the stream ends, the exec does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// As in a shell. Absent where nothing ran to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it ran, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes of stdout up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    /// Bytes of stderr up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
    /// Bytes past the output limit, which were thrown away.
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// What went wrong, as the API says it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What kind it is: `NOT_FOUND`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default, borrow)]
    data_b64: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    next_offset: Option<u64>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(flatten)]
    end: ExecEnd,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Record {
    /// Reads one; `None` for a heartbeat and for what a newer server may add.
    ///
    /// ```
    /// use client::{OutputStream, Record};
    ///
    /// let record = Record::read(br#"{"stream":"stdout","data":"hi\n","offset":0,"next_offset":3}"#)?;
    /// let expected = Record::Output { stream: OutputStream::Stdout, offset: Some(0), bytes: "hi\n".into() };
    /// assert_eq!(record, Some(expected));
    /// assert_eq!(Record::read(b"")?, None);
    /// # Ok::<(), client::ClientError>(())
    /// ```
    pub fn read(json: &[u8]) -> Result<Option<Self>, ClientError> {
        if json.trim_ascii().is_empty() {
            return Ok(None);
        }
        let wire: Wire<'_> = serde_json::from_slice(json)
            .map_err(|error| ClientError::unexpected("a record of an exec", error))?;
        let kind = wire.r#type.as_deref();
        let stream = match wire.stream.as_deref().or(kind) {
            Some("stdout") => Some(OutputStream::Stdout),
            Some("stderr") => Some(OutputStream::Stderr),
            _ => None,
        };
        if let Some(stream) = stream {
            if kind == Some("gone") {
                return Ok(wire.next_offset.map(|to| Self::Gone { stream, to }));
            }
            let bytes = match &wire.data_b64 {
                Some(encoded) => BASE64
                    .decode(encoded.as_bytes())
                    .map_err(|error| ClientError::Unexpected(format!("data_b64 is not base 64: {error}")))?
                    .into(),
                None => Bytes::from(wire.data.unwrap_or_default()),
            };
            return Ok(Some(Self::Output { stream, offset: wire.offset, bytes }));
        }
        let mut end = wire.end;
        let is_error = kind == Some("error");
        if is_error && end.error.is_none() {
            end.error = Some(ErrorBody {
                code: wire.code.unwrap_or_else(|| "ERROR".to_owned()),
                message: wire.message.unwrap_or_else(|| "the server gave no reason".to_owned()),
            });
        }
        let is_end = matches!(kind, Some("exit" | "done"))
            || end.exit_code.is_some()
            || end.error.is_some()
            || !end.outcome.is_empty();
        if is_end {
            return Ok(Some(Self::Ended(end)));
        }
        Ok(end.exec_id.map(Self::Started))
    }
}

impl ExecEnd {
    /// The stream ended, the exec did not.
    pub fn is_interruption(&self) -> bool {
        self.outcome == "interrupted"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Record> {
        Record::read(json.as_bytes()).unwrap()
    }

    fn output(stream: OutputStream, offset: Option<u64>, bytes: &[u8]) -> Option<Record> {
        Some(Record::Output { stream, offset, bytes: Bytes::copy_from_slice(bytes) })
    }

    #[test]
    fn output_is_exact_bytes() {
        use OutputStream::{Stderr, Stdout};
        assert_eq!(
            read(r#"{"stream":"stdout","data":"a\u2028é","offset":7,"next_offset":13}"#),
            output(Stdout, Some(7), "a\u{2028}é".as_bytes())
        );
        assert_eq!(
            read(r#"{"type":"stderr","stream":"stderr","data":"x\ufffd","data_b64":"eP8=","offset":0}"#),
            output(Stderr, Some(0), b"x\xff")
        );
        assert_eq!(read(r#"{"type":"stdout","data":"x"}"#), output(Stdout, None, b"x"));
        assert_eq!(read(r#"{"stream":"stdout"}"#), output(Stdout, None, b""));
    }

    #[test]
    fn what_is_gone_is_not_output() {
        let gone = r#"{"type":"gone","stream":"stderr","data":"","offset":3,"next_offset":9,"why":"erased"}"#;
        assert_eq!(read(gone), Some(Record::Gone { stream: OutputStream::Stderr, to: 9 }));
    }

    #[test]
    fn heartbeats_and_novelties_are_passed_over() {
        for json in ["", "  ", "\r", "{}", r#"{"type":"resized"}"#, r#"{"type":"ready","data":"x"}"#] {
            assert_eq!(read(json), None, "{json}");
        }
        assert_eq!(read(r#"{"exec_id":"ex-1"}"#), Some(Record::Started("ex-1".to_owned())));
        assert_eq!(read(r#"{"type":"started","exec_id":"ex-1"}"#), Some(Record::Started("ex-1".to_owned())));
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for json in [
            "x",
            "[]",
            "5",
            r#"{"stream":5}"#,
            r#"{"stream":"stdout","data_b64":"!"}"#,
            r#"{"stream":"stdout","#,
        ] {
            assert!(Record::read(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn an_end_may_be_told_in_several_ways() {
        let end = |json: &str| match read(json) {
            Some(Record::Ended(end)) => end,
            other => panic!("{other:?}"),
        };
        assert_eq!(end(r#"{"exec_id":"ex-1","outcome":"exited","exit_code":0}"#).exit_code, Some(0));
        assert_eq!(end(r#"{"type":"exit","exit_code":5}"#).exit_code, Some(5));
        assert_eq!(end(r#"{"type":"done"}"#), ExecEnd::default());
        let error = end(r#"{"type":"error","code":"NOT_FOUND","message":"m"}"#).error.unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("NOT_FOUND", "m"));
        assert!(end(r#"{"outcome":"interrupted","exit_code":null}"#).is_interruption());
    }
}
