//! The binary framing of an attachment, `stacyvm.attach.v1`.
//!
//! The first byte of a frame is its channel. Output: 8 bytes of offset, big endian, then the raw bytes; so that a client
//! always knows where to go on from. Input: the raw bytes. Control: JSON.

use api_types::{EndRecord, Exec, Open, SignalName};
use bytes::{BufMut, Bytes, BytesMut};
use events::{Gone, OutputCloseReason, OutputStream, TerminalSize};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Message;

use super::record::write_json;
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::exec::request::terminal;
use crate::exec::signal::number;
use crate::strict::Unread;

/// The subprotocol that a client may name.
pub const PROTOCOL: &str = "stacyvm.attach.v1";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const CONTROL: u8 = 3;
/// Channel and offset.
const HEAD: usize = 9;

/// What a client may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachInput {
    /// Bytes for stdin.
    Stdin(Bytes),
    /// The end of stdin.
    StdinClose,
    /// Another size of the terminal.
    Resize(TerminalSize),
    /// A signal, by its number.
    Signal(i32),
    /// The end of it, with all its descendants.
    Kill,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum RawControl {
    StdinClose,
    Resize { rows: u16, cols: u16 },
    Signal { signal: SignalName },
    Kill,
}

impl RawControl {
    const fn names(&self) -> &'static [&'static str] {
        match self {
            Self::StdinClose | Self::Kill => &["type"],
            Self::Resize { .. } => &["type", "rows", "cols"],
            Self::Signal { .. } => &["type", "signal"],
        }
    }
}

impl AttachInput {
    /// Reads a binary frame.
    pub fn binary(frame: Bytes) -> Result<Self, ApiError> {
        match frame.first().copied() {
            Some(STDIN) => Ok(Self::Stdin(frame.slice(1..))),
            Some(CONTROL) => Self::control(&frame[1..]),
            _ => Err(ApiError::bad_request("the first byte of a frame must be 0 (stdin) or 3 (control)")),
        }
    }

    /// Reads a control message. A text frame is one as it is. The protocol is ours alone, so nothing unknown is let pass.
    pub fn control(json: &[u8]) -> Result<Self, ApiError> {
        let raw: RawControl = crate::extract::parse_object(json)?;
        Unread::strict().control(json, raw.names())?;
        Ok(match raw {
            RawControl::StdinClose => Self::StdinClose,
            RawControl::Resize { rows, cols } => Self::Resize(terminal(rows, cols)?),
            RawControl::Signal { signal } => Self::Signal(number(&signal)?),
            RawControl::Kill => Self::Kill,
        })
    }
}

/// What the server says on the control channel.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AttachControl<'a> {
    /// First of all.
    Attached {
        /// `rw` or `ro`.
        mode: &'static str,
        /// What the record says of the exec.
        exec: &'a Exec,
        /// The offset of the first byte that will come.
        stdout_offset: u64,
        /// The same for stderr.
        stderr_offset: u64,
    },
    /// What came before was written before the client attached; what follows is written as it watches. Comes once, also
    /// where there is nothing before it, or nothing after it.
    Live {
        /// Where stdout stands.
        stdout_offset: u64,
        /// Where stderr stands.
        stderr_offset: u64,
    },
    /// It began; it was pending before.
    Started,
    /// Somebody gave its terminal another size.
    Resized {
        /// The height.
        rows: u16,
        /// The width.
        cols: u16,
    },
    /// These bytes are not in the record any more.
    Gone {
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// The first one that is missing.
        from: u64,
        /// The first one that is there.
        to: u64,
        /// `erased` or `expired`, where the record says so.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<Gone>,
    },
    /// Nothing more comes of an exec that had ended with its output open.
    OutputClosed {
        /// Why.
        reason: OutputCloseReason,
        /// Where stdout ends.
        stdout_offset: u64,
        /// Where stderr ends.
        stderr_offset: u64,
    },
    /// Something that the client wanted was not done.
    Error {
        /// What kind it is.
        code: &'a Open<ErrorCode>,
        /// One sentence for people.
        message: &'a str,
    },
}

impl AttachControl<'_> {
    /// The frame.
    pub fn frame(&self) -> Message {
        control(self)
    }
}

/// The frame of an error.
pub fn error(body: &ErrorBody) -> Message {
    AttachControl::Error { code: &body.code, message: &body.message }.frame()
}

/// The last frame: how it ended.
pub fn exit(mut end: EndRecord) -> Message {
    end.r#type = Some("exit".into());
    control(&end)
}

fn control(value: &impl Serialize) -> Message {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_u8(CONTROL);
    write_json(value, &mut frame);
    Message::Binary(frame.freeze())
}

/// A frame of output that grows: the small pieces of a busy process go out together.
pub struct OutputFrame {
    stream: OutputStream,
    end: u64,
    frame: BytesMut,
}

impl OutputFrame {
    /// A frame that begins with these bytes.
    pub fn new(stream: OutputStream, offset: u64, bytes: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(HEAD + bytes.len());
        frame.put_u8(match stream {
            OutputStream::Stdout => STDOUT,
            OutputStream::Stderr => STDERR,
        });
        frame.put_u64(offset);
        frame.put_slice(bytes);
        Self { stream, end: offset + bytes.len() as u64, frame }
    }

    /// Whether these bytes follow on, and fit.
    pub fn takes(&self, stream: OutputStream, offset: u64, len: usize, limit: usize) -> bool {
        self.stream == stream && self.end == offset && self.frame.len() - HEAD + len <= limit
    }

    /// Adds bytes that follow on.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frame.put_slice(bytes);
        self.end += bytes.len() as u64;
    }

    /// The frame.
    pub fn finish(self) -> Message {
        Message::Binary(self.frame.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(message: Message) -> Bytes {
        message.into_data()
    }

    #[test]
    fn output_has_its_channel_and_its_offset() {
        let mut frame = OutputFrame::new(OutputStream::Stderr, 258, b"ab");
        assert!(frame.takes(OutputStream::Stderr, 260, 2, 4));
        assert!(!frame.takes(OutputStream::Stderr, 260, 3, 4));
        assert!(!frame.takes(OutputStream::Stderr, 261, 1, 4));
        assert!(!frame.takes(OutputStream::Stdout, 260, 1, 4));
        frame.push(b"\xff\0");
        assert_eq!(&data(frame.finish())[..], b"\x02\0\0\0\0\0\0\x01\x02ab\xff\0");
    }

    #[test]
    fn frames_of_a_client_are_read() {
        let read = |bytes: &'static [u8]| AttachInput::binary(Bytes::from_static(bytes)).unwrap();
        assert_eq!(read(b"\0\x03\xff"), AttachInput::Stdin(Bytes::from_static(b"\x03\xff")));
        assert_eq!(read(b"\0"), AttachInput::Stdin(Bytes::new()));
        assert_eq!(read(br#"{"type":"kill"}"#.as_slice().prefixed()), AttachInput::Kill);
        assert_eq!(read(br#"{"type":"stdin_close"}"#.as_slice().prefixed()), AttachInput::StdinClose);
        assert_eq!(
            read(br#"{"type":"signal","signal":"INT"}"#.as_slice().prefixed()),
            AttachInput::Signal(2)
        );
        assert_eq!(
            read(br#"{"type":"resize","rows":2,"cols":3}"#.as_slice().prefixed()),
            AttachInput::Resize(TerminalSize { rows: 2, cols: 3 })
        );
    }

    #[test]
    fn frames_that_are_none_are_refused() {
        for bytes in [
            &b""[..],
            b"\x01abc",
            b"\x02",
            b"\x04",
            b"\x03",
            b"\x03[]",
            b"\x03{}",
            b"\x03{\"type\":\"exit\"}",
            b"\x03{\"type\":\"resize\",\"rows\":0,\"cols\":1}",
            b"\x03{\"type\":\"resize\",\"rows\":70000,\"cols\":1}",
            b"\x03{\"type\":\"signal\",\"signal\":\"NO\"}",
            b"\x03{\"type\":\"kill\",\"now\":true}",
            b"\x03{\"type\":\"resize\",\"rows\":1,\"cols\":1,\"colls\":2}",
            b"{\"type\":\"kill\"}",
        ] {
            assert!(AttachInput::binary(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn control_is_json_behind_its_channel() {
        let frame =
            data(AttachControl::Gone { stream: "stdout", from: 1, to: 5, why: Some(Gone::Expired) }.frame());
        assert_eq!(
            &frame[..],
            b"\x03{\"type\":\"gone\",\"stream\":\"stdout\",\"from\":1,\"to\":5,\"why\":\"expired\"}"
        );
        let end = exit(EndRecord {
            exit_code: Some(0),
            ..EndRecord::new("ex-1".to_owned(), api_types::ExecOutcome::Exited)
        });
        let end: serde_json::Value = serde_json::from_slice(&data(end)[1..]).unwrap();
        assert_eq!((&end["type"], &end["exit_code"]), (&"exit".into(), &0.into()));
    }

    trait Prefixed {
        fn prefixed(self) -> &'static [u8];
    }

    impl Prefixed for &[u8] {
        fn prefixed(self) -> &'static [u8] {
            [&[CONTROL], self].concat().leak()
        }
    }
}
