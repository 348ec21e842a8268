//! What is signed beside checkpoints: that an older copy took the log's place, and that another key signs from now on.

use chrono::{DateTime, SecondsFormat, Utc};
use sha2::{Digest, Sha256};

use super::keys::{AuditKey, AuditPublicKey, PublicKeys};
use super::report::Fault;
use crate::{AuditKeyChanged, EventId, LogRestored, Position, RestoreStatement};

impl RestoreStatement {
    /// What a signature covers.
    pub fn canonical(&self) -> String {
        let Self { up_to, lost_to, at } = self;
        format!("stacyvm restored v1\nup_to {up_to}\nlost_to {lost_to}\nat {}\n", instant(*at))
    }

    /// The same, signed.
    pub fn sign(self, key: &AuditKey) -> LogRestored {
        let signature = key.sign(self.canonical().as_bytes());
        LogRestored { key_id: key.public().id(), signature, statement: self }
    }

    /// Whether what is stated of a position at a time was lost with this.
    pub(super) fn excuses(&self, position: Position, stated_at: DateTime<Utc>) -> bool {
        position > self.up_to && position <= self.lost_to && stated_at <= self.at
    }

    /// The event that says so has this id, whoever tells it and however often.
    pub(super) fn event_id(&self) -> EventId {
        let digest = crate::ChainHash(Sha256::digest(self.canonical()).into());
        EventId::derived(&["log.restored", &digest.to_string()])
    }
}

impl LogRestored {
    /// Whether it is signed by one of the keys. `Ok(false)`: there are no keys to check it with.
    pub(super) fn check_signature(&self, keys: &PublicKeys) -> Result<bool, Fault> {
        if keys.is_empty() {
            return Ok(false);
        }
        let key = keys.find(&self.key_id).ok_or(Fault::UnknownKey)?;
        let holds = key.verifies(self.statement.canonical().as_bytes(), &self.signature);
        if holds { Ok(true) } else { Err(Fault::Signature) }
    }
}

impl AuditKeyChanged {
    /// A change to this key, with the word of the one before it where that is at hand.
    pub fn to(key: &AuditKey, from: String, before: Option<&AuditKey>, at: DateTime<Utc>) -> Self {
        let mut changed = Self { from, to: key.public().to_string(), at, signature: None };
        let before = before.filter(|before| before.public().id() == changed.from);
        changed.signature = before.map(|before| before.sign(changed.canonical().as_bytes()));
        changed
    }

    /// What a signature covers.
    pub fn canonical(&self) -> String {
        let Self { from, to, at, signature: _ } = self;
        format!("stacyvm key changed v1\nfrom {from}\nto {to}\nat {}\n", instant(*at))
    }

    /// The new key, if one of the keys that are known vouches for it.
    pub(super) fn vouched(&self, keys: &PublicKeys) -> Option<AuditPublicKey> {
        let (before, signature) = (keys.find(&self.from)?, self.signature.as_ref()?);
        let holds = before.verifies(self.canonical().as_bytes(), signature);
        holds.then(|| self.to.parse().ok())?
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_750_000_000_000_001).unwrap()
    }

    #[test]
    fn the_bytes_that_are_signed_are_frozen() {
        let restored = RestoreStatement { up_to: Position(7), lost_to: Position(9), at: at() };
        let text = "stacyvm restored v1\nup_to 7\nlost_to 9\nat 2025-06-15T15:06:40.000001Z\n";
        assert_eq!(restored.canonical(), text);
        let key = AuditKey::from_bytes([1; 32]);
        let keys = PublicKeys::new(vec![key.public()]);
        let mut signed = restored.sign(&key);
        assert_eq!(signed.check_signature(&keys), Ok(true));
        signed.statement.up_to = Position(1);
        assert_eq!(signed.check_signature(&keys), Err(Fault::Signature));
        assert_eq!(signed.check_signature(&PublicKeys::default()), Ok(false));
    }

    #[test]
    fn a_key_vouches_for_the_next_one_and_nobody_else_does() {
        let (old, new) = (AuditKey::from_bytes([1; 32]), AuditKey::from_bytes([2; 32]));
        let keys = PublicKeys::new(vec![old.public()]);
        let changed = AuditKeyChanged::to(&new, old.public().id(), Some(&old), at());
        assert_eq!(changed.vouched(&keys), Some(new.public()));
        let other = AuditKey::from_bytes([3; 32]);
        assert_eq!(AuditKeyChanged::to(&new, old.public().id(), Some(&other), at()).vouched(&keys), None);
        assert_eq!(AuditKeyChanged::to(&new, old.public().id(), None, at()).vouched(&keys), None);
        let forged = AuditKeyChanged { to: other.public().to_string(), ..changed };
        assert_eq!(forged.vouched(&keys), None);
    }
}
