//! The messages of a link: one byte of kind, then the rest.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;

use super::{LinkFault, LinkValue};

/// One message of a link.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LinkFrame {
    /// Executor to gateway: accepted; for streams, the reply subject is where to send pieces and credit.
    Head(LinkValue),
    /// Either way: bytes at an offset.
    Piece { offset: u64, bytes: Bytes },
    /// Gateway to executor: no more pieces; all of them were this many bytes.
    End { offset: u64 },
    /// Either way: everything below this offset has been consumed.
    Credit { offset: u64 },
    /// Executor to gateway: it succeeded; all pieces were this many bytes.
    Done { offset: u64, value: LinkValue },
    /// Executor to gateway: it failed.
    Fault(LinkFault),
    /// Gateway to executor: nobody waits any more.
    Cancel,
    /// Executor to gateway: it is at work on the request. Only to those who know it.
    Working,
}

impl LinkFrame {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Head(value) => {
                out.put_u8(1);
                put_json(&mut out, value);
            }
            Self::Piece { offset, bytes } => {
                out.reserve(9 + bytes.len());
                out.put_u8(2);
                out.put_u64(*offset);
                out.put_slice(bytes);
            }
            Self::End { offset } => {
                out.put_u8(3);
                out.put_u64(*offset);
            }
            Self::Credit { offset } => {
                out.put_u8(4);
                out.put_u64(*offset);
            }
            Self::Done { offset, value } => {
                out.put_u8(5);
                out.put_u64(*offset);
                put_json(&mut out, value);
            }
            Self::Fault(fault) => {
                out.put_u8(6);
                put_json(&mut out, fault);
            }
            Self::Cancel => out.put_u8(7),
            Self::Working => out.put_u8(8),
        }
        out.freeze()
    }

    /// `None` for what is not a frame.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        match kind {
            1 => json(&bytes).map(Self::Head),
            2 => Some(Self::Piece { offset: bytes.try_get_u64().ok()?, bytes }),
            3 => Some(Self::End { offset: bytes.try_get_u64().ok()? }),
            4 => Some(Self::Credit { offset: bytes.try_get_u64().ok()? }),
            5 => Some(Self::Done { offset: bytes.try_get_u64().ok()?, value: json(&bytes)? }),
            6 => json(&bytes).map(Self::Fault),
            7 => Some(Self::Cancel),
            8 => Some(Self::Working),
            _ => None,
        }
    }
}

fn put_json(out: &mut BytesMut, value: &impl serde::Serialize) {
    // These types are plain data: writing them into memory cannot fail.
    if serde_json::to_writer(out.writer(), value).is_err() {
        tracing::error!("a link frame cannot be written");
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::FaultCode;
    use super::*;

    #[test]
    fn frames_survive_their_bytes() {
        let frames = [
            LinkFrame::Head(LinkValue::Done),
            LinkFrame::Piece { offset: 7, bytes: Bytes::from_static(b"\x00\xff") },
            LinkFrame::End { offset: 9 },
            LinkFrame::Credit { offset: u64::MAX },
            LinkFrame::Done { offset: 3, value: LinkValue::Done },
            LinkFrame::Fault(LinkFault::new(FaultCode::NotFound, "no such file")),
            LinkFrame::Cancel,
            LinkFrame::Working,
        ];
        for frame in frames {
            assert_eq!(LinkFrame::decode(frame.encode()), Some(frame));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_frame_and_no_panic(bytes: Vec<u8>) {
            let _ = LinkFrame::decode(bytes.into());
        }
    }
}
