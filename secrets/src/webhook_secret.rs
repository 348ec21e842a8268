//! The secret that a webhook's deliveries are signed with, as the Standard Webhooks specification has it.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::random;

const PREFIX: &str = "whsec_";
/// What the specification asks for, in bytes. No longer than the block of the hash, so that it is used as it is.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing secret. Its text form is `whsec_` and base 64.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// A text that is no secret. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and the base 64 of 24 to 64 bytes")]
pub struct SecretFormatError;

impl WebhookSecret {
    /// A fresh one, of 32 bytes.
    pub fn random() -> io::Result<Self> {
        random::<32>().map(|bytes| Self(bytes.to_vec()))
    }

    /// The text form, for the owner's eyes only.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    /// The `webhook-signature` of a body that is sent under this id at this time, in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // HMAC fills a short key up with zeros, to a block.
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

impl std::str::FromStr for WebhookSecret {
    type Err = SecretFormatError;

    fn from_str(text: &str) -> Result<Self, SecretFormatError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretFormatError)?;
        let bytes = BASE64.decode(encoded).map_err(|_| SecretFormatError)?;
        if LENGTH.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(SecretFormatError) }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification's reference libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_part_that_is_signed_counts() {
        let secret = WebhookSecret::random().unwrap();
        let signature = secret.sign("a", 1, b"x");
        assert_eq!(signature, secret.reveal().parse::<WebhookSecret>().unwrap().sign("a", 1, b"x"));
        for other in [secret.sign("b", 1, b"x"), secret.sign("a", 2, b"x"), secret.sign("a", 1, b"y")] {
            assert_ne!(signature, other);
        }
        assert_ne!(signature, WebhookSecret::random().unwrap().sign("a", 1, b"x"));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = format!("whsec_{}", BASE64.encode([1; 23]));
        let long = format!("whsec_{}", BASE64.encode([1; 65]));
        for text in ["", "whsec_", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &short, &long] {
            assert_eq!(text.parse::<WebhookSecret>(), Err(SecretFormatError), "{text}");
        }
    }
}
