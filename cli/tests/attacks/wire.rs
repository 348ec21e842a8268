//! Bytes that are no HTTP and no WebSocket, or nearly are, over a connection of one's own.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::serve::Serve;

/// A request that must not be answered as one: it stands where a body is, or after what was refused.
const HIDDEN: &str = "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GET: &str = "GET /api/v1/sandboxes HTTP/1.1\r\n";
const POST: &str = "POST /api/v1/sandboxes HTTP/1.1\r\n";
const HOST: &str = "Host: localhost\r\n";
/// Longer than anything takes that is refused.
const PATIENCE: Duration = Duration::from_secs(20);

fn address(serve: &Serve) -> String {
    serve.api.base.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

/// The statuses of all answers, until the server closes or says no more.
async fn statuses(serve: &Serve, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(address(serve)).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let read = async {
        let mut piece = vec![0; 64 << 10];
        let mut patience = PATIENCE;
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout(patience, reading.read(&mut piece)).await {
            answer.extend_from_slice(&piece[..read]);
            assert!(answer.len() < 4 << 20, "an answer without end");
            // For a second answer, which must not come.
            patience = Duration::from_millis(80);
        }
    };
    // Who is refused half-way cannot write the rest.
    let write = async {
        let _ = writing.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    let text = String::from_utf8_lossy(&answer);
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect()
}

/// What is sent, and the statuses that come back. None: the connection is closed without a word.
fn garbage() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let get = |rest: &str| format!("{GET}{HOST}{rest}\r\n").into_bytes();
    let post = |headers: &str, body: &str| format!("{POST}{HOST}{headers}\r\n{body}").into_bytes();
    let line = |line: &str| format!("{line}\r\n{HOST}\r\n").into_bytes();
    let json = |body: &[u8]| {
        let mut request = format!("{POST}{HOST}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        request
    };
    let hidden = |text: &str| format!("{text}{HIDDEN}");
    let many: String = (0..5_000).map(|n| format!("x{n}: y\r\n")).collect();
    let deep = format!("{{\"metadata\":{}1", "{\"a\":".repeat(100_000));
    let cookies = format!("Cookie: {}\r\n", "a=b; ".repeat(200_000));
    vec![
        // Where does the body end?
        (
            "both lengths",
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &hidden("0\r\n\r\n")),
            &[400],
        ),
        (
            "both lengths, the other way",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &hidden("0\r\n\r\n")),
            &[400],
        ),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 40\r\n", &hidden("{}")), &[400]),
        ("a list of lengths", post("Content-Length: 2, 40\r\n", &hidden("{}")), &[400]),
        ("a length with a sign", post("Content-Length: +2\r\n", "{}"), &[400]),
        ("a length below nothing", post("Content-Length: -2\r\n", "{}"), &[400]),
        ("a length in hex", post("Content-Length: 0x2\r\n", "{}"), &[400]),
        ("a length over 64 bits", post("Content-Length: 99999999999999999999\r\n", "{}"), &[400]),
        ("a length of exabytes", post("Content-Length: 9223372036854775807\r\n", "{}"), &[413]),
        ("an encoding that is none", post("Transfer-Encoding: identity\r\n", &hidden("{}")), &[400]),
        ("an encoding nearly right", post("Transfer-Encoding: xchunked\r\n", &hidden("0\r\n\r\n")), &[400]),
        ("an encoding not last", post("Transfer-Encoding: chunked, gzip\r\n", &hidden("0\r\n\r\n")), &[400]),
        ("an encoding with a space", post("Transfer-Encoding : chunked\r\n", &hidden("0\r\n\r\n")), &[400]),
        (
            "two encodings",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &hidden("0\r\n\r\n")),
            &[400],
        ),
        (
            "chunks in HTTP/1.0",
            format!(
                "POST /api/v1/sandboxes HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            )
            .into_bytes(),
            &[400],
        ),
        (
            "a chunk over 64 bits",
            post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            &[400],
        ),
        ("a chunk below nothing", post("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("a chunk with 0x", post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"), &[400]),
        (
            "a chunk that is longer than it says",
            post("Transfer-Encoding: chunked\r\n", "2\r\n{}{}\r\n0\r\n\r\n"),
            &[400],
        ),
        ("chunks with bare line feeds", post("Transfer-Encoding: chunked\r\n", "2\n{}\n0\n\n"), &[400]),
        (
            "a chunk extension of 100 KB",
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(100_000)),
            ),
            &[400],
        ),
        (
            "5,000 trailers",
            post("Transfer-Encoding: chunked\r\n", &format!("2\r\n{{}}\r\n0\r\n{many}\r\n")),
            &[400],
        ),
        // Headers
        ("a folded header", get("X-A: b\r\n c\r\n"), &[400]),
        ("NUL in a header", get("X-A: b\0c\r\n"), &[400]),
        ("CR in a header", get("X-A: b\rc\r\n"), &[400]),
        ("a name with a space", get("X A: b\r\n"), &[400]),
        ("a name that is empty", get(": b\r\n"), &[400]),
        ("no colon", get("Xb\r\n"), &[400]),
        ("a name that is not ASCII", get("Xß: b\r\n"), &[400]),
        ("5,000 headers", get(&many), &[431]),
        ("a header of 1 MB", get(&format!("X: {}\r\n", "a".repeat(1_000_000))), &[431]),
        ("a cookie of 1 MB", get(&cookies), &[431]),
        ("two hosts", get("Host: evil.example\r\n"), &[400]),
        ("a host of somebody else", format!("{GET}Host: evil.example\r\n\r\n").into_bytes(), &[403]),
        (
            "a host that begins as ours",
            format!("{GET}Host: localhost.evil.example\r\n\r\n").into_bytes(),
            &[403],
        ),
        ("a host that is none", format!("{GET}Host: [::1\r\n\r\n").into_bytes(), &[403]),
        ("an origin of somebody else", get("Origin: https://evil.example\r\n"), &[403]),
        ("an origin that begins as ours", get("Origin: http://localhost.evil.example\r\n"), &[403]),
        (
            "our own origin and another one",
            get("Origin: http://localhost\r\nOrigin: https://evil.example\r\n"),
            &[403],
        ),
        ("an origin that is null", get("Origin: null\r\n"), &[403]),
        ("an origin that is empty", get("Origin: \r\n"), &[403]),
        (
            "a form of another site",
            post("Origin: https://evil.example\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n", "{}"),
            &[403],
        ),
        // The line
        ("a line of 1 MB", line(&format!("GET /{} HTTP/1.1", "a".repeat(1_000_000))), &[431]),
        ("bytes in the path", [b"GET /api/v1/\xff HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat(), &[400]),
        ("no text in the path", line("GET /api/v1/sandboxes/%ff%fe HTTP/1.1"), &[404]),
        ("NUL in the path", line("GET /api/v1/sandboxes/%00 HTTP/1.1"), &[404]),
        ("up and away", line("GET /api/v1/sandboxes/../health HTTP/1.1"), &[404]),
        ("up and away, escaped", line("GET /api/v1/sandboxes/%2e%2e%2fhealth HTTP/1.1"), &[404]),
        ("many slashes", line("GET //api//v1//health HTTP/1.1"), &[404]),
        ("backslashes", line("GET \\api\\v1\\health HTTP/1.1"), &[400]),
        ("another host's URL", line("GET http://evil.example/api/v1/sandboxes HTTP/1.1"), &[400]),
        ("a tunnel", line("CONNECT 10.0.0.1:80 HTTP/1.1"), &[404]),
        ("a trace", line("TRACE /api/v1/sandboxes HTTP/1.1"), &[405]),
        ("a method of 10 KB", line(&format!("{} / HTTP/1.1", "A".repeat(10_000))), &[404]),
        ("a method that is none", line("G\u{1}T / HTTP/1.1"), &[400]),
        ("HTTP/0.9", b"GET /api/v1/health\r\n\r\n".to_vec(), &[400]),
        ("HTTP/3 in plain", line("GET /api/v1/health HTTP/3.0"), &[400]),
        ("TLS", [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0; 200]].concat(), &[400]),
        ("zeros", vec![0; 100_000], &[400]),
        (
            "HTTP/2, and then nothing that it has",
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 200]].concat(),
            &[],
        ),
        (
            "a request after one that was refused",
            format!("GET / HTTP/9.9\r\n{HOST}\r\n{HIDDEN}").into_bytes(),
            &[400],
        ),
        // Bodies
        (
            "a body that says it is compressed",
            post("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"),
            &[415],
        ),
        ("100,000 lists", json(&[vec![b'['; 100_000], vec![b']'; 100_000]].concat()), &[400]),
        ("100,000 objects", json(deep.as_bytes()), &[400]),
        ("a key twice", json(b"{\"image\":\"a:1\",\"image\":\"b:1\"}"), &[400]),
        ("a number beyond all", json(b"{\"image\":\"a:1\",\"memory_mb\":1e999999}"), &[400]),
        (
            "a number of 100,000 digits",
            json(format!("{{\"memory_mb\":{}}}", "9".repeat(100_000)).as_bytes()),
            &[400],
        ),
        ("half a surrogate", json(b"{\"image\":\"\\ud800\"}"), &[400]),
        ("no UTF-8", json(b"{\"image\":\"\xff\xfe\"}"), &[400]),
        ("a byte order mark", json(b"\xef\xbb\xbf{}"), &[400]),
        ("UTF-16", json(b"\xff\xfe{\0}\0"), &[400]),
        ("no number", json(b"{\"memory_mb\":NaN}"), &[400]),
        ("two values", json(b"{}{}"), &[400]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_and_costs_nothing() {
    let serve = Serve::with_provider("bubblewrap").await;
    assert_eq!(statuses(&serve, HIDDEN.as_bytes()).await, [200]);
    let (rss, descriptors) = (serve.process.rss_kib(), serve.process.descriptors());
    let mut wrong = Vec::new();
    for round in 0..2 {
        for (what, bytes, wanted) in garbage() {
            let found = statuses(&serve, &bytes).await;
            if found != wanted {
                wrong.push(format!("round {round}: {what}: {found:?} instead of {wanted:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    settled(&serve, rss, descriptors).await;
}

/// Everything is given back, nothing panicked, nothing was our own fault, and others are served.
async fn settled(serve: &Serve, rss: u64, before: usize) {
    eventually("descriptors are given back", PATIENCE, async || {
        (serve.process.descriptors() <= before + 8).then_some(())
    })
    .await;
    let now = serve.process.rss_kib();
    assert!(now < rss + 96 * 1024, "RSS went from {rss} KiB to {now} KiB");
    let log = serve.process.log_text();
    for fault in ["panicked", "INTERNAL_ERROR", " ERROR "] {
        assert!(!log.contains(fault), "{log}");
    }
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    assert_eq!(serve.api.exec(&sandbox, "echo here").await["stdout"], "here\n");
}

/// A frame as a client sends it, or should: masked with zeros.
fn frame(first: u8, mask: bool, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let masked = if mask { 0x80 } else { 0 };
    match length {
        0..=125 => frame.push(masked | length as u8),
        126..=0xffff => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    if mask {
        frame.extend_from_slice(&[0; 4]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// What is sent once the door is open. All of it must end the connection.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let text = |payload: &[u8]| frame(0x81, true, payload.len() as u64, payload);
    vec![
        ("a frame without a mask", frame(0x81, false, 2, b"{}")),
        ("a reserved bit", frame(0xc1, true, 2, b"{}")),
        ("all reserved bits", frame(0xf1, true, 2, b"{}")),
        ("an opcode that is none", frame(0x83, true, 0, b"")),
        ("a control opcode that is none", frame(0x8b, true, 0, b"")),
        ("a ping in pieces", frame(0x09, true, 1, b"a")),
        ("a ping of 126 bytes", frame(0x89, true, 126, &[0; 126])),
        ("a close in pieces", frame(0x08, true, 0, b"")),
        ("a close of one byte", frame(0x88, true, 1, b"a")),
        ("a close with a code that is none", frame(0x88, true, 2, &999u16.to_be_bytes())),
        ("a close with a code nobody sends", frame(0x88, true, 2, &1006u16.to_be_bytes())),
        ("a close with bytes that are no text", frame(0x88, true, 4, b"\x03\xe8\xff\xfe")),
        ("a length of exabytes", frame(0x82, true, u64::MAX >> 1, b"a")),
        ("a length with the highest bit", frame(0x82, true, u64::MAX, b"a")),
        ("a length of 1 GiB", frame(0x82, true, 1 << 30, &[0; 4096])),
        ("text that is no UTF-8", text(b"\xff\xfe\xc0\x80")),
        ("the rest of nothing", frame(0x80, true, 2, b"{}")),
        ("a beginning inside of another", [frame(0x01, true, 1, b"{"), frame(0x01, true, 1, b"}")].concat()),
        (
            "pieces without end",
            frame(0x01, true, 16, &[b' '; 16])
                .into_iter()
                .chain((0..200_000).flat_map(|_| frame(0x00, true, 16, &[b' '; 16])))
                .collect(),
        ),
        ("no frame at all", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100)),
        ("a line of JSON", b"{\"type\":\"input\"}\n".repeat(100)),
    ]
}

/// Opens the door of a WebSocket by hand.
async fn open(serve: &Serve, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(serve)).await.unwrap();
    let asked = format!(
        "GET /api/v1{path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        address(serve)
    );
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
        assert!(head.len() < 16 << 10);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{path}: {head}");
    stream
}

/// Whether the server closes, whatever it says before.
async fn ends(mut stream: TcpStream, bytes: &[u8]) -> bool {
    let (mut reading, mut writing) = stream.split();
    let write = async {
        // Who is thrown out half-way cannot write the rest.
        let _ = writing.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut piece = vec![0; 64 << 10];
        while let Ok(1..) = reading.read(&mut piece).await {}
    };
    let either = async {
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    };
    tokio::time::timeout(PATIENCE, either).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_frame_ends_its_connection_and_no_other() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let body = json!({"command": "cat", "detach": true, "stdin": true});
    let (_, exec) = serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
    let exec = exec["exec_id"].as_str().unwrap().to_owned();
    eventually("it runs", PATIENCE, async || {
        (serve.api.get(&format!("/execs/{exec}")).await.1["state"] == "running").then_some(())
    })
    .await;
    let paths = [
        "/events/ws".to_owned(),
        format!("/execs/{exec}/attach"),
        format!("/sandboxes/{sandbox}/exec/ws"),
        format!("/sandboxes/{sandbox}/replay?follow=true"),
    ];
    // One that behaves, all the while.
    let well = open(&serve, &paths[1]).await;
    let (rss, before) = (serve.process.rss_kib(), serve.process.descriptors());
    let mut wrong = Vec::new();
    for path in &paths {
        for (what, bytes) in broken_frames() {
            if !ends(open(&serve, path).await, &bytes).await {
                wrong.push(format!("{path}: {what}: goes on"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Allowed, and nothing but its sender's time: ten thousand pings, and a message of as many empty pieces.
    let again = |frame: Vec<u8>| frame.repeat(10_000);
    let (first, next, last) =
        (frame(0x01, true, 0, b""), frame(0x00, true, 0, b""), frame(0x80, true, 0, b""));
    let close = frame(0x88, true, 2, &1000u16.to_be_bytes());
    let idle = [again(frame(0x89, true, 0, b"")), first, again(next), last, close].concat();
    for path in &paths {
        assert!(ends(open(&serve, path).await, &idle).await, "{path}");
    }
    assert_eq!(serve.api.get(&format!("/execs/{exec}")).await.1["state"], "running");
    settled(&serve, rss, before).await;
    drop(well);
}
