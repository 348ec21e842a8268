//! The protocol as Autobahn's test suite goes through it, against an echo that talks through the same loop as every route.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use super::{Listener, Speaker, Terms, Upgrade, Word};
use crate::error::ApiError;

struct Mouth(mpsc::Receiver<Message>);

impl Speaker for Mouth {
    async fn next(&mut self) -> Word {
        match self.0.recv().await {
            Some(message) => Word::Say(message),
            None => std::future::pending().await,
        }
    }

    fn cursor(&self) -> String {
        String::new()
    }
}

struct Ear(mpsc::Sender<Message>);

impl Listener for Ear {
    async fn hear(&mut self, message: Message) -> Result<(), ApiError> {
        let _ = self.0.send(message).await;
        Ok(())
    }
}

async fn echo(
    State(sessions): State<TaskTracker>,
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    let long = Duration::from_secs(60);
    let terms = Terms { slow_reader_limit: long, ping: long, silence: long, stop: None, watching: None };
    Ok(upgrade?.accept(&sessions, None, 1 << 20, |socket| {
        let (ear, mouth) = mpsc::channel(8);
        let (_, no_asides) = mpsc::channel(1);
        socket.converse(terms, Mouth(mouth), Ear(ear), no_asides)
    }))
}

/// A connection to an echo, past its handshake.
async fn connect() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(echo)).with_state(TaskTracker::new());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A frame of a client, under a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

async fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let (first, length) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
    let length = match length {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        length => u64::from(length),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

#[tokio::test]
async fn messages_of_every_size_and_in_any_parts_come_back_whole() {
    let mut stream = connect().await;
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        for first in [0x81, 0x82] {
            let payload = vec![b'*'; size];
            let parts: Vec<u8> = match size {
                0 => frame(first, b""),
                _ => {
                    let part = size.div_ceil(3);
                    let last = (size - 1) / part;
                    let parts = payload.chunks(part).enumerate().flat_map(|(index, part)| {
                        let opcode = if index == 0 { first & 0xf } else { 0 };
                        let mut part = frame(opcode | if index == last { 0x80 } else { 0 }, part);
                        // Between the parts there may be pings.
                        if index < last {
                            part.extend(frame(0x89, &[index as u8]));
                        }
                        part
                    });
                    parts.collect()
                }
            };
            stream.write_all(&[frame(first, &payload), parts].concat()).await.unwrap();
            let (mut messages, mut pongs) = (Vec::new(), 0);
            while messages.len() < 2 {
                match next(&mut stream).await {
                    (0x8a, _) => pongs += 1,
                    message => messages.push(message),
                }
            }
            assert_eq!(messages, vec![(first, payload); 2], "{size}");
            assert!(pongs <= 2);
        }
    }
    // In pieces of one byte.
    for byte in frame(0x81, "κόσμε".as_bytes()) {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(next(&mut stream).await, (0x81, "κόσμε".as_bytes().to_vec()));
}

#[tokio::test]
async fn a_ping_is_answered_with_what_it_says_and_a_pong_with_nothing() {
    let mut stream = connect().await;
    for payload in [&b""[..], b"hello", &[0, 255, 254], &[b'x'; 125]] {
        stream.write_all(&[frame(0x8a, b"unasked"), frame(0x89, payload)].concat()).await.unwrap();
        assert_eq!(next(&mut stream).await, (0x8a, payload.to_vec()));
    }
}

#[tokio::test]
async fn a_text_is_utf8_or_the_connection_is_closed_with_1007() {
    for good in ["\u{0}", "\u{7f}", "\u{7ff}", "\u{ffff}", "\u{d7ff}\u{e000}\u{fffd}", "\u{10ffff}"] {
        let mut stream = connect().await;
        stream.write_all(&frame(0x81, good.as_bytes())).await.unwrap();
        assert_eq!(next(&mut stream).await, (0x81, good.as_bytes().to_vec()));
    }
    for bad in [
        &b"\x80"[..],
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xce\xba\xe1\xbd",
    ] {
        for in_parts in [false, true] {
            let mut stream = connect().await;
            let frames = match bad.split_first() {
                Some((head, rest)) if in_parts => [frame(0x01, &[*head]), frame(0x80, rest)].concat(),
                _ => frame(0x81, bad),
            };
            stream.write_all(&frames).await.unwrap();
            let (first, payload) = next(&mut stream).await;
            assert_eq!((first, &payload[..2]), (0x88, &1007_u16.to_be_bytes()[..]), "{bad:?}");
            assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn the_codes_of_a_close_are_those_that_may_be_sent() {
    let answer = async |code: u16| {
        let mut stream = connect().await;
        stream.write_all(&frame(0x88, &code.to_be_bytes())).await.unwrap();
        let (first, payload) = next(&mut stream).await;
        assert_eq!(first, 0x88);
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0, "{code}");
        u16::from_be_bytes(payload[..2].try_into().unwrap())
    };
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        assert_eq!(answer(code).await, code);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(answer(code).await, 1002, "{code}");
    }
}
