//! With what a process shows NATS who it is, and by what it knows NATS.

use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;

use super::ConnectError;

/// The most that is read of a file, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;

/// Files beside a user and a password, and the name under which answers are listened for.
#[derive(Debug, Clone, Default)]
pub struct NatsAccess {
    /// What tells the inboxes of this role from those of others, one or more subject tokens (`gateway`, `node.NODE`):
    /// answers come to `_INBOX.ROLE.>`, so that a server can keep each role from listening to the others.
    pub role: Option<String>,
    /// A file with a JWT and the seed of its key (`.creds`).
    pub credentials_file: Option<PathBuf>,
    /// A file with the seed of a key (`SU...`).
    pub nkey_file: Option<PathBuf>,
    /// The certificates, in PEM, that the server's must come from; otherwise the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate, in PEM, that the server is shown, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether only TLS will do, whatever the URL says.
    pub require_tls: bool,
}

impl NatsAccess {
    /// Reads the files, so that what is wrong with one is said by its name before anything is connected to.
    pub(super) fn apply(&self, mut options: ConnectOptions) -> Result<ConnectOptions, ConnectError> {
        if let Some(role) = &self.role {
            options = options.custom_inbox_prefix(format!("_INBOX.{role}"));
        }
        if let Some(path) = &self.credentials_file {
            let text = read(path, "the credentials file")?;
            let bad =
                |source| ConnectError::File { what: "the credentials file", path: path.clone(), source };
            options = options.credentials(&text).map_err(bad)?;
        }
        if let Some(path) = &self.nkey_file {
            let what = "the nkey file";
            let text = read(path, what)?;
            let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
            let seed = seed.ok_or_else(|| bad(what, path, "it holds no seed of a user's key (SU...)"))?;
            options = options.nkey(seed.to_owned());
        }
        if let Some(path) = &self.ca_file {
            pem(path, "the file of certificates", "CERTIFICATE")?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            pem(certificate, "the client certificate", "CERTIFICATE")?;
            pem(key, "the key of the client certificate", "PRIVATE KEY")?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(if self.require_tls { options.require_tls(true) } else { options })
    }
}

fn bad(what: &'static str, path: &Path, why: &'static str) -> ConnectError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    ConnectError::File { what, path: path.to_owned(), source }
}

fn read(path: &Path, what: &'static str) -> Result<String, ConnectError> {
    use std::io::Read;
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| ConnectError::File { what, path: path.to_owned(), source })
}

fn pem(path: &Path, what: &'static str, kind: &str) -> Result<(), ConnectError> {
    let text = read(path, what)?;
    let found = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind));
    if found { Ok(()) } else { Err(bad(what, path, "it holds no PEM of that kind")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (absent, rubbish) = (directory.path().join("absent"), directory.path().join("rubbish"));
        std::fs::write(&rubbish, "rubbish\n").unwrap();
        for path in [&absent, &rubbish] {
            for access in [
                NatsAccess { credentials_file: Some(path.clone()), ..NatsAccess::default() },
                NatsAccess { nkey_file: Some(path.clone()), ..NatsAccess::default() },
                NatsAccess { ca_file: Some(path.clone()), ..NatsAccess::default() },
                NatsAccess { certificate: Some((path.clone(), path.clone())), ..NatsAccess::default() },
            ] {
                let error = access.apply(ConnectOptions::new()).err().unwrap();
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
        }
    }
}
