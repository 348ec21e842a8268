//! Who signs checkpoints, and where they are written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use audit::{AuditKey, CheckpointConfig, Checkpointer, PublicKeys};
use record::EventStore;
use transport::Log;

use crate::config::Config;

/// What the recorder's checkpoints are set to.
fn checkpoint_config(config: &Config) -> anyhow::Result<CheckpointConfig> {
    let dir = config.data_dir();
    let key = config.audit.key_file.clone().unwrap_or_else(|| dir.join("audit.key"));
    let file = checkpoint_file(config);
    for path in [&key, &file] {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("the directory {}", dir.display()))?;
        }
    }
    let previous = previous_key_file(&key);
    Ok(CheckpointConfig {
        key: signing_key(config)?,
        previous_key: AuditKey::load(&previous)
            .with_context(|| format!("the audit key before this one, {}", previous.display()))?,
        file,
        events: config.audit.checkpoint_events,
        interval: config.audit.checkpoint_interval.0,
    })
}

/// Where a key is kept that signed before the one in this file: under the same name, with `.previous` added.
fn previous_key_file(key: &Path) -> PathBuf {
    store::upkeep::with_suffix(key, ".previous")
}

/// The key that signs, made where there is none yet. Its public half goes to where those look who verify.
pub fn signing_key(config: &Config) -> anyhow::Result<AuditKey> {
    let key = config.audit.key_file.clone().unwrap_or_else(|| config.data_dir().join("audit.key"));
    AuditKey::load_or_create_with(&key, &public_key_file(config))
        .with_context(|| format!("the audit key {}", key.display()))
}

/// Where checkpoints are written outside the database.
pub fn checkpoint_file(config: &Config) -> PathBuf {
    config.audit.checkpoint_file.clone().unwrap_or_else(|| config.data_dir().join("checkpoints.ndjson"))
}

/// What makes checkpoints beside the recorder.
pub fn checkpointer(config: &Config, log: &Log, store: &Arc<dyn EventStore>) -> anyhow::Result<Checkpointer> {
    let checkpoints = checkpoint_config(config)?;
    Ok(Checkpointer::open(log, Arc::clone(store), super::clock(), checkpoints))
}

/// The file that names the keys by which checkpoints are known to be signed.
fn public_key_file(config: &Config) -> PathBuf {
    let beside = || {
        let key = config.audit.key_file.clone().unwrap_or_else(|| config.data_dir().join("audit.key"));
        key.with_extension("pub")
    };
    config.audit.public_key_file.clone().unwrap_or_else(beside)
}

/// The keys by which a gateway knows checkpoints to be signed: of the file that is named, which must be there, or of the
/// recorder beside it, which may come later.
pub fn public_keys(config: &Config) -> anyhow::Result<PathBuf> {
    let path = public_key_file(config);
    if config.audit.public_key_file.is_some() {
        PublicKeys::read(&path).with_context(|| format!("audit.public_key_file {}", path.display()))?;
    }
    Ok(path)
}
