//! The two framings of an exec over a WebSocket.
//!
//! Plain: the first client frame is an exec request; the server sends `{"stream","data"}`, then `{"type":"done"}`.
//! Documented: the first client frame has `"type":"start"`; then `stdin`, `stdin_close`, `resize` and `signal` from the
//! client, `started`, `stdout`, `stderr` and `exit` from the server. Both end with `{"type":"error"}` where there is no
//! end to tell of.

use std::borrow::Cow;

use api_types::{EndRecord, ExecRequest, GoneRecord, SignalName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use events::{ExecId, OutputStream, TerminalSize};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::record::{self, write_json};
use super::utf8::Chunk;
use crate::config::ExecLimits;
use crate::error::{ApiError, ErrorBody};
use crate::exec::request::{Runnable, interactive, runnable, terminal};
use crate::exec::signal::number;
use crate::strict::Unread;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// An exec request, chunks, `done`.
    Plain,
    /// `start`, typed frames, `exit`.
    Documented,
}

/// What the first frame says.
#[derive(Debug, PartialEq)]
pub struct Opening {
    /// The form of the frames from here on.
    pub framing: Framing,
    /// The command.
    pub runnable: Runnable,
}

#[derive(Deserialize, Default)]
struct Kind {
    r#type: Option<String>,
}

/// Reads the first frame. What of it nothing reads is noted in `unread`.
pub fn opening(frame: &[u8], limits: &ExecLimits, unread: &Unread) -> Result<Opening, ApiError> {
    let kind: Kind = crate::extract::parse_object(frame)?;
    let request: ExecRequest = unread.frame(frame, &["type"])?;
    let framing = match kind.r#type.as_deref() {
        None | Some("exec") => Framing::Plain,
        Some("start") => Framing::Documented,
        Some(_) => {
            return Err(ApiError::bad_request("the first frame must be an exec request or have type start"));
        }
    };
    let runnable = match framing {
        Framing::Plain => runnable(request, limits)?,
        Framing::Documented => interactive(request, limits, true)?,
    };
    Ok(Opening { framing, runnable })
}

/// What a client may say after `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Input.
    Stdin(Bytes),
    /// The end of input.
    StdinClose,
    /// Another size of the terminal.
    Resize(TerminalSize),
    /// A signal, by its number.
    Signal(i32),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum RawClientFrame {
    Stdin {
        #[serde(default)]
        data: String,
        #[serde(default)]
        data_b64: Option<String>,
    },
    StdinClose,
    Resize {
        rows: u16,
        cols: u16,
    },
    Signal {
        signal: SignalName,
    },
}

impl RawClientFrame {
    const fn names(&self) -> &'static [&'static str] {
        match self {
            Self::Stdin { .. } => &["type", "data", "data_b64"],
            Self::StdinClose => &["type"],
            Self::Resize { .. } => &["type", "rows", "cols"],
            Self::Signal { .. } => &["type", "signal"],
        }
    }
}

impl ClientFrame {
    /// Reads a text frame. What of it nothing reads is noted in `unread`.
    pub fn read(text: &str, unread: &Unread) -> Result<Self, ApiError> {
        let raw: RawClientFrame = crate::extract::parse_object(text.as_bytes())?;
        unread.control(text.as_bytes(), raw.names())?;
        Ok(match raw {
            RawClientFrame::Stdin { data_b64: Some(encoded), .. } => {
                let bytes =
                    BASE64.decode(encoded).map_err(|_| ApiError::bad_request("data_b64 is not base 64"))?;
                Self::Stdin(bytes.into())
            }
            RawClientFrame::Stdin { data, data_b64: None } => Self::Stdin(data.into()),
            RawClientFrame::StdinClose => Self::StdinClose,
            RawClientFrame::Resize { rows, cols } => Self::Resize(terminal(rows, cols)?),
            RawClientFrame::Signal { signal } => Self::Signal(number(&signal)?),
        })
    }
}

#[derive(Serialize)]
struct StartedFrame {
    r#type: &'static str,
    exec_id: String,
}

#[derive(Serialize)]
struct ErrorFrame {
    r#type: &'static str,
    #[serde(flatten)]
    error: ErrorBody,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    end: Option<EndRecord>,
}

impl Framing {
    /// The frame that tells the exec's id, where the framing has one.
    pub fn started(self, exec: ExecId) -> Option<Message> {
        match self {
            Self::Plain => None,
            Self::Documented => Some(message(&StartedFrame { r#type: "started", exec_id: exec.to_string() })),
        }
    }

    /// The frame of a chunk.
    pub fn output(self, stream: OutputStream, chunk: &Chunk) -> Message {
        let mut record = record::output(stream, chunk);
        if self == Self::Documented {
            record.r#type = Some(record.stream);
        }
        message(&record)
    }

    /// The frame of bytes that are not kept any more.
    pub fn gone(gone: &GoneRecord) -> Message {
        message(gone)
    }

    /// The last frame.
    pub fn end(self, mut end: EndRecord) -> Message {
        match end.error.take() {
            Some(error) => message(&ErrorFrame { r#type: "error", error, end: Some(end) }),
            None => {
                end.r#type = Some(Cow::Borrowed(match self {
                    Self::Plain => "done",
                    Self::Documented => "exit",
                }));
                message(&end)
            }
        }
    }
}

/// The frame of an error that comes before anything ran.
pub fn error(error: ErrorBody) -> Message {
    message(&ErrorFrame { r#type: "error", error, end: None })
}

fn message(value: &impl Serialize) -> Message {
    let mut json = BytesMut::new();
    write_json(value, &mut json);
    // JSON is UTF-8.
    Message::Text(Utf8Bytes::try_from(json.freeze()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use api_types::ExecOutcome;

    use super::*;

    fn open(json: &str) -> Result<Opening, ApiError> {
        opening(json.as_bytes(), &ExecLimits::default(), &Unread::default())
    }

    fn json(message: Message) -> serde_json::Value {
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[test]
    fn the_first_frame_chooses_the_framing() {
        let plain = open(r#"{"command":"echo","args":["a"]}"#).unwrap();
        assert_eq!((plain.framing, plain.runnable.spec.stdin), (Framing::Plain, false));
        let documented = open(r#"{"type":"start","command":"sh","tty":true,"rows":10,"cols":20}"#).unwrap();
        assert_eq!((documented.framing, documented.runnable.spec.stdin), (Framing::Documented, true));
        assert_eq!(documented.runnable.spec.tty, Some(TerminalSize { rows: 10, cols: 20 }));
        let sized =
            open(r#"{"type":"start","command":"sh","tty":{"rows":1,"cols":2},"stdin":false}"#).unwrap();
        assert_eq!(
            (sized.runnable.spec.tty, sized.runnable.spec.stdin),
            (Some(TerminalSize { rows: 1, cols: 2 }), false)
        );
    }

    #[test]
    fn bad_first_frames_are_told() {
        for text in [
            "",
            "5",
            "[]",
            "{}",
            r#"{"type":"stop","command":"x"}"#,
            r#"{"type":"start"}"#,
            r#"{"type":"start","command":"x","tty":{"rows":0,"cols":1}}"#,
            r#"{"command":"x","timeout":"1d"}"#,
        ] {
            assert!(open(text).is_err(), "{text}");
        }
    }

    #[test]
    fn client_frames_are_read() {
        for (text, frame) in [
            (r#"{"type":"stdin","data":"é\n"}"#, ClientFrame::Stdin("é\n".into())),
            (r#"{"type":"stdin","data_b64":"/w=="}"#, ClientFrame::Stdin(Bytes::from_static(b"\xff"))),
            (r#"{"type":"stdin_close"}"#, ClientFrame::StdinClose),
            (
                r#"{"type":"resize","cols":100,"rows":40}"#,
                ClientFrame::Resize(TerminalSize { rows: 40, cols: 100 }),
            ),
            (r#"{"type":"signal","signal":"SIGINT"}"#, ClientFrame::Signal(2)),
            (r#"{"type":"signal","signal":9}"#, ClientFrame::Signal(9)),
        ] {
            assert_eq!(ClientFrame::read(text, &Unread::default()).unwrap(), frame, "{text}");
        }
        for text in [
            "",
            "x",
            "{}",
            r#"{"type":"x"}"#,
            r#"{"type":"signal","signal":"NO"}"#,
            r#"{"type":"resize","rows":1}"#,
        ] {
            assert!(ClientFrame::read(text, &Unread::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn frames_of_the_server_have_both_names() {
        let chunk = Chunk { offset: 0, bytes: Bytes::from_static(b"hi") };
        let plain = json(Framing::Plain.output(OutputStream::Stdout, &chunk));
        assert_eq!(
            (plain.get("type"), &plain["stream"], &plain["data"]),
            (None, &"stdout".into(), &"hi".into())
        );
        let documented = json(Framing::Documented.output(OutputStream::Stderr, &chunk));
        assert_eq!((&documented["type"], &documented["stream"]), (&"stderr".into(), &"stderr".into()));

        let end =
            || EndRecord { exit_code: Some(3), ..EndRecord::new("ex-1".to_owned(), ExecOutcome::Exited) };
        assert_eq!(json(Framing::Plain.end(end()))["type"], "done");
        let exit = json(Framing::Documented.end(end()));
        assert_eq!((&exit["type"], &exit["exit_code"]), (&"exit".into(), &3.into()));
        let failed =
            EndRecord { error: Some(ApiError::bad_request("m").into_body()), exit_code: None, ..end() };
        let failed = json(Framing::Documented.end(failed));
        assert_eq!(
            (&failed["type"], &failed["code"], &failed["message"]),
            (&"error".into(), &"BAD_REQUEST".into(), &"m".into())
        );
    }
}
