//! Where the reading of an exec's output stands.

use bytes::Bytes;

use super::error::ClientError;
use crate::output::Target;

/// One past the last byte taken, of both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    pub stdout: u64,
    pub stderr: u64,
}

impl Offsets {
    /// Takes a chunk, and gives back what of it is new and where that stands.
    pub fn take(
        &mut self,
        target: Target,
        offset: Option<u64>,
        bytes: Bytes,
    ) -> Result<(u64, Bytes), ClientError> {
        let at = match target {
            Target::Stdout => &mut self.stdout,
            Target::Stderr => &mut self.stderr,
        };
        let offset = offset.unwrap_or(*at);
        let known = at
            .checked_sub(offset)
            .ok_or_else(|| ClientError::Unexpected(format!("output is missing: {offset} follows on {at}")))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        let fresh = bytes.slice(known..);
        let start = *at;
        *at += fresh.len() as u64;
        Ok((start, fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_taken_once() {
        let mut offsets = Offsets::default();
        let mut take = |target, offset, text: &'static str| {
            offsets.take(target, offset, Bytes::from(text)).map(|(at, bytes)| (at, bytes.to_vec()))
        };
        assert_eq!(take(Target::Stdout, Some(0), "abc").unwrap(), (0, b"abc".to_vec()));
        assert_eq!(take(Target::Stderr, Some(0), "e").unwrap(), (0, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, Some(1), "bcd").unwrap(), (3, b"d".to_vec()));
        assert_eq!(take(Target::Stdout, Some(0), "abcd").unwrap(), (4, Vec::new()));
        assert_eq!(take(Target::Stdout, Some(4), "e").unwrap(), (4, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, None, "f").unwrap(), (5, b"f".to_vec()));
        assert!(take(Target::Stdout, Some(7), "h").is_err(), "a gap is not passed over");
    }
}
