//! Ids are types, never bare strings in a signature.
//!
//! Ids of objects are UUIDs written as a prefix and 26 characters of lower-case Crockford base 32 (the TypeID encoding):
//! `sb-01jd2x5c0pe3tt4m1q5a8z0v9k`. They sort by creation time, fit in a DNS label and in a NATS subject token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix is not the one of this kind of id.
    #[error("expected an id that starts with {expected:?}")]
    Prefix {
        /// The prefix, dash included.
        expected: &'static str,
    },
    /// The part after the prefix is not 26 characters of Crockford base 32 below 2^128.
    #[error("not a valid id")]
    Encoding,
    /// A name that breaks the rule of its kind.
    #[error("{kind} must be 1 to {max} characters of a-z, A-Z, 0-9, '_' and '-'")]
    Name {
        /// What the name names.
        kind: &'static str,
        /// The greatest length, in characters.
        max: usize,
    },
    /// A request id that breaks the rule.
    #[error("a request id must be 1 to 128 printable ASCII characters without spaces")]
    RequestId,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ENCODED_LEN: usize = 26;

fn encode(value: u128) -> [u8; ENCODED_LEN] {
    let mut out = [0; ENCODED_LEN];
    for (index, slot) in out.iter_mut().enumerate() {
        let shift = 5 * (ENCODED_LEN - 1 - index);
        *slot = ALPHABET[((value >> shift) & 31) as usize];
    }
    out
}

fn decode(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    // 26 characters hold 130 bits: the first may only use 3 of its 5.
    if bytes.len() != ENCODED_LEN || bytes[0] > b'7' {
        return None;
    }
    bytes.iter().try_fold(0u128, |value, byte| {
        let digit = ALPHABET.iter().position(|letter| letter == byte)?;
        Some((value << 5) | digit as u128)
    })
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A fresh id that sorts after all ids made before it on this machine.
            #[expect(clippy::new_without_default, reason = "an id is never a default value")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that always follows from the same parts: what an `Idempotency-Key` stands for.
            pub fn derived(parts: &[&str]) -> Self {
                let mut name = String::from($prefix);
                for part in parts {
                    // The length keeps ("ab", "c") and ("a", "bc") apart.
                    name.push_str(&format!("{}:{part}", part.len()));
                }
                Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
            }

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The sixteen bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                let encoded = encode(self.0.as_u128());
                f.write_str(std::str::from_utf8(&encoded).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let rest = text.strip_prefix($prefix).ok_or(IdError::Prefix { expected: $prefix })?;
                decode(rest).map(|value| Self(Uuid::from_u128(value))).ok_or(IdError::Encoding)
            }
        }

        impl From<$name> for crate::Key {
            fn from(id: $name) -> Self {
                Self::of_id(*id.as_bytes())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("an id that starts with ", $prefix))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

uuid_id!(
    /// A sandbox: an isolated workspace with a deadline.
    SandboxId, "sb-"
);
uuid_id!(
    /// A job: a command in a sandbox of its own, as one unit with an outcome.
    JobId, "job-"
);
uuid_id!(
    /// A schedule: a job, and when it is to be submitted.
    ScheduleId, "sched-"
);
uuid_id!(
    /// A webhook: a subscription to events.
    WebhookId, "wh-"
);
uuid_id!(
    /// One run of one command in a sandbox.
    ExecId, "ex-"
);
uuid_id!(
    /// One fact in the log.
    EventId, "ev-"
);
uuid_id!(
    /// One wish, addressed to the executors.
    CommandId, "cm-"
);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // These names become NATS subject tokens: no dots, stars, spaces or control characters.
                let valid = !text.is_empty()
                    && text.len() <= $max
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
                if valid { Ok(Self(text.into())) } else { Err(IdError::Name { kind: $kind, max: $max }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// Who owns what a key may touch. Another tenant's anything does not exist.
    TenantId, "a tenant id", 64
);
name_id!(
    /// A machine with an executor.
    NodeId, "a node id", 64
);
name_id!(
    /// An API key, by the public name that logs may show.
    ApiKeyId, "an API key id", 64
);

impl TenantId {
    /// The tenant of a server that was given no other.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// What belongs to no tenant: nodes. No key is ever of this tenant.
    pub fn system() -> Self {
        Self("_system".into())
    }
}

/// What ties one request to its log lines, its events and its answer (`X-Request-ID`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// A fresh id for a request that brought none.
    #[expect(clippy::new_without_default, reason = "an id is never a default value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let valid = !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if valid { Ok(Self(text)) } else { Err(IdError::RequestId) }
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's place in the whole log: 1, 2, 3 and so on, without holes. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl CommandId {
    /// That of the command that makes a sandbox. Whoever sends it again sends the same.
    pub fn of_create(sandbox: SandboxId) -> Self {
        Self::derived(&["create", &sandbox.to_string()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_survive_their_text_form(bytes: [u8; 16]) {
            let id = SandboxId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<SandboxId>(), Ok(id));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text: String) {
            let _ = text.parse::<SandboxId>();
            let _ = format!("sb-{text}").parse::<SandboxId>();
        }

        #[test]
        fn ids_sort_as_their_text(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (SandboxId::from_bytes(a), SandboxId::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn ids_with_subject_characters_are_refused() {
        for text in
            ["sb-*", "sb-a.b", "sb-", "sb-01jd2x5c0pe3tt4m1q5a8z0v9k ", "ex-01jd2x5c0pe3tt4m1q5a8z0v9k"]
        {
            assert!(text.parse::<SandboxId>().is_err(), "{text}");
        }
        for text in ["", "a.b", "a b", "*", ">", "ä"] {
            assert!(text.parse::<TenantId>().is_err(), "{text}");
        }
    }

    #[test]
    fn derived_ids_depend_on_every_part() {
        assert_eq!(ExecId::derived(&["t", "k"]), ExecId::derived(&["t", "k"]));
        assert_ne!(ExecId::derived(&["ab", "c"]), ExecId::derived(&["a", "bc"]));
    }
}
