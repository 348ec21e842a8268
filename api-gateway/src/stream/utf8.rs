//! Cuts a stream of bytes into chunks that never split a character.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where its first byte stands in the stream.
    pub offset: u64,
    /// What was written.
    pub bytes: Bytes,
}

impl Chunk {
    /// The text, with U+FFFD where it is none.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Where the next chunk starts.
    pub fn next_offset(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Holds back the first bytes of a character until the rest has come. At most three bytes wait.
#[derive(Debug, Default)]
pub struct Utf8Splitter {
    pending: Bytes,
    next_offset: u64,
}

impl Utf8Splitter {
    /// Takes the bytes at `offset`; gives what is whole.
    pub fn push(&mut self, offset: u64, bytes: Bytes) -> Option<Chunk> {
        let (start, data) = if self.pending.is_empty() {
            (offset, bytes)
        } else {
            let mut joined = BytesMut::with_capacity(self.pending.len() + bytes.len());
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(&bytes);
            (self.next_offset - self.pending.len() as u64, joined.freeze())
        };
        self.next_offset = start + data.len() as u64;
        let whole = data.len() - unfinished_tail(&data);
        self.pending = data.slice(whole..);
        (whole > 0).then(|| Chunk { offset: start, bytes: data.slice(..whole) })
    }

    /// The stream is over: what still waits will never be whole.
    pub fn finish(&mut self) -> Option<Chunk> {
        let bytes = std::mem::take(&mut self.pending);
        let offset = self.next_offset - bytes.len() as u64;
        (!bytes.is_empty()).then_some(Chunk { offset, bytes })
    }
}

/// How many bytes at the end could become a character.
fn unfinished_tail(data: &[u8]) -> usize {
    (1..=data.len().min(3))
        .find(|len| {
            let tail = &data[data.len() - len..];
            matches!(std::str::from_utf8(tail), Err(error) if error.error_len().is_none() && error.valid_up_to() == 0)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(parts: &[&[u8]]) -> Vec<Chunk> {
        let mut splitter = Utf8Splitter::default();
        let mut offset = 0;
        let mut chunks = Vec::new();
        for part in parts {
            chunks.extend(splitter.push(offset, Bytes::copy_from_slice(part)));
            offset += part.len() as u64;
        }
        chunks.extend(splitter.finish());
        chunks
    }

    #[test]
    fn a_character_written_byte_by_byte_comes_whole() {
        let chunks = run(&[b"a\xf0", b"\x9f", b"\x98", b"\x80b"]);
        assert_eq!(
            chunks.iter().map(|chunk| (chunk.offset, chunk.text())).collect::<Vec<_>>(),
            [(0, "a".into()), (1, "\u{1f600}b".into())]
        );
    }

    #[test]
    fn what_never_becomes_a_character_comes_at_the_end() {
        let chunks = run(&[b"x\xf0\x9f"]);
        assert_eq!((chunks[1].offset, &chunks[1].bytes[..]), (1, &b"\xf0\x9f"[..]));
    }

    #[test]
    fn bytes_that_are_no_text_are_not_held_back() {
        let mut splitter = Utf8Splitter::default();
        let chunk = splitter.push(0, Bytes::from_static(b"\xff\xfe\x80")).unwrap();
        assert_eq!(&chunk.bytes[..], b"\xff\xfe\x80");
    }

    proptest! {
        #[test]
        fn text_cut_anywhere_stays_text(text in "\\PC{0,40}", cuts: Vec<u8>) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let parts: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let chunks = run(&parts);
            prop_assert!(chunks.iter().all(|chunk| std::str::from_utf8(&chunk.bytes).is_ok()));
            prop_assert_eq!(chunks.iter().map(Chunk::text).collect::<String>(), text);
        }

        #[test]
        fn no_byte_is_lost_and_offsets_count_them(parts: Vec<Vec<u8>>) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut seen = Vec::new();
            for chunk in run(&slices) {
                prop_assert_eq!(chunk.offset, seen.len() as u64);
                prop_assert!(!chunk.bytes.is_empty());
                seen.extend_from_slice(&chunk.bytes);
            }
            prop_assert_eq!(seen, parts.concat());
        }
    }
}
