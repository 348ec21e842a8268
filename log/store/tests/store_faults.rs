//! What a store does while its database cannot, and after it can again: nothing is blamed on what was to be recorded, and
//! nobody has to help.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, and says where it is"
)]

#[allow(dead_code, reason = "the suite uses more of it")]
#[path = "store_conformance/scenario.rs"]
mod scenario;
#[allow(dead_code, reason = "each suite uses a part of it")]
mod support;

use std::path::Path;
use std::time::Duration;

use events::Position;
use record::{AppendBatch, AppendError, Record, StoreError};
use scenario::{Recorder, event, exec_id, exited, output, short_exec, started};
use store::{OpenError, open_store};
use support::{Postgres, Tmpfs};

/// A batch that is more than one statement, with this many bytes of output.
fn big(exec: u8, bytes: usize) -> Vec<events::Event> {
    let mut events = vec![event(Some(1), started(exec))];
    for (index, piece) in random(bytes).chunks(60_000).enumerate() {
        let offset = index as u64 * 60_000;
        events.push(event(Some(1), output(exec, events::OutputStream::Stdout, offset, piece.to_vec())));
    }
    events.push(event(Some(1), exited(exec, bytes as u64, 0)));
    events
}

/// Bytes that do not compress.
fn random(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// It failed because of the state of the database, and neither the batch nor the caller is to blame.
fn assert_state(error: &AppendError) {
    assert!(matches!(error, AppendError::Store(StoreError::Unavailable { .. })), "{error:?}");
}

async fn until_appended(store: &Record, batch: &AppendBatch) {
    let mut tries = 0;
    while let Err(error) = store.append(batch).await {
        assert_state(&error);
        tries += 1;
        assert!(tries < 100, "{error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn url(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("events.db").display())
}

/// Both forms of an append: one script, and a transaction of several statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_recovered_from_without_a_restart() {
    let disk = Tmpfs::mount("16m");
    let store = open_store(&url(disk.path())).await.unwrap();
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"before"))).await.unwrap();
    let ballast = disk.fill();
    let batches = [log.batch(big(2, 3_000_000)), log.batch(short_exec(3, &random(60_000)))];
    for round in 0..3 {
        let error = store.append(&batches[0]).await.unwrap_err();
        assert_state(&error);
        assert_eq!(store.head().await.unwrap().position, Position(3), "round {round}");
    }
    std::fs::remove_file(&ballast).unwrap();
    store.append(&batches[0]).await.unwrap();

    // A short one alone.
    let ballast = disk.fill();
    let mut filled = batches[1].clone();
    let mut failed = 0;
    for exec in 4..200 {
        match store.append(&filled).await {
            Ok(()) => filled = log.batch(short_exec(exec, &random(60_000))),
            Err(error) => {
                assert_state(&error);
                failed += 1;
                if failed == 3 {
                    break;
                }
            }
        }
    }
    assert_eq!(failed, 3, "the disk did not fill");
    std::fs::remove_file(&ballast).unwrap();
    store.append(&filled).await.unwrap();
    assert_eq!(scenario::verify(&store).await.unwrap(), filled.end());
    store.close().await;
}

/// What is written into it while it is full is not there afterwards, and what is written then is whole.
#[tokio::test]
async fn a_checkpoint_file_on_a_disk_that_was_full_is_complete_afterwards() {
    use audit::{AuditKey, CheckpointFile, Signable, read_checkpoints};
    let disk = Tmpfs::mount("1m");
    let path = disk.path().join("checkpoints.ndjson");
    let file = CheckpointFile::at(&path);
    let checkpoint = |up_to: u64| {
        let chains = (0..40)
            .map(|n| events::ChainPoint {
                tenant: format!("tenant-{n}").parse().unwrap(),
                position: Position(up_to),
                hash: events::ChainHash([7; 32]),
            })
            .collect();
        let at = scenario::at(up_to as i64);
        let previous = events::ChainHash::GENESIS;
        events::CheckpointStatement { up_to: Position(up_to), at, chains, previous }
            .sign(&AuditKey::from_bytes([1; 32]))
    };
    file.append(&checkpoint(1)).unwrap();
    let ballast = disk.fill();
    // The rest of the page that the first one began is still there to be filled.
    let mut written = 1;
    while file.append(&checkpoint(written + 1)).is_ok() {
        written += 1;
        assert!(written < 100, "the disk did not fill");
    }
    assert!(file.append(&checkpoint(50)).is_err());
    disk.remount("ro");
    assert!(file.append(&checkpoint(51)).is_err());
    disk.remount("rw");
    std::fs::remove_file(ballast).unwrap();
    for up_to in [100, 101] {
        file.append(&checkpoint(up_to)).unwrap();
    }
    let read: Vec<u64> =
        read_checkpoints(&path).unwrap().map(|line| line.unwrap().1.statement.up_to.0).collect();
    let expected: Vec<u64> = (1..=written).chain([100, 101]).collect();
    assert_eq!(read, expected);
}

/// A caller who goes away in the middle leaves nothing half done, and nothing in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_given_up_does_not_hold_up_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_store(&url(directory.path())).await.unwrap();
    let mut log = Recorder::default();
    let batch = log.batch(big(1, 4_000_000));
    for wait_us in [0, 200, 1_000, 5_000, 20_000] {
        let given_up = tokio::time::timeout(Duration::from_micros(wait_us), store.append(&batch)).await;
        if given_up.is_ok() {
            break;
        }
    }
    match store.append(&batch).await {
        // Also when one that was given up got as far as its end.
        Ok(()) | Err(AppendError::Conflict) => {}
        Err(error) => panic!("{error:?}"),
    }
    let next = log.batch(short_exec(2, b"next"));
    store.append(&next).await.unwrap();
    assert_eq!(scenario::verify(&store).await.unwrap(), next.end());
    assert!(store.exec(exec_id(2)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_read_only_is_written_again() {
    let disk = Tmpfs::mount("16m");
    let store = open_store(&url(disk.path())).await.unwrap();
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"before"))).await.unwrap();
    store.close().await;
    disk.remount("ro");
    let next = log.batch(short_exec(2, b"after"));
    match open_store(&url(disk.path())).await {
        Ok(store) => {
            assert_state(&store.append(&next).await.unwrap_err());
            disk.remount("rw");
            until_appended(&store, &next).await;
            store.close().await;
        }
        Err(error) => {
            assert!(error.is_retryable(), "{error:?}");
            assert!(matches!(error, OpenError::Connect(_)), "{error:?}");
            disk.remount("rw");
        }
    }
    let store = open_store(&url(disk.path())).await.unwrap();
    if store.head().await.unwrap().position == Position(3) {
        store.append(&next).await.unwrap();
    }
    assert_eq!(scenario::verify(&store).await.unwrap(), next.end());
    store.close().await;
}

/// Stopped for a while, started again, read-only for a while, its connections ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_could_not_for_a_while_is_written_again() {
    let mut postgres = Postgres::start();
    let url = postgres.database("away");
    let store = open_store(&url).await.unwrap();
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"before"))).await.unwrap();

    let batch = log.batch(short_exec(2, b"while it is stopped"));
    postgres.stop();
    assert_state(&store.append(&batch).await.unwrap_err());
    assert!(store.head().await.unwrap_err().is_retryable());
    postgres.start_again();
    until_appended(&store, &batch).await;

    // As a primary that became a standby refuses; the session would stay so for good.
    let batch = log.batch(short_exec(3, b"while it is read-only"));
    postgres.query("ALTER DATABASE away SET default_transaction_read_only = on");
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'away'";
    postgres.query(end_sessions);
    for _ in 0..3 {
        assert_state(&store.append(&batch).await.unwrap_err());
    }
    postgres.query("ALTER DATABASE away SET default_transaction_read_only = off");
    until_appended(&store, &batch).await;

    let last = log.batch(short_exec(4, b"after"));
    postgres.query(end_sessions);
    until_appended(&store, &last).await;
    assert_eq!(scenario::verify(&store).await.unwrap(), last.end());
}
