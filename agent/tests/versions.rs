//! Agents of other releases, and callers of other releases. The bytes of version 1 stand here as they were sent, so that no change
//! of a message can change them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::client::{CallError, Client, ExecEvent};
use agent::protocol::{
    ExecEnd, ExecId, Features, FilePart, FrameReader, FrameWriter, Hello, Input, KillCause, Left,
    PROTOCOL_VERSION, Reply, Request, StartExec, Stream, Versions, decode_as, encode_as,
};
use bytes::{Bytes, BytesMut};
use harness::Running;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

const HELLO_1: &[u8] = b"\0\0\0\x05svmA\x01";
const ID: ExecId = ExecId(*b"0123456789abcdef");

/// What an agent of version 1 is asked, and what it answers.
const DIALOGUES_1: &[(&[u8], &[u8])] = &[
    // Ping, Done.
    (b"\0\0\0\x01\0", b"\0\0\0\x01\0"),
    // StartExec of `a` with nothing else; Started, `x` on stdout, exited with 3.
    (
        b"\0\0\0\x1c\x040123456789abcdef\x01\x01a\0\0\0\0\0\0\0\0",
        b"\0\0\0\x06\x03\x05\0\0\0\x01\0\0\0\x04\x04\0\0x\0\0\0\x0a\x06\0\x06\x01\0\0\0\0\0\0",
    ),
    // StartSecretExec of the same with the secret `S=v`; Started, ended with 15 after its time was up.
    (
        b"\0\0\0\x23\x170123456789abcdef\x01\x01a\x01\x01S\x01v\0\0\0\0\0\0\0\x01\x01S",
        b"\0\0\0\x06\x03\x05\0\0\0\x01\0\0\0\x0b\x06\x04\x01\x1e\0\0\0\0\0\0\0",
    ),
    // Secrets of it; one.
    (b"\0\0\0\x13\x18\x010123456789abcdef\0", b"\0\0\0\x04\x10\x01\x01v"),
    // The last 5 bytes of `/a`; no such file.
    (b"\0\0\0\x05\x19\x02/a\x05", b"\0\0\0\x09\x01\x03\0\x02/a\x02no"),
];

/// An agent of version 1, as its bytes were: it answers its own version and closes where it is asked in another one. What it is
/// asked it must know to the byte.
fn agent_of_version_1() -> (tempfile::TempDir, Client, Arc<AtomicUsize>) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("old.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve_version_1(stream));
        }
    });
    (directory, Client::new(path), connections)
}

async fn frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    frame.resize(4 + length as usize, 0);
    stream.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

async fn serve_version_1(mut stream: UnixStream) -> Option<()> {
    let hello = frame(&mut stream).await?;
    if hello.len() != HELLO_1.len() || hello[..8] != HELLO_1[..8] {
        return None;
    }
    stream.write_all(HELLO_1).await.ok()?;
    if hello != HELLO_1 {
        return None;
    }
    let asked = frame(&mut stream).await?;
    let (_, answer) = DIALOGUES_1.iter().find(|(request, _)| *request == asked)?;
    stream.write_all(answer).await.ok()?;
    // Stays until the caller goes.
    while frame(&mut stream).await.is_some() {}
    Some(())
}

fn secret_start() -> StartExec {
    StartExec {
        env: vec![("S".to_owned(), "v".to_owned())],
        secret_names: vec!["S".to_owned()],
        ..StartExec::new(ID, ["a"])
    }
}

#[tokio::test]
async fn an_agent_of_version_1_is_known_by_its_word_and_spoken_to_as_one() {
    let (_directory, client, connections) = agent_of_version_1();
    client.ping().await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2, "it was met, and called again in its own way");
    assert_eq!(client.hello().await.unwrap(), Hello::of_version_1());

    let mut exec = client.start_exec(StartExec::new(ID, ["a"])).await.unwrap();
    assert_eq!((exec.started.pid, exec.started.fresh), (5, true));
    let output = ExecEvent::Output { stream: Stream::Stdout, offset: 0, bytes: Bytes::from_static(b"x") };
    assert_eq!(exec.next().await.unwrap(), Some(output));
    let Some(ExecEvent::Exited(outcome)) = exec.next().await.unwrap() else { panic!("no end") };
    assert_eq!((outcome.end.exit_code(), outcome.stdout_len), (3, 1));

    let mut exec = client.start_exec(secret_start()).await.unwrap();
    let Some(ExecEvent::Exited(outcome)) = exec.next().await.unwrap() else { panic!("no end") };
    assert_eq!(outcome.end.exit_code(), 124);
    assert_eq!(client.secrets(Some(ID), Vec::new()).await.unwrap(), ["v"]);
    let error = client.read_file_end("/a", 5).await.err().unwrap();
    assert!(matches!(error, CallError::Refused(_)), "{error:?}");
    // From the second call on it costs what it cost.
    assert_eq!(connections.load(Ordering::SeqCst), 6);
}

/// All that could be said in version 1, to the byte, and what it is now.
#[test]
fn version_1_is_frozen_and_nothing_of_it_is_lost() {
    let asked = |bytes: &'static [u8]| {
        let request: Request = decode_as(1, &Bytes::from_static(bytes)).unwrap();
        let mut again = BytesMut::new();
        encode_as(1, &request, &mut again).unwrap();
        assert_eq!(&again[4..], bytes, "{request:?}");
        request
    };
    const EXEC: &str = "0123456789abcdef";
    assert_eq!(asked(b"\0"), Request::Ping);
    assert_eq!(asked(b"\x01"), Request::Stats);
    assert!(matches!(asked(b"\x02\x05\0"), Request::SetDeadline { .. }));
    assert!(matches!(asked(b"\x03\x05\0"), Request::Shutdown { .. }));
    let Request::StartExec(start) = asked(
        b"\x040123456789abcdef\x01\x01a\x01\x01b\x01c\x01\x01d\x01\x01e\x01\x18\x50\x01\x02\x03\x01\x06\x07",
    ) else {
        panic!("no start")
    };
    assert_eq!((start.exec_id.0, start.secret_names.len()), (EXEC.as_bytes().try_into().unwrap(), 0));
    assert!(matches!(asked(b"\x050123456789abcdef\x01\x02"), Request::AttachExec(_)));
    assert!(matches!(asked(b"\x060123456789abcdef\x1e"), Request::SignalExec { signal: 15, .. }));
    assert!(
        matches!(asked(b"\x070123456789abcdef\x01\x05hi"), Request::WriteStdin { bytes, .. } if bytes == "hi")
    );
    assert!(matches!(asked(b"\x080123456789abcdef"), Request::CloseStdin { .. }));
    assert!(matches!(asked(b"\x090123456789abcdef\x18\x50"), Request::ResizeExec { .. }));
    assert!(matches!(asked(b"\x0a0123456789abcdef\x05\0"), Request::KillExec { .. }));
    assert_eq!(asked(b"\x0b"), Request::ListExecs);
    let part = FilePart::From { offset: 1, limit: Some(2) };
    assert_eq!(asked(b"\x0c\x02/a\x01\x01\x02"), Request::ReadFile { path: "/a".to_owned(), part });
    assert!(matches!(asked(b"\x0d\x02/a\x07\x01\x05\x01"), Request::WriteFile { sync: true, .. }));
    assert!(matches!(asked(b"\x0e\x02/a\x01"), Request::List { recursive: true, .. }));
    assert!(matches!(asked(b"\x0f\x02/a"), Request::Stat { .. }));
    assert!(matches!(asked(b"\x10\x02/a\x01"), Request::Delete { recursive: true, .. }));
    assert!(matches!(asked(b"\x11\x02/a\x02/b"), Request::Move { .. }));
    assert!(matches!(asked(b"\x12\x02/a\x07"), Request::Chmod { mode: 7, .. }));
    assert!(matches!(asked(b"\x13\x02/a"), Request::Glob { .. }));
    assert!(matches!(asked(b"\x14\x02/a\x07"), Request::Mkdir { mode: 7, .. }));
    assert_eq!(asked(b"\x15\x90\x3f"), Request::OpenTcp { port: 8080 });
    assert!(matches!(asked(b"\x16\x01\x01b\x01c"), Request::SetEnvironment { env } if env.len() == 1));
    let Request::StartExec(start) =
        asked(b"\x170123456789abcdef\x01\x01a\x01\x01S\x01v\0\0\0\0\0\0\0\x01\x01S")
    else {
        panic!("no start")
    };
    assert_eq!(start.secret_names, ["S"]);
    assert!(matches!(asked(b"\x18\0\x01\x01S"), Request::Secrets { exec_id: None, .. }));
    let part = FilePart::Last { bytes: 5 };
    assert_eq!(asked(b"\x19\x02/a\x05"), Request::ReadFile { path: "/a".to_owned(), part });
    assert!(decode_as::<Request>(1, &Bytes::from_static(b"\x1a")).is_err());

    let ends: [(&[u8], ExecEnd); 7] = [
        (b"\0\x06", ExecEnd::Exited { code: 3 }),
        (b"\x01\x12", ExecEnd::Signaled { signal: 9 }),
        // These two were not said any more in its last release: what is not known of them was a SIGKILL.
        (b"\x02", ExecEnd::TimedOut { left: Left::Signal(9) }),
        (b"\x03\0", ExecEnd::Killed { cause: KillCause::Request, left: Left::Signal(9) }),
        (b"\x04\x01\x1e", ExecEnd::TimedOut { left: Left::Signal(15) }),
        (b"\x05\0\0\x02", ExecEnd::Killed { cause: KillCause::Request, left: Left::Code(1) }),
        (b"\x06\x01\x12", ExecEnd::OutOfMemory { left: Left::Signal(9) }),
    ];
    for (bytes, end) in ends {
        let said = [b"\x06", bytes, b"\x01\x02\0\0\0\0\x03"].concat();
        let reply: Reply = decode_as(1, &Bytes::from(said.clone())).unwrap();
        let Reply::Exited(outcome) = reply.clone() else { panic!("{reply:?}") };
        assert_eq!((outcome.end, outcome.stdout_len, outcome.max_rss_bytes), (end, 1, 3));
        if bytes.len() > 2 || bytes[0] < 2 {
            let mut again = BytesMut::new();
            encode_as(1, &reply, &mut again).unwrap();
            assert_eq!(again[4..], said);
        }
    }
}

#[tokio::test]
async fn a_caller_of_version_1_is_answered_as_before() {
    let agent = Running::start().await;
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    stream.write_all(HELLO_1).await.unwrap();
    stream.write_all(b"\0\0\0\x01\0").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [HELLO_1, b"\0\0\0\x01\0"].concat());

    // A start and its end, in its words.
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    stream.write_all(HELLO_1).await.unwrap();
    stream.write_all(b"\0\0\0\x24\x04fedcba9876543210\x01\x09/bin/true\0\0\0\0\0\0\0\0").await.unwrap();
    let mut reader = FrameReader::new(stream);
    assert_eq!(Hello::receive(&mut reader).await.unwrap(), Some(Hello::of_version_1()));
    reader.speak(1);
    let mut replies = Vec::new();
    while !matches!(replies.last(), Some(Reply::Exited(_))) {
        let reply = tokio::time::timeout(Duration::from_secs(60), reader.receive::<Reply>()).await.unwrap();
        replies.push(reply.unwrap().unwrap());
    }
    let Some(Reply::Exited(outcome)) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(outcome.end, ExecEnd::Exited { code: 0 });

    // What cannot be found is refused in its bytes.
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    stream.write_all(HELLO_1).await.unwrap();
    stream.write_all(DIALOGUES_1[3].0).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [HELLO_1, b"\0\0\0\x13\x01\x02\x000123456789abcdef"].concat());
}

/// An agent that says this of itself, and answers everything with `Done`.
fn agent_that_says(hello: Hello) -> (tempfile::TempDir, Client, Arc<AtomicUsize>) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let (read, write) = stream.into_split();
                let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
                let theirs = Hello::receive(&mut reader).await.unwrap().unwrap();
                let version = hello.versions.common(theirs.versions).unwrap();
                hello.send(version, &mut writer).await.unwrap();
                writer.flush().await.unwrap();
                if let Ok(Some(_)) = reader.receive::<Request>().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = writer.send(&Reply::Done).await;
                    let _ = writer.flush().await;
                }
                while let Ok(Some(_)) = reader.receive::<Input>().await {}
            });
        }
    });
    (directory, Client::new(path), asked)
}

#[tokio::test]
async fn what_an_agent_cannot_do_it_is_not_asked() {
    let hello = Hello { features: Features::NONE, ..Hello::ours() };
    let (_directory, client, asked) = agent_that_says(hello);
    // Also where it has not been met before.
    let error = client.start_exec(secret_start()).await.err().unwrap();
    assert!(matches!(&error, CallError::Unsupported { missing: Features::SECRETS, .. }), "{error:?}");
    assert!(!error.is_retryable() && error.to_string().contains("secrets"));
    let error = client.secrets(Some(ID), Vec::new()).await.unwrap_err();
    assert!(matches!(error, CallError::Unsupported { .. }), "{error:?}");
    let error = client.read_file_end("/a", 5).await.err().unwrap();
    assert!(matches!(error, CallError::Unsupported { missing: Features::READ_END, .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    client.ping().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_later_release_that_still_speaks_this_version_is_understood() {
    let versions = Versions { lowest: PROTOCOL_VERSION, highest: PROTOCOL_VERSION + 7 };
    let hello = Hello { versions, ..Hello::ours() };
    let (_directory, client, asked) = agent_that_says(hello);
    for _ in 0..3 {
        client.ping().await.unwrap();
    }
    assert_eq!((asked.load(Ordering::SeqCst), client.hello().await.unwrap()), (3, hello));
}

#[tokio::test]
async fn the_first_call_of_all_costs_one_connection() {
    let agent = Running::start().await;
    let client = Client::new(agent.socket());
    let error = client.read_file_end("/nothing/here", 5).await.err().unwrap();
    assert!(matches!(error, CallError::Refused(_)), "{error:?}");
    assert_eq!(client.hello().await.unwrap(), Hello::ours());
    // Nobody waits for the request of somebody who says nothing more.
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    let mut hello = BytesMut::new();
    Hello::ours().encode(PROTOCOL_VERSION, &mut hello).unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = vec![0; hello.len()];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, hello);
}
