//! Adjacent pieces of output become one event: the header of an event is larger than a line of a chatty program.

use bytes::{Bytes, BytesMut};
use events::{Event, EventData, ExecEvent, ExecOutput, OutputMark};

/// Output is merged up to this many bytes.
pub const FULL_PIECE: usize = 64 << 10;
/// How many later pieces an event may tell the time of.
const MARKS: usize = 256;
/// Pieces that come closer to each other count as one.
const CLOSE_US: u64 = 1_000;

/// An event of output to which more may come.
pub struct Growing {
    event: Event,
    output: ExecOutput,
    body: BytesMut,
}

impl Growing {
    /// `Err` with the event when nothing can come to it: it is no output, or full.
    pub fn new(mut event: Event) -> Result<Self, Box<Event>> {
        let EventData::Exec(ExecEvent::Output(output)) = &mut event.data else {
            return Err(Box::new(event));
        };
        if output.bytes.len() >= FULL_PIECE {
            return Err(Box::new(event));
        }
        let body = BytesMut::from(&output.bytes[..]);
        let output = ExecOutput { bytes: Bytes::new(), ..output.clone() };
        Ok(Self { event, output, body })
    }

    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Takes what directly follows. `Err` with the event when it does not, or does not fit.
    pub fn join(&mut self, event: Event) -> Result<(), Box<Event>> {
        let EventData::Exec(ExecEvent::Output(more)) = &event.data else {
            return Err(Box::new(event));
        };
        let follows = more.exec == self.output.exec
            && more.stream == self.output.stream
            && more.offset == self.output.offset + self.body.len() as u64
            && self.body.len() + more.bytes.len() <= FULL_PIECE;
        let since = (event.time - self.event.time).num_microseconds().unwrap_or_default();
        let later_us = u64::try_from(since).unwrap_or_default();
        let last_us = self.output.marks.last().map_or(0, |mark| mark.later_us);
        // A clock that was set back makes no mark.
        let marked = later_us >= last_us + CLOSE_US;
        if !follows || (marked && self.output.marks.len() >= MARKS) {
            return Err(Box::new(event));
        }
        if marked {
            // Far below 4 GiB.
            let at = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
            self.output.marks.push(OutputMark { at, later_us });
        }
        self.body.extend_from_slice(&more.bytes);
        Ok(())
    }

    pub fn finish(self) -> Event {
        let bytes: Bytes = self.body.freeze();
        Event { data: ExecOutput { bytes, ..self.output }.into(), ..self.event }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use events::{Actor, EventId, ExecId, OutputStream, SandboxId, TenantId};

    use super::*;

    fn piece(stream: OutputStream, offset: u64, bytes: &'static [u8], at_us: i64) -> Event {
        Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: Some(SandboxId::from_bytes([1; 16])),
            time: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::microseconds(at_us),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: ExecOutput::new(ExecId::from_bytes([2; 16]), stream, offset, bytes).into(),
        }
    }

    fn output(event: Event) -> ExecOutput {
        let EventData::Exec(ExecEvent::Output(output)) = event.data else { panic!("no output") };
        output
    }

    const OUT: OutputStream = OutputStream::Stdout;

    #[test]
    fn pieces_keep_their_times_where_they_differ() {
        let mut growing = Growing::new(piece(OUT, 10, b"ab", 5_000)).ok().unwrap();
        growing.join(piece(OUT, 12, b"c", 5_999)).unwrap();
        growing.join(piece(OUT, 13, b"de", 6_000)).unwrap();
        growing.join(piece(OUT, 15, b"f", 6_500)).unwrap();
        growing.join(piece(OUT, 16, b"g", 1_000)).unwrap();
        growing.join(piece(OUT, 17, b"h", 9_000)).unwrap();
        let output = output(growing.finish());
        assert_eq!((&output.bytes[..], output.offset), (&b"abcdefgh"[..], 10));
        let marks = [OutputMark { at: 3, later_us: 1_000 }, OutputMark { at: 7, later_us: 4_000 }];
        assert_eq!(output.marks, marks);
    }

    #[test]
    fn what_does_not_follow_is_given_back() {
        let mut growing = Growing::new(piece(OUT, 0, b"ab", 0)).ok().unwrap();
        assert!(growing.join(piece(OUT, 3, b"c", 0)).is_err());
        assert!(growing.join(piece(OutputStream::Stderr, 2, b"c", 0)).is_err());
        assert!(growing.join(piece(OUT, 2, &[b'x'; FULL_PIECE], 0)).is_err());
        assert!(Growing::new(piece(OUT, 0, &[b'x'; FULL_PIECE], 0)).is_err());
        assert_eq!(&output(growing.finish()).bytes[..], b"ab");
    }

    #[test]
    fn marks_are_bounded() {
        let mut growing = Growing::new(piece(OUT, 0, b"x", 0)).ok().unwrap();
        for n in 1..=MARKS as u64 {
            growing.join(piece(OUT, n, b"x", n as i64 * 2_000)).unwrap();
        }
        let next = MARKS as u64 + 1;
        assert!(growing.join(piece(OUT, next, b"x", next as i64 * 2_000)).is_err());
        // What needs no mark still fits.
        assert!(growing.join(piece(OUT, next, b"x", MARKS as i64 * 2_000)).is_ok());
    }
}
