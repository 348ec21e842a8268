//! The master key: what must be kept in the log or beside it, and must not be read there, is sealed under it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const NONCE: usize = 24;

/// 32 bytes that a deployment's processes share and nobody else knows. Every use is bound to a purpose, so that what was
/// sealed for one cannot be opened as another.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not 64 hexadecimal digits.
    #[error("a master key is 64 hexadecimal digits")]
    Format,
    /// Its file cannot be read or made.
    #[error("cannot use the file of the master key")]
    File(#[from] io::Error),
}

/// What was sealed cannot be opened: another key, another purpose, or other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be opened with this master key")]
pub struct SealError;

impl MasterKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn random() -> io::Result<Self> {
        random().map(Self)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, MasterKeyError> {
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| MasterKeyError::Format)?;
        Ok(Self(key))
    }

    /// Reads the key from a file; makes the file with a fresh one when it is missing.
    pub fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_hex(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::random()?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                writeln!(file, "{}", hex::encode(key.0))?;
                file.sync_all()?;
                Ok(key)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Another key that follows from this one.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.mac(purpose, b"derive")
    }

    /// Seals bytes: encrypted, and unchangeable. `purpose` and `context` must be the same to open them.
    pub fn seal(&self, purpose: &str, context: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        encrypt(&self.derive(purpose), context, plain)
    }

    /// Opens what was sealed.
    pub fn open(&self, purpose: &str, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        decrypt(&self.derive(purpose), context, sealed)
    }

    /// Seals text into text, for a place that takes nothing else.
    pub fn seal_text(&self, purpose: &str, context: &str, plain: &str) -> io::Result<String> {
        self.seal(purpose, context.as_bytes(), plain.as_bytes()).map(|sealed| BASE64.encode(sealed))
    }

    /// Opens what [`seal_text`](Self::seal_text) made.
    pub fn open_text(&self, purpose: &str, context: &str, sealed: &str) -> Result<String, SealError> {
        let sealed = BASE64.decode(sealed).map_err(|_| SealError)?;
        let plain = self.open(purpose, context.as_bytes(), &sealed)?;
        String::from_utf8(plain).map_err(|_| SealError)
    }

    /// A name for a value that must not be told: the same value has the same name, and nobody without the key can guess
    /// one from the other. The first 128 bits of an HMAC-SHA-256, in hexadecimal.
    pub fn fingerprint(&self, purpose: &str, value: &[u8]) -> String {
        hex::encode(&self.mac(purpose, value)[..16])
    }

    fn mac(&self, purpose: &str, value: &[u8]) -> [u8; 32] {
        let key: [u8; 32] = Sha256::new().chain_update(self.0).chain_update(purpose).finalize().into();
        // HMAC fills a short key up with zeros, to a block.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(value);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Random bytes of the kernel.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// XChaCha20-Poly1305 with a random nonce in front. `context` is authenticated, not kept.
pub fn encrypt(key: &[u8; 32], context: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
    let nonce: [u8; NONCE] = random()?;
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let payload = Payload { msg: plain, aad: context };
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|_| io::Error::other("the bytes are too many to be sealed"))?;
    Ok([&nonce[..], &sealed].concat())
}

/// Opens what [`encrypt`] made.
pub fn decrypt(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(SealError)?;
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: context }).map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_the_same_purpose_and_context_only() {
        let key = MasterKey::random().unwrap();
        let sealed = key.seal_text("webhook", "wh-1", "secret").unwrap();
        assert!(!sealed.contains("secret"));
        assert_eq!(key.open_text("webhook", "wh-1", &sealed).unwrap(), "secret");
        assert_eq!(key.open_text("webhook", "wh-2", &sealed), Err(SealError));
        assert_eq!(key.open_text("template", "wh-1", &sealed), Err(SealError));
        assert_eq!(MasterKey::random().unwrap().open_text("webhook", "wh-1", &sealed), Err(SealError));
        assert_eq!(key.open_text("webhook", "wh-1", "AAAA"), Err(SealError));
    }

    #[test]
    fn a_key_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let made = MasterKey::load_or_create(&path).unwrap();
        let read = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(made.fingerprint("env", b"v"), read.fingerprint("env", b"v"));
        assert_ne!(made.fingerprint("env", b"v"), made.fingerprint("env", b"w"));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(MasterKey::load_or_create(&path), Err(MasterKeyError::Format)));
    }
}
