//! Pieces of output as lines of JSON, in the server's own form.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::OutputStream;
use serde::Serialize;

/// A piece of output as a line of JSON.
#[derive(Debug, Serialize)]
pub struct OutputLine<'a> {
    stream: &'static str,
    data: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    offset: u64,
}

impl<'a> OutputLine<'a> {
    /// The line for a piece.
    pub fn new(stream: OutputStream, offset: u64, bytes: &'a [u8]) -> Self {
        let data = String::from_utf8_lossy(bytes);
        Self {
            stream: match stream {
                OutputStream::Stdout => "stdout",
                OutputStream::Stderr => "stderr",
            },
            data_b64: matches!(data, Cow::Owned(_)).then(|| BASE64.encode(bytes)),
            data,
            offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_programs_keep_every_byte() {
        let line = |bytes| serde_json::to_string(&OutputLine::new(OutputStream::Stderr, 4, bytes)).unwrap();
        assert_eq!(line(b"ok\n".as_slice()), r#"{"stream":"stderr","data":"ok\n","offset":4}"#);
        assert_eq!(
            line(b"\xff".as_slice()),
            r#"{"stream":"stderr","data":"�","data_b64":"/w==","offset":4}"#
        );
    }
}
