//! The links of the hash chains.

/// A link of a tenant's hash chain: SHA-256 over the link before it and one event.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// What the first event of a tenant is chained to.
    pub const GENESIS: Self = Self([0; 32]);
}

impl std::fmt::Display for ChainHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for ChainHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| NotAHash)?;
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
