//! An executor that makes nothing: it says that what was asked for happened, as its script has it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use events::{
    Actor, Clock, Command, CommandEnvelope, Event, EventData, EventId, ExecEnded, ExecExited, ExecFailed,
    ExecId, ExecOutcomeUnknown, ExecOutput, ExecSpec, ExecStarted, ExecTimedOut, FailureCode, NodeId,
    OutputStream, PoolName, SandboxDestroyed, SandboxFailed, SandboxRunning, SandboxStarting,
    SandboxTtlExtended, SystemClock,
};
use feed::View;
use tokio::task::JoinHandle;
use transport::{
    FaultCode, FileEntry, Heartbeat, LinkFault, LinkIncoming, LinkOp, LinkServer, LinkValue, Log,
    ProviderHealth, SandboxStats,
};

/// How many pieces of 64 KiB "pour" writes.
pub const POURED: u64 = 320;

pub struct Executor(Vec<JoinHandle<()>>);

impl Drop for Executor {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Clone)]
struct Script {
    log: Log,
    node: NodeId,
}

impl Executor {
    pub async fn start(log: &Log, view: &View) -> Self {
        let script = Script { log: log.clone(), node: "node-1".parse().unwrap() };
        let docker = "docker".parse().unwrap();
        let mut spawns = log.pool_commands(&PoolName::from(&docker));
        let mut commands = log.node_commands(&script.node);
        let mut link = LinkServer::listen(log, &script.node).await.unwrap();
        let (spawner, runner, starter, beater) = (script.clone(), script.clone(), script.clone(), script);
        let tasks = vec![
            tokio::spawn(async move { beater.beat().await }),
            tokio::spawn(async move {
                while let Ok(delivery) = spawns.next().await {
                    spawner.carry_out(&delivery.envelope).await;
                    delivery.ack().await;
                }
            }),
            tokio::spawn(async move {
                while let Ok(delivery) = commands.next().await {
                    runner.carry_out(&delivery.envelope).await;
                    delivery.ack().await;
                }
            }),
            tokio::spawn(async move {
                let mut files = HashMap::new();
                while let Some(incoming) = link.next().await {
                    match starter.started(&incoming) {
                        // One after the other, as commands are.
                        Some(envelope) => {
                            incoming.answer(Ok(LinkValue::Done)).await;
                            starter.carry_out(&envelope).await;
                        }
                        None => answer(incoming, &mut files).await,
                    }
                }
            }),
        ];
        while !view.pool_is_served(&docker, &PoolName::from(&docker)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self(tasks)
    }
}

impl Script {
    async fn beat(&self) {
        loop {
            let health = ProviderHealth {
                name: "docker".parse().unwrap(),
                pool: None,
                healthy: true,
                latency_ms: 1,
                error: None,
                capabilities: vec!["exec".to_owned()],
                boxes: 0,
                warnings: Vec::new(),
            };
            let heartbeat = Heartbeat {
                node: self.node.clone(),
                providers: vec![health],
                capacity: 100,
                used: 0,
                draining: false,
                machine: Some(transport::Machine { cpus: 64, memory_mib: 32 << 10 }),
            };
            self.log.beat(&heartbeat).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The command that a start without one would be.
    fn started(&self, incoming: &LinkIncoming) -> Option<CommandEnvelope> {
        let request = incoming.request.clone();
        let LinkOp::StartExec { command, exec, spec, env, .. } = request.op else { return None };
        Some(CommandEnvelope {
            id: command,
            tenant: request.tenant,
            actor: request.actor,
            request_id: request.request_id,
            traceparent: request.traceparent,
            sandbox: request.sandbox,
            command: Command::StartExec { exec, spec, env },
        })
    }

    async fn carry_out(&self, envelope: &CommandEnvelope) {
        let facts: Vec<EventData> = match &envelope.command {
            Command::CreateSandbox { spec, .. } if spec.image == "no/such:image" => {
                let message = "no registry has the image".to_owned();
                vec![SandboxFailed { code: FailureCode::ImageNotFound, message }.into()]
            }
            Command::CreateSandbox { spec, .. } => {
                if spec.image == "slow:image" {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                vec![
                    SandboxStarting { node: self.node.clone() }.into(),
                    SandboxRunning {
                        node: self.node.clone(),
                        runtime_id: "r".to_owned(),
                        took_us: 1,
                        expires_at: None,
                        lifetime_ends_at: None,
                        address: None,
                    }
                    .into(),
                ]
            }
            Command::StartExec { exec, spec, env } => {
                if spec.argv.last().unwrap().starts_with("slow") {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                }
                lines(*exec, spec, env.names())
            }
            Command::ExtendTtl { expires_at } => vec![SandboxTtlExtended { expires_at: *expires_at }.into()],
            Command::DestroySandbox { reason } => vec![SandboxDestroyed { reason: *reason }.into()],
            Command::AbandonSandbox { .. } => Vec::new(),
        };
        let events: Vec<Event> = facts
            .into_iter()
            .map(|data| Event {
                id: EventId::new(),
                tenant: envelope.tenant.clone(),
                sandbox: Some(envelope.sandbox),
                time: SystemClock.now(),
                actor: Actor::Executor(self.node.clone()),
                cause: Some(envelope.id),
                request_id: envelope.request_id.clone(),
                traceparent: envelope.traceparent.clone(),
                data,
            })
            .collect();
        // No message is larger than NATS takes.
        for message in events.chunks(if events.len() > 50 { 8 } else { 50 }) {
            self.log.publish(message).await.unwrap();
        }
    }
}

/// What a command "does".
fn lines(exec: ExecId, spec: &ExecSpec, env_names: Vec<String>) -> Vec<EventData> {
    let line = spec.argv.last().unwrap().as_str();
    let mut facts: Vec<EventData> = Vec::new();
    let (mut stdout_bytes, mut stderr_bytes) = (0, 0);
    let started = ExecStarted { exec, spec: spec.clone(), env_names, pid: 1 };
    let mut write = |stream, bytes: &[u8]| {
        let written = match stream {
            OutputStream::Stdout => &mut stdout_bytes,
            OutputStream::Stderr => &mut stderr_bytes,
        };
        let offset = *written;
        *written += bytes.len() as u64;
        EventData::from(ExecOutput::new(exec, stream, offset, Bytes::copy_from_slice(bytes)))
    };
    let mut code = 0;
    let line = if line == "slow" { "hang" } else { line.trim_start_matches("slow ") };
    if line != "fail" {
        facts.push(started.into());
    }
    match line {
        "hello" => {
            facts.push(write(OutputStream::Stdout, b"hello\n"));
            facts.push(write(OutputStream::Stderr, b"oops\n"));
            code = 3;
        }
        "split" => {
            facts.extend([b"a\xf0\x9f", &b"\x98\x80b\xff"[..]].map(|part| write(OutputStream::Stdout, part)))
        }
        // Each of them is six characters of JSON, and a character in two pieces.
        "nuls" => {
            facts.extend((0..3).map(|_| write(OutputStream::Stdout, &[0; 40_000])));
            facts.extend([b"\xf0\x9f", &b"\x98\x80\xff"[..]].map(|part| write(OutputStream::Stdout, part)));
            facts.push(write(OutputStream::Stderr, b"\"stdout\":\"\n"));
        }
        "flood" => facts.extend((0..20).map(|_| write(OutputStream::Stdout, &[b'x'; 20_000]))),
        // More than all buffers between two sockets hold.
        "pour" => {
            // Of a kind that no compression makes small.
            let piece: Vec<u8> = (0..64 << 10)
                .map(|at: u64| 32 + (at.wrapping_mul(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as u8)
                .collect();
            facts.extend((0..POURED).map(|_| write(OutputStream::Stdout, &piece)));
        }
        "hang" => {
            facts.push(write(OutputStream::Stdout, b"up\n"));
            return facts;
        }
        "fail" => {
            let message = "no such directory".to_owned();
            return vec![
                ExecFailed {
                    exec,
                    code: FailureCode::Invalid,
                    message,
                    request_digest: spec.request_digest.clone(),
                }
                .into(),
            ];
        }
        "vanish" => {
            let message = "its sandbox went away".to_owned();
            facts.push(ExecOutcomeUnknown { exec, message }.into());
            return facts;
        }
        "late" => {
            facts
                .push(ExecTimedOut { exec, code: None, signal: Some(9), ended: ExecEnded::default() }.into());
            return facts;
        }
        _ => {}
    }
    let ended = ExecEnded {
        stdout_bytes,
        stderr_bytes,
        truncated_bytes: 0,
        duration_us: 1500,
        ..ExecEnded::default()
    };
    facts.push(ExecExited { exec, code, signal: None, asked: None, ended }.into());
    facts
}

/// Files in memory.
async fn answer(mut incoming: LinkIncoming, files: &mut HashMap<String, Bytes>) {
    let entry = |path: &str, size| FileEntry {
        name: path.rsplit('/').next().unwrap().to_owned(),
        path: path.to_owned(),
        size,
        mode: 0o644,
        is_dir: false,
        is_symlink: false,
        modified_at: SystemClock.now(),
    };
    let missing = || Err(LinkFault::new(FaultCode::NotFound, "no such file"));
    let outcome = match incoming.request.op.clone() {
        LinkOp::Stats => {
            Ok(LinkValue::Stats(SandboxStats { cpu_percent: 1.5, memory_bytes: 10, memory_limit_bytes: 20 }))
        }
        LinkOp::WriteFile { path, .. } => {
            incoming.accept(LinkValue::Done).await.unwrap();
            let mut content = Vec::new();
            loop {
                match incoming.read().await {
                    Ok(Some(bytes)) => content.extend_from_slice(&bytes),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            files.insert(path, content.into());
            Ok(LinkValue::Done)
        }
        LinkOp::ReadFile { path } => match files.get(&path) {
            None => missing(),
            Some(content) => {
                incoming.accept(LinkValue::File(entry(&path, content.len() as u64))).await.unwrap();
                // One that reads no further is no fault.
                let _ = incoming.write(content.clone()).await;
                Ok(LinkValue::Done)
            }
        },
        LinkOp::ReadFilePart { path, range } => match files.get(&path) {
            None => missing(),
            Some(content) => {
                let size = content.len() as u64;
                incoming.accept(LinkValue::File(entry(&path, size))).await.unwrap();
                if let Some(range) = range.of(size) {
                    let bounds = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                    let _ = incoming.write(content.slice(bounds)).await;
                }
                Ok(LinkValue::Done)
            }
        },
        LinkOp::StatFile { path } => match files.get(&path) {
            None => missing(),
            Some(content) => Ok(LinkValue::File(entry(&path, content.len() as u64))),
        },
        LinkOp::Glob { pattern } => {
            incoming.accept(LinkValue::Done).await.unwrap();
            let mut paths: Vec<_> = files.keys().filter(|path| path.starts_with(&pattern)).collect();
            paths.sort();
            for path in paths {
                let line = format!("{}\n", serde_json::to_string(path).unwrap());
                incoming.write(line.into()).await.unwrap();
            }
            Ok(LinkValue::Done)
        }
        LinkOp::ListFiles { path } if path == "/many" => {
            incoming.accept(LinkValue::Done).await.unwrap();
            for first in (0..80_000).step_by(500) {
                let mut lines = Vec::new();
                for index in first..first + 500 {
                    let path = format!("/many/{index:05}-{}", "n".repeat(100));
                    serde_json::to_writer(&mut lines, &entry(&path, 1)).unwrap();
                    lines.push(b'\n');
                }
                // A gateway whose client has gone wants no more.
                if incoming.write(lines.into()).await.is_err() {
                    return;
                }
            }
            Ok(LinkValue::Done)
        }
        LinkOp::ListFiles { path } if path == "/broken" => {
            incoming.accept(LinkValue::Done).await.unwrap();
            incoming.write("[\n".into()).await.unwrap();
            Ok(LinkValue::Done)
        }
        LinkOp::Signal { .. } => Ok(LinkValue::Done),
        LinkOp::DeleteFile { path, .. } => match files.remove(&path) {
            None => missing(),
            Some(_) => Ok(LinkValue::Done),
        },
        LinkOp::ListFiles { .. } => missing(),
        LinkOp::ChangeMode { .. } | LinkOp::AdjustMode { .. } => Ok(LinkValue::Done),
        LinkOp::MoveFile { .. }
        | LinkOp::Input { .. }
        | LinkOp::Resize { .. }
        | LinkOp::Kill { .. }
        | LinkOp::CloseOutput { .. }
        | LinkOp::CollectArtifacts { .. }
        | LinkOp::PlaceArtifacts { .. }
        // Carried out before.
        | LinkOp::StartExec { .. } => {
            Err(LinkFault::new(FaultCode::Unsupported, "not in the script"))
        }
    };
    incoming.answer(outcome).await;
}
