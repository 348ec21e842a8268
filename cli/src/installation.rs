//! What belongs to one data directory: a lock, and a name that keeps its boxes apart from those of others.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use events::NodeId;
use rustix::fs::{FlockOperation, flock};

use crate::config::Config;

/// How long the lock is waited for. A child that was about to be started when its parent was killed holds it for a moment
/// more.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// A data directory that is ours while this lives.
pub struct Installation {
    dir: PathBuf,
    /// Marks boxes: several installations can share a Docker engine.
    pub name: String,
    _lock: File,
}

impl Installation {
    /// Makes the directory if it is missing, and takes its lock. What this process writes from here on is nobody else's to
    /// read: the log of all tenants is in it.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let dir = config.data_dir();
        let whole = || format!("the data directory {}", dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir).with_context(whole)?;
        let dir = dir.canonicalize().with_context(whole)?;
        let lock = private(&dir.join("lock")).with_context(whole)?;
        let asked = Instant::now();
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if asked.elapsed() > LOCK_PATIENCE {
                bail!("another stacyvm uses the data directory {}", dir.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let name = name(&dir).with_context(whole)?;
        Ok(Self { dir, name, _lock: lock })
    }

    /// A path in the directory.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }
}

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// The name is made once and stays with the directory.
fn name(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("installation");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let name = format!("stacyvm-{}", &secret()?[..12]);
    std::fs::write(&path, &name)?;
    Ok(name)
}

/// 128 random bits, in hexadecimal.
pub fn secret() -> anyhow::Result<String> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("no random bytes")?;
    Ok(hex::encode(bytes))
}

/// The name of this node: as configured, or the host's.
pub fn node_id(config: &Config) -> anyhow::Result<NodeId> {
    if let Some(id) = &config.node.id {
        return id.parse().with_context(|| format!("node.id: {id:?}"));
    }
    let uname = rustix::system::uname();
    let host: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '-' })
        .take(64)
        .collect();
    host.parse().with_context(|| format!("the host name {host:?} cannot be a node id: set node.id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_outlives_its_process_by_a_moment_is_waited_for_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: Some(dir.path().to_owned()), ..Config::default() };
        let held = private(&dir.path().join("lock")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        assert!(Installation::open(&config).is_err());
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(held);
        });
        assert!(Installation::open(&config).is_ok());
        release.join().unwrap();
    }
}
