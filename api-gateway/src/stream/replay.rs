//! The frames of a replay: each thing that happened, with the moment at which it did.

use std::borrow::Cow;
use std::collections::HashMap;

use api_types::OutputRecord;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{Event, EventData, ExecEvent, ExecId, Frame, OutputStream, Position};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::pieces::pieces;
use super::record::{self, write_json};
use super::utf8::{Chunk, Utf8Splitter};

/// A frame that waits for its moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Playable {
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The event that it is from, or a part of.
    pub position: Position,
    /// What the client gets.
    pub text: Utf8Bytes,
}

#[derive(Serialize)]
struct OutputFrame<'a> {
    r#type: &'static str,
    position: u64,
    time: String,
    exec_id: String,
    #[serde(flatten)]
    output: OutputRecord<'a>,
}

#[derive(Serialize)]
struct InputFrame<'a> {
    r#type: &'static str,
    position: u64,
    time: String,
    exec_id: String,
    data: &'a str,
    /// The exact bytes in base 64, only where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
}

#[derive(Serialize)]
struct EventFrame<'a> {
    r#type: &'static str,
    position: u64,
    time: String,
    event: &'a RawValue,
}

/// Makes frames of events, and keeps characters whole over pieces of output.
#[derive(Debug, Default)]
pub struct Frames {
    /// Of execs that have not ended yet.
    splitters: HashMap<(ExecId, OutputStream), Utf8Splitter>,
}

impl Frames {
    /// What an event looks like. Its own JSON, or its bytes, in as many frames as they came in.
    pub fn of(&mut self, frame: &Frame) -> Vec<Playable> {
        // An event of a newer build cannot be shown.
        let Ok(event) = frame.decode() else {
            return Vec::new();
        };
        if let EventData::Exec(ExecEvent::Output(output)) = &event.data
            && output.missing.is_none()
        {
            let key = (output.exec, output.stream);
            return pieces(event.time, output)
                .into_iter()
                .filter_map(|piece| {
                    let chunk = self.splitters.entry(key).or_default().push(piece.offset, piece.bytes)?;
                    Some(output_frame(frame.position, piece.time, key, &chunk))
                })
                .collect();
        }
        if let EventData::Exec(ExecEvent::Input(input)) = &event.data
            && input.missing.is_none()
        {
            return vec![input_frame(frame.position, &event, input.exec, &input.bytes)];
        }
        let mut playables = match event.data.exec() {
            Some(exec) if event.data.ends_exec() => self.rest(frame.position, event.time, exec),
            Some(_) | None => Vec::new(),
        };
        if let Ok(header) = serde_json::from_slice(&frame.header) {
            let text = text(&EventFrame {
                r#type: "event",
                position: frame.position.0,
                time: instant(event.time),
                event: header,
            });
            playables.push(Playable { time: event.time, position: frame.position, text });
        }
        playables
    }

    /// Forgets what waits for the rest of a character: what comes next is from elsewhere.
    pub fn clear(&mut self) {
        self.splitters.clear();
    }

    fn rest(&mut self, position: Position, time: DateTime<Utc>, exec: ExecId) -> Vec<Playable> {
        [OutputStream::Stdout, OutputStream::Stderr]
            .into_iter()
            .filter_map(|stream| {
                let chunk = self.splitters.remove(&(exec, stream))?.finish()?;
                Some(output_frame(position, time, (exec, stream), &chunk))
            })
            .collect()
    }
}

fn output_frame(
    position: Position,
    time: DateTime<Utc>,
    (exec, stream): (ExecId, OutputStream),
    chunk: &Chunk,
) -> Playable {
    let text = text(&OutputFrame {
        r#type: "output",
        position: position.0,
        time: instant(time),
        exec_id: exec.to_string(),
        output: record::output(stream, chunk),
    });
    Playable { time, position, text }
}

fn input_frame(position: Position, event: &Event, exec: ExecId, bytes: &Bytes) -> Playable {
    let data = String::from_utf8_lossy(bytes);
    let text = text(&InputFrame {
        r#type: "input",
        position: position.0,
        time: instant(event.time),
        exec_id: exec.to_string(),
        data: &data,
        data_b64: matches!(data, Cow::Owned(_)).then(|| BASE64.encode(bytes)),
    });
    Playable { time: event.time, position, text }
}

/// A frame of JSON.
pub fn text(value: &impl Serialize) -> Utf8Bytes {
    let mut json = BytesMut::new();
    write_json(value, &mut json);
    // JSON is UTF-8.
    Utf8Bytes::try_from(json.freeze()).unwrap_or_default()
}

fn instant(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use events::{Actor, EventId, ExecEnded, ExecExited, ExecOutput, OutputMark, TenantId};
    use serde_json::{Value, json};

    use super::*;

    const EXEC: ExecId = ExecId::from_bytes([1; 16]);

    fn frame(position: u64, data: impl Into<EventData>) -> Frame {
        let event = Event {
            id: EventId::from_bytes([1; 16]),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        Frame { position: Position(position), ..event.to_frame().unwrap() }
    }

    fn play(frames: &[Frame]) -> Vec<Value> {
        let mut all = Frames::default();
        let played = frames.iter().flat_map(|frame| all.of(frame));
        played.map(|playable| serde_json::from_str(playable.text.as_str()).unwrap()).collect()
    }

    #[test]
    fn an_event_is_played_as_it_is_stored_and_output_in_the_pieces_it_came_in() {
        let output = ExecOutput {
            marks: vec![OutputMark { at: 2, later_us: 1500 }],
            ..ExecOutput::new(EXEC, OutputStream::Stdout, 10, &b"a\xc3\xa9b\xc3"[..])
        };
        let exited =
            ExecExited { exec: EXEC, code: 0, signal: None, asked: None, ended: ExecEnded::default() };
        let last = frame(9, exited);
        let played = play(&[frame(7, output), last.clone()]);
        let of = |position: u64, time: &str, data: &str, offset: u64, next: u64| {
            json!({"type": "output", "position": position, "time": time, "exec_id": EXEC.to_string(),
                "stream": "stdout", "data": data, "offset": offset, "next_offset": next})
        };
        assert_eq!(played[0], of(7, "2023-11-14T22:13:20.000000Z", "a", 10, 11));
        assert_eq!(played[1], of(7, "2023-11-14T22:13:20.001500Z", "éb", 11, 14));
        assert_eq!(
            (&played[2]["position"], &played[2]["data"], &played[2]["data_b64"]),
            (&json!(9), &json!("\u{fffd}"), &json!("ww=="))
        );
        let stored: Value = serde_json::from_slice(&last.header).unwrap();
        assert_eq!((&played[3]["type"], &played[3]["event"], played.len()), (&json!("event"), &stored, 4));
    }
}
