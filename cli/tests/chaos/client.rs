//! A client that tries again, through any gateway, with the same key: as a real one would.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;

/// How long one try may take.
pub const ONE_TRY: Duration = Duration::from_secs(5);
/// How long it is tried. Longer than any fault lasts, with all that follows it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a promise was that was not kept.
pub type Violation = String;

pub struct Client {
    pub http: reqwest::Client,
    gateways: Vec<String>,
    key: String,
    turn: AtomicUsize,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("{}: {}", self.status, text.chars().take(300).collect::<String>())
    }

    /// Whether a client that is told this tries again.
    fn is_passing(&self) -> bool {
        matches!(self.status, 429 | 500 | 502 | 503 | 504)
            || (self.status == 409 && String::from_utf8_lossy(&self.body).contains("try again"))
    }
}

impl Client {
    pub fn new(gateways: Vec<String>, key: String) -> Self {
        // The process's one TLS provider; whoever came first has set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, gateways, key, turn: AtomicUsize::new(0) }
    }

    /// A route at whichever gateway is next.
    pub fn url(&self, path: &str) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        format!("{}{path}", self.gateways[turn % self.gateways.len()])
    }

    /// A request to whichever gateway is next.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).header("x-api-key", &self.key)
    }

    /// Tries until there is an answer that stands.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        key: Option<&str>,
    ) -> Result<Answer, Violation> {
        let (began, body) = (Instant::now(), body.into());
        let mut last = String::new();
        while began.elapsed() < PATIENCE {
            let mut request = self.request(method.clone(), path).timeout(ONE_TRY);
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            match once(request.body(body.clone())).await {
                Ok(answer) if !answer.is_passing() => return Ok(answer),
                Ok(answer) => last = answer.text(),
                Err(error) => last = format!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Err(format!("{method} {path} finds no answer within {PATIENCE:?}; the last was {last}"))
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Violation> {
        self.call(Method::GET, path, Bytes::new(), None).await
    }

    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Answer, Violation> {
        self.call(Method::POST, path, body.to_string(), key).await
    }
}

async fn once(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer { status: response.status().as_u16(), body: response.bytes().await? })
}

/// Says what is wrong unless it is as it must be.
#[macro_export]
macro_rules! hold {
    ($what:expr, $($text:tt)*) => {
        if !$what {
            return Err(format!($($text)*));
        }
    };
}
