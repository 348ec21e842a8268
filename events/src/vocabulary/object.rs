//! The words for bytes that are too large for the log: an event names them, a store of objects has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{JobId, NotAHash, TenantId};

/// SHA-256 of an object's bytes; 64 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| NotAHash)?;
        Ok(Self(hash))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What objects belong to. All objects of one owner are kept and removed together, so nothing has to count who else names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectOwner {
    /// The artifacts of a job.
    Job(JobId),
}

impl fmt::Display for ObjectOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
        }
    }
}

impl FromStr for ObjectOwner {
    type Err = NotAKey;

    /// The prefix of the id says what it is the id of.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        text.parse().map(Self::Job).map_err(|_| NotAKey)
    }
}

/// Where the objects of one owner are. The tenant comes first: no key of one tenant can name an object of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPlace {
    /// Whose they are.
    pub tenant: TenantId,
    /// What of theirs.
    pub owner: ObjectOwner,
}

impl ObjectPlace {
    /// The key of the object with these contents.
    pub fn key(&self, sha256: ContentHash) -> ObjectKey {
        ObjectKey { place: self.clone(), sha256 }
    }
}

impl fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.owner)
    }
}

/// The name of an object: `TENANT/OWNER/SHA256`. Since it says what the bytes are, storing them twice is storing them once, and
/// no object is ever changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Where it is.
    pub place: ObjectPlace,
    /// What it is.
    pub sha256: ContentHash,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place, self.sha256)
    }
}

impl FromStr for ObjectKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut parts = text.split('/');
        let (Some(tenant), Some(owner), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAKey);
        };
        let tenant = tenant.parse().map_err(|_| NotAKey)?;
        let sha256: ContentHash = hash.parse().map_err(|_| NotAKey)?;
        // One object has one name.
        if sha256.to_string() != hash {
            return Err(NotAKey);
        }
        Ok(Self { place: ObjectPlace { tenant, owner: owner.parse()? }, sha256 })
    }
}

/// A text that is not the key of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the key of an object")]
pub struct NotAKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_in_no_other_form() {
        let job = JobId::from_bytes([7; 16]);
        let place = ObjectPlace { tenant: "acme".parse().unwrap(), owner: ObjectOwner::Job(job) };
        let key = place.key(ContentHash([0xab; 32]));
        let text = key.to_string();
        assert_eq!(text, format!("acme/{job}/{}", "ab".repeat(32)));
        assert_eq!(text.parse(), Ok(key));
        for wrong in [
            "",
            "acme",
            &format!("{text}/x"),
            &format!("/{text}"),
            &text.replace("acme", ".."),
            &text.replace("acme", "a b"),
            &text.replace("job-", "sb-"),
            &text.replace("ab", "AB"),
            &text[..text.len() - 1],
        ] {
            assert_eq!(wrong.parse::<ObjectKey>(), Err(NotAKey), "{wrong}");
        }
    }
}
