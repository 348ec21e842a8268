use bytes::Bytes;
use events::recorder::{Encode, Encoder, Incoming};
use events::{
    Actor, AppendEvent, ChainHash, Clock, Event, EventData, EventId, ExecId, ExecOutput, ExecSpec,
    ExecStarted, Frame, OutputStream, Position, SandboxId, SystemClock, TenantId, encode_batch,
};

/// As long as a few lines of text.
const BODY: usize = 256;
/// Execs that write at the same time.
const EXECS: usize = 64;
/// Events in one message: what a pump gathers while a publish is under way.
const PER_MESSAGE: usize = 16;

/// The same events as messages for the recorder and as rows for the floor.
pub struct Workload {
    /// How many events.
    pub events: usize,
    /// The header of the first piece of output, in bytes.
    pub header_bytes: usize,
    /// Messages, as the executor publishes them.
    pub messages: Vec<Bytes>,
    /// Rows, ready to be bound.
    pub rows: Vec<AppendEvent>,
}

impl Workload {
    /// Output of [`EXECS`] execs that take turns, after the start of each.
    pub fn new(outputs: usize) -> anyhow::Result<Self> {
        let execs: Vec<_> = (0..EXECS).map(|_| (SandboxId::new(), ExecId::new())).collect();
        let mut batches: Vec<Vec<Frame>> = Vec::new();
        for (sandbox, exec) in &execs {
            batches.push(vec![event(*sandbox, started(*exec)).to_frame()?]);
        }
        let mut offsets = vec![0u64; EXECS];
        for message in 0..outputs / PER_MESSAGE {
            let (sandbox, exec) = execs[message % EXECS];
            let offset = &mut offsets[message % EXECS];
            let mut frames = Vec::with_capacity(PER_MESSAGE);
            for _ in 0..PER_MESSAGE {
                let bytes = Bytes::from(vec![b'a' + (*offset % 26) as u8; BODY]);
                let output = ExecOutput::new(exec, OutputStream::Stdout, *offset, bytes);
                frames.push(event(sandbox, output).to_frame()?);
                *offset += BODY as u64;
            }
            batches.push(frames);
        }
        let messages = batches.iter().map(|frames| encode_batch(frames)).collect();
        let mut rows = Vec::with_capacity(outputs + EXECS);
        let mut encoder = Encoder::new()?;
        for mut frame in batches.into_iter().flatten() {
            frame.position = Position(rows.len() as u64 + 1);
            let Incoming { event, frame } = Incoming::decode(frame)?;
            let body = encoder.encode(&event, &frame)?;
            rows.push(AppendEvent::new(&event, frame, body, ChainHash([7; 32])));
        }
        let header_bytes = rows.last().map_or(0, |row| row.frame.header.len());
        Ok(Self { events: rows.len(), header_bytes, messages, rows })
    }
}

fn started(exec: ExecId) -> ExecStarted {
    let spec = ExecSpec {
        argv: vec!["true".to_owned()],
        cwd: None,
        user: None,
        tty: None,
        stdin: false,
        timeout_ms: None,
        env_hmac: Default::default(),
        secret_names: Vec::new(),
        request_digest: None,
    };
    ExecStarted { exec, spec, env_names: Vec::new(), pid: 2 }
}

fn event(sandbox: SandboxId, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(sandbox),
        time: SystemClock.now(),
        actor: Actor::Recorder,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}
