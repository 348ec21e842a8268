//! The exact bytes of a checkpoint.

use chrono::{DateTime, SecondsFormat, Utc};
use sha2::{Digest, Sha256};

use super::claim::SignedRoot;
use super::keys::AuditKey;
use super::merkle;
use crate::{AuditCheckpoint, ChainHash, CheckpointStatement};

impl CheckpointStatement {
    /// The root of the tree of hashes over the chains.
    pub fn root(&self) -> ChainHash {
        merkle::root(&self.chains)
    }

    /// What a signature covers.
    pub fn canonical(&self) -> String {
        text(self.up_to.0, self.at, &self.root(), &self.previous)
    }

    /// What the next statement calls its previous one.
    pub fn hash(&self) -> ChainHash {
        ChainHash(Sha256::digest(self.canonical()).into())
    }

    /// The same, signed.
    pub fn sign(self, key: &AuditKey) -> AuditCheckpoint {
        let signature = key.sign(self.canonical().as_bytes());
        AuditCheckpoint { key_id: key.public().id(), signature, statement: self }
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
    use crate::{ChainPoint, Position};

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
