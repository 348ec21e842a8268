//! Recordings of terminals as asciinema plays them: asciicast v2 and v3. Both are a line of header and then one line of
//! JSON an event, `[time, code, data]`; in v2 the time counts from the beginning, in v3 from the event before.
//!
//! <https://docs.asciinema.org/manual/asciicast/v3/>, <https://docs.asciinema.org/manual/asciicast/v2/>

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use events::{Event, EventData, ExecEvent, ExecStarted, OutputStream, TerminalSize};
use serde::Serialize;
use serde_json::value::RawValue;

use super::pieces::pieces;
use super::record::write_line;
use super::utf8::{Chunk, Utf8Splitter};

/// What a player is told to be, where the exec had no terminal.
const NO_TERMINAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// The form in which a recording is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// asciicast v2.
    V2,
    /// asciicast v3.
    V3,
}

#[derive(Serialize)]
struct HeaderV2<'a> {
    version: u8,
    width: u16,
    height: u16,
    timestamp: i64,
    command: &'a str,
    title: &'a str,
}

#[derive(Serialize)]
struct HeaderV3<'a> {
    version: u8,
    term: Term,
    timestamp: i64,
    command: &'a str,
    title: &'a str,
}

#[derive(Serialize)]
struct Term {
    cols: u16,
    rows: u16,
}

/// Writes the recording of one exec, event by event.
pub struct Asciicast {
    form: Form,
    title: String,
    begun: Option<DateTime<Utc>>,
    /// The time of the last line: players expect that time does not run backwards.
    last: DateTime<Utc>,
    terminal: bool,
    stdout: Utf8Splitter,
    stderr: Utf8Splitter,
    input: Utf8Splitter,
    input_bytes: u64,
    after_return: bool,
}

impl Asciicast {
    /// A recording with this title.
    pub fn new(form: Form, title: String) -> Self {
        Self {
            form,
            title,
            begun: None,
            last: DateTime::UNIX_EPOCH,
            terminal: false,
            stdout: Utf8Splitter::default(),
            stderr: Utf8Splitter::default(),
            input: Utf8Splitter::default(),
            input_bytes: 0,
            after_return: false,
        }
    }

    /// The header of an exec that has not begun, or never did.
    pub fn begin(&mut self, at: DateTime<Utc>, out: &mut BytesMut) {
        self.header(at, "", None, out);
    }

    /// Appends what an event of the exec adds.
    pub fn event(&mut self, event: &Event, out: &mut BytesMut) {
        // What is not about execs has no line.
        let EventData::Exec(data) = &event.data else { return };
        match data {
            ExecEvent::Started(started) => self.start(event.time, started, out),
            ExecEvent::Output(output) => {
                for piece in pieces(event.time, output) {
                    let splitter = match output.stream {
                        OutputStream::Stdout => &mut self.stdout,
                        OutputStream::Stderr => &mut self.stderr,
                    };
                    if let Some(chunk) = splitter.push(piece.offset, piece.bytes) {
                        self.output(piece.time, &chunk, out);
                    }
                }
                if let Some(missing) = output.missing {
                    let text = format!("{} bytes of {} are {}", missing.length, output.stream, missing.why);
                    self.line(event.time, "m", &text, out);
                }
            }
            ExecEvent::Input(input) => self.input(event.time, &input.bytes, out),
            ExecEvent::Resized(resized) => {
                let size = resized.size;
                self.line(event.time, "r", &format!("{}x{}", size.cols, size.rows), out);
            }
            ExecEvent::Exited(exited) => self.end(event.time, Some(exited.code), out),
            ExecEvent::TimedOut(_) => self.end(event.time, Some(124), out),
            ExecEvent::Killed(killed) => {
                self.end(event.time, Some(128_i32.saturating_add(killed.signal)), out)
            }
            ExecEvent::Failed(failed) => {
                self.line(event.time, "m", &failed.message, out);
                self.end(event.time, None, out);
            }
            ExecEvent::OutcomeUnknown(unknown) => {
                self.line(event.time, "m", &unknown.message, out);
                self.end(event.time, None, out);
            }
            // The format has no code for these.
            ExecEvent::Requested(_)
            | ExecEvent::Signaled(_)
            | ExecEvent::Attached(_)
            | ExecEvent::Detached(_)
            | ExecEvent::OutputClosed(_) => {}
        }
    }

    /// Appends what still waits for the rest of a character: nothing more comes for now.
    pub fn finish(&mut self, out: &mut BytesMut) {
        self.flush(self.last, out);
    }

    fn start(&mut self, at: DateTime<Utc>, started: &ExecStarted, out: &mut BytesMut) {
        self.terminal = started.spec.tty.is_some();
        self.header(at, &started.spec.argv.join(" "), started.spec.tty, out);
    }

    fn header(&mut self, at: DateTime<Utc>, command: &str, size: Option<TerminalSize>, out: &mut BytesMut) {
        if self.begun.is_some() {
            return;
        }
        self.begun = Some(at);
        self.last = at;
        let size = size.unwrap_or(NO_TERMINAL);
        let (timestamp, title) = (at.timestamp(), self.title.as_str());
        match self.form {
            Form::V2 => {
                let (width, height) = (size.cols, size.rows);
                write_line(&HeaderV2 { version: 2, width, height, timestamp, command, title }, out);
            }
            Form::V3 => {
                let term = Term { cols: size.cols, rows: size.rows };
                write_line(&HeaderV3 { version: 3, term, timestamp, command, title }, out);
            }
        }
    }

    fn output(&mut self, at: DateTime<Utc>, chunk: &Chunk, out: &mut BytesMut) {
        let text = chunk.text();
        let text = if self.terminal { text } else { self.returned(text) };
        self.line(at, "o", &text, out);
    }

    /// Where there was no terminal there was nobody to send the cursor back to the beginning of the line.
    fn returned<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        let after_return = std::mem::replace(&mut self.after_return, text.ends_with('\r'));
        if !text.contains('\n') {
            return text;
        }
        let mut returned = String::with_capacity(text.len() + 16);
        let mut before = if after_return { '\r' } else { '\0' };
        for letter in text.chars() {
            if letter == '\n' && before != '\r' {
                returned.push('\r');
            }
            returned.push(letter);
            before = letter;
        }
        Cow::Owned(returned)
    }

    fn input(&mut self, at: DateTime<Utc>, bytes: &Bytes, out: &mut BytesMut) {
        let offset = self.input_bytes;
        self.input_bytes += bytes.len() as u64;
        if let Some(chunk) = self.input.push(offset, bytes.clone()) {
            self.line(at, "i", &chunk.text(), out);
        }
    }

    fn end(&mut self, at: DateTime<Utc>, code: Option<i32>, out: &mut BytesMut) {
        self.flush(at, out);
        if let (Form::V3, Some(code)) = (self.form, code) {
            self.line(at, "x", &code.to_string(), out);
        }
    }

    fn flush(&mut self, at: DateTime<Utc>, out: &mut BytesMut) {
        for chunk in [self.stdout.finish(), self.stderr.finish()].into_iter().flatten() {
            self.output(at, &chunk, out);
        }
        if let Some(chunk) = self.input.finish() {
            self.line(at, "i", &chunk.text(), out);
        }
    }

    fn line(&mut self, at: DateTime<Utc>, code: &str, data: &str, out: &mut BytesMut) {
        if self.begun.is_none() {
            self.header(at, "", None, out);
        }
        let at = at.max(self.last);
        let since = match self.form {
            Form::V2 => self.begun.unwrap_or(at),
            Form::V3 => self.last,
        };
        let micros = (at - since).num_microseconds().unwrap_or_default();
        self.last = at;
        write_line(&(seconds(micros), code, data), out);
    }
}

/// Seconds with all six digits, as events have their times: nothing is rounded, so intervals add up. No exponent, which
/// asciinema would not read.
fn seconds(micros: i64) -> Option<Box<RawValue>> {
    RawValue::from_string(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use events::{
        Actor, EventId, ExecEnded, ExecExited, ExecId, ExecInput, ExecKilled, ExecOutput, ExecResized,
        ExecSpec, Gone, MissingBody, OutputMark, TenantId,
    };

    use super::*;

    const EXEC: ExecId = ExecId::from_bytes([1; 16]);

    fn event(us: i64, data: impl Into<EventData>) -> Event {
        Event {
            id: EventId::from_bytes([1; 16]),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: DateTime::from_timestamp(1_700_000_000, 250_000_000).unwrap() + TimeDelta::microseconds(us),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        }
    }

    fn started(tty: Option<TerminalSize>) -> ExecStarted {
        let spec = ExecSpec {
            argv: vec!["sh".to_owned(), "-i".to_owned()],
            cwd: None,
            user: None,
            tty,
            stdin: true,
            linger_ms: None,
            timeout_ms: None,
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
        };
        ExecStarted { exec: EXEC, spec, env_names: Vec::new(), pid: 1 }
    }

    fn output(stream: OutputStream, offset: u64, bytes: &'static [u8]) -> ExecOutput {
        ExecOutput::new(EXEC, stream, offset, bytes)
    }

    fn exited(code: i32) -> ExecExited {
        ExecExited { exec: EXEC, code, signal: None, asked: None, ended: ExecEnded::default() }
    }

    fn cast(form: Form, events: &[Event]) -> String {
        let mut cast = Asciicast::new(form, "ex-1".to_owned());
        let mut out = BytesMut::new();
        for event in events {
            cast.event(event, &mut out);
        }
        cast.finish(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn session() -> Vec<Event> {
        let size = TerminalSize { rows: 30, cols: 100 };
        vec![
            event(0, started(Some(size))),
            event(
                500_000,
                ExecOutput {
                    marks: vec![OutputMark { at: 2, later_us: 250_001 }],
                    ..output(OutputStream::Stdout, 0, b"$ \x1b[1mhi\r\n")
                },
            ),
            event(800_000, ExecInput::new(EXEC, &b"ls\r"[..])),
            event(1_000_000, ExecResized { exec: EXEC, size: TerminalSize { rows: 40, cols: 120 } }),
            // By the clock of another process, this was before the resize.
            event(900_000, output(OutputStream::Stdout, 12, b"caf\xc3")),
            event(1_500_000, output(OutputStream::Stdout, 16, b"\xa9\xff")),
            event(2_000_000, exited(3)),
        ]
    }

    #[test]
    fn v3_counts_from_the_event_before() {
        insta::assert_snapshot!(cast(Form::V3, &session()), @r#"
        {"version":3,"term":{"cols":100,"rows":30},"timestamp":1700000000,"command":"sh -i","title":"ex-1"}
        [0.500000,"o","$ "]
        [0.250001,"o","\u001b[1mhi\r\n"]
        [0.049999,"i","ls\r"]
        [0.200000,"r","120x40"]
        [0.000000,"o","caf"]
        [0.500000,"o","é�"]
        [0.500000,"x","3"]
        "#);
    }

    #[test]
    fn v2_counts_from_the_beginning_and_has_no_exit() {
        insta::assert_snapshot!(cast(Form::V2, &session()), @r#"
        {"version":2,"width":100,"height":30,"timestamp":1700000000,"command":"sh -i","title":"ex-1"}
        [0.500000,"o","$ "]
        [0.750001,"o","\u001b[1mhi\r\n"]
        [0.800000,"i","ls\r"]
        [1.000000,"r","120x40"]
        [1.000000,"o","caf"]
        [1.500000,"o","é�"]
        "#);
    }

    #[test]
    fn without_a_terminal_lines_return_to_their_beginning() {
        let killed = ExecKilled { exec: EXEC, signal: 9, asked: None, ended: ExecEnded::default() };
        let text = cast(
            Form::V3,
            &[
                event(0, started(None)),
                event(1, output(OutputStream::Stdout, 0, b"a\nb\r\nc\r")),
                event(2, output(OutputStream::Stderr, 0, b"\nd\n\n")),
                event(3, killed),
            ],
        );
        insta::assert_snapshot!(text, @r#"
        {"version":3,"term":{"cols":80,"rows":24},"timestamp":1700000000,"command":"sh -i","title":"ex-1"}
        [0.000001,"o","a\r\nb\r\nc\r"]
        [0.000001,"o","\nd\r\n\r\n"]
        [0.000001,"x","137"]
        "#);
    }

    #[test]
    fn what_is_not_kept_any_more_leaves_a_mark() {
        let missing = Some(MissingBody { why: Gone::Erased, length: 7 });
        let erased = ExecOutput { missing, ..output(OutputStream::Stdout, 0, b"") };
        let text = cast(Form::V3, &[event(0, started(None)), event(1, erased)]);
        assert!(text.ends_with("[0.000001,\"m\",\"7 bytes of stdout are erased\"]\n"), "{text}");
    }

    #[test]
    fn half_a_character_at_the_end_of_what_there_is_comes_too() {
        let half = output(OutputStream::Stdout, 0, b"caf\xc3");
        let text = cast(Form::V2, &[event(0, started(None)), event(1_000_000, half)]);
        assert!(text.ends_with("[1.000000,\"o\",\"caf\"]\n[1.000000,\"o\",\"\u{fffd}\"]\n"), "{text}");
    }
}
