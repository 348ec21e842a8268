//! Events to store.

use std::collections::HashSet;

use audit::{Fault, PublicKeys, verify_store};
use bytes::Bytes;
use chrono::{DateTime, TimeZone, Utc};
use events::*;
use record::*;
use recorder::{Draft, Encoder, Incoming, Known, Numberer, Sealing};
use secrets::MasterKey;

pub fn sandbox_id(n: u8) -> SandboxId {
    SandboxId::from_bytes([n; 16])
}

pub fn exec_id(n: u8) -> ExecId {
    ExecId::from_bytes([n; 16])
}

pub fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_750_000_000 + seconds, 123_456_000).single().unwrap()
}

pub fn event(sandbox: Option<u8>, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: tenant("default"),
        sandbox: sandbox.map(sandbox_id),
        time: at(0),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

pub fn requested(owner: Option<&str>) -> SandboxRequested {
    SandboxRequested {
        spec: SandboxSpec {
            provider: "docker".parse().unwrap(),
            image: "alpine:latest".to_owned(),
            memory_mib: 512,
            cpu_millis: 1000,
            pool: None,
            pids_limit: 256,
            network: Network::None,
            read_only_root: false,
            capabilities: None,
            runtime: None,
            owner: owner.map(str::to_owned),
            template: None,
            metadata: Default::default(),
            env_names: Vec::new(),
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
            job: None,
            setup: Vec::new(),
        },
        expires_at: at(60),
        lifetime_ends_at: at(600),
        term: None,
    }
}

pub fn running() -> SandboxRunning {
    SandboxRunning {
        node: "node-1".parse().unwrap(),
        runtime_id: "abc".to_owned(),
        took_us: 10,
        expires_at: None,
        lifetime_ends_at: None,
        address: None,
    }
}

pub fn started(exec: u8) -> ExecStarted {
    ExecStarted {
        exec: exec_id(exec),
        spec: ExecSpec {
            argv: vec!["true".to_owned()],
            cwd: None,
            user: None,
            tty: None,
            stdin: false,
            linger_ms: None,
            timeout_ms: None,
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
        },
        env_names: Vec::new(),
        pid: 7,
    }
}

pub fn output(exec: u8, stream: OutputStream, offset: u64, bytes: impl Into<Bytes>) -> ExecOutput {
    ExecOutput::new(exec_id(exec), stream, offset, bytes)
}

pub fn exited(exec: u8, stdout_bytes: u64, stderr_bytes: u64) -> ExecExited {
    ExecExited {
        exec: exec_id(exec),
        code: 0,
        signal: None,
        asked: None,
        ended: ExecEnded {
            stdout_bytes,
            stderr_bytes,
            truncated_bytes: 0,
            duration_us: 1,
            ..ExecEnded::default()
        },
    }
}

/// Started, one piece of output, exited: in sandbox 1.
pub fn short_exec(exec: u8, bytes: &[u8]) -> Vec<Event> {
    vec![
        event(Some(1), started(exec)),
        event(Some(1), output(exec, OutputStream::Stdout, 0, bytes.to_vec())),
        event(Some(1), exited(exec, bytes.len() as u64, 0)),
    ]
}

/// Numbers batches as the recorder would.
pub struct Recorder {
    numberer: Numberer,
    encoder: Encoder,
    sequence: u64,
    /// Where the chains ended that it goes on with.
    links: std::collections::HashMap<TenantId, ChainHash>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            numberer: Numberer::new(&Head::default()),
            encoder: Encoder::new().unwrap(),
            sequence: 0,
            links: Default::default(),
        }
    }
}

impl Recorder {
    /// One that goes on after a position.
    pub fn after(position: Position) -> Self {
        let head = Head { position, ..Head::default() };
        Self { numberer: Numberer::new(&head), ..Self::default() }
    }

    /// One that goes on where a store ends.
    pub async fn going_on(store: &Record) -> Self {
        let (_, points) = store.chain_points().await.unwrap();
        let links = points.into_iter().map(|point| (point.tenant, point.hash)).collect();
        Self { links, ..Self::after(store.head().await.unwrap().position) }
    }

    /// One that keeps these kinds of things.
    pub fn keeping(registry: Registry) -> Self {
        Self { numberer: Numberer::with(&Head::default(), registry), ..Self::default() }
    }

    /// One that seals bodies.
    pub fn sealing(master_key: &MasterKey) -> Self {
        let sealing = Sealing { enabled: true, master_key: Some(master_key.clone()) };
        Self { encoder: Encoder::with(sealing).unwrap(), ..Self::default() }
    }

    /// What it knew of keys is forgotten; what the store knows is learnt.
    pub async fn restart_encoder(&mut self, store: &Record, sealing: Sealing) {
        self.encoder = Encoder::with(sealing).unwrap();
        let all: Vec<SandboxId> = (0..10).map(sandbox_id).collect();
        let keys = store.keys.of(&all).await.unwrap();
        self.encoder.learn(&all, keys).unwrap();
    }

    pub fn batch(&mut self, events: Vec<Event>) -> AppendBatch {
        let draft = self.draft(events);
        assert_eq!(draft.dropped, []);
        draft.batch
    }

    /// Why events are not recorded, of which none is.
    pub fn dropped(&mut self, events: Vec<Event>) -> Vec<DropReason> {
        let draft = self.draft(events);
        assert_eq!(draft.batch.events, []);
        draft.dropped.into_iter().map(|(_, reason)| reason).collect()
    }

    fn draft(&mut self, events: Vec<Event>) -> Draft {
        let incoming: Vec<Incoming> = events
            .into_iter()
            .map(|event| Incoming { frame: event.to_frame().unwrap(), event, node: None, offered: false })
            .collect();
        let missing = self.numberer.missing(&incoming, false);
        let links = self.links.iter().filter(|(tenant, _)| missing.tenants.contains(tenant));
        let links = links.map(|(tenant, link)| (tenant.clone(), *link)).collect();
        self.numberer.learn(missing, Known { links, ..Known::default() });
        self.sequence += 1;
        let mark = StreamMark { incarnation: "one".to_owned(), sequence: self.sequence };
        self.numberer.draft(incoming, &HashSet::new(), mark, &mut self.encoder).unwrap()
    }
}

pub fn frames(batches: &[&AppendBatch]) -> Vec<Frame> {
    batches.iter().flat_map(|batch| batch.events.iter().map(|event| event.frame.clone())).collect()
}

/// Verifies the log; gives back its end, or the first bad position and what is wrong there.
pub async fn verify(store: &Record) -> Result<Position, (Position, Fault)> {
    let report = verify_store(store, &PublicKeys::default()).await.unwrap();
    match report.finding {
        None => Ok(report.last),
        Some(finding) => Err((finding.position, finding.fault)),
    }
}

pub async fn read_all(store: &Record) -> Vec<Frame> {
    store.read(&EventFilter::default(), Position::ZERO, u32::MAX).await.unwrap()
}

/// Bytes that cannot be compressed, the same every time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}
