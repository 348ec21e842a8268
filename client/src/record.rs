//! Records of an exec: lines of NDJSON and control frames of a WebSocket have the same form.

use std::borrow::Cow;

use api_types::{EndRecord, GoneRecord, Open, OutputRecord, OutputStream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::ClientError;

/// What a server tells of an exec.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// It has this id.
    Started(String),
    /// It wrote something.
    Output {
        /// To which stream.
        stream: OutputStream,
        /// Where the first byte stands in the stream.
        offset: u64,
        /// The bytes.
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
    Ended(EndRecord),
}

/// What all records have, and by which they are told apart.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(default, borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: Option<Open<OutputStream>>,
    #[serde(default)]
    outcome: Option<IgnoredAny>,
    #[serde(default)]
    exec_id: Option<String>,
}

impl Record {
    /// Reads one; `None` for a heartbeat and for what a newer server may add.
    ///
    /// ```
    /// use client::{OutputStream, Record};
    ///
    /// let record = Record::read(br#"{"stream":"stdout","data":"hi\n","offset":0,"next_offset":3}"#)?;
    /// let expected = Record::Output { stream: OutputStream::Stdout, offset: 0, bytes: "hi\n".into() };
    /// assert_eq!(record, Some(expected));
    /// assert_eq!(Record::read(b"")?, None);
    /// # Ok::<(), client::ClientError>(())
    /// ```
    pub fn read(json: &[u8]) -> Result<Option<Self>, ClientError> {
        if json.trim_ascii().is_empty() {
            return Ok(None);
        }
        let unexpected = |error| ClientError::unexpected("a record of an exec", error);
        // A list of nothing would do for fields that may all be missing.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(ClientError::Unexpected("not a record of an exec: no object".to_owned()));
        }
        let kind: Kind<'_> = serde_json::from_slice(json).map_err(unexpected)?;
        match kind.stream {
            Some(Open::Known(stream)) if kind.r#type.as_deref() == Some("gone") => {
                let gone: GoneRecord = serde_json::from_slice(json).map_err(unexpected)?;
                Ok(Some(Self::Gone { stream, to: gone.next_offset }))
            }
            Some(Open::Known(stream)) => {
                let output: OutputRecord<'_> = serde_json::from_slice(json).map_err(unexpected)?;
                let bytes = match &output.data_b64 {
                    Some(encoded) => BASE64
                        .decode(encoded.as_bytes())
                        .map_err(|error| {
                            ClientError::Unexpected(format!("data_b64 is not base 64: {error}"))
                        })?
                        .into(),
                    None => Bytes::from(output.data.into_owned()),
                };
                Ok(Some(Self::Output { stream, offset: output.offset, bytes }))
            }
            Some(Open::Other(_)) => Ok(None),
            None if kind.outcome.is_some() => {
                Ok(Some(Self::Ended(serde_json::from_slice(json).map_err(unexpected)?)))
            }
            None => Ok(kind.exec_id.map(Self::Started)),
        }
    }
}

#[cfg(test)]
mod tests {
    use api_types::ExecOutcome;

    use super::*;

    fn read(json: &str) -> Option<Record> {
        Record::read(json.as_bytes()).unwrap()
    }

    fn output(stream: OutputStream, offset: u64, bytes: &[u8]) -> Option<Record> {
        Some(Record::Output { stream, offset, bytes: Bytes::copy_from_slice(bytes) })
    }

    #[test]
    fn output_is_exact_bytes() {
        use OutputStream::{Stderr, Stdout};
        assert_eq!(
            read(r#"{"stream":"stdout","data":"a\u2028é","offset":7,"next_offset":13}"#),
            output(Stdout, 7, "a\u{2028}é".as_bytes())
        );
        let bytes = r#"{"stream":"stderr","data":"x\ufffd","data_b64":"eP8=","offset":0,"next_offset":2}"#;
        assert_eq!(read(bytes), output(Stderr, 0, b"x\xff"));
    }

    #[test]
    fn what_is_gone_is_not_output() {
        let gone =
            r#"{"type":"gone","stream":"stderr","data":"","offset":3,"next_offset":9,"why":"moved away"}"#;
        assert_eq!(read(gone), Some(Record::Gone { stream: OutputStream::Stderr, to: 9 }));
    }

    #[test]
    fn heartbeats_and_novelties_are_passed_over() {
        for json in [
            "",
            "  ",
            "\r",
            "{}",
            r#"{"type":"resized"}"#,
            r#"{"type":"ready","data":"x"}"#,
            r#"{"stream":"stdlog","data":"x","offset":0,"next_offset":1}"#,
        ] {
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
            r#"{"stream":"stdout"}"#,
            r#"{"stream":"stdout","data":"","data_b64":"!","offset":0,"next_offset":0}"#,
            r#"{"stream":"stdout","#,
            r#"{"outcome":"exited"}"#,
        ] {
            assert!(Record::read(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn an_end_is_read_whatever_it_is_called() {
        let end = |outcome: &str| {
            let json = format!(
                r#"{{"exec_id":"ex-1","outcome":"{outcome}","exit_code":3,"stdout_bytes":1,"stderr_bytes":0,"new":1}}"#
            );
            match read(&json) {
                Some(Record::Ended(end)) => end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(end("exited").outcome, ExecOutcome::Exited);
        assert_eq!(
            (end("hibernated").outcome.as_str(), end("hibernated").exit_code),
            ("hibernated", Some(3))
        );
        assert!(end("interrupted").is_interruption() && !end("exited").is_interruption());
    }
}
