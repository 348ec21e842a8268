use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::api::Api;

const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A client of `/execs/{id}/attach` that checks the framing and gathers what it gets.
pub struct Viewer {
    pub socket: Socket,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Where the output began that it asked for.
    pub from: [u64; 2],
    /// Control messages, in order.
    pub control: Vec<Value>,
    /// How it was closed.
    pub closed: Option<(u16, String)>,
}

impl Viewer {
    pub async fn attach(api: &Api, exec: &str, query: &str) -> Self {
        Self::try_attach(api, exec, query).await.unwrap()
    }

    /// One whose end of the connection holds no more than about so many bytes.
    pub async fn attach_with_buffer(api: &Api, exec: &str, bytes: u32) -> Self {
        let address = api.base.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let (socket, answer) =
            client_async(request(api, exec, ""), MaybeTlsStream::Plain(stream)).await.unwrap();
        Self::greeted(socket, &answer).await
    }

    /// The status, where the door stays shut.
    pub async fn try_attach(api: &Api, exec: &str, query: &str) -> Result<Self, u16> {
        match connect_async(request(api, exec, query)).await {
            Ok((socket, answer)) => Ok(Self::greeted(socket, &answer).await),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn greeted(socket: Socket, answer: &Response) -> Self {
        assert_eq!(answer.headers()["sec-websocket-protocol"], "stacyvm.attach.v1");
        let mut viewer = Self {
            socket,
            stdout: Vec::new(),
            stderr: Vec::new(),
            from: [0, 0],
            control: Vec::new(),
            closed: None,
        };
        viewer.until("attached").await;
        let attached = &viewer.control[0];
        viewer.from =
            [attached["stdout_offset"].as_u64().unwrap(), attached["stderr_offset"].as_u64().unwrap()];
        viewer
    }

    /// Takes one frame. False: it is closed.
    pub async fn step(&mut self) -> bool {
        let until = tokio::time::Instant::now() + PATIENCE;
        let message = loop {
            let message = tokio::time::timeout_at(until, self.socket.next()).await;
            match message.unwrap_or_else(|_| panic!("nothing came: {:?} {:?}", self.control, self.text())) {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => break other,
            }
        };
        match message {
            Some(Ok(Message::Binary(frame))) => {
                self.take(&frame);
                true
            }
            Some(Ok(Message::Close(close))) => {
                self.closed = close.map(|close| (close.code.into(), close.reason.to_string()));
                false
            }
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => false,
        }
    }

    fn take(&mut self, frame: &[u8]) {
        match frame[0] {
            channel @ (1 | 2) => {
                let offset = u64::from_be_bytes(frame[1..9].try_into().unwrap());
                let index = usize::from(channel) - 1;
                let from = self.from[index];
                let stream = if channel == 1 { &mut self.stdout } else { &mut self.stderr };
                assert_eq!(offset, from + stream.len() as u64, "no gap and no duplicate");
                assert!(frame.len() > 9 && frame.len() <= 9 + (64 << 10));
                stream.extend_from_slice(&frame[9..]);
            }
            3 => self.control.push(serde_json::from_slice(&frame[1..]).unwrap()),
            other => panic!("channel {other}"),
        }
    }

    /// Goes on until a control message of this type has come.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            if let Some(found) = self.control.iter().find(|control| control["type"] == kind) {
                return found.clone();
            }
            assert!(self.step().await, "closed before {kind}: {:?} {:?}", self.closed, self.control);
        }
    }

    /// Goes on until stdout has this text.
    pub async fn until_text(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.step().await, "closed before {text:?}: {:?} {:?}", self.closed, self.text());
        }
    }

    /// Goes on to the close.
    pub async fn rest(&mut self) {
        while self.step().await {}
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub async fn type_in(&mut self, bytes: &[u8]) {
        let frame = [&[0], bytes].concat();
        self.socket.send(Message::Binary(frame.into())).await.unwrap();
    }

    pub async fn say(&mut self, control: Value) {
        let frame = [&[3][..], control.to_string().as_bytes()].concat();
        self.socket.send(Message::Binary(frame.into())).await.unwrap();
    }
}

fn request(api: &Api, exec: &str, query: &str) -> Request {
    let url = format!("{}?{query}", api.url(&format!("/execs/{exec}/attach"))).replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "stacyvm.attach.v1".parse().unwrap());
    request
}

/// Starts an exec that nobody waits for.
pub async fn detach(api: &Api, sandbox: &str, mut body: Value) -> String {
    body["detach"] = json!(true);
    let (status, answer) = api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
    assert_eq!(status, 202, "{answer}");
    answer["exec_id"].as_str().unwrap().to_owned()
}
