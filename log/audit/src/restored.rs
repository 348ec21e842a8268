//! What is signed beside checkpoints: that an older copy took the log's place, and that another key signs from now on.

use chrono::{DateTime, SecondsFormat, Utc};
use events::{AuditKeyChanged, EventId, LogRestored, Position, RestoreStatement};

use super::keys::{AuditKey, AuditPublicKey, PublicKeys};
use super::report::Fault;
use super::statement::Signable;

impl Signable for RestoreStatement {
    type Signed = LogRestored;

    fn canonical(&self) -> String {
        let Self { up_to, lost_to, at } = self;
        format!("stacyvm restored v1\nup_to {up_to}\nlost_to {lost_to}\nat {}\n", instant(*at))
    }

    fn signed(self, key_id: String, signature: String) -> LogRestored {
        LogRestored { key_id, signature, statement: self }
    }
}

/// Whether what is stated of a position at a time was lost with this.
pub(super) fn excuses(restored: &RestoreStatement, position: Position, stated_at: DateTime<Utc>) -> bool {
    position > restored.up_to && position <= restored.lost_to && stated_at <= restored.at
}

/// The event that says so has this id, whoever tells it and however often.
pub(super) fn event_id(restored: &RestoreStatement) -> EventId {
    EventId::derived(&["log.restored", &restored.digest().to_string()])
}

/// Whether it is signed by one of the keys. `Ok(false)`: there are no keys to check it with.
pub(super) fn check_signature(restored: &LogRestored, keys: &PublicKeys) -> Result<bool, Fault> {
    if keys.is_empty() {
        return Ok(false);
    }
    let key = keys.find(&restored.key_id).ok_or(Fault::UnknownKey)?;
    let holds = key.verifies(restored.statement.canonical().as_bytes(), &restored.signature);
    if holds { Ok(true) } else { Err(Fault::Signature) }
}

/// A change to this key, with the word of the one before it where that is at hand.
pub fn key_changed(
    key: &AuditKey,
    from: String,
    before: Option<&AuditKey>,
    at: DateTime<Utc>,
) -> AuditKeyChanged {
    let mut changed = AuditKeyChanged { from, to: key.public().to_string(), at, signature: None };
    let before = before.filter(|before| before.public().id() == changed.from);
    changed.signature = before.map(|before| before.sign(canonical_change(&changed).as_bytes()));
    changed
}

/// What the signature of a change covers.
fn canonical_change(changed: &AuditKeyChanged) -> String {
    let AuditKeyChanged { from, to, at, signature: _ } = changed;
    format!("stacyvm key changed v1\nfrom {from}\nto {to}\nat {}\n", instant(*at))
}

/// The new key, if one of the keys that are known vouches for it.
pub(super) fn vouched(changed: &AuditKeyChanged, keys: &PublicKeys) -> Option<AuditPublicKey> {
    let (before, signature) = (keys.find(&changed.from)?, changed.signature.as_ref()?);
    let holds = before.verifies(canonical_change(changed).as_bytes(), signature);
    holds.then(|| changed.to.parse().ok())?
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
        assert_eq!(check_signature(&signed, &keys), Ok(true));
        signed.statement.up_to = Position(1);
        assert_eq!(check_signature(&signed, &keys), Err(Fault::Signature));
        assert_eq!(check_signature(&signed, &PublicKeys::default()), Ok(false));
    }

    #[test]
    fn a_key_vouches_for_the_next_one_and_nobody_else_does() {
        let (old, new) = (AuditKey::from_bytes([1; 32]), AuditKey::from_bytes([2; 32]));
        let keys = PublicKeys::new(vec![old.public()]);
        let changed = key_changed(&new, old.public().id(), Some(&old), at());
        assert_eq!(vouched(&changed, &keys), Some(new.public()));
        let other = AuditKey::from_bytes([3; 32]);
        assert_eq!(vouched(&key_changed(&new, old.public().id(), Some(&other), at()), &keys), None);
        assert_eq!(vouched(&key_changed(&new, old.public().id(), None, at()), &keys), None);
        let forged = AuditKeyChanged { to: other.public().to_string(), ..changed };
        assert_eq!(vouched(&forged, &keys), None);
    }
}
