use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{ContentHash, ObjectKey, ObjectPlace, TenantId};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::error::is_not_found;
use crate::{Backend, Limits, OpenError, Put, PutError, ReadError, S3, Settings, StoreError};

/// Uploads of this process that are under way at once, of all tenants and of one; each may hold two parts in memory. Whoever sends
/// slowly makes only its own tenant wait.
const MOST_PUTS: usize = 64;
const MOST_PUTS_OF_TENANT: usize = 3;
/// How long a service may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a service may send nothing of an answer.
const READ: Duration = Duration::from_secs(30);
/// How long a request is tried again while a service fails.
const RETRY: Duration = Duration::from_secs(20);
/// Where objects are.
const OBJECTS: &str = "objects";
/// Where uploads are until their names are known.
const STAGING: &str = "staging";

/// A store of objects. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<dyn ObjectStore>,
    puts: Arc<Semaphore>,
    of_tenants: Arc<Mutex<HashMap<TenantId, Weak<Semaphore>>>>,
    pub(crate) limits: Limits,
    /// What all keys begin with.
    prefix: Path,
    /// Of a local one, where a killed process may have left what the library does not list.
    local: Option<PathBuf>,
}

/// An object as it is read.
pub struct Object {
    /// How many bytes the whole object has.
    pub size: u64,
    /// Those that are read.
    pub range: Range<u64>,
    /// Their contents. Where the object is read as a whole, the stream fails at its end if they are not what the key says.
    pub contents: BoxStream<'static, Result<Bytes, ReadError>>,
}

/// An object that a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: ObjectKey,
    /// Its size, in bytes.
    pub size: u64,
    /// When it was stored, by the clock of the store.
    pub stored_at: DateTime<Utc>,
}

impl Store {
    /// Opens a store. Of a service nothing is asked yet: see [`Store::check`].
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let (puts, of_tenants) = (Arc::new(Semaphore::new(MOST_PUTS)), Arc::default());
        let limits =
            Limits { object_bytes: settings.limits.object_bytes.min(Limits::LARGEST), ..settings.limits };
        match &settings.backend {
            Backend::Local(directory) => {
                std::fs::create_dir_all(directory).map_err(OpenError::Directory)?;
                let files = LocalFileSystem::new_with_prefix(directory).map_err(OpenError::Settings)?;
                let files = files.with_automatic_cleanup(true).with_fsync(true);
                let (inner, local) = (Arc::new(files), Some(directory.clone()));
                Ok(Self { inner, puts, of_tenants, limits, prefix: Path::default(), local })
            }
            Backend::S3(settings) => {
                let inner = Arc::new(bucket(settings).map_err(OpenError::Settings)?);
                let prefix = Path::from(settings.prefix.as_str());
                Ok(Self { inner, puts, of_tenants, limits, prefix, local: None })
            }
        }
    }

    /// How much may be stored.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether bytes that are stored can be read and removed again.
    pub async fn check(&self) -> Result<(), StoreError> {
        let path = self.staging();
        self.inner.put(&path, Bytes::from_static(b"check").into()).await?;
        self.inner.get(&path).await?.bytes().await?;
        Ok(self.inner.delete(&path).await?)
    }

    /// Begins to store an object of at most so many bytes, and of no more than one object may have. Waits while as many are being
    /// stored as one process stores at once, for all and for this tenant.
    pub async fn put(&self, place: &ObjectPlace, most_bytes: u64) -> Put {
        let of_tenant = {
            let mut all = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, puts| puts.strong_count() > 0);
            let known = all.get(&place.tenant).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let puts = Arc::new(Semaphore::new(MOST_PUTS_OF_TENANT));
                all.insert(place.tenant.clone(), Arc::downgrade(&puts));
                puts
            })
        };
        // Nobody closes them.
        let turns = [of_tenant.acquire_owned().await.ok(), Arc::clone(&self.puts).acquire_owned().await.ok()];
        Put::begin(self.clone(), place.clone(), most_bytes.min(self.limits.object_bytes), turns)
    }

    /// Stores what is in memory.
    pub async fn put_bytes(&self, place: &ObjectPlace, bytes: Bytes) -> Result<ObjectKey, PutError> {
        let mut put = self.put(place, u64::MAX).await;
        put.write(bytes).await?;
        Ok(place.key(put.finish().await?.sha256))
    }

    /// Opens an object for reading: all of it, or of the bytes of this range those that it has.
    pub async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, ReadError> {
        let path = self.path(key);
        let size = self.inner.head(&path).await?.size;
        let part = range.map_or(0..size, |range| range.start.min(size)..range.end.min(size));
        // Services refuse a range without bytes.
        if part.is_empty() {
            let contents = futures::stream::empty().boxed();
            return if size == 0 {
                Ok(whole(key, 0, contents))
            } else {
                Ok(Object { size, range: part, contents })
            };
        }
        let options = GetOptions::default();
        let options = if part == (0..size) { options } else { options.with_range(Some(part.clone())) };
        let answer = self.inner.get_opts(&path, options).await?;
        if answer.range != part {
            return Err(ReadError::Damaged);
        }
        let contents = answer.into_stream().map_err(ReadError::from).boxed();
        Ok(if part == (0..size) {
            whole(key, size, contents)
        } else {
            Object { size, range: part, contents }
        })
    }

    /// Whether there is an object of this key, and how large it is.
    pub async fn size(&self, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(&self.path(key)).await
    }

    /// Removes all objects of one owner, and says how many there were.
    pub async fn delete_all(&self, place: &ObjectPlace) -> Result<u64, StoreError> {
        let mut listed = self.inner.list(Some(&self.folder(place)));
        let mut count = 0;
        while let Some(meta) = listed.try_next().await? {
            self.remove(&meta.location).await?;
            count += 1;
        }
        Ok(count)
    }

    /// All objects of the store, as they come.
    pub fn list(&self) -> BoxStream<'static, Result<Listed, StoreError>> {
        self.listed(&self.below(&[OBJECTS]))
    }

    /// All objects of one owner.
    pub fn list_of(&self, place: &ObjectPlace) -> BoxStream<'static, Result<Listed, StoreError>> {
        self.listed(&self.folder(place))
    }

    /// Removes what uploads have left that ended before their end, if they were begun so long before now. What is being stored is
    /// younger. Parts of an upload that a service keeps unfinished are removed by a rule of the bucket's lifecycle.
    pub async fn sweep(&self, now: DateTime<Utc>, older_than: Duration) -> Result<u64, StoreError> {
        let age = chrono::Duration::from_std(older_than).unwrap_or(chrono::Duration::MAX);
        let is_old = |at: DateTime<Utc>| now.signed_duration_since(at) > age;
        let mut count = 0;
        let mut listed = self.inner.list(Some(&self.below(&[STAGING])));
        while let Some(meta) = listed.try_next().await? {
            if is_old(meta.last_modified) {
                self.remove(&meta.location).await?;
                count += 1;
            }
        }
        // The library hides its half-written files from its listings.
        if let Some(directory) = &self.local {
            let Ok(mut files) = tokio::fs::read_dir(directory.join(STAGING)).await else { return Ok(count) };
            while let Ok(Some(file)) = files.next_entry().await {
                let modified = file.metadata().await.ok().and_then(|metadata| metadata.modified().ok());
                if modified.is_some_and(|at| is_old(at.into()))
                    && tokio::fs::remove_file(file.path()).await.is_ok()
                {
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn listed(&self, folder: &Path) -> BoxStream<'static, Result<Listed, StoreError>> {
        let skipped = self.below(&[OBJECTS]).parts().count();
        let understood = move |meta: ObjectMeta| {
            let parts: Vec<_> = meta.location.parts().skip(skipped).collect();
            let text = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
            // What others have put into the bucket is none of ours.
            let key = text.parse().ok()?;
            Some(Listed { key, size: meta.size, stored_at: meta.last_modified })
        };
        let listed = self.inner.list(Some(folder)).map_err(StoreError::from);
        listed.try_filter_map(move |meta| std::future::ready(Ok(understood(meta)))).boxed()
    }

    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.inner.delete(path).await {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn below(&self, names: &[&str]) -> Path {
        let ours = self.prefix.parts().map(|part| part.as_ref().to_owned()).collect::<Vec<_>>();
        Path::from_iter(ours.iter().map(String::as_str).chain(names.iter().copied()))
    }

    fn folder(&self, place: &ObjectPlace) -> Path {
        self.below(&[OBJECTS, place.tenant.as_str(), &place.owner.to_string()])
    }

    pub(crate) fn path(&self, key: &ObjectKey) -> Path {
        let ObjectKey { place, sha256 } = key;
        self.below(&[OBJECTS, place.tenant.as_str(), &place.owner.to_string(), &sha256.to_string()])
    }

    /// A name that nobody else uses.
    pub(crate) fn staging(&self) -> Path {
        self.below(&[STAGING, &uuid::Uuid::now_v7().simple().to_string()])
    }

    /// Whether a file could be seen half-written, and left so, if it were not put elsewhere first.
    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }
}

fn bucket(settings: &S3) -> object_store::Result<impl ObjectStore + use<>> {
    // Whoever is not `main` has chosen none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_allow_http(settings.allow_http)
        .with_connect_timeout(CONNECT)
        // An answer may take as long as its reader; a service that sends nothing is given up.
        .with_timeout_disabled()
        .with_read_timeout(READ);
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key)
        .with_secret_access_key(settings.secret_key.expose_secret())
        .with_allow_http(settings.allow_http)
        .with_client_options(client)
        // Some services do not know how to remove many at once, and we remove them one by one.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig { backoff, max_retries: 5, retry_timeout: RETRY });
    match &settings.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint).build(),
        None => builder.build(),
    }
}

/// An object that is read to its end, and judged there. The last bytes come only when all are known to be right: who was told before how
/// many there are would take them for whole.
fn whole(key: &ObjectKey, size: u64, contents: BoxStream<'static, Result<Bytes, ReadError>>) -> Object {
    let expected = key.sha256;
    let state = Some((contents, Sha256::new(), Bytes::new()));
    let contents = futures::stream::try_unfold(state, move |state| async move {
        let Some((mut contents, mut hasher, mut held)) = state else { return Ok(None) };
        loop {
            match contents.try_next().await? {
                Some(bytes) => {
                    hasher.update(&bytes);
                    let ready = std::mem::replace(&mut held, bytes);
                    if !ready.is_empty() {
                        return Ok(Some((ready, Some((contents, hasher, held)))));
                    }
                }
                None if ContentHash(hasher.finalize().into()) != expected => return Err(ReadError::Damaged),
                None => return Ok((!held.is_empty()).then_some((held, None))),
            }
        }
    });
    Object { size, range: 0..size, contents: contents.boxed() }
}
