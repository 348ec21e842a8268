use super::AppendBody;
use crate::{
    ChainPoint, EventId, ExecId, ExecState, Frame, Position, RetentionClass, SandboxId, SandboxState,
    Template, TenantId, WebhookId, WebhookState,
};

/// A link of a tenant's hash chain: SHA-256 over the link before it and one event.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// What the first event of a tenant is chained to.
    pub const GENESIS: Self = Self([0; 32]);
}

impl std::fmt::Display for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for ChainHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        // A sign would be read as part of a number.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAHash);
        }
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| NotAHash)?;
        }
        Ok(Self(hash))
    }
}

impl serde::Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NotAHash;

impl std::fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// How far the transport has been copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamMark {
    /// Which transport stream.
    pub incarnation: String,
    /// Its newest message whose events are all in the log (or were dropped for good).
    pub sequence: u64,
}

/// One event that is about to be recorded, with the columns that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEvent {
    /// The exact bytes, and the position.
    pub frame: Frame,
    /// Unique in the log.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which sandbox it is about.
    pub sandbox: Option<SandboxId>,
    /// Which exec it is about.
    pub exec: Option<ExecId>,
    /// The name of its type.
    pub type_name: &'static str,
    /// When it happened, in microseconds since 1970.
    pub time_us: i64,
    /// The form in which the body of the frame is kept, if it has one.
    pub body: Option<AppendBody>,
    /// Its link of the tenant's hash chain.
    pub hash: ChainHash,
}

/// A change of one template.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateChange {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// What it is now; `None`: deleted.
    pub template: Option<Template>,
}

/// A change of one webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookChange {
    /// Which.
    pub id: WebhookId,
    /// Whose.
    pub tenant: TenantId,
    /// What it is now; `None`: deleted.
    pub state: Option<WebhookState>,
}

/// A key of sealed bodies that is made or destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyChange {
    /// Whose output and input it is for.
    pub sandbox: SandboxId,
    /// Whose sandbox that is.
    pub tenant: TenantId,
    /// What becomes of it.
    pub fate: KeyFate,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFate {
    /// It is new; this is the key, sealed.
    Made(Vec<u8>),
    /// It is destroyed, at this time in microseconds since 1970.
    Destroyed(i64),
}

/// Up to where things of a class were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// What.
    pub class: RetentionClass,
    /// Up to and including this position.
    pub up_to: Position,
    /// The checkpoint that speaks of it.
    pub checkpoint: EventId,
}

/// What one append adds. Every read model occurs at most once, in the state after the last event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppendBatch {
    /// The position that the log must stand at.
    pub after: Position,
    /// How far the transport is copied with this batch.
    pub stream: StreamMark,
    /// The events, at `after + 1`, `after + 2` and so on.
    pub events: Vec<AppendEvent>,
    /// Sandboxes that changed.
    pub sandboxes: Vec<SandboxState>,
    /// Execs that changed.
    pub execs: Vec<ExecState>,
    /// Templates that changed.
    pub templates: Vec<TemplateChange>,
    /// Webhooks that changed.
    pub webhooks: Vec<WebhookChange>,
    /// Keys that are made or destroyed.
    pub data_keys: Vec<DataKeyChange>,
    /// Floors of retention that rise.
    pub floors: Vec<Floor>,
    /// The newest link of each tenant that has an event in the batch.
    pub chain_heads: Vec<ChainPoint>,
}

impl AppendBatch {
    /// Where the log stands after it.
    pub fn end(&self) -> Position {
        Position(self.after.0 + self.events.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_digits_and_no_signs() {
        assert_eq!("00".repeat(32).parse(), Ok(ChainHash::GENESIS));
        assert_eq!("aF".repeat(32).parse(), Ok(ChainHash([0xaf; 32])));
        let of_the_right_length = ["+0", "-0", " 0", "0g", "é"].map(|bad| bad.repeat(64 / bad.len()));
        for text in of_the_right_length.into_iter().chain(["".to_owned(), "0".repeat(63), "0".repeat(65)]) {
            assert_eq!(text.parse::<ChainHash>(), Err(NotAHash), "{text}");
        }
    }
}
