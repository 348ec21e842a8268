//! Lines, whatever pieces they arrive in.

use bytes::{Bytes, BytesMut};

/// The longest line that is read, in bytes. Chunks of output are far below it.
const MAX_LINE: usize = 16 << 20;
/// Cuts bytes into lines. A line is at most 16 MiB long.
///
/// ```
/// let mut lines = client::LineSplitter::default();
/// lines.push(b"{\"a\":1}\n{\"b\"");
/// assert_eq!(lines.next_line()?.as_deref(), Some(&b"{\"a\":1}"[..]));
/// assert_eq!(lines.next_line()?, None, "half a line is not a line");
/// # Ok::<(), client::LineTooLong>(())
/// ```
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
