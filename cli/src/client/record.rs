//! Records of an exec: lines of NDJSON and frames of a WebSocket have the same form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::{ClientError, FAILURE};
use crate::output::Target;

/// The exit code for a command whose time was up, as in timeout(1).
const TIMED_OUT: u8 = 124;

/// What a server tells of an exec.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// It has this id.
    Started(String),
    /// It wrote something.
    Output {
        /// To which stream.
        target: Target,
        /// Where the first byte stands in the stream, if the server counts.
        offset: Option<u64>,
        /// What.
        bytes: Bytes,
    },
    /// It is over.
    Ended(End),
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_bytes: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<EndError>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct EndError {
    pub code: String,
    pub message: String,
}

/// A piece of output as a line of JSON, in the server's own form.
#[derive(Debug, Serialize)]
pub struct OutputLine<'a> {
    stream: &'static str,
    data: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    offset: u64,
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
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(flatten)]
    end: End,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Record {
    /// Reads one; `None` for a heartbeat and for what a newer server may add.
    pub fn read(json: &[u8]) -> Result<Option<Self>, ClientError> {
        if json.trim_ascii().is_empty() {
            return Ok(None);
        }
        let wire: Wire<'_> = serde_json::from_slice(json)
            .map_err(|error| ClientError::Unexpected(format!("not a record of an exec: {error}")))?;
        let kind = wire.r#type.as_deref();
        let target = match wire.stream.as_deref().or(kind) {
            Some("stdout") => Some(Target::Stdout),
            Some("stderr") => Some(Target::Stderr),
            _ => None,
        };
        if let Some(target) = target {
            let bytes = match &wire.data_b64 {
                Some(encoded) => BASE64
                    .decode(encoded.as_bytes())
                    .map_err(|error| ClientError::Unexpected(format!("data_b64 is not base 64: {error}")))?
                    .into(),
                None => Bytes::from(wire.data.unwrap_or_default()),
            };
            return Ok(Some(Self::Output { target, offset: wire.offset, bytes }));
        }
        let mut end = wire.end;
        let is_error = kind == Some("error");
        if is_error && end.error.is_none() {
            end.error = Some(EndError {
                code: wire.code.unwrap_or_else(|| "ERROR".to_owned()),
                message: wire.message.unwrap_or_else(|| "the server gave no reason".to_owned()),
            });
        }
        if is_error
            || matches!(kind, Some("exit" | "done"))
            || end.exit_code.is_some()
            || !end.outcome.is_empty()
        {
            return Ok(Some(Self::Ended(end)));
        }
        if end.error.is_some() {
            return Ok(Some(Self::Ended(end)));
        }
        Ok(end.exec_id.map(Self::Started))
    }
}

impl End {
    /// The stream ended, the exec did not.
    pub fn is_interruption(&self) -> bool {
        self.outcome == "interrupted"
    }

    /// What the shell gets.
    pub fn exit_code(&self) -> u8 {
        match self.exit_code {
            _ if self.outcome == "timed_out" => TIMED_OUT,
            // A shell sees the low 8 bits of any exit status. What is not 0 must not become 0.
            Some(code) => u8::try_from(code & 0xff).ok().filter(|low| *low != 0 || code == 0).unwrap_or(1),
            // Nobody knows how it ended: that is not an exit code of the command.
            None => FAILURE,
        }
    }

    /// What a person should know beside the output.
    pub fn remark(&self) -> Option<String> {
        let mut remarks = Vec::new();
        if self.outcome == "timed_out" {
            remarks.push("the command's time was up, and it was ended".to_owned());
        }
        if let Some(error) = &self.error {
            remarks.push(format!("{} ({})", error.message, error.code));
        } else if self.exit_code.is_none() && self.outcome != "timed_out" {
            remarks.push(match self.outcome.as_str() {
                "" => "the server did not say how the command ended".to_owned(),
                outcome => format!("the command ended as {outcome}"),
            });
        }
        if self.truncated_bytes > 0 {
            remarks.push(format!(
                "the output is cut short: {} past the limit were thrown away",
                crate::output::bytes(self.truncated_bytes)
            ));
        }
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }
}

impl<'a> OutputLine<'a> {
    /// The line for a chunk.
    pub fn new(target: Target, offset: u64, bytes: &'a [u8]) -> Self {
        let data = String::from_utf8_lossy(bytes);
        Self {
            stream: match target {
                Target::Stdout => "stdout",
                Target::Stderr => "stderr",
            },
            data_b64: matches!(data, std::borrow::Cow::Owned(_)).then(|| BASE64.encode(bytes)),
            data,
            offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Record> {
        Record::read(json.as_bytes()).unwrap()
    }

    fn output(target: Target, offset: Option<u64>, bytes: &[u8]) -> Option<Record> {
        Some(Record::Output { target, offset, bytes: Bytes::copy_from_slice(bytes) })
    }

    fn end(json: &str) -> End {
        match read(json) {
            Some(Record::Ended(end)) => end,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_is_exact_bytes() {
        assert_eq!(
            read(r#"{"stream":"stdout","data":"a\u2028é","offset":7,"next_offset":13}"#),
            output(Target::Stdout, Some(7), "a\u{2028}é".as_bytes())
        );
        assert_eq!(
            read(r#"{"type":"stderr","stream":"stderr","data":"x\ufffd","data_b64":"eP8=","offset":0}"#),
            output(Target::Stderr, Some(0), b"x\xff")
        );
        assert_eq!(read(r#"{"type":"stdout","data":"x"}"#), output(Target::Stdout, None, b"x"));
        assert_eq!(read(r#"{"stream":"stdout"}"#), output(Target::Stdout, None, b""));
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
    fn endings_become_exit_codes() {
        for (json, code) in [
            (r#"{"exec_id":"ex-1","outcome":"exited","exit_code":0,"stdout_bytes":3,"stderr_bytes":0}"#, 0),
            (r#"{"outcome":"exited","exit_code":7}"#, 7),
            (r#"{"outcome":"killed","exit_code":137,"signal":9}"#, 137),
            (r#"{"outcome":"exited","exit_code":256}"#, 1),
            (r#"{"outcome":"exited","exit_code":-1}"#, 255),
            (r#"{"outcome":"timed_out","exit_code":124}"#, 124),
            (r#"{"outcome":"timed_out"}"#, 124),
            (r#"{"outcome":"failed","error":{"code":"BAD_REQUEST","message":"no such program"}}"#, 125),
            (r#"{"type":"done"}"#, 125),
            (r#"{"type":"exit","exit_code":5}"#, 5),
        ] {
            assert_eq!(end(json).exit_code(), code, "{json}");
        }
    }

    #[test]
    fn remarks_say_what_the_exit_code_cannot() {
        assert_eq!(end(r#"{"outcome":"exited","exit_code":3}"#).remark(), None);
        assert_eq!(
            end(r#"{"outcome":"failed","error":{"code":"BAD_REQUEST","message":"no such program"}}"#)
                .remark()
                .unwrap(),
            "no such program (BAD_REQUEST)"
        );
        assert_eq!(
            end(r#"{"type":"error","code":"NOT_FOUND","message":"sandbox not found"}"#).remark().unwrap(),
            "sandbox not found (NOT_FOUND)"
        );
        assert!(end(r#"{"outcome":"timed_out","exit_code":124}"#).remark().unwrap().contains("time was up"));
        let cut = end(r#"{"outcome":"exited","exit_code":0,"truncated_bytes":2048}"#).remark().unwrap();
        assert!(cut.contains("2.00 KiB"), "{cut}");
        assert!(end(r#"{"outcome":"interrupted","exit_code":null}"#).is_interruption());
    }

    #[test]
    fn lines_for_programs_keep_every_byte() {
        let line = |bytes| serde_json::to_string(&OutputLine::new(Target::Stderr, 4, bytes)).unwrap();
        assert_eq!(line(b"ok\n".as_slice()), r#"{"stream":"stderr","data":"ok\n","offset":4}"#);
        assert_eq!(
            line(b"\xff".as_slice()),
            r#"{"stream":"stderr","data":"�","data_b64":"/w==","offset":4}"#
        );
    }
}
