use std::error::Error as StdError;
use std::io;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or used.
    #[error("the directory of objects cannot be used")]
    Directory(#[source] io::Error),
    /// What was said of the store is not possible.
    #[error("the store of objects is configured wrongly")]
    Settings(#[source] object_store::Error),
}

/// Why bytes were not stored. Nothing of them remains.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// They are more than one object may have.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The most that it may have.
        limit: u64,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none of this key.
    #[error("there is no such object")]
    NotFound,
    /// It has other bytes than its key says: they were changed behind the store's back.
    #[error("the object does not have the bytes that its key says")]
    Damaged,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a store answered, or did not.
#[derive(Debug, thiserror::Error)]
#[error("the store of objects {fault}")]
pub struct StoreError {
    /// What kind of fault it is.
    pub fault: Fault,
    #[source]
    source: object_store::Error,
}

/// What kind of fault of a store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no room left. It may have some later.
    Full,
    /// It does not accept our credentials, or these may not do this. Trying again does not help.
    Refused,
    /// The bucket or the directory is not there. Trying again does not help.
    Missing,
    /// It does not answer, or not sensibly. Trying again later may help.
    Unavailable,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "has no room left",
            Self::Refused => "refuses our credentials",
            Self::Missing => "is not there",
            Self::Unavailable => "does not answer",
        })
    }
}

impl Fault {
    /// Whether the same may succeed later without anybody's doing.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Full | Self::Unavailable => true,
            Self::Refused | Self::Missing => false,
        }
    }
}

impl StoreError {
    /// Whether the same may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        self.fault.is_transient()
    }
}

impl From<object_store::Error> for StoreError {
    fn from(source: object_store::Error) -> Self {
        Self { fault: fault(&source), source }
    }
}

impl From<object_store::Error> for ReadError {
    fn from(source: object_store::Error) -> Self {
        if is_not_found(&source) { Self::NotFound } else { Self::Store(source.into()) }
    }
}

/// The errors of the library are its own to enumerate: it adds some with each release.
#[allow(clippy::wildcard_enum_match_arm)]
pub fn is_not_found(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { source, .. } => !says(source.as_ref(), "NoSuchBucket"),
        _ => false,
    }
}

#[allow(clippy::wildcard_enum_match_arm)]
fn fault(error: &object_store::Error) -> Fault {
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Fault::Refused
        }
        object_store::Error::NotFound { .. } => Fault::Missing,
        _ if is_full(error) => Fault::Full,
        _ => Fault::Unavailable,
    }
}

/// S3 has no word of its own for it; services with disks answer 507 or a code that says so.
#[allow(clippy::wildcard_enum_match_arm)]
fn is_full(error: &object_store::Error) -> bool {
    let mut at: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = at {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => return true,
            _ => at = error.source(),
        }
    }
    ["507", "XMinioStorageFull", "no space left"].iter().any(|word| says(error, word))
}

fn says(error: &(dyn StdError + 'static), word: &str) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.to_string().contains(word) {
            return true;
        }
        at = error.source();
    }
    false
}
