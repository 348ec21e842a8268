//! The first words of both sides: who they are, which versions they speak, and what they can do.
//!
//! On the wire it is two frames, because the first one is older than the second. The first is `magic, version`: every release reads
//! it, and takes nothing after it. From version 2 on an [`Offer`] follows, which may grow at its end. An agent of version 1
//! answers a caller of version 2 with its own first frame and closes: so its caller knows it by what it says, and comes again as one
//! of version 1.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::Message;
use super::{FrameError, FrameReader, FrameWriter, encode};

/// The oldest and the newest version of the messages that this build speaks. See [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION).
const OURS: Versions = Versions { lowest: 1, highest: super::PROTOCOL_VERSION };
/// From this version on an offer follows the first frame.
const WITH_OFFER: u32 = 2;
/// Longest frame of either kind, in bytes: what comes before both sides know each other is small.
const MOST: usize = 4096;

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub lowest: u32,
    pub highest: u32,
}

impl Versions {
    /// The newest version that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let (lowest, highest) = (self.lowest.max(other.lowest), self.highest.min(other.highest));
        (lowest <= highest).then_some(highest)
    }
}

/// What one side can do beyond what its version requires. A bit that this build does not know says nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features(u64);

impl Features {
    /// Nothing in particular.
    pub const NONE: Self = Self(0);
    /// An exec's secrets are kept apart and given back: [`StartExec`](super::StartExec), [`Secrets`](super::Request::Secrets).
    pub const SECRETS: Self = Self(1 << 0);
    /// A file is read from its end.
    pub const READ_END: Self = Self(1 << 1);
    /// The output of an exec can stay open for what it leaves running: the `linger` of a [`StartExec`](super::StartExec).
    pub const OPEN_OUTPUT: Self = Self(1 << 2);
    /// Input is a stream that can be taken up again: [`OpenInput`](super::Request::OpenInput).
    pub const INPUT_STREAM: Self = Self(1 << 3);
    /// Files are looked for, and read, below a directory: [`Search`](super::Request::Search),
    /// [`ReadBeneath`](super::Request::ReadBeneath).
    pub const SEARCH: Self = Self(1 << 4);

    /// By the names that an operator reads.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::SECRETS, "secrets"),
        (Self::READ_END, "read_end"),
        (Self::OPEN_OUTPUT, "open_output"),
        (Self::INPUT_STREAM, "input_stream"),
        (Self::SEARCH, "search"),
    ];

    /// What this build can do.
    pub const OURS: Self =
        Self::SECRETS.and(Self::READ_END).and(Self::OPEN_OUTPUT).and(Self::INPUT_STREAM).and(Self::SEARCH);
    /// What agents of version 1 can do, which do not say.
    const OF_VERSION_1: Self = Self::SECRETS.and(Self::READ_END);

    /// These and those.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of `self` that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of those that this build knows.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(feature, _)| self.has(*feature)).map(|(_, name)| *name).collect()
    }
}

/// The first frame, frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    magic: [u8; 4],
    /// The version that is going to be spoken, as far as whoever sends it knows.
    pub version: u32,
}

/// The second frame, from version 2 on. New fields go to the end of what follows, which older builds skip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub versions: Versions,
    pub features: Features,
    /// What later versions say more.
    #[serde(skip)]
    rest: Bytes,
}

/// What one side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub versions: Versions,
    pub features: Features,
}

impl Hello {
    const MAGIC: [u8; 4] = *b"svmA";

    /// What this build says.
    pub const fn ours() -> Self {
        Self { versions: OURS, features: Features::OURS }
    }

    /// What this build says to one with which it speaks `version` and nothing newer.
    pub const fn speaking(version: u32) -> Self {
        Self { versions: Versions { highest: version, ..OURS }, ..Self::ours() }
    }

    /// What an agent of version 1 would say if it could.
    pub const fn of_version_1() -> Self {
        Self { versions: Versions { lowest: 1, highest: 1 }, features: Features::OF_VERSION_1 }
    }

    /// Whether its sender is of version 1: it closes on whoever begins as a newer one.
    pub const fn is_of_version_1(&self) -> bool {
        self.versions.highest < WITH_OFFER
    }

    fn frames(&self, version: u32) -> (Greeting, Option<Offer>) {
        let offer = Offer { versions: self.versions, features: self.features, rest: Bytes::new() };
        (Greeting { magic: Self::MAGIC, version }, (version >= WITH_OFFER).then_some(offer))
    }

    /// Its bytes, at the beginning of a connection in which `version` is spoken.
    pub fn encode(&self, version: u32, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let (greeting, offer) = self.frames(version);
        encode(&greeting, buffer)?;
        offer.map_or(Ok(()), |offer| encode(&offer, buffer))
    }

    /// Sends it, at the beginning of a connection in which `version` is spoken. Waits for a flush.
    pub async fn send<W: AsyncWrite + Unpin>(
        &self,
        version: u32,
        writer: &mut FrameWriter<W>,
    ) -> Result<(), FrameError> {
        let (greeting, offer) = self.frames(version);
        writer.send(&greeting).await?;
        match offer {
            Some(offer) => writer.send(&offer).await,
            None => Ok(()),
        }
    }

    /// What the other side says; nothing where it closed. Not cancel safe.
    pub async fn receive<R: AsyncRead + Unpin>(
        reader: &mut FrameReader<R>,
    ) -> Result<Option<Self>, FrameError> {
        reader.limit(MOST);
        let hello = Self::receive_small(reader).await;
        reader.limit(super::MAX_FRAME);
        hello
    }

    async fn receive_small<R: AsyncRead + Unpin>(
        reader: &mut FrameReader<R>,
    ) -> Result<Option<Self>, FrameError> {
        let Some(greeting) = reader.receive::<Greeting>().await? else { return Ok(None) };
        if greeting.magic != Self::MAGIC {
            return Err(FrameError::Malformed("it speaks something else"));
        }
        if greeting.version < WITH_OFFER {
            let versions = Versions { lowest: greeting.version, highest: greeting.version };
            return Ok(Some(Self { versions, ..Self::of_version_1() }));
        }
        let Some(offer) = reader.receive::<Offer>().await? else { return Ok(None) };
        if offer.versions.lowest > offer.versions.highest || offer.versions.highest < WITH_OFFER {
            return Err(FrameError::Malformed("versions that make no sense"));
        }
        Ok(Some(Self { versions: offer.versions, features: offer.features }))
    }
}

impl Message for Greeting {
    fn payload(&self) -> Option<&Bytes> {
        None
    }
    fn payload_mut(&mut self) -> Option<&mut Bytes> {
        None
    }
}

impl Message for Offer {
    fn payload(&self) -> Option<&Bytes> {
        Some(&self.rest)
    }
    fn payload_mut(&mut self) -> Option<&mut Bytes> {
        Some(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(bytes: &[u8]) -> Result<Option<Hello>, FrameError> {
        Hello::receive(&mut FrameReader::new(bytes)).await
    }

    #[test]
    fn the_newest_version_that_both_speak_is_spoken() {
        let range = |lowest, highest| Versions { lowest, highest };
        assert_eq!(range(1, 2).common(range(1, 1)), Some(1));
        assert_eq!(range(1, 2).common(range(2, 9)), Some(2));
        assert_eq!(range(3, 5).common(range(1, 4)), Some(4));
        assert_eq!(range(1, 2).common(range(3, 4)), None);
    }

    #[tokio::test]
    async fn what_one_says_the_other_hears() {
        let hello = Hello {
            versions: Versions { lowest: 2, highest: 7 },
            features: Features::READ_END.and(Features(1 << 63)),
        };
        let mut bytes = BytesMut::new();
        hello.encode(7, &mut bytes).unwrap();
        assert_eq!(received(&bytes).await.unwrap(), Some(hello));
        assert_eq!(hello.features.names(), ["read_end"]);
        // What a later build says more is skipped, and what comes after it is not.
        let offer = bytes.split_off(9);
        let mut longer = BytesMut::from(&bytes[..]);
        longer.extend_from_slice(&u32::try_from(offer.len() - 4 + 3).unwrap().to_be_bytes());
        longer.extend_from_slice(&offer[4..]);
        longer.extend_from_slice(b"new");
        let mut reader = FrameReader::new(&longer[..]);
        assert_eq!(Hello::receive(&mut reader).await.unwrap(), Some(hello));
        assert!(reader.into_parts().1.is_empty());
    }

    #[tokio::test]
    async fn whoever_speaks_version_1_says_nothing_more() {
        let mut bytes = BytesMut::new();
        Hello::ours().encode(1, &mut bytes).unwrap();
        assert_eq!(&bytes[..], b"\0\0\0\x05svmA\x01");
        assert_eq!(received(&bytes).await.unwrap(), Some(Hello::of_version_1()));
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_an_error() {
        let cases: [&[u8]; 6] = [
            b"\0\0\0\x05svmB\x01",
            b"\0\0\0\x06svmA\x01\0",
            b"\0\0\0\x05svmA\x02\0\0\0\x03\x03\x02\0",
            b"\0\0\0\x05svmA\x02\0\0\0\x03\x01\x01\0",
            b"\0\0\0\x05svmA\x02\0\0\x10\x01",
            b"\0\0\0\x05svmA\x02\0\0\0\x02\x01\x02",
        ];
        for bytes in cases {
            assert!(matches!(received(bytes).await, Err(FrameError::Malformed(_))), "{bytes:?}");
        }
        // Closed before it had said all.
        assert_eq!(received(b"\0\0\0\x05svmA\x02").await.unwrap(), None);
        assert_eq!(received(b"").await.unwrap(), None);
    }
}
