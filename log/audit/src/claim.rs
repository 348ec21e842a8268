//! What a checkpoint claims, wherever it was found: an event, a line of the checkpoint file, a line of an export.

use std::fmt;

use chrono::{DateTime, Utc};
use events::{AuditCheckpoint, ChainHash, ChainPoint, Position, TenantId};
use serde::{Deserialize, Serialize};

use super::keys::PublicKeys;
use super::merkle::{self, ProofStep};
use super::report::Fault;

/// What is signed of a checkpoint, without the chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoot {
    /// It speaks of all events up to and including this one.
    pub up_to: Position,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The root of the tree of hashes over the chains.
    pub root: ChainHash,
    /// SHA-256 of the statement before it.
    pub previous: ChainHash,
    /// Which key signed.
    pub key_id: String,
    /// ed25519, in hexadecimal.
    pub signature: String,
}

impl From<&AuditCheckpoint> for SignedRoot {
    fn from(checkpoint: &AuditCheckpoint) -> Self {
        let AuditCheckpoint { statement, key_id, signature } = checkpoint;
        Self {
            up_to: statement.up_to,
            at: statement.at,
            root: merkle::root(&statement.chains),
            previous: statement.previous,
            key_id: key_id.clone(),
            signature: signature.clone(),
        }
    }
}

/// What one tenant is shown of a checkpoint: its own chain, and the proof that this was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointProof {
    /// What was signed.
    #[serde(flatten)]
    pub signed: SignedRoot,
    /// The tenant's chain.
    pub point: ChainPoint,
    /// From the chain to the root.
    pub proof: Vec<ProofStep>,
}

impl CheckpointProof {
    /// What this tenant may see of a checkpoint; `None` where it does not speak of the tenant.
    pub fn of(checkpoint: &AuditCheckpoint, tenant: &TenantId) -> Option<Self> {
        let chains = &checkpoint.statement.chains;
        let point = chains.iter().find(|point| point.tenant == *tenant)?;
        Some(Self { signed: checkpoint.into(), point: point.clone(), proof: merkle::proof(chains, point)? })
    }
}

/// Where a checkpoint was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimSource {
    /// The event at this position.
    Event(Position),
    /// This line of the checkpoint file, counted from 1.
    File(u64),
    /// This line of an export, counted from 1.
    Export(u64),
}

impl fmt::Display for ClaimSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(position) => write!(f, "the checkpoint at position {position}"),
            Self::File(line) => write!(f, "line {line} of the checkpoint file"),
            Self::Export(line) => write!(f, "the checkpoint in line {line} of the export"),
        }
    }
}

/// A checkpoint, to be held against a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where it was found.
    pub source: ClaimSource,
    /// What is signed.
    pub signed: SignedRoot,
    /// The chains that it tells of.
    pub points: Vec<ChainPoint>,
    /// Whether the points are what the root stands for.
    proven: bool,
}

impl Claim {
    /// All that a checkpoint says.
    pub fn of_checkpoint(checkpoint: &AuditCheckpoint, source: ClaimSource) -> Self {
        // The root is made from the points, so it fits; a changed point shows in the signature.
        let points = checkpoint.statement.chains.clone();
        Self { source, signed: checkpoint.into(), points, proven: true }
    }

    /// What one tenant was shown.
    pub fn of_proof(proof: CheckpointProof, source: ClaimSource) -> Self {
        let proven = merkle::root_of_proof(&proof.point, &proof.proof) == proof.signed.root;
        Self { source, signed: proof.signed, points: vec![proof.point], proven }
    }

    /// Leaves only what is about this tenant.
    pub fn only(mut self, tenant: &TenantId) -> Self {
        self.points.retain(|point| point.tenant == *tenant);
        self
    }

    /// Whether it is signed by one of the keys. `Ok(false)`: there are no keys to check it with.
    pub(super) fn check_signature(&self, keys: &PublicKeys) -> Result<bool, Fault> {
        if !self.proven {
            return Err(Fault::Signature);
        }
        if keys.is_empty() {
            return Ok(false);
        }
        let key = keys.find(&self.signed.key_id).ok_or(Fault::UnknownKey)?;
        if key.verifies(self.signed.canonical().as_bytes(), &self.signed.signature) {
            Ok(true)
        } else {
            Err(Fault::Signature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuditKey, Signable};
    use events::CheckpointStatement;

    fn checkpoint(key: &AuditKey) -> AuditCheckpoint {
        let point = |tenant: &str, position| ChainPoint {
            tenant: tenant.parse().unwrap(),
            position: Position(position),
            hash: ChainHash([position as u8; 32]),
        };
        CheckpointStatement {
            up_to: Position(9),
            at: DateTime::from_timestamp_micros(5).unwrap(),
            chains: vec![point("red", 3), point("blue", 9), point("green", 8)],
            previous: ChainHash::GENESIS,
        }
        .sign(key)
    }

    #[test]
    fn a_tenant_can_check_its_own_chain_and_is_told_of_no_other() {
        let key = AuditKey::from_bytes([1; 32]);
        let keys = PublicKeys::new(vec![key.public()]);
        let proof = CheckpointProof::of(&checkpoint(&key), &"blue".parse().unwrap()).unwrap();
        let json = serde_json::to_string(&proof).unwrap();
        assert!(!json.contains("red") && !json.contains("green"), "{json}");
        let back: CheckpointProof = serde_json::from_str(&json).unwrap();
        let claim = Claim::of_proof(back.clone(), ClaimSource::Export(1));
        assert_eq!(claim.check_signature(&keys), Ok(true));
        let mut forged = back;
        forged.point.position = Position(8);
        assert_eq!(
            Claim::of_proof(forged, ClaimSource::Export(1)).check_signature(&keys),
            Err(Fault::Signature)
        );
        assert_eq!(CheckpointProof::of(&checkpoint(&key), &"grey".parse().unwrap()), None);
    }

    #[test]
    fn a_changed_statement_and_an_unknown_key_are_told_apart() {
        let key = AuditKey::from_bytes([1; 32]);
        let keys = PublicKeys::new(vec![key.public()]);
        let mut changed = checkpoint(&key);
        changed.statement.chains[0].position = Position(4);
        let claim = |checkpoint: &AuditCheckpoint| Claim::of_checkpoint(checkpoint, ClaimSource::File(1));
        assert_eq!(claim(&changed).check_signature(&keys), Err(Fault::Signature));
        assert_eq!(claim(&changed).check_signature(&PublicKeys::default()), Ok(false));
        let other = checkpoint(&AuditKey::from_bytes([2; 32]));
        assert_eq!(claim(&other).check_signature(&keys), Err(Fault::UnknownKey));
    }
}
