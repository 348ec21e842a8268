//! Agents of other releases, and callers of other releases. The bytes of version 1 stand here as they were sent, so that no change
//! of a message can change them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::client::{CallError, Client, ExecEvent};
use agent::protocol::{
    ExecId, Features, FrameReader, FrameWriter, Hello, Input, PROTOCOL_VERSION, Reply, Request, StartExec,
    Stream, Versions,
};
use bytes::Bytes;
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

fn secret_start() -> (StartExec, Vec<String>) {
    let start = StartExec { env: vec![("S".to_owned(), "v".to_owned())], ..StartExec::new(ID, ["a"]) };
    (start, vec!["S".to_owned()])
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

    let (start, names) = secret_start();
    let mut exec = client.start_secret_exec(start, names).await.unwrap();
    let Some(ExecEvent::Exited(outcome)) = exec.next().await.unwrap() else { panic!("no end") };
    assert_eq!(outcome.end.exit_code(), 124);
    assert_eq!(client.secrets(Some(ID), Vec::new()).await.unwrap(), ["v"]);
    let error = client.read_file_end("/a", 5).await.err().unwrap();
    assert!(matches!(error, CallError::Refused(_)), "{error:?}");
    // From the second call on it costs what it cost.
    assert_eq!(connections.load(Ordering::SeqCst), 6);
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
    let (start, names) = secret_start();
    let error = client.start_secret_exec(start, names).await.err().unwrap();
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
    let mut hello = bytes::BytesMut::new();
    Hello::ours().encode(PROTOCOL_VERSION, &mut hello).unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = vec![0; hello.len()];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, hello);
}
