//! `stacyvm serve` as a child process, and a client of its API.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::attached::Attached;
use tokio::process::{Child, Command};

/// How long it may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with a data directory of its own.
pub struct Serve {
    child: Child,
    dir: TempDir,
    /// Up to the version of the API.
    base: String,
    /// Keeps its connections.
    pub http: Client,
    image: String,
}

/// The server binary: STACYVM_BIN, else the installed one, else the one that was built beside this program.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env_path("STACYVM_BIN") {
        return path.canonicalize().with_context(|| format!("STACYVM_BIN: {}", path.display()));
    }
    let beside = std::env::current_exe()?.with_file_name("stacyvm");
    [dist("stacyvm"), beside.clone()].into_iter().find(|path| path.is_file()).with_context(|| {
        format!("neither {} nor {} is there: run `make build`", dist("stacyvm").display(), beside.display())
    })
}

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(name)
}

/// A path from the environment.
pub fn env_path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

impl Serve {
    /// Starts it and waits until it is ready.
    pub async fn start(
        binary: &Path,
        agent: Option<PathBuf>,
        image: &str,
        environment: &[(&str, &str)],
        yaml: &str,
    ) -> anyhow::Result<Self> {
        let agent = agent.unwrap_or_else(|| dist("stacyvm-agent"));
        let agent = agent
            .canonicalize()
            .with_context(|| format!("no agent at {}: run `make agent`", agent.display()))?;
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let log = std::fs::File::create(dir.path().join("serve.log"))?;
        let config = dir.path().join("stacyvm.yaml");
        std::fs::write(&config, yaml)?;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACYVM_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["serve", "--provider", "docker", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(dir.path().join("data"))
            .envs(environment.iter().copied())
            .env("STACYVM_AGENT", agent)
            // One that lies where the bench happens to run is not part of the measurement.
            .arg("--config")
            .arg(&config)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        // The process's one TLS provider; whoever came first has set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let base = format!("http://127.0.0.1:{port}/api/v1");
        let mut serve = Self { child, dir, base, http, image: image.to_owned() };
        serve.wait_ready().await?;
        Ok(serve)
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let asked = self.http.get(self.url("/ready")).timeout(Duration::from_secs(2)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("stacyvm serve ended with {status}: {}", self.last_lines());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "stacyvm serve is not ready after {PATIENCE:?}: {}",
                self.last_lines()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    /// Ends it as an operator would; the hard way if that takes too long.
    pub async fn stop(&mut self) {
        let Some(pid) = self.pid() else { return };
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The nats-server that it started.
    pub fn nats_pid(&self) -> anyhow::Result<u32> {
        let path = self.data("nats/pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.trim().parse().context("nats/pid")
    }

    /// A file in its data directory.
    pub fn data(&self, path: &str) -> PathBuf {
        self.dir.path().join("data").join(path)
    }

    /// What its containers are labelled with.
    pub fn deployment(&self) -> anyhow::Result<String> {
        let path = self.data("installation");
        let name = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(name.trim().to_owned())
    }

    /// With another client, such as one that has a key.
    pub fn with_client(self, http: Client) -> Self {
        Self { http, ..self }
    }

    /// Where a path of the API is.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The host and port, and the path, of a WebSocket.
    pub fn websocket(&self, path: &str) -> anyhow::Result<(String, String)> {
        let base = self.base.trim_start_matches("http://");
        let (authority, prefix) = base.split_once('/').context("an address without a path")?;
        Ok((authority.to_owned(), format!("/{prefix}{path}")))
    }

    /// A sandbox that runs. Image and provider are filled in.
    pub async fn spawn(&self, mut request: Value) -> anyhow::Result<String> {
        request["image"] = json!(self.image);
        request["ttl"] = json!("2h");
        let answer = self.http.post(self.url("/sandboxes")).json(&request).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        ensure!(status == 201 && body["state"] == "running", "spawn answered {status}: {body}");
        body["id"].as_str().map(str::to_owned).context("spawn answered without an id")
    }

    /// Destroys a sandbox and waits until it is gone.
    pub async fn destroy(&self, sandbox: &str) -> anyhow::Result<()> {
        let answer = self.http.delete(self.url(&format!("/sandboxes/{sandbox}"))).send().await?;
        let status = answer.status().as_u16();
        answer.bytes().await?;
        ensure!(status == 200, "destroy answered {status}");
        Ok(())
    }

    /// Runs a program to its end.
    pub async fn exec(&self, sandbox: &str, argv: &[&str]) -> anyhow::Result<()> {
        let body = json!({"command": argv[0], "args": argv[1..], "mode": "argv"});
        let answer =
            self.http.post(self.url(&format!("/sandboxes/{sandbox}/exec"))).json(&body).send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        ensure!(status == 200, "exec answered {status}: {}", String::from_utf8_lossy(&body));
        let reply: Value = serde_json::from_slice(&body)?;
        ensure!(reply["exit_code"] == 0, "the command failed: {reply}");
        Ok(())
    }

    /// Starts a shell line whose output is streamed: its id, and the NDJSON from the second record on.
    pub async fn start_streamed(&self, sandbox: &str, line: &str) -> anyhow::Result<(String, Response)> {
        let body = json!({"command": line, "stream": true});
        let answer =
            self.http.post(self.url(&format!("/sandboxes/{sandbox}/exec"))).json(&body).send().await?;
        ensure!(answer.status().is_success(), "a streamed exec answered {}", answer.status());
        let id = answer.headers().get("x-exec-id").context("no X-Exec-ID")?.to_str()?.to_owned();
        Ok((id, answer))
    }

    /// Opens the NDJSON of an exec.
    pub async fn records(&self, exec: &str) -> anyhow::Result<Response> {
        self.open(&format!("/execs/{exec}/stream")).await
    }

    /// Opens stdout of an exec as raw bytes, to its end.
    pub async fn output(&self, exec: &str) -> anyhow::Result<Response> {
        self.open(&format!("/execs/{exec}/output?stream=stdout&follow=true")).await
    }

    /// An exec is known as soon as its start is recorded, which is a moment after it was asked for.
    async fn open(&self, path: &str) -> anyhow::Result<Response> {
        let began = Instant::now();
        loop {
            let answer = self.http.get(self.url(path)).send().await?;
            match answer.status().as_u16() {
                200 => return Ok(answer),
                404 if began.elapsed() < Duration::from_secs(10) => {
                    tokio::time::sleep(Duration::from_millis(1)).await
                }
                status => bail!("{path} answered {status}"),
            }
        }
    }

    /// Starts a shell line, detached.
    pub async fn start_detached(&self, sandbox: &str, line: &str) -> anyhow::Result<String> {
        self.detach(sandbox, json!({"command": line, "detach": true})).await
    }

    /// Starts a shell line with a terminal, detached.
    pub async fn start_terminal(&self, sandbox: &str, line: &str) -> anyhow::Result<String> {
        let size =
            json!({"command": line, "detach": true, "tty": true, "rows": 24, "cols": 80, "stdin": true});
        self.detach(sandbox, size).await
    }

    async fn detach(&self, sandbox: &str, body: Value) -> anyhow::Result<String> {
        let answer =
            self.http.post(self.url(&format!("/sandboxes/{sandbox}/exec"))).json(&body).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        ensure!(status == 202, "a detached exec answered {status}: {body}");
        body["exec_id"].as_str().map(str::to_owned).context("a detached exec without an id")
    }

    /// Attaches to an exec, from its first byte on.
    pub async fn attach(&self, exec: &str) -> anyhow::Result<Attached> {
        Attached::open(self.base.trim_start_matches("http://"), exec).await
    }

    /// How many bytes of stdout the record has of an exec.
    pub async fn recorded_bytes(&self, exec: &str) -> anyhow::Result<u64> {
        let answer: Value = self.open(&format!("/execs/{exec}")).await?.json().await?;
        answer["stdout_bytes"].as_u64().context("no stdout_bytes")
    }

    /// Uploads a file.
    pub async fn upload(&self, sandbox: &str, path: &str, content: Bytes) -> anyhow::Result<()> {
        let url = self.url(&format!("/sandboxes/{sandbox}/files?path={path}"));
        let answer = self.http.put(url).body(content).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "an upload answered {status}: {body}");
        Ok(())
    }

    /// Opens a file for download.
    pub async fn download(&self, sandbox: &str, path: &str) -> anyhow::Result<Response> {
        self.open(&format!("/sandboxes/{sandbox}/files?path={path}")).await
    }
}

/// Reads a body to its end and counts.
pub async fn drain(answer: Response) -> anyhow::Result<u64> {
    let mut body = answer.bytes_stream();
    let mut total = 0;
    while let Some(bytes) = body.next().await {
        total += bytes?.len() as u64;
    }
    Ok(total)
}
