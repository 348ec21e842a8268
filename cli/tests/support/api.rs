use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

/// A client of the REST API that fails the test when an answer is not what it should be.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub http: reqwest::Client,
}

/// What an NDJSON stream said.
#[derive(Debug, Default, Clone)]
pub struct Streamed {
    pub exec: Option<String>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: Option<i64>,
    /// Whether the last record has come: the one that says how it ended.
    pub ended: bool,
    /// Whether the connection broke before the exit record.
    pub broken: bool,
}

impl Api {
    pub fn new(port: u16) -> Self {
        // The process's one TLS provider; whoever came first has set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { base: format!("http://127.0.0.1:{port}/api/v1"), http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn ready(&self) -> bool {
        let answer = self.http.get(self.url("/ready")).timeout(Duration::from_secs(2)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.http.post(self.url(path)).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn spawn(&self, body: Value) -> String {
        let (status, answer) = self.post("/sandboxes", body).await;
        assert_eq!(status, 201, "{answer}");
        assert_eq!(answer["state"], "running", "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    pub async fn exec(&self, sandbox: &str, command: &str) -> Value {
        let (status, answer) =
            self.post(&format!("/sandboxes/{sandbox}/exec"), json!({"command": command})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn destroy(&self, sandbox: &str) -> u16 {
        let answer = self.http.delete(self.url(&format!("/sandboxes/{sandbox}"))).send().await.unwrap();
        answer.status().as_u16()
    }

    /// Starts an exec whose output is streamed, with all records.
    pub async fn start_stream(&self, sandbox: &str, command: &str) -> reqwest::Response {
        let body = json!({"command": command, "stream": true});
        let url = self.url(&format!("/sandboxes/{sandbox}/exec?records=all"));
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer
    }

    /// Output of an exec from an offset on, to its end. `None` when the connection broke first.
    pub async fn follow(&self, exec: &str, stream: &str, offset: usize, into: &mut Vec<u8>) -> Option<()> {
        let path = format!("/execs/{exec}/output?stream={stream}&offset={offset}&follow=true");
        let answer = self.http.get(self.url(&path)).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let mut body = answer.bytes_stream();
        while let Some(bytes) = body.next().await {
            into.extend_from_slice(&bytes.ok()?);
        }
        Some(())
    }
}

impl Streamed {
    /// Reads a stream to its end; `seen` hears of every record.
    pub async fn read(answer: reqwest::Response, mut seen: impl FnMut(&Self)) -> Self {
        let mut all = Self::default();
        let mut body = answer.bytes_stream();
        let mut rest: Vec<u8> = Vec::new();
        loop {
            match body.next().await {
                Some(Ok(bytes)) => rest.extend_from_slice(&bytes),
                Some(Err(_)) => all.broken = true,
                None => break,
            }
            if all.broken {
                break;
            }
            let complete = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let whole: Vec<u8> = rest.drain(..complete).collect();
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                all.record(&serde_json::from_slice(line).unwrap());
                seen(&all);
            }
        }
        all.broken |= all.exit_code.is_none();
        all
    }

    fn record(&mut self, record: &Value) {
        if let Some(exec) = record["exec_id"].as_str() {
            self.exec = Some(exec.to_owned());
        }
        self.ended |= record.get("outcome").is_some();
        if let Some(code) = record["exit_code"].as_i64() {
            self.exit_code = Some(code);
        }
        let data = record["data"].as_str().unwrap_or_default().as_bytes();
        match record["stream"].as_str() {
            Some("stdout") => self.stdout.extend_from_slice(data),
            Some("stderr") => self.stderr.extend_from_slice(data),
            _ => {}
        }
    }
}
