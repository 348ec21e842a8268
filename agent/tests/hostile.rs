//! What a hostile agent may cost its caller: so much time, so many bytes, and no name that leads anywhere.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, Client, ExecEvent, Peer, UnixConnect, listener};
use agent::protocol::{
    Entry, ExecEnd, ExecId, ExecOutcome, FileErrorKind, FileRefusal, FrameReader, FrameWriter, Hello, Left,
    MAX_FRAME, PROTOCOL_VERSION, Refusal, Reply, Request, SecretValues, StartExec, Started,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

type Writer = FrameWriter<tokio::net::unix::OwnedWriteHalf>;

/// An agent that greets, hears what is asked, and goes on as it is told to, for each connection.
fn agent<F, T>(say: F) -> (tempfile::TempDir, Client)
where
    F: Fn(Writer) -> T + Send + Sync + 'static,
    T: Future<Output = Writer> + Send + 'static,
{
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("hostile.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let say = Arc::new(say);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let say = Arc::clone(&say);
            tokio::spawn(async move {
                let (read, write) = stream.into_split();
                let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
                let _ = Hello::receive(&mut reader).await;
                let _ = Hello::ours().send(PROTOCOL_VERSION, &mut writer).await;
                let _ = writer.flush().await;
                let _ = reader.receive::<Request>().await;
                let _writer = say(writer).await;
                // Stays until the caller goes.
                while let Ok(Some(_)) = reader.receive::<agent::protocol::Input>().await {}
            });
        }
    });
    (directory, Client::new(path))
}

/// One that says this once, or over and over.
fn saying(reply: Reply, for_ever: bool) -> (tempfile::TempDir, Client) {
    agent(move |mut writer| {
        let reply = reply.clone();
        async move {
            while writer.send(&reply).await.is_ok() && writer.flush().await.is_ok() && for_ever {}
            writer
        }
    })
}

fn entry(name: &str, path: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        path: path.to_owned(),
        size: 1,
        mode: 0o644,
        is_dir: false,
        is_symlink: false,
        modified_unix_seconds: 0,
        modified_nanos: 0,
    }
}

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_agent_that_only_accepts_is_given_up_in_time() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("silent.sock");
    // Beyond what the kernel keeps for it, connections wait; that has an end too.
    let _listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(&path).within(SOON);
    let calls = (0..300).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.ping().await })
    });
    let calls: Vec<_> = calls.collect();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 200, "{open} descriptors for one agent");
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Silent { after: SOON, .. }) && error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn what_comes_a_byte_at_a_time_is_given_up_in_time() {
    let (_directory, client) = agent(|writer| async move {
        let mut write = writer.into_inner();
        for byte in [0, 0, 4, 0].into_iter().chain([5; 1024]) {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        FrameWriter::new(write)
    });
    assert!(matches!(client.within(SOON).ping().await, Err(CallError::Silent { .. })));
}

#[tokio::test]
async fn a_listing_without_an_end_is_cut_off() {
    let many = || (0..1000).map(|number| entry(&number.to_string(), &format!("/{number}"))).collect();
    for reply in [
        Reply::Entries(many()),
        Reply::Entries(vec![
            entry(&"x".repeat(700), &format!("/{}/{}", "y".repeat(12_000), "x".repeat(700)));
            50
        ]),
        Reply::Entries(Vec::new()),
    ] {
        let (_directory, client) = saying(reply, true);
        let listed = client.list("/", false).await.unwrap_err();
        assert!(matches!(listed, CallError::Violation { .. }), "{listed:?}");
    }
    for reply in [Reply::Paths(vec![format!("/{}", "x".repeat(10_000)); 50]), Reply::Paths(Vec::new())] {
        let (_directory, client) = saying(reply, true);
        assert!(matches!(client.glob("/**").await, Err(CallError::Violation { .. })));
    }
    let (_directory, client) = saying(Reply::Execs(Vec::new()), true);
    assert!(matches!(client.list_execs().await, Err(CallError::Violation { .. })));
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_not_passed_on() {
    for (name, path) in [
        ("..", "/d/.."),
        (".", "/d/."),
        ("", "/d/"),
        ("../../etc/passwd", "/d/../../etc/passwd"),
        ("a/b", "/d/a/b"),
        ("a\0", "/d/a\0"),
        ("a", "/d/../e/a"),
        ("a", "/d/b"),
        ("a", "a"),
    ] {
        let (_directory, client) = saying(Reply::Entries(vec![entry(name, path)]), false);
        let listed = client.list("/d", false).await;
        assert!(matches!(listed, Err(CallError::Violation { .. })), "{name:?} {path:?}: {listed:?}");
    }
    for path in ["a", "/d/../a", "/d/./a", "/a\0b", ""] {
        let (_directory, client) = saying(Reply::Paths(vec![path.to_owned()]), false);
        assert!(matches!(client.glob("/d/*").await, Err(CallError::Violation { .. })), "{path:?}");
    }
    let (_directory, client) = saying(Reply::File(entry("../x", "/d/x")), false);
    assert!(matches!(client.stat("/d/x").await, Err(CallError::Violation { .. })));
}

#[tokio::test]
async fn texts_of_refusals_are_short_and_plain() {
    let refusal = FileRefusal {
        kind: FileErrorKind::Failed,
        path: "p".repeat(500_000),
        message: format!("\x1b]52;c;eA==\x07{}", "m".repeat(500_000)),
    };
    let (_directory, client) = saying(Reply::Refused(Refusal::File(refusal)), false);
    let Err(CallError::Refused(refusal)) = client.stat("/x").await else { panic!("no refusal") };
    assert!(refusal.path.len() < 4200 && refusal.message.len() < 1100, "{}", refusal.message.len());
    assert!(!refusal.message.contains(char::is_control));
}

#[tokio::test]
async fn secrets_are_as_many_as_were_asked_for() {
    let (_directory, client) = saying(Reply::Secrets(SecretValues(vec![String::new(); 1_000_000])), false);
    let asked = client.secrets(None, vec!["ONE".to_owned()]).await;
    assert!(matches!(asked, Err(CallError::Violation { .. })));
}

#[tokio::test]
async fn an_end_that_no_process_has_is_not_believed() {
    for end in [
        ExecEnd::Exited { code: i32::MAX },
        ExecEnd::Exited { code: -1 },
        ExecEnd::Signaled { signal: i32::MAX },
        ExecEnd::Signaled { signal: 0 },
        ExecEnd::OutOfMemory { left: Left::Signal(i32::MAX) },
    ] {
        let zero = Duration::ZERO;
        let outcome = ExecOutcome {
            end,
            stdout_len: 0,
            stderr_len: 0,
            duration: zero,
            cpu_time: zero,
            max_rss_bytes: 0,
        };
        let (_directory, client) = agent(move |mut writer| async move {
            let started = Started { pid: 1, age: Duration::ZERO, stdin_offset: 0, fresh: true };
            writer.send(&Reply::Started(started)).await.unwrap();
            writer.send(&Reply::Exited(outcome)).await.unwrap();
            writer.flush().await.unwrap();
            writer
        });
        let mut exec = client.start_exec(StartExec::new(ExecId([1; 16]), ["true"])).await.unwrap();
        assert!(matches!(exec.next().await, Err(CallError::Violation { .. })), "{end:?}");
    }
    let started = Started { pid: 1, age: Duration::ZERO, stdin_offset: u64::MAX, fresh: true };
    let (_directory, client) = saying(Reply::Started(started), false);
    let exec = client.start_exec(StartExec::new(ExecId([1; 16]), ["true"])).await;
    assert!(matches!(exec.err(), Some(CallError::Violation { .. })));
}

/// News of stdin without an end are no news; what follows is heard all the same.
#[tokio::test]
async fn repeated_news_of_stdin_keep_nobody_busy() {
    let (_directory, client) = agent(|mut writer| async move {
        let started = Started { pid: 1, age: Duration::ZERO, stdin_offset: 0, fresh: true };
        writer.send(&Reply::Started(started)).await.unwrap();
        for _ in 0..100 {
            writer.send(&Reply::StdinTaken { offset: 0 }).await.unwrap();
        }
        writer.send(&Reply::Superseded).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let mut exec = client.start_exec(StartExec::new(ExecId([1; 16]), ["true"])).await.unwrap();
    assert_eq!(exec.next().await.unwrap(), Some(ExecEvent::Superseded));
}

/// However many connections send the beginning of a long frame: together they take what they may.
#[tokio::test]
async fn frames_in_half_share_a_budget() {
    let budget = Arc::new(Semaphore::new(2 * MAX_FRAME));
    let mut ends = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..10 {
        let (mut far, near) = tokio::io::duplex(64 * 1024);
        let mut reader = FrameReader::with_budget(near, Arc::clone(&budget));
        readers.push(tokio::spawn(async move { reader.receive::<Reply>().await }));
        ends.push(tokio::spawn(async move {
            far.write_all(&u32::try_from(MAX_FRAME).unwrap().to_be_bytes()).await.unwrap();
            let mut taken = 0;
            while taken + 1024 < MAX_FRAME
                && let Ok(Ok(())) = tokio::time::timeout(SOON, far.write_all(&[0; 1024])).await
            {
                taken += 1024;
            }
            (taken, far)
        }));
    }
    // None goes before all have stopped: what it had would be another's.
    let mut stopped = Vec::new();
    for end in ends {
        stopped.push(end.await.unwrap());
    }
    let taken: usize = stopped.iter().map(|(taken, _)| taken).sum();
    drop(stopped);
    assert!(taken <= 2 * MAX_FRAME + 10 * 80 * 1024, "{taken} bytes were taken");
    for reader in readers {
        let received = tokio::time::timeout(Duration::from_secs(10), reader).await;
        assert!(received.is_ok_and(|received| received.unwrap().is_err()));
    }
}

#[tokio::test]
async fn nobody_else_is_spoken_to() {
    let (directory, _) = saying(Reply::Done, false);
    let path = directory.path().join("hostile.sock");
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(listener(&path).await.unwrap(), Some(own));
    assert!(Client::with(UnixConnect::to(&path, Peer::Process(own))).ping().await.is_ok());
    let other = Client::with(UnixConnect::to(&path, Peer::Process(1))).ping().await;
    assert!(matches!(other, Err(CallError::Transport { .. })), "{other:?}");
}
