//! Lines of JSON, whatever pieces they arrive in.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use reqwest::Response;

use super::api::Api;
use super::error::ClientError;
use super::record::Record;

/// The longest line that is read, in bytes. Chunks of output are far below it.
const MAX_LINE: usize = 16 << 20;
/// A server sends a blank line at least every 15 s or so. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(90);

/// The records of an exec, up to a break or the end.
pub type Records = BoxStream<'static, Result<Record, ClientError>>;

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    buffer: BytesMut,
    /// Up to here there is no line feed.
    searched: usize,
}

/// A line without an end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

impl LineSplitter {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its end (`\n` or `\r\n`).
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_LINE { Err(LineTooLong) } else { Ok(None) };
        };
        let mut line = self.buffer.split_to(self.searched + at + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line.freeze()))
    }
}

/// Reads the records of a response.
pub fn records(api: &Api, response: Response) -> Records {
    struct State {
        api: Api,
        response: Response,
        lines: LineSplitter,
    }
    let state = State { api: api.clone(), response, lines: LineSplitter::default() };
    stream::try_unfold(state, |mut state| async move {
        loop {
            while let Some(line) =
                state.lines.next_line().map_err(|error| ClientError::Unexpected(error.to_string()))?
            {
                if let Some(record) = Record::read(&line)? {
                    return Ok(Some((record, state)));
                }
            }
            match tokio::time::timeout(SILENCE, state.response.chunk()).await {
                Ok(Ok(Some(bytes))) => state.lines.push(&bytes),
                // What stands in the buffer is half a record: it comes again.
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(state.api.lost(error)),
                Err(_) => {
                    return Err(ClientError::Broken(
                        format!("nothing came for {} s", SILENCE.as_secs()).into(),
                    ));
                }
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&str]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for part in parts {
            splitter.push(part.as_bytes());
            while let Some(line) = splitter.next_line().unwrap() {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        lines
    }

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let text = "{\"a\":1}\n\n{\"b\":\"é😀\"}\r\n\r\nlast\n";
        let expected = ["{\"a\":1}", "", "{\"b\":\"é😀\"}", "", "last"];
        assert_eq!(split(&[text]), expected);
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            assert_eq!(split(&[&text[..at], &text[at..]]), expected, "cut at {at}");
        }
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        assert_eq!(split(&characters), expected);
    }

    #[test]
    fn half_a_line_is_not_a_line() {
        assert_eq!(split(&["one\ntw"]), ["one"]);
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut splitter = LineSplitter::default();
        splitter.push(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(splitter.next_line(), Err(LineTooLong));
    }
}
