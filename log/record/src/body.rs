//! How bodies are kept: compressed where that pays, sealed where that is wanted.

use bytes::Bytes;
use events::{EventData, ExecEvent, OutputStream};
use sha2::{Digest, Sha256};

/// How the bytes of a body are kept. The number is in the database and in the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// As one zstd frame.
    Zstd,
    /// As they are, under the key of their sandbox.
    SealedRaw,
    /// As one zstd frame, under the key of their sandbox.
    SealedZstd,
}

impl Encoding {
    /// Its number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::SealedRaw => 2,
            Self::SealedZstd => 3,
        }
    }

    /// The encoding with this number.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            2 => Some(Self::SealedRaw),
            3 => Some(Self::SealedZstd),
            _ => None,
        }
    }

    /// The same under a key.
    pub const fn sealed(self) -> Self {
        match self {
            Self::Raw | Self::SealedRaw => Self::SealedRaw,
            Self::Zstd | Self::SealedZstd => Self::SealedZstd,
        }
    }

    /// Whether a key is needed to read it.
    pub const fn is_sealed(self) -> bool {
        match self {
            Self::Raw | Self::Zstd => false,
            Self::SealedRaw | Self::SealedZstd => true,
        }
    }
}

/// A body as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBody {
    /// How the bytes are encoded.
    pub encoding: Encoding,
    /// The exact bytes in the database.
    pub bytes: Bytes,
}

impl StoredBody {
    /// What the hash chain has of it: SHA-256 over the number of the encoding and the stored bytes.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new().chain_update([self.encoding.code()]).chain_update(&self.bytes).finalize().into()
    }
}

/// Where in an exec the bytes of an event belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyStream {
    /// What it wrote to stdout, from this offset on.
    Stdout(u64),
    /// What it wrote to stderr, from this offset on.
    Stderr(u64),
    /// What it was sent.
    Stdin,
}

impl BodyStream {
    /// Where the body of an event belongs, if it has one.
    pub const fn of(data: &EventData) -> Option<Self> {
        if let EventData::Exec(ExecEvent::Output(output)) = data {
            Some(match output.stream {
                OutputStream::Stdout => Self::Stdout(output.offset),
                OutputStream::Stderr => Self::Stderr(output.offset),
            })
        } else if let EventData::Exec(ExecEvent::Input(_)) = data {
            Some(Self::Stdin)
        } else {
            None
        }
    }

    /// Its number in the database.
    pub const fn code(self) -> i16 {
        match self {
            Self::Stdout(_) => 1,
            Self::Stderr(_) => 2,
            Self::Stdin => 3,
        }
    }

    /// Where the first byte stands in the stream; of input nobody counts.
    pub const fn offset(self) -> Option<u64> {
        match self {
            Self::Stdout(offset) | Self::Stderr(offset) => Some(offset),
            Self::Stdin => None,
        }
    }
}

/// The body of an event that is about to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendBody {
    /// Where it belongs.
    pub stream: BodyStream,
    /// How many bytes it has, before they are encoded.
    pub length: u64,
    /// What the hash chain has of it.
    pub hash: [u8; 32],
    /// What is kept; nothing when the key was destroyed before it came.
    pub stored: Option<StoredBody>,
}

/// What the keys of sandboxes are sealed for.
pub const DATA_KEY: &str = "data-key";
