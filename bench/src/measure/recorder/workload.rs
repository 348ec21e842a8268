use bytes::Bytes;
use events::{
    Actor, ChainHash, Clock, Event, EventData, EventId, ExecId, ExecOutput, ExecSpec, ExecStarted, Frame,
    OutputStream, Position, SandboxId, SystemClock, TenantId, encode_batch,
};
use record::AppendEvent;
use recorder::{Encode, Encoder, Incoming};

/// As long as a few lines of text.
const BODY: usize = 256;
/// Execs that write at the same time.
const EXECS: usize = 64;
/// Events in one message: what a pump gathers while a publish is under way.
const PER_MESSAGE: usize = 16;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A few letters, [`BODY`] bytes a piece.
    Short,
    /// What a build prints, 64 KiB a piece.
    Text,
    /// What no compression makes smaller, 64 KiB a piece.
    Noise,
    /// One line of 80 bytes a piece.
    Lines,
}

impl Content {
    /// The piece that begins at an offset.
    fn piece(self, offset: u64) -> Vec<u8> {
        match self {
            Self::Short => vec![b'a' + (offset % 26) as u8; BODY],
            Self::Text => text(offset, 64 << 10),
            Self::Lines => text(offset, 80),
            Self::Noise => {
                let mut state = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                };
                (0..64 << 10).map(|_| next()).collect()
            }
        }
    }

    const fn per_message(self) -> usize {
        match self {
            Self::Short | Self::Lines => PER_MESSAGE,
            // A message has at most 8 MiB.
            Self::Text | Self::Noise => 4,
        }
    }
}

/// Lines that resemble each other as much as those of a build do.
fn text(offset: u64, len: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(len + 100);
    let mut number = offset;
    while text.len() < len {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (file, line, word) = (number >> 48, (number >> 32) % 4_000, (number >> 20) % 64);
        text.extend_from_slice(
            format!("   Compiling module_{file} v0.1.{word} (/build/src/part_{word}/file_{line}.rs)\n")
                .as_bytes(),
        );
    }
    text.truncate(len);
    text
}

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
        Self::of(Content::Short, outputs)
    }

    /// The same, of other content.
    pub fn of(content: Content, outputs: usize) -> anyhow::Result<Self> {
        let per_message = content.per_message();
        let execs: Vec<_> = (0..EXECS).map(|_| (SandboxId::new(), ExecId::new())).collect();
        let mut batches: Vec<Vec<Frame>> = Vec::new();
        for (sandbox, exec) in &execs {
            batches.push(vec![event(*sandbox, started(*exec)).to_frame()?]);
        }
        let mut offsets = vec![0u64; EXECS];
        for message in 0..outputs / per_message {
            let (sandbox, exec) = execs[message % EXECS];
            let offset = &mut offsets[message % EXECS];
            let mut frames = Vec::with_capacity(per_message);
            for _ in 0..per_message {
                let bytes = Bytes::from(content.piece(*offset + message as u64 % EXECS as u64));
                let len = bytes.len() as u64;
                let output = ExecOutput::new(exec, OutputStream::Stdout, *offset, bytes);
                frames.push(event(sandbox, output).to_frame()?);
                *offset += len;
            }
            batches.push(frames);
        }
        let messages = batches.iter().map(|frames| encode_batch(frames)).collect();
        let mut rows = Vec::with_capacity(outputs + EXECS);
        let mut encoder = Encoder::new()?;
        for mut frame in batches.into_iter().flatten() {
            frame.position = Position(rows.len() as u64 + 1);
            let Incoming { event, frame, .. } = Incoming::decode(frame)?;
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
        linger_ms: None,
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
