//! Where the reading of an exec's output stands.

use bytes::Bytes;

use crate::error::ClientError;
use api_types::OutputStream;

/// One past the last byte taken, of both streams. With them, reading goes on anywhere and at any time: through another
/// gateway, in another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// Of stdout, in bytes.
    pub stdout: u64,
    /// Of stderr, in bytes.
    pub stderr: u64,
}

impl Offsets {
    /// Takes a chunk, and gives back what of it is new and where that stands. A gap is an error: no byte is passed over.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use client::{Offsets, OutputStream::Stdout};
    ///
    /// let mut offsets = Offsets::default();
    /// assert_eq!(offsets.take(Stdout, 0, Bytes::from("abc"))?, (0, Bytes::from("abc")));
    /// assert_eq!(offsets.take(Stdout, 1, Bytes::from("bcd"))?, (3, Bytes::from("d")));
    /// assert!(offsets.take(Stdout, 9, Bytes::from("z")).is_err());
    /// # Ok::<(), client::ClientError>(())
    /// ```
    pub fn take(
        &mut self,
        stream: OutputStream,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(u64, Bytes), ClientError> {
        let at = self.of(stream);
        let known = at
            .checked_sub(offset)
            .ok_or_else(|| ClientError::Unexpected(format!("output is missing: {offset} follows on {at}")))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        let fresh = bytes.slice(known..);
        let start = *at;
        *at = at.saturating_add(fresh.len() as u64);
        Ok((start, fresh))
    }

    /// Passes over bytes that are not in the record any more. Gives back the first of them that had not been taken, or
    /// nothing where all had.
    pub fn pass_over(&mut self, stream: OutputStream, to: u64) -> Option<u64> {
        let at = self.of(stream);
        let from = *at;
        *at = from.max(to);
        (to > from).then_some(from)
    }

    const fn of(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_taken_once() {
        let mut offsets = Offsets::default();
        let mut take = |stream, offset, text: &'static str| {
            offsets.take(stream, offset, Bytes::from(text)).map(|(at, bytes)| (at, bytes.to_vec()))
        };
        use OutputStream::{Stderr, Stdout};
        assert_eq!(take(Stdout, 0, "abc").unwrap(), (0, b"abc".to_vec()));
        assert_eq!(take(Stderr, 0, "e").unwrap(), (0, b"e".to_vec()));
        assert_eq!(take(Stdout, 1, "bcd").unwrap(), (3, b"d".to_vec()));
        assert_eq!(take(Stdout, 0, "abcd").unwrap(), (4, Vec::new()));
        assert_eq!(take(Stdout, 4, "e").unwrap(), (4, b"e".to_vec()));
        assert!(take(Stdout, 7, "h").is_err(), "a gap is not passed over");
    }

    #[test]
    fn what_is_gone_is_passed_over_once() {
        let mut offsets = Offsets { stdout: 5, stderr: 0 };
        assert_eq!(offsets.pass_over(OutputStream::Stdout, 9), Some(5));
        assert_eq!(offsets.pass_over(OutputStream::Stdout, 9), None);
        assert_eq!(offsets.pass_over(OutputStream::Stdout, 3), None);
        assert_eq!(offsets, Offsets { stdout: 9, stderr: 0 });
    }
}
