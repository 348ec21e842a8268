//! The wire form, frozen: whoever changes it must raise `PROTOCOL_VERSION`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::time::Duration;

use agent::client::{CallError, Client, ExecEvent};
use agent::protocol::{
    AttachRefusal, ClosedOutput, ExecEnd, ExecId, ExecOutcome, ExecRefusal, FilePart, FoundFile, FrameError,
    FrameReader, FrameWriter, Hello, Input, KillCause, Left, MAX_FRAME, Message, OutputEnd, PROTOCOL_VERSION,
    PassedOver, PassedOverReason, Reply, Request, Search, Searched, StartExec, Started, Stream, TerminalSize,
    WriterId, decode, encode,
};
use bytes::{Bytes, BytesMut};

const ID: ExecId = ExecId(*b"0123456789abcdef");

fn encoded<M: Message>(message: &M) -> String {
    let mut buffer = BytesMut::new();
    encode(message, &mut buffer).unwrap();
    shown(&buffer)
}

fn shown(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

#[test]
fn the_wire_form_is_frozen() {
    assert_eq!(PROTOCOL_VERSION, 2);
    let mut hello = BytesMut::new();
    Hello::ours().encode(PROTOCOL_VERSION, &mut hello).unwrap();
    assert_eq!(shown(&hello), "0000000573766d4102 0000000301021f".replace(' ', ""));
    assert_eq!(encoded(&Request::Ping), "0000000100");
    let start = StartExec {
        env: vec![("A".to_owned(), "b".to_owned())],
        cwd: Some("/".to_owned()),
        user: Some("u".to_owned()),
        tty: Some(TerminalSize { rows: 24, cols: 80 }),
        timeout: Some(Duration::from_millis(1500)),
        stdin: true,
        stdout_offset: 1,
        stderr_offset: 2,
        ..StartExec::new(ID, ["ls", "-l"])
    };
    let expected = "00000032043031323334353637383961626364656602026c73022d6c0101410162 01012f 010175 011850 010180cab5ee01 01 01 02 00 00";
    assert_eq!(encoded(&Request::StartExec(start.clone())), expected.replace(' ', ""));
    let secret = StartExec { secret_names: vec!["A".to_owned()], ..start };
    let expected = expected.replace("00000032", "00000034").replace(" 02 00 00", " 02 010141 00");
    assert_eq!(encoded(&Request::StartExec(secret)), expected.replace(' ', ""));
    let lingers = StartExec { linger: Some(Duration::from_millis(100)), ..StartExec::new(ID, ["ls"]) };
    let expected =
        "00000024043031323334353637383961626364656601026c73 00 00 00 00 00 00 00 00 00 01 00 80c2d72f";
    assert_eq!(encoded(&Request::StartExec(lingers)), expected.replace(' ', ""));
    let close = Request::CloseOutput { exec_id: ID, reason: OutputEnd::TooMany };
    assert_eq!(encoded(&close), "00000012183031323334353637383961626364656602");
    let input = Request::OpenInput { exec_id: ID, writer: WriterId(ID.0) };
    let id = "30313233343536373839616263646566";
    assert_eq!(encoded(&input), format!("0000002119{id}{id}"));
    let closed = ClosedOutput { reason: OutputEnd::Sandbox, stdout_len: 300, stderr_len: 0 };
    assert_eq!(encoded(&Reply::OutputClosed(closed)), "00000005 12 04 ac02 00".replace(' ', ""));
    let search = Search {
        directory: ".".to_owned(),
        patterns: vec!["a".to_owned()],
        most_files: 300,
        most_depth: 2,
        within: Duration::from_secs(1),
    };
    assert_eq!(encoded(&Request::Search(search)), "0000000b 1a 012e 01 0161 ac02 02 01 00".replace(' ', ""));
    let beneath = Request::ReadBeneath { directory: ".".to_owned(), path: "a".to_owned(), limit: 300 };
    assert_eq!(encoded(&beneath), "00000007 1b 012e 0161 ac02".replace(' ', ""));
    let found = FoundFile { path: "a".to_owned(), size: 300, mode: 0o644 };
    assert_eq!(encoded(&Reply::Found(vec![found])), "00000008 13 01 0161 ac02 a403".replace(' ', ""));
    let over = PassedOver { path: "l".to_owned(), reason: PassedOverReason::Symlink };
    let searched = Searched { passed_over: 1, first: vec![over] };
    assert_eq!(encoded(&Reply::Searched(searched)), "00000006 14 01 01 016c 00".replace(' ', ""));
    let secrets = Request::Secrets { exec_id: None, names: vec!["A".to_owned()] };
    assert_eq!(encoded(&secrets), "00000005 17 00 010141".replace(' ', ""));
    let from = FilePart::From { offset: 1, limit: Some(300) };
    let read = |part| Request::ReadFile { path: "a".to_owned(), part };
    assert_eq!(encoded(&read(from)), "00000008 0c 0161 00 01 01ac02".replace(' ', ""));
    assert_eq!(encoded(&read(FilePart::Last { bytes: 5 })), "00000005 0c 0161 01 05".replace(' ', ""));
    let write = Request::WriteStdin { exec_id: ID, offset: Some(5), bytes: Bytes::from_static(b"hi") };
    assert_eq!(encoded(&write), "000000150730313233343536373839616263646566010568 69".replace(' ', ""));
    assert_eq!(encoded(&Request::OpenTcp { port: 8080 }), "00000003 15 903f".replace(' ', ""));
    assert_eq!(encoded(&Input::Ack { stream: Stream::Stderr, offset: 300 }), "000000040001ac02");
    assert_eq!(encoded(&Input::Commit), "0000000106");
    let output = Reply::Output { stream: Stream::Stdout, offset: 1, bytes: Bytes::from_static(b"x") };
    assert_eq!(encoded(&output), "0000000404000178");
    assert_eq!(encoded(&Reply::Refused(ExecRefusal::Ended.into())), "00000003010201");
    assert_eq!(encoded(&Reply::Connected), "000000010f");
    let ends = [
        (ExecEnd::Exited { code: 3 }, "0006"),
        (ExecEnd::Signaled { signal: 9 }, "0112"),
        (ExecEnd::TimedOut { left: Left::Signal(9) }, "020112"),
        (ExecEnd::Killed { cause: KillCause::Request, left: Left::Code(1) }, "03000002"),
        (ExecEnd::OutOfMemory { left: Left::Signal(9) }, "040112"),
    ];
    for (end, expected) in ends {
        let outcome = ExecOutcome {
            end,
            stdout_len: 1,
            stderr_len: 2,
            duration: Duration::ZERO,
            cpu_time: Duration::ZERO,
            max_rss_bytes: 3,
        };
        let length = expected.len() / 2 + 8;
        let expected = format!("{length:08x} 06 {expected} 01 02 0000 0000 03");
        assert_eq!(encoded(&Reply::Exited(outcome)), expected.replace(' ', ""), "{end:?}");
    }
}

#[test]
fn raw_bytes_come_back_and_stray_ones_do_not_pass() {
    let output = Reply::Output { stream: Stream::Stderr, offset: 7, bytes: Bytes::from(vec![9; 5000]) };
    let mut buffer = BytesMut::new();
    encode(&output, &mut buffer).unwrap();
    assert_eq!(decode::<Reply>(&buffer.split_off(4).freeze()).unwrap(), output);
    assert!(matches!(decode::<Reply>(&Bytes::from_static(&[0, 0])), Err(FrameError::Malformed(_))));
    assert!(matches!(decode::<Reply>(&Bytes::from_static(&[200])), Err(FrameError::Malformed(_))));
    let big = Reply::Chunk { bytes: Bytes::from(vec![0; MAX_FRAME]) };
    let mut buffer = BytesMut::new();
    assert!(matches!(encode(&big, &mut buffer), Err(FrameError::TooLarge(_))));
    assert!(buffer.is_empty());
}

/// An agent that says what it is told to, whatever it is asked.
async fn hostile(replies: Vec<Reply>, raw: &'static [u8]) -> (tempfile::TempDir, Client) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("hostile.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, write) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        Hello::receive(&mut reader).await.unwrap();
        Hello::ours().send(PROTOCOL_VERSION, &mut writer).await.unwrap();
        for reply in replies {
            writer.send(&reply).await.unwrap();
        }
        writer.flush().await.unwrap();
        let mut write = writer.into_inner();
        tokio::io::AsyncWriteExt::write_all(&mut write, raw).await.unwrap();
        // Stays until the caller goes.
        while let Ok(Some(_)) = reader.receive::<Input>().await {}
    });
    (directory, Client::new(path))
}

fn started() -> Reply {
    Reply::Started(Started { pid: 1, age: Duration::ZERO, stdin_offset: 0, fresh: true })
}

fn output(offset: u64, bytes: &'static [u8]) -> Reply {
    Reply::Output { stream: Stream::Stdout, offset, bytes: Bytes::from_static(bytes) }
}

fn exited(stdout_len: u64) -> Reply {
    Reply::Exited(ExecOutcome {
        end: ExecEnd::Exited { code: 0 },
        stdout_len,
        stderr_len: 0,
        duration: Duration::ZERO,
        cpu_time: Duration::ZERO,
        max_rss_bytes: 0,
    })
}

#[tokio::test]
async fn a_hostile_agent_gets_a_typed_error() {
    let cases: [(Vec<Reply>, &'static [u8]); 9] = [
        (vec![started(), output(5, b"gap")], b""),
        (vec![started(), output(0, b"abc"), output(2, b"again")], b""),
        (vec![started(), output(0, b"")], b""),
        (vec![started(), output(0, b"abc"), exited(4)], b""),
        (vec![started(), started()], b""),
        (vec![started()], &[0xff, 0xff, 0xff, 0xff]),
        (vec![started()], &[0, 0, 0, 2, 250, 250]),
        (vec![started(), Reply::Done], b""),
        (vec![started(), Reply::Refused(ExecRefusal::Ended.into())], b""),
    ];
    for (replies, raw) in cases {
        let shown = format!("{replies:?} {raw:?}");
        let (_directory, client) = hostile(replies, raw).await;
        let mut connection = client.start_exec(StartExec::new(ID, ["true"])).await.unwrap();
        let error = loop {
            match connection.next().await {
                Ok(Some(ExecEvent::Output { .. })) => {}
                Ok(other) => panic!("{shown}: {other:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CallError::Violation { .. }), "{shown}: {error:?}");
        assert!(!error.is_retryable());
    }
    let (_directory, client) = hostile(vec![Reply::Superseded], b"").await;
    assert!(matches!(client.ping().await, Err(CallError::Violation { .. })));
    let (_directory, client) =
        hostile(vec![Reply::Refused(AttachRefusal::UnknownExec(ID).into())], b"").await;
    assert!(matches!(client.ping().await, Err(CallError::Violation { .. })));
}

#[tokio::test]
async fn names_that_an_agent_makes_up_are_not_found() {
    let file = |path: &str| FoundFile { path: path.to_owned(), size: 1, mode: 0o100_644 };
    let search = || Search {
        directory: ".".to_owned(),
        patterns: vec!["*".to_owned()],
        most_files: 3,
        most_depth: 2,
        within: Duration::from_secs(1),
    };
    let end = Reply::Searched(Searched::default());
    for made_up in [
        vec![],
        ["../a", "/a", "a/../b", "a\0"].map(file).to_vec(),
        vec![file("b"), file("a")],
        vec![file("a"), file("a")],
        vec![file("a"), file("b"), file("c"), file("d")],
        vec![file(&"a/".repeat(4000))],
    ] {
        let shown = format!("{made_up:?}");
        let (_directory, client) = hostile(vec![Reply::Found(made_up), end.clone()], b"").await;
        let error = client.search(search()).await.unwrap_err();
        assert!(matches!(error, CallError::Violation { .. }), "{shown}: {error:?}");
    }
    let over = PassedOver { path: "\x1b".repeat(10_000), reason: PassedOverReason::Name };
    let end = Reply::Searched(Searched { passed_over: u64::MAX, first: vec![over; 100] });
    let (_directory, client) = hostile(vec![Reply::Found(vec![file("a")]), end], b"").await;
    let (files, end) = client.search(search()).await.unwrap();
    assert_eq!((files.len(), files[0].mode), (1, 0o644));
    assert_eq!(end.first.len(), Searched::MOST_NAMED);
    assert!(end.first.iter().all(|over| over.path.len() < 15_000 && !over.path.contains('\x1b')));
}

#[tokio::test]
async fn arguments_that_do_not_fit_a_frame_are_the_callers_error() {
    let agent = harness::Running::start().await;
    let error = agent.client.start_exec(StartExec::new(ID, ["x".repeat(MAX_FRAME)])).await.err().unwrap();
    assert!(matches!(error, CallError::InvalidCall { .. }), "{error:?}");
    assert!(!error.is_retryable());
}
