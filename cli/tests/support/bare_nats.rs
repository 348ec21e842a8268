use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection to a nats-server with nothing of ours in it: what a bare publisher sees is the server's doing.
pub struct BareNats {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    asked: u64,
}

impl BareNats {
    pub async fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        write.write_all(b"CONNECT {\"verbose\":false}\r\nSUB bare.* 1\r\n").await?;
        Ok(Self { read: BufReader::new(read), write, asked: 0 })
    }

    /// Publishes and waits for the answer. `None` when there is none in time, or no responder.
    pub async fn ask(&mut self, subject: &str, body: &str, patience: Duration) -> Option<Value> {
        self.asked += 1;
        let reply = format!("bare.{}", self.asked);
        let frame = format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
        self.write.write_all(frame.as_bytes()).await.ok()?;
        tokio::time::timeout(patience, self.answer(&reply)).await.ok()?
    }

    async fn answer(&mut self, reply: &str) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.read.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.write.write_all(b"PONG\r\n").await.ok()?,
                // Late answers of earlier questions are passed over.
                ["MSG", subject, _, size] => {
                    let mut body = vec![0; size.parse::<usize>().ok()? + 2];
                    self.read.read_exact(&mut body).await.ok()?;
                    if *subject == reply {
                        return serde_json::from_slice(&body).ok();
                    }
                }
                _ => {}
            }
        }
    }

    /// A stream of its own with three copies, led by `leader`.
    pub async fn make_stream(&mut self, name: &str, leader: &str) {
        let patience = Duration::from_secs(10);
        let config = json!({"name": name, "subjects": [format!("{name}.>")], "num_replicas": 3,
            "storage": "file", "retention": "limits"});
        let create = format!("$JS.API.STREAM.CREATE.{name}");
        // Refused for a moment by a cluster that has just lost or got back a node.
        for _ in 0..60 {
            match self.ask(&create, &config.to_string(), patience).await {
                Some(made) if made["error"].is_null() => break,
                Some(_) | None => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        let step = json!({"placement": {"preferred": leader}}).to_string();
        for _ in 0..60 {
            let info =
                self.ask(&format!("$JS.API.STREAM.INFO.{name}"), "", patience).await.unwrap_or_default();
            if info["cluster"]["leader"] == leader {
                return;
            }
            self.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}"), &step, patience).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{name} is never led by {leader}");
    }
}
