//! What every store owes, of a directory and of a bucket of a real S3 server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{Clock, ContentHash, JobId, ObjectKey, ObjectOwner, ObjectPlace, SystemClock};
use futures::TryStreamExt;
use objects::{Backend, Fault, Limits, PutError, ReadError, Settings, Store};
use sha2::{Digest, Sha256};
use support::S3Server;

const MIB: usize = 1 << 20;

fn place(tenant: &str) -> ObjectPlace {
    ObjectPlace { tenant: tenant.parse().unwrap(), owner: ObjectOwner::Job(JobId::new()) }
}

fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes.into()
}

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}

fn local(directory: &Path) -> Store {
    Store::open(&local_settings(directory)).unwrap()
}

fn local_settings(directory: &Path) -> Settings {
    Settings { backend: Backend::Local(directory.to_owned()), limits: Limits::default() }
}

async fn read(store: &Store, key: &ObjectKey) -> Result<Bytes, ReadError> {
    Ok(read_range(store, key, None).await?.1)
}

async fn read_range(
    store: &Store,
    key: &ObjectKey,
    range: Option<std::ops::Range<u64>>,
) -> Result<(u64, Bytes), ReadError> {
    let object = store.get(key, range).await?;
    let parts: Vec<Bytes> = object.contents.try_collect().await?;
    Ok((object.size, parts.concat().into()))
}

async fn keys(store: &Store) -> Vec<ObjectKey> {
    let mut keys: Vec<_> = store.list().map_ok(|listed| listed.key).try_collect().await.unwrap();
    keys.sort();
    keys
}

fn now() -> DateTime<Utc> {
    SystemClock.now()
}

#[tokio::test]
async fn a_directory_keeps_what_every_store_owes() {
    let dir = tempfile::tempdir().unwrap();
    keeps_what_every_store_owes(local(dir.path())).await;
    // Nothing is left of what is gone, but the two folders.
    assert!(std::fs::read_dir(dir.path().join("staging")).map_or(0, Iterator::count) == 0);
}

#[tokio::test]
async fn a_bucket_keeps_what_every_store_owes() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path());
    keeps_what_every_store_owes(Store::open(&server.settings()).unwrap()).await;
}

async fn keeps_what_every_store_owes(store: Store) {
    store.check().await.unwrap();
    assert_eq!(keys(&store).await, []);
    let (ours, other, theirs) = (place("us"), place("us"), place("them"));
    // Within one part, of one part, of several and a rest.
    for length in [0, 1, 5 * MIB, 11 * MIB + 7] {
        let bytes = noise(length);
        let key = store.put_bytes(&ours, bytes.clone()).await.unwrap();
        assert_eq!(key, ours.key(hash(&bytes)));
        assert_eq!(store.size(&key).await.unwrap(), Some(length as u64));
        assert!(read(&store, &key).await.unwrap() == bytes, "{length}");
        // Each place has its own; what is stored twice is there once.
        for missing in [other.key(key.sha256), theirs.key(key.sha256)] {
            assert!(matches!(store.get(&missing, None).await, Err(ReadError::NotFound)));
            assert_eq!(store.size(&missing).await.unwrap(), None);
        }
        assert_eq!(store.put_bytes(&ours, bytes.clone()).await.unwrap(), key);
        let length = length as u64;
        for (from, to) in [(0, 1), (3, 9), (length / 2, length), (0, u64::MAX), (length, length + 5)] {
            let (size, part) = read_range(&store, &key, Some(from..to)).await.unwrap();
            let expected = bytes.slice(from.min(length) as usize..to.min(length) as usize);
            assert!(size == length && part == expected, "{from}..{to} of {length}");
        }
        store.put_bytes(&theirs, bytes).await.unwrap();
    }
    let listed: Vec<_> = store.list_of(&ours).try_collect().await.unwrap();
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|listed| listed.key.place == ours && listed.stored_at <= now()));
    assert_eq!(listed.iter().map(|listed| listed.size).max(), Some((11 * MIB + 7) as u64));
    assert_eq!(keys(&store).await.len(), 8);

    // In pieces of any size, by several at once.
    let bytes = noise(6 * MIB + 3);
    let put = |piece: usize| {
        let (store, ours, mut bytes) = (store.clone(), ours.clone(), bytes.clone());
        async move {
            let mut put = store.put(&ours, u64::MAX).await;
            while !bytes.is_empty() {
                put.write(bytes.split_to(piece.min(bytes.len()))).await.unwrap();
            }
            put.finish().await.unwrap()
        }
    };
    let stored = tokio::join!(put(64 * 1024), put(6 * MIB), put(MIB - 1), put(1 << 30));
    for stored in [stored.0, stored.1, stored.2, stored.3] {
        assert_eq!((stored.size, stored.sha256), (bytes.len() as u64, hash(&bytes)));
    }
    assert!(read(&store, &ours.key(hash(&bytes))).await.unwrap() == bytes);

    // Too much, given up, and cancelled in the middle: nothing is to be seen of it.
    let before = keys(&store).await;
    let mut put = store.put(&ours, 6 * MIB as u64).await;
    put.write(noise(6 * MIB)).await.unwrap();
    let error = put.write(noise(1)).await.unwrap_err();
    assert!(matches!(error, PutError::TooLarge { limit } if limit == 6 * MIB as u64), "{error}");
    let mut put = store.put(&ours, u64::MAX).await;
    put.write(noise(7 * MIB)).await.unwrap();
    put.abort().await;
    let mut put = store.put(&ours, u64::MAX).await;
    put.write(noise(8 * MIB)).await.unwrap();
    drop(put);
    assert_eq!(keys(&store).await, before);

    // Gone are those of one owner, and one that is gone is gone.
    assert_eq!(store.delete_all(&ours).await.unwrap(), 5);
    assert_eq!(store.delete_all(&ours).await.unwrap(), 0);
    let left = keys(&store).await;
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|key| key.place == theirs));
    store.delete(&left[0]).await.unwrap();
    store.delete(&left[0]).await.unwrap();
    assert_eq!(store.delete_all(&theirs).await.unwrap(), 3);
    assert_eq!(keys(&store).await, []);
    // What is cancelled is taken back by itself, a moment later.
    let waiting = async {
        while store.sweep(now(), Duration::MAX).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_an_upload_leaves_nothing_to_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = S3Server::start(dir.path());
    let store = Store::open(&server.settings()).unwrap();
    let ours = place("us");
    let kept = store.put_bytes(&ours, noise(100)).await.unwrap();
    let bytes = noise(16 * MIB);
    let mut put = store.put(&ours, u64::MAX).await;
    put.write(bytes.slice(..11 * MIB)).await.unwrap();
    server.kill();
    let outcome = async {
        put.write(bytes.slice(11 * MIB..)).await?;
        put.finish().await
    };
    let error = tokio::time::timeout(Duration::from_secs(120), outcome).await.unwrap().unwrap_err();
    assert!(matches!(&error, PutError::Store(error) if error.fault == Fault::Unavailable), "{error:?}");
    assert!(matches!(&error, PutError::Store(error) if error.is_transient()));

    server.start_again();
    let store = Store::open(&server.settings()).unwrap();
    assert_eq!(keys(&store).await, std::slice::from_ref(&kept));
    assert_eq!(read(&store, &kept).await.unwrap(), noise(100));
    let key = store.put_bytes(&ours, bytes.clone()).await.unwrap();
    assert!(read(&store, &key).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_service_that_does_not_know_us_is_told_from_one_that_has_no_such_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path());
    let with = |change: &dyn Fn(&mut objects::S3)| {
        let mut bucket = server.bucket();
        change(&mut bucket);
        let settings = Settings { backend: Backend::S3(bucket), limits: Limits::default() };
        assert!(!format!("{settings:?}").contains(support::SECRET_KEY));
        Store::open(&settings).unwrap()
    };
    let key = with(&|_| ()).put_bytes(&place("us"), noise(10)).await.unwrap();
    type Change = fn(&mut objects::S3);
    let changes: [(Change, Fault); 3] = [
        (|bucket| bucket.secret_key = "another".into(), Fault::Refused),
        (|bucket| bucket.access_key = "nobody".to_owned(), Fault::Refused),
        (|bucket| bucket.bucket = "elsewhere".to_owned(), Fault::Missing),
    ];
    for (change, fault) in changes {
        let store = with(&change);
        let error = store.check().await.unwrap_err();
        assert_eq!(error.fault, fault, "{error:?}");
        assert!(!error.is_transient());
        let error = store.put_bytes(&place("us"), noise(6 * MIB)).await.unwrap_err();
        assert!(matches!(&error, PutError::Store(error) if error.fault == fault), "{error:?}");
        if fault == Fault::Refused {
            let Err(ReadError::Store(error)) = store.get(&key, None).await else { panic!("read") };
            assert_eq!(error.fault, fault, "{error:?}");
        }
        assert!(!format!("{error:?}{error}").contains(support::SECRET_KEY));
    }
    let plain = Settings {
        backend: Backend::S3(objects::S3 { allow_http: false, ..server.bucket() }),
        limits: Limits::default(),
    };
    // Without leave to speak plainly, nothing is said to it.
    if let Ok(store) = Store::open(&plain) {
        assert!(store.check().await.is_err());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(dir.path(), 16);
    let store = local(dir.path());
    let ours = place("us");
    let kept = store.put_bytes(&ours, noise(6 * MIB)).await.unwrap();
    for length in [MIB * 20, MIB * 11] {
        let error = store.put_bytes(&ours, noise(length)).await.unwrap_err();
        assert!(matches!(&error, PutError::Store(error) if error.fault == Fault::Full), "{error:?}");
    }
    assert_eq!(keys(&store).await, std::slice::from_ref(&kept));
    assert_eq!(std::fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
    assert!(read(&store, &kept).await.unwrap() == noise(6 * MIB));
    store.delete(&kept).await.unwrap();
    store.put_bytes(&ours, noise(MIB * 11)).await.unwrap();
    drop(disk);
}

/// A small disk of its own.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, size_mib: u32) -> Self {
        let options = format!("size={size_mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn what_killed_uploads_have_left_is_swept_and_what_is_under_way_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let ours = place("us");
    let mut put = store.put(&ours, u64::MAX).await;
    put.write(noise(6 * MIB)).await.unwrap();
    // As the library leaves it when its process is killed.
    let left = dir.path().join("staging").join("0190a0b0c0d0e0f0#1");
    std::fs::write(&left, "half").unwrap();
    std::fs::File::options()
        .write(true)
        .open(&left)
        .unwrap()
        .set_modified((now() - chrono::Duration::hours(25)).into())
        .unwrap();
    let whole = dir.path().join("staging").join("0190a0b0c0d0e0f1");
    std::fs::write(&whole, "whole").unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(store.sweep(now(), day).await.unwrap(), 1);
    assert_eq!(
        store.sweep(now() + chrono::Duration::hours(25), Duration::from_secs(48 * 3600)).await.unwrap(),
        0
    );
    assert!(!left.exists() && whole.exists());
    let stored = put.finish().await.unwrap();
    assert!(read(&store, &ours.key(stored.sha256)).await.unwrap() == noise(6 * MIB));
    assert_eq!(store.sweep(now() + chrono::Duration::hours(25), day).await.unwrap(), 1);
    assert!(!whole.exists());
}

#[tokio::test]
async fn bytes_that_were_changed_behind_the_stores_back_are_not_passed_on_as_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(dir.path());
    let ours = place("us");
    let key = store.put_bytes(&ours, noise(1000)).await.unwrap();
    let file = dir.path().join("objects").join(key.to_string());
    std::fs::write(&file, noise(1001).slice(..1000)).unwrap();
    assert!(matches!(read(&store, &key).await, Err(ReadError::Damaged)));
    std::fs::write(&file, "").unwrap();
    assert!(matches!(read(&store, &key).await, Err(ReadError::Damaged)));
    // What others put there is none of ours.
    std::fs::write(dir.path().join("objects").join("readme"), "hello").unwrap();
    std::fs::create_dir(dir.path().join("objects").join("us").join("not-a-job")).unwrap();
    std::fs::write(dir.path().join("objects").join("us").join("not-a-job").join("x"), "hello").unwrap();
    assert_eq!(keys(&store).await, [key]);
}
