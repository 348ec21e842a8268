use std::path::Path;
use std::sync::Arc;

use super::{EventStore, OpenError, postgres, sqlite};
use crate::MasterKey;

/// Opens an event store, makes it where there is none, and brings its schema up to date.
///
/// `sqlite:PATH` names a file (its directories are made); `postgres://USER:PASSWORD@HOST:PORT/DATABASE` a database that
/// exists.
pub async fn open_store(url: &str) -> Result<Arc<dyn EventStore>, OpenError> {
    open_store_with(url, &StoreOptions::default()).await
}

/// What a store is opened with.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The key of the installation: whoever reads sealed output needs it.
    pub master_key: Option<MasterKey>,
}

/// The same, with options.
pub async fn open_store_with(url: &str, options: &StoreOptions) -> Result<Arc<dyn EventStore>, OpenError> {
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
