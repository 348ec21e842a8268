//! The exact bytes of a checkpoint.

use chrono::{DateTime, SecondsFormat, Utc};
use events::{AuditCheckpoint, ChainHash, CheckpointStatement};
use sha2::{Digest, Sha256};

use super::claim::SignedRoot;
use super::keys::AuditKey;
use super::merkle;

/// What an audit key signs.
pub trait Signable: Sized {
    /// The same, signed.
    type Signed;

    /// What a signature covers. These bytes are frozen.
    fn canonical(&self) -> String;

    /// The same with a signature, and the id of the key that made it.
    fn signed(self, key_id: String, signature: String) -> Self::Signed;

    /// The hash of those bytes: what the next checkpoint calls its previous one.
    fn digest(&self) -> ChainHash {
        ChainHash(Sha256::digest(self.canonical()).into())
    }

    /// Signs it.
    fn sign(self, key: &AuditKey) -> Self::Signed {
        let signature = key.sign(self.canonical().as_bytes());
        self.signed(key.public().id(), signature)
    }
}

impl Signable for CheckpointStatement {
    type Signed = AuditCheckpoint;

    fn canonical(&self) -> String {
        text(self.up_to.0, self.at, &merkle::root(&self.chains), &self.previous)
    }

    fn signed(self, key_id: String, signature: String) -> AuditCheckpoint {
        AuditCheckpoint { key_id, signature, statement: self }
    }
}

fn text(up_to: u64, at: DateTime<Utc>, chains: &ChainHash, previous: &ChainHash) -> String {
    let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
    format!("stacyvm checkpoint v1\nup_to {up_to}\nat {at}\nchains {chains}\nprevious {previous}\n")
}

impl SignedRoot {
    /// What the signature covers.
    pub fn canonical(&self) -> String {
        text(self.up_to.0, self.at, &self.root, &self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{ChainPoint, Position};

    #[test]
    fn the_bytes_that_are_signed_are_frozen() {
        let statement = CheckpointStatement {
            up_to: Position(12),
            at: DateTime::from_timestamp_micros(1_750_000_000_000_001).unwrap(),
            chains: vec![ChainPoint {
                tenant: "red".parse().unwrap(),
                position: Position(11),
                hash: ChainHash([1; 32]),
            }],
            previous: ChainHash::GENESIS,
        };
        // sha256(00, "red 11 0101...")
        let root = "81c3d5cd69d0bbeac5ea452ac20b906187608c9dd020e60300280a640f4efc10";
        let expected = format!(
            "stacyvm checkpoint v1\nup_to 12\nat 2025-06-15T15:06:40.000001Z\nchains {root}\nprevious {}\n",
            "0".repeat(64)
        );
        assert_eq!(statement.canonical(), expected);
        let signed = SignedRoot::from(&statement.sign(&AuditKey::from_bytes([7; 32])));
        assert_eq!(signed.canonical(), expected);
    }
}
