use async_trait::async_trait;
use bytes::Bytes;
use events::SandboxId;

use crate::StoreError;

/// The key of the sealed bodies of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// The key, sealed under the master key; `None`: it was destroyed.
    pub sealed: Option<Bytes>,
}

/// How what a sandbox wrote and read is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Under no key.
    None,
    /// Some of it under a key: the older part is not.
    Partial,
    /// Under a key.
    Sealed,
    /// Its key was destroyed.
    Erased,
}

/// The keys that the bodies of sandboxes are sealed under.
#[async_trait]
pub trait DataKeys: std::fmt::Debug + Send + Sync + 'static {
    /// The keys of these sandboxes; those that have none are left out.
    async fn of(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError>;

    /// Whether any sandbox has or had a key.
    async fn any(&self) -> Result<bool, StoreError>;

    /// How what a sandbox wrote and read is kept.
    async fn protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError>;

    /// Does what was put off because somebody was reading: takes the last traces of destroyed keys away. Cheap when there
    /// is nothing to do.
    async fn sweep(&self) -> Result<(), StoreError>;
}
