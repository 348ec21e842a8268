//! The seam between the executor and a provider: boxes whose agents are reached over something else than a unix socket of this machine.
//! Here they are processes behind a relay on TCP that wants to be told where to go, as the vsock of a microVM does, and of which the
//! first connection comes back empty, as after a resume.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod world;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::client::{Client, Connect, ConnectFuture, Connection};
use async_trait::async_trait;
use events::*;
use executor::provider::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use transport::*;
use world::World;

/// The way through the relay.
struct Relayed {
    relay: SocketAddr,
    id: SandboxId,
}

impl Connect for Relayed {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            let mut stream = TcpStream::connect(self.relay).await?;
            stream.set_nodelay(true)?;
            stream.write_all(format!("CONNECT {}\n", self.id).as_bytes()).await?;
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).await?;
            if &answer != b"OK\n" {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }

    fn place(&self) -> String {
        format!("relay:{}/{}", self.relay, self.id)
    }
}

/// Agents as plain processes, and the relay to them.
struct Remote {
    name: ProviderName,
    relay: SocketAddr,
    directory: PathBuf,
    boxes: Arc<Mutex<HashMap<SandboxId, Child>>>,
    connected: Arc<AtomicUsize>,
}

impl Remote {
    fn start(directory: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let relay = listener.local_addr().unwrap();
        let connected = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(listener, directory.to_owned(), Arc::clone(&connected)));
        let name = "remote".parse().unwrap();
        Self { name, relay, directory: directory.to_owned(), boxes: Arc::default(), connected }
    }

    fn handle(&self, id: SandboxId) -> BoxHandle {
        BoxHandle {
            id,
            provider: self.name.clone(),
            runtime_id: id.to_string(),
            agent: Relayed { relay: self.relay, id }.into(),
            running: true,
            address: None,
        }
    }
}

async fn serve(listener: std::net::TcpListener, directory: PathBuf, connected: Arc<AtomicUsize>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let (directory, connected) = (directory.clone(), Arc::clone(&connected));
        tokio::spawn(async move {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                line.push(near.read_u8().await?);
            }
            if connected.fetch_add(1, Ordering::SeqCst) == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            let id = line.trim().strip_prefix("CONNECT ").unwrap_or_default();
            let mut far = UnixStream::connect(directory.join(id).join("sock")).await?;
            near.write_all(b"OK\n").await?;
            tokio::io::copy_bidirectional(&mut near, &mut far).await.map(|_| ())
        });
    }
}

#[async_trait]
impl Provider for Remote {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("none", [])
    }

    async fn create(&self, order: &BoxOrder, _: &dyn PullProgress) -> Result<BoxHandle, CreateError> {
        let directory = self.directory.join(order.id.to_string());
        std::fs::create_dir_all(&directory).map_err(|error| CreateError::Failed(error.into()))?;
        let agent = Process::new(world::agent())
            .arg("--any-peer")
            .arg("--socket")
            .arg(directory.join("sock"))
            .arg("--run-dir")
            .arg(&directory)
            .arg("--workspace")
            .arg(&directory)
            .spawn()
            .map_err(|error| CreateError::Failed(error.into()))?;
        self.boxes.lock().unwrap().insert(order.id, agent);
        let handle = self.handle(order.id);
        let client = Client::with(handle.agent.clone());
        for _ in 0..500 {
            match client.ping().await {
                Ok(()) => return Ok(handle),
                Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(CreateError::AgentUnreachable(error.into())),
            }
        }
        Err(CreateError::DeadlinePassed)
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), DestroyError> {
        let process = self.boxes.lock().unwrap().remove(&id);
        if let Some(mut process) = process {
            let pid = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            tokio::task::spawn_blocking(move || process.wait()).await.unwrap().unwrap();
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BoxHandle>, ListError> {
        Ok(self.boxes.lock().unwrap().keys().map(|id| self.handle(*id)).collect())
    }

    async fn stats(&self, _: SandboxId) -> Result<BoxStats, StatsError> {
        Err(StatsError::Unsupported)
    }

    async fn health(&self) -> Result<Health, HealthError> {
        Ok(Health { latency: Duration::ZERO, version: "0".to_owned(), warnings: Vec::new() })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        for (_, process) in self.boxes.lock().unwrap().iter_mut() {
            let pid = rustix::process::Pid::from_child(process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = process.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_far_away_serves_like_a_near_one() {
    let mut connected = None;
    let mut world = World::with(|dir, _| {
        let remote = Remote::start(&dir.join("remote"));
        connected = Some(Arc::clone(&remote.connected));
        Arc::new(remote)
    })
    .await;
    let sandbox = world.create("any").await;
    world.until(sandbox, "sandbox.running").await;
    let exec = world.start_exec(sandbox, "echo near; exit 3").await;
    let (stdout, end) = world.output(exec).await;
    assert_eq!(
        (&stdout[..], matches!(end, ExecEnd::Exited { code: 3, .. })),
        (&b"near\n"[..], true),
        "{end:?}"
    );

    // Its next executor finds it, and what ran meanwhile.
    let exec =
        world.start_exec(sandbox, "echo before; while ! test -e go; do sleep 0.05; done; echo after").await;
    world.until(sandbox, "exec.started").await;
    world.stop_executor().await;
    world.start_executor();
    let other = world.start_exec(sandbox, "touch go").await;
    assert!(matches!(world.output(other).await.1, ExecEnd::Exited { code: 0, .. }));
    assert_eq!(world.output(exec).await.0, b"before\nafter\n");
    let destroy = world.envelope(sandbox, Command::DestroySandbox { reason: DestroyReason::User });
    world.log.send(Destination::Node(&world.node), &destroy).await.unwrap();
    world.until(sandbox, "sandbox.destroyed").await;
    assert!(connected.unwrap().load(Ordering::SeqCst) > 4);
}
