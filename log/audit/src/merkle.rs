//! A tree of hashes over the chain points of a checkpoint. What is signed is its root, so a tenant can be shown that its
//! own point is signed without being shown anybody else's.

use std::fmt;
use std::str::FromStr;

use events::{ChainHash, ChainPoint};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One step from a leaf to the root: the hash beside it, and on which side that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProofStep {
    /// The other one stands on the left.
    Left(ChainHash),
    /// The other one stands on the right.
    Right(ChainHash),
}

/// A text that is no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a step of a proof: l: or r: and 64 hexadecimal digits")]
pub struct NotAStep;

impl fmt::Display for ProofStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(hash) => write!(f, "l:{hash}"),
            Self::Right(hash) => write!(f, "r:{hash}"),
        }
    }
}

impl FromStr for ProofStep {
    type Err = NotAStep;

    fn from_str(text: &str) -> Result<Self, NotAStep> {
        match text.split_once(':') {
            Some(("l", hash)) => hash.parse().map(Self::Left).map_err(|_| NotAStep),
            Some(("r", hash)) => hash.parse().map(Self::Right).map_err(|_| NotAStep),
            Some(_) | None => Err(NotAStep),
        }
    }
}

impl TryFrom<String> for ProofStep {
    type Error = NotAStep;
    fn try_from(text: String) -> Result<Self, NotAStep> {
        text.parse()
    }
}

impl From<ProofStep> for String {
    fn from(step: ProofStep) -> Self {
        step.to_string()
    }
}

/// A point as a leaf: SHA-256 over a zero byte and `TENANT POSITION HASH`. The hash of the link, which nobody but the
/// tenant and the operator knows, keeps others from guessing the rest.
fn leaf(point: &ChainPoint) -> ChainHash {
    let text = format!("{} {} {}", point.tenant, point.position, point.hash);
    ChainHash(Sha256::new().chain_update([0]).chain_update(text).finalize().into())
}

/// Two hashes under one: SHA-256 over a one and both.
fn node(left: &ChainHash, right: &ChainHash) -> ChainHash {
    ChainHash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The leaves in the order of their bytes, which says nothing about the tenants.
fn leaves(points: &[ChainPoint]) -> Vec<ChainHash> {
    let mut leaves: Vec<ChainHash> = points.iter().map(leaf).collect();
    leaves.sort_by_key(|leaf| leaf.0);
    leaves
}

/// The level above. One that has no other beside it goes up as it is.
fn above(level: &[ChainHash]) -> Vec<ChainHash> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [alone, ..] => *alone,
            [] => ChainHash::GENESIS,
        })
        .collect()
}

/// The root over all points; zeros where there is none.
pub(super) fn root(points: &[ChainPoint]) -> ChainHash {
    let mut level = leaves(points);
    while level.len() > 1 {
        level = above(&level);
    }
    level.first().copied().unwrap_or(ChainHash::GENESIS)
}

/// The way from one of the points to the root.
pub(super) fn proof(points: &[ChainPoint], of: &ChainPoint) -> Option<Vec<ProofStep>> {
    let mut level = leaves(points);
    let mut at = level.iter().position(|found| *found == leaf(of))?;
    let mut steps = Vec::new();
    while level.len() > 1 {
        if at % 2 == 1 {
            steps.push(ProofStep::Left(level[at - 1]));
        } else if let Some(right) = level.get(at + 1) {
            steps.push(ProofStep::Right(*right));
        }
        level = above(&level);
        at /= 2;
    }
    Some(steps)
}

/// The root that a point and its way lead to.
pub(super) fn root_of_proof(point: &ChainPoint, steps: &[ProofStep]) -> ChainHash {
    steps.iter().fold(leaf(point), |hash, step| match step {
        ProofStep::Left(left) => node(left, &hash),
        ProofStep::Right(right) => node(&hash, right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Position;

    fn points(count: u64) -> Vec<ChainPoint> {
        (1..=count)
            .map(|number| ChainPoint {
                tenant: format!("t{number}").parse().unwrap(),
                position: Position(number * 7),
                hash: ChainHash([number as u8; 32]),
            })
            .collect()
    }

    #[test]
    fn every_point_of_every_size_of_tree_has_a_proof_that_leads_to_the_root() {
        for count in 1..40 {
            let points = points(count);
            let root = root(&points);
            for point in &points {
                let steps = proof(&points, point).unwrap();
                assert_eq!(root_of_proof(point, &steps), root, "{count}");
                let other = ChainPoint { position: Position(point.position.0 + 1), ..point.clone() };
                assert_ne!(root_of_proof(&other, &steps), root);
                assert_eq!(proof(&points, &other), None);
            }
        }
        assert_eq!(root(&[]), ChainHash::GENESIS);
    }

    #[test]
    fn the_order_of_the_points_does_not_matter_and_each_of_them_does() {
        let mut backwards = points(5);
        backwards.reverse();
        assert_eq!(root(&backwards), root(&points(5)));
        assert_ne!(root(&points(5)), root(&points(4)));
    }

    #[test]
    fn a_step_is_text_with_its_side() {
        let step = ProofStep::Left(ChainHash([0xab; 32]));
        assert_eq!(step.to_string().parse(), Ok(step));
        assert_eq!(serde_json::to_string(&step).unwrap(), format!("\"l:{}\"", "ab".repeat(32)));
        for bad in ["", "l:", "x:00", "l:zz"] {
            assert_eq!(bad.parse::<ProofStep>(), Err(NotAStep), "{bad}");
        }
    }
}
