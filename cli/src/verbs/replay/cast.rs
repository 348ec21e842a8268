//! Recordings of terminals: asciicast v2 and v3, <https://docs.asciinema.org/manual/asciicast/v3/>.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::verbs::error::VerbError;
use client::TerminalSize;

/// The longest pause that makes sense: a recording must not overflow a clock.
const MAX_INTERVAL: f64 = 1e9;

/// The first line.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    version: u32,
    pub size: TerminalSize,
}

/// A line after it.
#[derive(Debug, Clone, PartialEq)]
pub struct CastEvent {
    /// Since the start.
    pub at: Duration,
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The program wrote this.
    Output(String),
    /// The terminal got another size.
    Resized(TerminalSize),
    /// A place in the recording has a name.
    Marker(String),
    /// The program ended with this status.
    Exited(String),
    /// Input, or something of a newer version.
    Other,
}

/// Reads a recording line by line.
#[derive(Debug, Default)]
pub struct Reader {
    header: Option<Header>,
    now: Duration,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Header(Header),
    Event(CastEvent),
    /// Blank, or a comment.
    Nothing,
}

#[derive(Deserialize)]
struct RawHeader {
    version: u32,
    #[serde(default)]
    term: Option<RawTerm>,
    #[serde(default)]
    width: Option<u16>,
    #[serde(default)]
    height: Option<u16>,
}

#[derive(Deserialize)]
struct RawTerm {
    cols: u16,
    rows: u16,
}

impl Reader {
    /// Reads the next line.
    pub fn line(&mut self, line: &[u8]) -> Result<Line, VerbError> {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(Line::Nothing);
        }
        let unexpected =
            |error: &dyn std::fmt::Display| VerbError::Unexpected(format!("not a recording: {error}"));
        let Some(header) = &self.header else {
            let raw: RawHeader = serde_json::from_slice(line).map_err(|error| unexpected(&error))?;
            let size = match (raw.term, raw.width, raw.height) {
                (Some(RawTerm { cols, rows }), ..) => TerminalSize { rows, cols },
                (None, Some(cols), Some(rows)) => TerminalSize { rows, cols },
                (None, ..) => return Err(unexpected(&"it has no size")),
            };
            if !matches!(raw.version, 2 | 3) {
                return Err(unexpected(&format!("its version is {}", raw.version)));
            }
            let header = Header { version: raw.version, size };
            self.header = Some(header.clone());
            return Ok(Line::Header(header));
        };
        let (time, code, data): (f64, String, Value) =
            serde_json::from_slice(line).map_err(|error| unexpected(&error))?;
        let time =
            Duration::from_secs_f64(if time.is_finite() { time.clamp(0.0, MAX_INTERVAL) } else { 0.0 });
        // Version 3 counts from the event before, version 2 from the start.
        self.now = if header.version == 2 { time.max(self.now) } else { self.now.saturating_add(time) };
        let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
        let what = match code.as_str() {
            "o" => What::Output(text),
            "r" => size(&text).map_or(What::Other, What::Resized),
            "m" => What::Marker(text),
            "x" => What::Exited(text),
            _ => What::Other,
        };
        Ok(Line::Event(CastEvent { at: self.now, what }))
    }
}

/// `80x24`: columns first.
fn size(text: &str) -> Option<TerminalSize> {
    let (cols, rows) = text.split_once('x')?;
    Some(TerminalSize { rows: rows.parse().ok()?, cols: cols.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Line>, VerbError> {
        let mut reader = Reader::default();
        text.lines().map(|line| reader.line(line.as_bytes())).collect()
    }

    fn event(millis: u64, what: What) -> Line {
        Line::Event(CastEvent { at: Duration::from_millis(millis), what })
    }

    #[test]
    fn version_3_counts_from_the_event_before() {
        let text = r#"{"version":3,"term":{"cols":100,"rows":30,"type":"xterm"},"timestamp":1}
# a comment

[0.5, "o", "a\u001b[m"]
[0.25, "r", "80x24"]
[0, "i", "x"]
[0.25, "m", "here"]
[1, "x", "0"]"#;
        assert_eq!(
            read(text).unwrap(),
            [
                Line::Header(Header { version: 3, size: TerminalSize { rows: 30, cols: 100 } }),
                Line::Nothing,
                Line::Nothing,
                event(500, What::Output("a\u{1b}[m".to_owned())),
                event(750, What::Resized(TerminalSize { rows: 24, cols: 80 })),
                event(750, What::Other),
                event(1000, What::Marker("here".to_owned())),
                event(2000, What::Exited("0".to_owned())),
            ]
        );
    }

    #[test]
    fn version_2_counts_from_the_start() {
        let text = "{\"version\":2,\"width\":80,\"height\":24}\n[0.5,\"o\",\"a\"]\n[0.75,\"o\",\"b\"]\n[0.1,\"o\",\"c\"]";
        let lines = read(text).unwrap();
        assert_eq!(
            lines[1..],
            [
                event(500, What::Output("a".to_owned())),
                event(750, What::Output("b".to_owned())),
                event(750, What::Output("c".to_owned())),
            ]
        );
    }

    #[test]
    fn what_is_no_recording_is_told() {
        for text in
            ["x", "{}", r#"{"version":9,"width":1,"height":1}"#, r#"{"version":2}"#, "[1,\"o\",\"x\"]"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("{\"version\":2,\"width\":80,\"height\":24}\n[\"x\"]").is_err());
        let far =
            read("{\"version\":3,\"term\":{\"cols\":1,\"rows\":1}}\n[1e300,\"o\",\"\"]\n[-5,\"o\",\"\"]")
                .unwrap();
        assert_eq!(far[2], event(1_000_000_000_000, What::Output(String::new())));
    }
}
