//! One deployment, made for one test.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api_gateway::{ApiKey, Gateway, GatewayConfig, Role};
use events::SystemClock;
use feed::{Feed, View};
use record::Record;
use recorder::{JetStreamTransport, RecorderConfig, Sealing};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrets::MasterKey;
use serde_json::Value;
use store::{StoreOptions, open_store_with};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::{LinkClient, Log, NatsConfig};

use super::executor::Executor;

pub const RED: &str = "red-secret";
pub const BLUE: &str = "blue-secret";
pub const OPERATOR: &str = "key-of-operators";

pub struct World {
    pub address: std::net::SocketAddr,
    pub stop: CancellationToken,
    pub store: Record,
    pub log: Log,
    pub serving: Option<JoinHandle<std::io::Result<()>>>,
    client: reqwest::Client,
    _executor: Option<Executor>,
    _nats: Nats,
    _dir: tempfile::TempDir,
}

struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    /// With an executor and two tenants.
    pub async fn start() -> Self {
        Self::with(|_| {}, true).await
    }

    /// The same, and output is kept under a key of its sandbox.
    pub async fn sealed() -> Self {
        Self::build(|_| {}, true, true).await
    }

    pub async fn with(change: impl FnOnce(&mut GatewayConfig), executor: bool) -> Self {
        Self::build(change, executor, false).await
    }

    async fn build(change: impl FnOnce(&mut GatewayConfig), executor: bool, sealed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("nats.conf");
        let store_dir = dir.path().join("nats");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            store_dir.display()
        );
        std::fs::write(&config, text).unwrap();
        let nats = Command::new("nats-server")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed; run scripts/setup");
        let nats = Nats(nats);
        let log = Log::connect(&NatsConfig::new(format!("nats://127.0.0.1:{port}"))).await.unwrap();
        let master_key = Some(MasterKey::random().unwrap());
        let options = StoreOptions { master_key: master_key.clone() };
        let url = format!("sqlite:{}", dir.path().join("events.db").display());
        let store = open_store_with(&url, &options).await.unwrap();
        let recorder_config = RecorderConfig { sealing: Sealing { enabled: sealed, master_key } };
        tokio::spawn(recorder::run_with(
            JetStreamTransport::new(&log),
            store.clone(),
            recorder_config,
            CancellationToken::new(),
        ));
        let feed = Feed::start(&log, store.clone()).await.unwrap();
        let view = View::start(&log, &feed).await.unwrap();
        let executor = if executor { Some(Executor::start(&log, &view).await) } else { None };
        let mut config = Self::config();
        change(&mut config);
        let link = LinkClient::new(&log);
        let gateway =
            Gateway::new(config, log.clone(), store.clone(), feed, view, link, Arc::new(SystemClock));
        // The process's one TLS provider; whoever came first has set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(api_gateway::serve(listener, gateway, stop.clone()));
        Self {
            address,
            stop,
            store,
            log,
            serving: Some(serving),
            client: reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap(),
            _executor: executor,
            _nats: nats,
            _dir: dir,
        }
    }

    /// Another gateway of the same deployment, until this world ends.
    pub async fn another_gateway(&self, change: impl FnOnce(&mut GatewayConfig)) -> std::net::SocketAddr {
        let mut config = Self::config();
        change(&mut config);
        let feed = Feed::start(&self.log, self.store.clone()).await.unwrap();
        let view = View::start(&self.log, &feed).await.unwrap();
        let (log, link) = (self.log.clone(), LinkClient::new(&self.log));
        let gateway = Gateway::new(config, log, self.store.clone(), feed, view, link, Arc::new(SystemClock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(api_gateway::serve(listener, gateway, self.stop.clone()));
        address
    }

    fn config() -> GatewayConfig {
        GatewayConfig {
            keys: vec![key("red", RED), key("blue", BLUE), key("operators", OPERATOR)],
            ..GatewayConfig::default()
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1{path}", self.address)
    }

    /// A request of tenant red.
    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask_as(RED, method, path)
    }

    pub fn ask_as(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.ask_bare(method, path).header("X-API-Key", key)
    }

    /// A request without a key.
    pub fn ask_bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Value {
        json(self.ask(Method::GET, path), 200).await
    }

    pub async fn post(&self, path: &str, body: Value, status: u16) -> Value {
        json(self.ask(Method::POST, path).json(&body), status).await
    }

    pub async fn delete(&self, path: &str) -> Value {
        json(self.ask(Method::DELETE, path), 200).await
    }

    /// The id of a running sandbox of tenant red.
    pub async fn sandbox(&self) -> String {
        let sandbox = self.post("/sandboxes", serde_json::json!({}), 201).await;
        assert_eq!(sandbox["state"], "running", "{sandbox}");
        sandbox["id"].as_str().unwrap().to_owned()
    }

    pub async fn exec(&self, sandbox: &str, command: &str, status: u16) -> Value {
        self.post(&format!("/sandboxes/{sandbox}/exec"), serde_json::json!({ "command": command }), status)
            .await
    }
}

pub fn key(tenant: &str, secret: &str) -> ApiKey {
    use sha2::Digest as _;
    ApiKey {
        id: format!("key-of-{tenant}").parse().unwrap(),
        tenant: tenant.parse().unwrap(),
        role: if tenant == "operators" { Role::DeploymentAdmin } else { Role::Member },
        sha256: sha2::Sha256::digest(secret).into(),
    }
}

/// The body of an answer that must have this status.
pub async fn json(request: RequestBuilder, status: u16) -> Value {
    let response = request.send().await.unwrap();
    let (found, text) = text(response).await;
    assert_eq!(found.as_u16(), status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The code of a flat error with this status.
pub async fn error(request: RequestBuilder, status: u16) -> String {
    let body = json(request, status).await;
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
    body["code"].as_str().unwrap().to_owned()
}

async fn text(response: Response) -> (StatusCode, String) {
    (response.status(), response.text().await.unwrap())
}

impl World {
    /// What a counter of this process says, which all tests of it share.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask_as(OPERATOR, Method::GET, "/metrics/prometheus");
        let text = metrics.send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a counter is over a value.
    pub async fn metric_passes(&self, name: &str, value: f64) {
        for _ in 0..600 {
            if self.metric(name).await > value {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} stays at {value}");
    }
}
