//! An executor with all that it needs: a real nats-server, a real recorder on SQLite, a provider.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use events::*;
use executor::provider::{Pooled, Provider};
use executor::providers::docker::{DockerConfig, DockerProvider};
use executor::{Executor, ExecutorConfig};
use feed::*;
use record::EventStore;
use recorder::JetStreamTransport;
use tokio_util::sync::CancellationToken;
use transport::*;

/// What `scripts/setup` makes.
pub const IMAGE: &str = "stacyvm/base:local";

pub struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    pub log: Log,
    pub feed: Feed,
    pub node: NodeId,
    pub provider: Arc<dyn Provider>,
    pub pool: PoolName,
    /// Where artifacts go.
    pub objects: objects::Store,
    pub executor: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    _dir: tempfile::TempDir,
    _nats: Nats,
}

pub fn agent() -> std::path::PathBuf {
    let path =
        std::env::var("STACYVM_AGENT").expect("STACYVM_AGENT names the static agent; run `make agent`");
    std::fs::canonicalize(path).expect("the agent is there")
}

impl Drop for World {
    fn drop(&mut self) {
        // What sandboxes that are left share with the executor.
        for entry in std::fs::read_dir(self._dir.path().join("docker")).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl World {
    /// With a real Docker engine.
    pub async fn start() -> Self {
        Self::with(|dir, port| {
            let mut docker =
                DockerConfig::new(dir.join("docker"), agent(), "node-1".parse().unwrap()).unwrap();
            docker.deployment = format!("test-{port}-{}", std::process::id());
            Arc::new(DockerProvider::new(docker).unwrap())
        })
        .await
    }

    /// With boxes from anybody, who gets a directory and a number that no other world has.
    pub async fn with(provider: impl FnOnce(&std::path::Path, u16) -> Arc<dyn Provider>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            dir.path().join("nats").display()
        );
        std::fs::write(&config, text).unwrap();
        let nats = Process::new("nats-server")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed; run scripts/setup");
        let nats = Nats(nats);
        let log = Log::connect(&NatsConfig::new(format!("nats://127.0.0.1:{port}"))).await.unwrap();
        let store =
            store::open_store(&format!("sqlite:{}", dir.path().join("events.db").display())).await.unwrap();
        tokio::spawn(serve_queries_forever(log.clone(), store.store.clone()));
        tokio::spawn(recorder::run(JetStreamTransport::new(&log), store.clone(), CancellationToken::new()));
        let feed = Feed::start(&log, store).await.unwrap();
        let node: NodeId = "node-1".parse().unwrap();
        let provider = provider(dir.path(), port);
        let pool = "a-pool".parse().unwrap();
        let backend = objects::Backend::Local(dir.path().join("artifacts"));
        let limits = objects::Limits { owner_count: 5, ..objects::Limits::default() };
        let objects = objects::Store::open(&objects::Settings { backend, limits }).unwrap();
        let mut world =
            Self { log, feed, node, provider, pool, objects, executor: None, _dir: dir, _nats: nats };
        world.start_executor();
        world
    }

    pub fn start_executor(&mut self) {
        self.start_executor_with(1 << 30);
    }

    pub fn start_executor_with(&mut self, max_output_bytes: u64) {
        let stop = CancellationToken::new();
        let config = ExecutorConfig {
            node: self.node.clone(),
            capacity: 100,
            max_output_bytes,
            linger: Duration::from_millis(100),
            redaction: secrets::RedactionRules::default(),
            record_input: false,
            disk: policy::DiskFloor::default(),
            objects: Some(self.objects.clone()),
            agent_connections: 1000,
        };
        let executor = Executor::new(
            config,
            self.log.clone(),
            vec![Pooled { pool: self.pool.clone(), provider: Arc::clone(&self.provider) }],
            Arc::new(SystemClock),
            stop.clone(),
        );
        let task = tokio::spawn(async move { executor.run().await.unwrap() });
        self.executor = Some((stop, task));
    }

    pub async fn stop_executor(&mut self) {
        let (stop, task) = self.executor.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    pub fn envelope(&self, sandbox: SandboxId, command: Command) -> CommandEnvelope {
        CommandEnvelope {
            id: CommandId::new(),
            tenant: TenantId::default_tenant(),
            actor: Actor::Client { key: None, user: None },
            request_id: None,
            traceparent: None,
            sandbox,
            command,
        }
    }

    pub async fn create(&self, image: &str) -> SandboxId {
        self.create_with(image, SecretMap::default()).await
    }

    pub async fn create_with(&self, image: &str, env: SecretMap) -> SandboxId {
        self.create_for(image, env, chrono::TimeDelta::minutes(5)).await
    }

    pub async fn create_for(&self, image: &str, env: SecretMap, time: chrono::TimeDelta) -> SandboxId {
        let sandbox = SandboxId::new();
        let spec = SandboxSpec {
            provider: self.provider.name().clone(),
            image: image.to_owned(),
            memory_mib: 128,
            cpu_millis: 1000,
            pool: Some(self.pool.clone()),
            pids_limit: 64,
            network: Network::None,
            read_only_root: false,
            capabilities: None,
            runtime: None,
            owner: None,
            template: None,
            metadata: Default::default(),
            env_names: env.names(),
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
            job: None,
            setup: Vec::new(),
        };
        let now = SystemClock.now();
        let expires_at = now + time;
        let requested = SandboxRequested {
            spec: spec.clone(),
            expires_at,
            lifetime_ends_at: now + chrono::TimeDelta::hours(1),
            term: None,
        };
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: Some(sandbox),
            time: now,
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: requested.into(),
        };
        self.log.publish(&[event]).await.unwrap();
        let command = self
            .envelope(sandbox, Command::CreateSandbox { spec: spec.clone(), env, expires_at, term: None });
        self.log.send(Destination::Pool(&spec.pool()), &command).await.unwrap();
        sandbox
    }

    pub async fn start_exec(&self, sandbox: SandboxId, script: &str) -> ExecId {
        let exec = ExecId::new();
        let spec = ExecSpec {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: None,
            user: None,
            tty: None,
            stdin: false,
            linger_ms: None,
            timeout_ms: None,
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
        };
        let command = self.envelope(sandbox, Command::StartExec { exec, spec, env: SecretMap::default() });
        self.log.send(Destination::Node(&self.node), &command).await.unwrap();
        exec
    }

    /// Reads the sandbox's events until one is of the type.
    pub async fn until(&self, sandbox: SandboxId, type_name: &str) -> Vec<Arc<Recorded>> {
        let mut reader = self.feed.subscribe(Topic::Sandbox(sandbox), After::Position(Position::ZERO));
        let mut seen = Vec::new();
        let read = async {
            loop {
                let recorded = reader.next().await.unwrap();
                let found = recorded.event.data.type_name() == type_name;
                seen.push(recorded);
                if found {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), read).await.is_err() {
            let types: Vec<_> = seen.iter().map(|recorded| format!("{:?}", recorded.event.data)).collect();
            panic!("no {type_name} in {types:#?}");
        }
        seen
    }

    pub async fn output(&self, exec: ExecId) -> (Vec<u8>, ExecEnd) {
        let mut reader = self.feed.exec_output(exec, 0, 0).await.unwrap();
        let mut stdout = Vec::new();
        loop {
            match reader.next().await.unwrap().unwrap() {
                OutputItem::Output { bytes, .. } => stdout.extend_from_slice(&bytes),
                OutputItem::Gone { .. } => panic!("output is gone"),
                OutputItem::Started | OutputItem::Resized(_) => {}
                OutputItem::Ended { end, .. } => return (stdout, end),
                OutputItem::Closed(_) => panic!("closed before its end"),
            }
        }
    }
}

async fn serve_queries_forever(log: Log, store: Arc<dyn EventStore>) {
    recorder::serve_queries(&log, store, CancellationToken::new()).await;
}

pub fn types(events: &[Arc<Recorded>]) -> Vec<&'static str> {
    events.iter().map(|recorded| recorded.event.data.type_name()).collect()
}
