use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> String {
        self.headers["webhook-id"].clone()
    }

    pub fn position(&self) -> u64 {
        self.event()["position"].as_u64().unwrap()
    }
}

/// What to answer: a status line with its headers, after a while.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: String,
    pub after: Duration,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { head: format!("HTTP/1.1 {status} Whatever\r\n"), after: Duration::ZERO }
    }
}

type Decide = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// A receiver of webhooks on loopback, as plain as can be.
pub struct Receiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    decide: Decide,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::with(|_| Answer::status(204)).await
    }

    pub async fn with(decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut receiver = Self { port, received: Arc::default(), decide: Arc::new(decide), task: None };
        receiver.listen(listener);
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Everything that came in so far, also what was refused.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Nobody listens any more, and open connections are closed.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again, on the same port.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.listen(listener);
    }

    fn listen(&mut self, listener: TcpListener) {
        let (received, decide) = (Arc::clone(&self.received), Arc::clone(&self.decide));
        self.task = Some(tokio::spawn(async move {
            // Dropped with the task, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&received), Arc::clone(&decide)));
            }
        }));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, received: Arc<Mutex<Vec<Received>>>, decide: Decide) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        received.lock().unwrap().push(request.clone());
        let Answer { head, after } = decide(&request);
        tokio::time::sleep(after).await;
        let answer = format!("{head}content-length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let headers: HashMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some(Received { headers, body: buffer.drain(..length).collect() })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece).await {
        Ok(0) | Err(_) => None,
        Ok(length) => {
            buffer.extend_from_slice(&piece[..length]);
            Some(())
        }
    }
}
