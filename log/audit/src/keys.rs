//! Who signs checkpoints, and by whom they are known to be signed.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use events::ChainHash;
use sha2::{Digest, Sha256};

/// The key that signs checkpoints.
#[derive(Clone)]
pub struct AuditKey(SigningKey);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum AuditKeyError {
    /// Not 64 hexadecimal digits, or not a point of the curve.
    #[error("an audit key is 64 hexadecimal digits, of which a public one must be a key of ed25519")]
    Format,
    /// Its file cannot be read or made.
    #[error("cannot use the file of the audit key")]
    File(#[from] io::Error),
}

impl AuditKey {
    /// The key of this seed.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The key in a file, if there is one.
    pub fn load(path: &Path) -> Result<Option<Self>, AuditKeyError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::from_bytes(seed(&text)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the seed from a file, 64 hexadecimal digits; makes the file with a fresh one when it is missing. The public
    /// key is written beside it, with the ending `pub`.
    pub fn load_or_create(path: &Path) -> Result<Self, AuditKeyError> {
        Self::load_or_create_with(path, &path.with_extension("pub"))
    }

    /// The same, with the public key in this file. Keys that are in it already stay: what they signed is still there.
    pub fn load_or_create_with(path: &Path, public: &Path) -> Result<Self, AuditKeyError> {
        let key = match std::fs::read_to_string(path) {
            Ok(text) => Self::from_bytes(seed(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = ChainHash(secrets::random()?);
                match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                    Ok(mut file) => {
                        writeln!(file, "{fresh}")?;
                        file.sync_all()?;
                        Self::from_bytes(fresh.0)
                    }
                    // Another recorder of this directory was first.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Self::from_bytes(seed(&std::fs::read_to_string(path)?)?)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let known = PublicKeys::read(public).unwrap_or_default();
        // Left alone where it is right: the directory may be read-only by now.
        if known.find(&key.public().id()).is_none() {
            let mut text = String::new();
            for known in std::iter::once(&key.public()).chain(known.iter()) {
                text.push_str(&format!("{known}\n"));
            }
            std::fs::write(public, text)?;
        }
        Ok(key)
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> AuditPublicKey {
        AuditPublicKey(self.0.verifying_key())
    }

    /// A signature, in hexadecimal.
    pub(super) fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.public().id())
    }
}

fn seed(text: &str) -> Result<[u8; 32], AuditKeyError> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| AuditKeyError::Format)?;
    Ok(seed)
}

/// The key that signatures are checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPublicKey(VerifyingKey);

impl AuditPublicKey {
    /// How checkpoints name it: the first 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0.as_bytes())[..8])
    }

    /// Whether this key made the signature (in hexadecimal) of these bytes.
    pub(super) fn verifies(&self, bytes: &[u8], signature: &str) -> bool {
        let Some(signature) = signature_bytes(signature) else {
            return false;
        };
        self.0.verify_strict(bytes, &Signature::from_bytes(&signature)).is_ok()
    }
}

fn signature_bytes(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

impl fmt::Display for AuditPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for AuditPublicKey {
    type Err = AuditKeyError;

    fn from_str(text: &str) -> Result<Self, AuditKeyError> {
        VerifyingKey::from_bytes(&seed(text)?).map(Self).map_err(|_| AuditKeyError::Format)
    }
}

/// The keys that are trusted.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(Vec<AuditPublicKey>);

impl PublicKeys {
    /// These.
    pub const fn new(keys: Vec<AuditPublicKey>) -> Self {
        Self(keys)
    }

    /// Reads a file of one key a line. Empty lines and what follows `#` do not count.
    pub fn read(path: &Path) -> Result<Self, AuditKeyError> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(|line| line.split_once('#').map_or(line, |(key, _)| key).trim());
        lines.filter(|line| !line.is_empty()).map(str::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Adds one.
    pub fn add(&mut self, key: AuditPublicKey) {
        if self.find(&key.id()).is_none() {
            self.0.push(key);
        }
    }

    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there is none: then signatures cannot be checked.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &AuditPublicKey> {
        self.0.iter()
    }

    /// The key of this name.
    pub fn find(&self, id: &str) -> Option<&AuditPublicKey> {
        self.0.iter().find(|key| key.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_missing_key_is_made_once_for_its_owner_only_with_the_public_one_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.key");
        let key = AuditKey::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(AuditKey::load_or_create(&path).unwrap().public(), key.public());
        let keys = PublicKeys::read(&dir.path().join("audit.pub")).unwrap();
        assert_eq!(keys.find(&key.public().id()), Some(&key.public()));
        // Another key in its place: what the first one signed can still be checked.
        std::fs::remove_file(&path).unwrap();
        let next = AuditKey::load_or_create(&path).unwrap();
        let keys = PublicKeys::read(&dir.path().join("audit.pub")).unwrap();
        assert!(keys.find(&key.public().id()).is_some() && keys.find(&next.public().id()).is_some());
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(AuditKey::load_or_create(&path), Err(AuditKeyError::Format)));
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_key_alone() {
        let (key, other) = (AuditKey::from_bytes([1; 32]), AuditKey::from_bytes([2; 32]));
        let signature = key.sign(b"text");
        assert!(key.public().verifies(b"text", &signature));
        assert!(!key.public().verifies(b"texT", &signature));
        assert!(!other.public().verifies(b"text", &signature));
        for bad in ["", "00", &"é".repeat(64), &format!("{signature}00"), &"zz".repeat(64)] {
            assert!(!key.public().verifies(b"text", bad), "{bad}");
        }
    }

    #[test]
    fn a_file_of_public_keys_may_have_remarks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let (one, two) = (AuditKey::from_bytes([1; 32]).public(), AuditKey::from_bytes([2; 32]).public());
        std::fs::write(&path, format!("# of last year\n{one}\n\n{two} # recorder two\n")).unwrap();
        assert_eq!(PublicKeys::read(&path).unwrap().iter().count(), 2);
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(PublicKeys::read(&path).is_err());
    }
}
