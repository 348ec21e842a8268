//! The pieces of one output event. Small pieces that came close together are recorded as one event, with marks that say
//! when each was seen: whoever plays output with its timing needs them apart again.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use events::ExecOutput;

/// Bytes that were seen at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When it was seen.
    pub time: DateTime<Utc>,
    /// Where the first byte stands in the stream.
    pub offset: u64,
    /// The bytes. Never empty.
    pub bytes: Bytes,
}

/// The pieces of an output event that happened at `time`, in order. None where its bytes are not kept any more.
pub fn pieces(time: DateTime<Utc>, output: &ExecOutput) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(output.marks.len() + 1);
    let mut start = 0;
    let mut seen = time;
    let mut cut = |start: usize, end: usize, time: DateTime<Utc>| {
        if start < end {
            pieces.push(Piece {
                time,
                offset: output.offset + start as u64,
                bytes: output.bytes.slice(start..end),
            });
        }
    };
    for mark in &output.marks {
        // A mark that points outside, or back, would be a fault of who published it, and shows as one piece.
        let at = usize::try_from(mark.at).unwrap_or(usize::MAX).clamp(start, output.bytes.len());
        cut(start, at, seen);
        start = at;
        seen = later(time, mark.later_us);
    }
    cut(start, output.bytes.len(), seen);
    pieces
}

fn later(time: DateTime<Utc>, later_us: u64) -> DateTime<Utc> {
    let later = TimeDelta::microseconds(i64::try_from(later_us).unwrap_or(i64::MAX));
    time.checked_add_signed(later).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use events::{ExecId, OutputMark, OutputStream};
    use proptest::prelude::*;

    use super::*;

    fn output(bytes: &'static [u8], marks: &[(u32, u64)]) -> ExecOutput {
        let output = ExecOutput::new(ExecId::from_bytes([1; 16]), OutputStream::Stdout, 100, bytes);
        ExecOutput { marks: marks.iter().copied().map(OutputMark::from).collect(), ..output }
    }

    fn cut(output: &ExecOutput) -> Vec<(i64, u64, Vec<u8>)> {
        let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        pieces(time, output)
            .into_iter()
            .map(|piece| {
                ((piece.time - time).num_microseconds().unwrap(), piece.offset, piece.bytes.to_vec())
            })
            .collect()
    }

    #[test]
    fn marks_cut_a_body_at_their_times() {
        assert_eq!(cut(&output(b"abcdef", &[])), [(0, 100, b"abcdef".to_vec())]);
        assert_eq!(
            cut(&output(b"abcdef", &[(2, 50), (5, 70)])),
            [(0, 100, b"ab".to_vec()), (50, 102, b"cde".to_vec()), (70, 105, b"f".to_vec())]
        );
        // What is left of a body whose beginning was recorded before begins with a mark at 0.
        assert_eq!(cut(&output(b"cd", &[(0, 50)])), [(50, 100, b"cd".to_vec())]);
        assert_eq!(cut(&output(b"", &[(0, 50)])), []);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_whatever_the_marks_say(marks: Vec<(u32, u64)>, small: Vec<(u8, u64)>) {
            let small = small.into_iter().map(|(at, us)| (u32::from(at % 12), us));
            let marks: Vec<_> = marks.into_iter().chain(small).collect();
            let all: Vec<u8> = cut(&output(b"0123456789", &marks)).into_iter().flat_map(|piece| piece.2).collect();
            prop_assert_eq!(all, b"0123456789");
        }
    }
}
