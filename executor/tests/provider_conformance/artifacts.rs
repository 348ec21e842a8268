//! Files on their way out of one box and into another, by way of a store.

use std::path::Path;
use std::time::Duration;

use agent::client::Client;
use events::{JobId, ObjectOwner, ObjectPlace, TenantId};
use executor::artifacts::{
    Artifact, CollectError, Collected, LeftOutReason, PlaceError, Wanted, collect, place,
};
use futures::TryStreamExt;
use objects::{Backend, Limits, ReadError, Settings, Store};

use crate::rig::{Rig, leave_running, shell};

fn store(directory: &Path, limits: Limits) -> Store {
    Store::open(&Settings { backend: Backend::Local(directory.to_owned()), limits }).unwrap()
}

fn of_a_job() -> ObjectPlace {
    ObjectPlace { tenant: TenantId::default_tenant(), owner: ObjectOwner::Job(JobId::new()) }
}

fn wanted(patterns: &[&str]) -> Wanted {
    Wanted {
        directory: "/workspace".to_owned(),
        patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        within: Duration::from_secs(120),
    }
}

fn paths(collected: &Collected) -> Vec<&str> {
    collected.artifacts.iter().map(|artifact| artifact.path.as_str()).collect()
}

pub async fn files_are_kept_and_come_into_another_box(rig: &Rig) {
    let dir = tempfile::tempdir().unwrap();
    let (store, job) = (store(dir.path(), Limits::default()), of_a_job());
    let handle = rig.any_box().await;
    let made = shell(
        &handle,
        "mkdir -p out/deep && echo report >out/report.txt && echo '#!/bin/sh' >out/deep/run && chmod 4755 out/deep/run \
         && : >out/empty && seq 2000000 >out/large && echo no >other && echo with >'out/a b' && sha256sum out/large",
    )
    .await;
    assert_eq!(made.code(), 0, "{made:?}");
    let agent = Client::with(handle.agent.clone());
    let collected = collect(&agent, &store, &job, &wanted(&["out/**", "missing/*"])).await.unwrap();
    assert_eq!(paths(&collected), ["out/a b", "out/deep/run", "out/empty", "out/large", "out/report.txt"]);
    assert_eq!((collected.left_out, collected.named.len()), (0, 0));
    let named = |path: &str| collected.artifacts.iter().find(|artifact| artifact.path == path).unwrap();
    assert!(made.stdout.starts_with(&named("out/large").object.sha256.to_string()), "{made:?}");
    assert_eq!(
        (named("out/deep/run").mode, named("out/report.txt").object.size, named("out/empty").object.size),
        (0o755, 7, 0)
    );
    let object = store.get(&job.key(named("out/report.txt").object.sha256), None).await.unwrap();
    assert_eq!(object.contents.try_collect::<Vec<_>>().await.unwrap().concat(), b"report\n");
    // Done again it is the same.
    assert_eq!(collect(&agent, &store, &job, &wanted(&["out/**"])).await.unwrap(), collected);
    assert_eq!(store.list_of(&job).try_collect::<Vec<_>>().await.unwrap().len(), 5);

    let second = rig.any_box().await;
    let other = Client::with(second.agent.clone());
    place(&other, &store, &job, &collected.artifacts, "in/put").await.unwrap();
    let came =
        shell(&second, "cd in/put/out && sha256sum large && stat -c %a deep/run report.txt && cat 'a b'")
            .await;
    let expected = format!("{}  large\n755\n644\nwith\n", named("out/large").object.sha256);
    assert_eq!((came.code(), came.stdout), (0, expected), "{}", came.stderr);
    // What is not there any more, or is not what it was, is not put there in part.
    store.delete(&job.key(named("out/large").object.sha256)).await.unwrap();
    let error = place(&other, &store, &job, &[named("out/large").clone()], "gone").await.unwrap_err();
    assert!(matches!(error, PlaceError::Read { source: ReadError::NotFound, .. }), "{error:?}");
    let file = dir.path().join("objects").join(job.key(named("out/report.txt").object.sha256).to_string());
    std::fs::write(file, "REPORT\n").unwrap();
    let error = place(&other, &store, &job, &[named("out/report.txt").clone()], "gone").await.unwrap_err();
    assert!(matches!(error, PlaceError::Read { source: ReadError::Damaged, .. }), "{error:?}");
    assert_eq!(shell(&second, "find gone -type f").await.stdout, "");
}

pub async fn what_is_no_file_or_too_much_is_left_out(rig: &Rig) {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { object_bytes: 1 << 20, owner_bytes: 3 << 19, owner_count: 40 };
    let (store, job) = (store(dir.path(), limits), of_a_job());
    let handle = rig.any_box().await;
    let agent = Client::with(handle.agent.clone());
    let made = shell(
        &handle,
        "mkdir h && cd h && ln -s /etc/shadow link && ln -s / root && ln -s .. up && mkfifo fifo && truncate -s 1T sparse \
         && head -c 1M /dev/zero >zz1 && head -c 1M /dev/urandom >zz2 && echo good >'plain name' \
         && python3 -c 'open(b\"no\\xfftext\", \"w\").close(); import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
    )
    .await;
    assert_eq!(made.code(), 0, "{made:?}");
    let collected = collect(&agent, &store, &job, &wanted(&["h/**", "h/root/etc/passwd"])).await.unwrap();
    assert_eq!(paths(&collected), ["h/plain name", "h/zz1"]);
    let mut left: Vec<_> = collected.named.iter().map(|left| (left.path.as_str(), left.reason)).collect();
    left.sort_by_key(|(path, _)| *path);
    assert_eq!(
        left,
        [
            ("h/fifo", LeftOutReason::Special),
            ("h/link", LeftOutReason::Symlink),
            ("h/no\u{fffd}text", LeftOutReason::Name),
            ("h/root", LeftOutReason::Symlink),
            ("h/sock", LeftOutReason::Special),
            ("h/sparse", LeftOutReason::TooLarge),
            ("h/up", LeftOutReason::Symlink),
            ("h/zz2", LeftOutReason::NoRoom),
        ]
    );
    assert_eq!(collected.left_out, 8);
    // Of a file that grows while it is read there is what there was when it was found.
    leave_running(
        &handle,
        "exec python3 -c 'import time\nf = open(\"grow\", \"wb\", 0)\nfor i in range(800): f.write(b\"%7d\\n\" % i * 64); time.sleep(0.005)'",
    )
    .await;
    let grown: Artifact = loop {
        let collected = collect(&agent, &store, &of_a_job(), &wanted(&["grow"])).await.unwrap();
        match collected.artifacts.into_iter().find(|artifact| artifact.object.size > 0) {
            Some(artifact) => break artifact,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let sum = shell(&handle, &format!("head -c {} grow | sha256sum", grown.object.size)).await;
    assert!(sum.stdout.starts_with(&grown.object.sha256.to_string()), "{sum:?}");

    for wrong in ["/etc/*", "../*", ""] {
        let error = collect(&agent, &store, &job, &wanted(&[wrong])).await.unwrap_err();
        assert!(matches!(error, CollectError::Search(_)), "{wrong}: {error:?}");
    }
    shell(&handle, "mkdir many && cd many && for i in $(seq 41); do : >$i; done").await;
    let error = collect(&agent, &store, &job, &wanted(&["many"])).await.unwrap_err();
    assert!(matches!(&error, CollectError::Search(_)), "{error:?}");
    assert_eq!(collect(&agent, &store, &job, &wanted(&["many/?"])).await.unwrap().artifacts.len(), 9);
    let hurried = Wanted { within: Duration::ZERO, ..wanted(&["h/**"]) };
    assert!(collect(&agent, &store, &job, &hurried).await.is_err());
}
