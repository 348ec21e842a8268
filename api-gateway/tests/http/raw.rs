//! A client that speaks HTTP and WebSocket frames by hand, right or wrong.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::world::{RED, World};

const PATIENCE: Duration = Duration::from_secs(30);
const MASK: [u8; 4] = [0x11, 0x22, 0x83, 0xc4];

pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
    pub head: String,
}

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// A frame: its first byte, and its payload.
    Frame(u8, Vec<u8>),
    /// The end of the TCP connection, in order.
    End,
}

/// How a WebSocket ended: the code and the reason of the close, and that the TCP connection ended after it in order.
pub type Close = (Option<u16>, String);

impl Raw {
    /// A connection of a client that takes no more than about so many bytes without reading.
    pub async fn connect(world: &World, buffer: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(world.address).await.unwrap();
        Self { stream, read: Vec::new(), head: String::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request, and reads the head of its answer.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let head = format!("{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {RED}\r\n{headers}\r\n");
        self.write(&[head.as_bytes(), body].concat()).await;
        self.answer().await;
    }

    /// Reads the head of an answer.
    pub async fn answer(&mut self) {
        while !self.read.windows(4).any(|four| four == b"\r\n\r\n") {
            assert!(self.more().await, "no answer: {}", String::from_utf8_lossy(&self.read));
        }
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        self.head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
    }

    /// A WebSocket.
    pub async fn open(world: &World, path: &str, buffer: Option<u32>, headers: &str) -> Self {
        let mut raw = Self::connect(world, buffer).await;
        let headers = format!(
            "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}"
        );
        raw.ask("GET", path, &headers, b"").await;
        assert!(raw.head.starts_with("HTTP/1.1 101"), "{}", raw.head);
        // The example of RFC 6455.
        assert!(raw.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", raw.head);
        raw
    }

    /// False: the connection has ended, in order. One that was reset fails the test.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let read = read.expect("nothing came").expect("the connection was reset");
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Everything up to the end, or the error that the connection ends with.
    pub async fn rest(&mut self) -> (Vec<u8>, Option<std::io::Error>) {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        let error = read.expect("it does not end").err();
        (std::mem::take(&mut self.read), error)
    }

    /// Sends a frame as a client does. The first byte has the flags and the opcode.
    pub async fn say(&mut self, first: u8, payload: &[u8]) {
        self.write(&frame(first, payload, true)).await;
    }

    pub async fn text(&mut self, text: &str) {
        self.say(0x81, text.as_bytes()).await;
    }

    pub async fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.parse() {
                return got;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "half a frame: {:?}", self.read);
                return Got::End;
            }
        }
    }

    fn parse(&mut self) -> Option<Got> {
        let first = *self.read.first()?;
        let second = *self.read.get(1)?;
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.read.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.read.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        self.read.get(..head + length)?;
        let frame: Vec<u8> = self.read.drain(..head + length).collect();
        Some(Got::Frame(first, frame[head..].to_vec()))
    }

    /// Goes on until a text or binary frame has this in it.
    pub async fn until(&mut self, wanted: &str) {
        loop {
            match self.next().await {
                Got::Frame(_, payload) if String::from_utf8_lossy(&payload).contains(wanted) => return,
                Got::Frame(0x88, payload) => panic!("closed before {wanted}: {payload:?}"),
                Got::Frame(..) => {}
                Got::End => panic!("ended before {wanted}"),
            }
        }
    }

    /// Goes on to the close and to the end of the connection behind it. Answers nothing on the way.
    pub async fn closed(&mut self) -> Close {
        let close = loop {
            match self.next().await {
                Got::Frame(0x88, payload) => break payload,
                Got::Frame(..) => {}
                Got::End => panic!("it ended without a close"),
            }
        };
        assert_eq!(self.next().await, Got::End, "nothing follows a close");
        assert!(close.len() <= 125 && close.len() != 1, "{close:?}");
        let code = close.get(..2).map(|code| u16::from_be_bytes(code.try_into().unwrap()));
        (code, String::from_utf8(close.get(2..).unwrap_or_default().to_vec()).unwrap())
    }
}

pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64, masked);
    if !masked {
        frame.extend_from_slice(payload);
        return frame;
    }
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What stands before a payload.
pub fn head(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let mut head = vec![first];
    let flag = if masked { 0x80 } else { 0 };
    match length {
        0..126 => head.push(flag | length as u8),
        126..=0xffff => {
            head.push(flag | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(flag | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        head.extend_from_slice(&MASK);
    }
    head
}
