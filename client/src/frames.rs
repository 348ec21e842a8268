//! The frames of an attachment: one byte says what a frame is, the rest is that.

use std::borrow::Cow;

use api_types::{EndRecord, ErrorBody, Exec, Open, OutputStream, TerminalSize};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

use crate::error::ClientError;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const CONTROL: u8 = 3;
/// Before the bytes of output stands the offset of the first one.
const OFFSET_BYTES: usize = 8;

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The exec is this one. Comes first.
    Attached(Attached),
    /// It wrote something.
    Output {
        /// To which stream.
        stream: OutputStream,
        /// Where the first byte stands in the stream.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// It is over.
    Ended(EndRecord),
    /// Bytes are not in the record any more.
    Gone {
        /// Of which stream.
        stream: OutputStream,
        /// The first one that is there.
        to: u64,
    },
    /// Something that we wanted was not done.
    Refused(ErrorBody),
    /// Nothing that we need to know.
    Other,
}

/// What can be sent to an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachInput {
    /// Input for the program; at most 1 MiB.
    Stdin(Bytes),
    /// The end of its input.
    StdinClose,
    /// Its terminal has another size.
    Resize(TerminalSize),
}

/// What the server tells of the exec at first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Attached {
    pub exec: Box<Exec>,
}

/// What tells control frames apart, and all that is read of most.
#[derive(Deserialize)]
struct Control<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(default)]
    stream: Option<Open<OutputStream>>,
    #[serde(default)]
    to: Option<u64>,
}

impl Frame {
    /// Reads one.
    pub fn read(mut frame: Bytes) -> Result<Self, ClientError> {
        let unexpected = |what: &str| ClientError::unexpected("a frame of an exec", what);
        let Some(channel) = frame.first().copied() else {
            return Err(unexpected("it is empty"));
        };
        let stream = match channel {
            STDOUT => OutputStream::Stdout,
            STDERR => OutputStream::Stderr,
            CONTROL => return Self::control(&frame.slice(1..)),
            // A newer server may have more channels.
            _ => return Ok(Self::Other),
        };
        let bytes = frame.split_off((1 + OFFSET_BYTES).min(frame.len()));
        let offset = frame.get(1..).and_then(|offset| <[u8; OFFSET_BYTES]>::try_from(offset).ok());
        let offset = offset.ok_or_else(|| unexpected("output without an offset"))?;
        Ok(Self::Output { stream, offset: u64::from_be_bytes(offset), bytes })
    }

    /// Reads a control frame without its first byte.
    pub fn control(json: &[u8]) -> Result<Self, ClientError> {
        let unexpected = |error: serde_json::Error| ClientError::unexpected("a frame of an exec", error);
        let control: Control<'_> = serde_json::from_slice(json).map_err(unexpected)?;
        Ok(match (control.r#type.as_ref(), control.stream.and_then(|stream| stream.known()), control.to) {
            ("attached", ..) => Self::Attached(serde_json::from_slice(json).map_err(unexpected)?),
            ("exit", ..) => Self::Ended(serde_json::from_slice(json).map_err(unexpected)?),
            ("error", ..) => Self::Refused(serde_json::from_slice(json).map_err(unexpected)?),
            ("gone", Some(stream), Some(to)) => Self::Gone { stream, to },
            _ => Self::Other,
        })
    }
}

impl AttachInput {
    /// The frame.
    pub(crate) fn into_message(self) -> Message {
        match self {
            Self::Stdin(bytes) => {
                let mut frame = BytesMut::with_capacity(1 + bytes.len());
                frame.put_u8(STDIN);
                frame.put_slice(&bytes);
                Message::Binary(frame.freeze())
            }
            Self::StdinClose => control(&Told { r#type: "stdin_close", size: None }),
            Self::Resize(size) => control(&Told { r#type: "resize", size: Some(size) }),
        }
    }
}

#[derive(Serialize)]
struct Told {
    r#type: &'static str,
    #[serde(flatten)]
    size: Option<TerminalSize>,
}

fn control(told: &Told) -> Message {
    let mut frame = vec![CONTROL];
    // Plain fields: it cannot fail.
    let _ = serde_json::to_writer(&mut frame, told);
    Message::Binary(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &[u8]) -> Result<Frame, ClientError> {
        Frame::read(Bytes::copy_from_slice(frame))
    }

    #[test]
    fn output_has_a_stream_and_an_offset() {
        let output = |stream, offset, bytes: &'static [u8]| Frame::Output {
            stream,
            offset,
            bytes: Bytes::from_static(bytes),
        };
        assert_eq!(
            read(b"\x01\0\0\0\0\0\0\x01\x02ab\xff").unwrap(),
            output(OutputStream::Stdout, 258, b"ab\xff")
        );
        assert_eq!(read(b"\x02\0\0\0\0\0\0\0\0").unwrap(), output(OutputStream::Stderr, 0, b""));
        assert!(read(b"\x01\0\0\0\0\0\0\0").is_err(), "an offset has 8 bytes");
        assert!(read(b"").is_err());
        assert_eq!(read(b"\x09new").unwrap(), Frame::Other);
    }

    #[test]
    fn control_frames_are_json() {
        let control = |json: &str| read(&[b"\x03", json.as_bytes()].concat());
        let attached = r#"{"type":"attached","mode":"rw","stdout_offset":0,"exec":{"id":"ex-1","sandbox_id":"sb-1",
            "state":"hibernated","stdin":true,"started_at":"2026-01-02T03:04:05Z","stdout_bytes":7,"stderr_bytes":0,
            "links":{"self":"/a","output":"/b","stream":"/c","attach":"/d"}}}"#;
        let Frame::Attached(attached) = control(attached).unwrap() else {
            panic!("not the first frame");
        };
        assert_eq!((attached.exec.id.as_str(), attached.exec.stdout_bytes), ("ex-1", 7));
        let end = r#"{"type":"exit","exec_id":"ex-1","outcome":"exited","exit_code":3,"stdout_bytes":0,"stderr_bytes":0}"#;
        let Frame::Ended(end) = control(end).unwrap() else {
            panic!("not an end");
        };
        assert_eq!(end.exit_code, Some(3));
        let Frame::Refused(error) = control(r#"{"type":"error","code":"ODD","message":"m"}"#).unwrap() else {
            panic!("not a refusal");
        };
        assert_eq!((error.code.as_str(), error.message.as_ref()), ("ODD", "m"));
        let gone = control(r#"{"type":"gone","stream":"stderr","from":1,"to":9}"#).unwrap();
        assert_eq!(gone, Frame::Gone { stream: OutputStream::Stderr, to: 9 });
        assert_eq!(control(r#"{"type":"new"}"#).unwrap(), Frame::Other);
        for json in ["", "5", "[]", r#"{"type":5}"#, r#"{"type":"attached","exec":5}"#] {
            assert!(control(json).is_err(), "{json}");
        }
    }

    #[test]
    fn what_we_say_has_its_channel() {
        let bytes = |outgoing: AttachInput| outgoing.into_message().into_data().to_vec();
        assert_eq!(bytes(AttachInput::Stdin(Bytes::from_static(b"ls\n"))), b"\0ls\n");
        assert_eq!(bytes(AttachInput::StdinClose), b"\x03{\"type\":\"stdin_close\"}");
        assert_eq!(
            bytes(AttachInput::Resize(TerminalSize { rows: 3, cols: 4 })),
            b"\x03{\"type\":\"resize\",\"rows\":3,\"cols\":4}"
        );
    }
}
