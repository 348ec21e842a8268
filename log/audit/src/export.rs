//! The export that proves itself: NDJSON, one event a line in its exact bytes.
//!
//! The first line says what it is, the last one where the chains end. What stands between is enough to compute every link
//! again, on a machine that has never seen the database.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use events::{ChainHash, ChainPoint, Position, TenantId};
use record::{ChainedFrame, Encoding, StoredBody};
use serde::{Deserialize, Serialize};

use super::claim::CheckpointProof;

/// What the first line says the file is.
pub const EXPORT_FORMAT: &str = "stacyvm audit export v1";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExportLine {
    /// The first one.
    Start(StartLine),
    /// An event.
    Event(EventLine),
    /// A checkpoint that speaks of the tenant whose export this is. (In an export of everything they are events.)
    Checkpoint {
        /// What it says.
        checkpoint: CheckpointProof,
    },
    /// The last one.
    End {
        /// What it says.
        end: EndLine,
    },
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartLine {
    /// [`EXPORT_FORMAT`].
    pub format: String,
    /// Whose events; none: everybody's.
    pub tenant: Option<TenantId>,
    /// Whether bodies are among it.
    pub bodies: bool,
    /// Whether events were left out that a filter did not want: then no chain can be checked.
    pub filtered: bool,
    /// How far the log went.
    pub head: Position,
    /// Up to where whole events had been dropped.
    pub floor: Position,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Where it stands.
    pub position: Position,
    /// The chain that it is in.
    pub tenant: TenantId,
    /// The exact text of its header: the JSON of a CloudEvent.
    pub header: String,
    /// What the link covers of its body, if it ever had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hash: Option<ChainHash>,
    /// How the body is kept: 0 raw, 1 zstd, 2 sealed, 3 zstd and then sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<u8>,
    /// The exact stored bytes of the body, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The link.
    pub hash: ChainHash,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLine {
    /// How many events stand above.
    pub events: u64,
    /// The ends of the chains.
    pub chains: Vec<ChainPoint>,
    /// The public keys that the server knows. For convenience: whoever changed the file could have changed them too.
    pub public_keys: Vec<String>,
}

impl EventLine {
    /// The line of an event.
    pub fn new(frame: &ChainedFrame, bodies: bool) -> Self {
        let body = frame.body.as_ref().filter(|_| bodies);
        Self {
            position: frame.position,
            tenant: frame.tenant.clone(),
            header: String::from_utf8_lossy(&frame.header).into_owned(),
            body_hash: frame.body_hash.map(ChainHash),
            encoding: body.map(|body| body.encoding.code()),
            body: body.map(|body| BASE64.encode(&body.bytes)),
            hash: frame.hash,
        }
    }

    /// The event of the line; or why it is none.
    pub(super) fn read(self) -> Result<ChainedFrame, &'static str> {
        let body = match (self.encoding, self.body) {
            (Some(code), Some(text)) => Some(StoredBody {
                encoding: Encoding::from_code(code.into()).ok_or("an unknown encoding of the body")?,
                bytes: BASE64.decode(text).map_err(|_| "the body is not base64")?.into(),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err("half a body"),
        };
        Ok(ChainedFrame {
            position: self.position,
            tenant: self.tenant,
            header: Bytes::from(self.header),
            body_hash: self.body_hash.map(|hash| hash.0),
            body,
            hash: self.hash,
            columns: None,
        })
    }
}
