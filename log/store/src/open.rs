use std::path::Path;

use record::Record;
use secrets::MasterKey;

use super::{postgres, sqlite};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no store. A retry does not help.
    #[error("not the URL of an event store (sqlite:PATH or postgres://...): {0}")]
    Url(String),
    /// The directory of the database file cannot be made.
    #[error("could not make the directory of the database")]
    Directory(#[source] std::io::Error),
    /// The database does not answer, or does not let us in. A retry may help.
    #[error("could not connect to the database")]
    Connect(#[source] Source),
    /// The schema could not be brought up to date: it is newer than this build, or was changed by hand.
    #[error("could not bring the schema of the database up to date")]
    Migrate(#[source] Source),
}

impl OpenError {
    /// Whether a later try can succeed.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Url(_) | Self::Directory(_) | Self::Migrate(_) => false,
        }
    }
}

/// Opens an event store, makes it where there is none, and brings its schema up to date.
///
/// `sqlite:PATH` names a file (its directories are made); `postgres://USER:PASSWORD@HOST:PORT/DATABASE` a database that
/// exists.
pub async fn open_store(url: &str) -> Result<Record, OpenError> {
    open_store_with(url, &StoreOptions::default()).await
}

/// What a store is opened with.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The key of the installation: whoever reads sealed output needs it.
    pub master_key: Option<MasterKey>,
}

/// The same, with options.
pub async fn open_store_with(url: &str, options: &StoreOptions) -> Result<Record, OpenError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" {
            return Err(OpenError::Url("an SQLite store needs the path of a file".to_owned()));
        }
        return sqlite::open(Path::new(path), options).await;
    }
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return postgres::open(url, options).await;
    }
    // Only the scheme: the rest may hold a password.
    let scheme = url.split_once(':').map_or("no scheme", |(scheme, _)| scheme);
    Err(OpenError::Url(scheme.to_owned()))
}
