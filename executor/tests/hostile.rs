//! Agents that are not ours any more: they accept and are silent, say something else, or are gone. What they do to the
//! executor is nothing. Everything but the agents is real.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod world;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::client::UnixConnect;
use agent::protocol::{FrameReader, FrameWriter, Hello, PROTOCOL_VERSION, Reply, Request, Started};
use async_trait::async_trait;
use events::*;
use executor::provider::*;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use transport::*;
use world::World;

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Accepts, and says nothing.
    Silent,
    /// Says something that is no answer.
    Garbage,
    /// Closes at once.
    Closing,
    /// Starts whatever it is asked to, says that somebody else has it now, and nothing more.
    Superseded,
    /// Is gone, and its socket too.
    Gone,
}

/// Boxes that hold nothing but a hostile agent.
struct Hostile {
    name: ProviderName,
    manner: Manner,
    directory: PathBuf,
    boxes: Mutex<HashMap<SandboxId, JoinHandle<()>>>,
}

impl Hostile {
    fn socket(&self, id: SandboxId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn handle(&self, id: SandboxId) -> BoxHandle {
        BoxHandle {
            id,
            provider: self.name.clone(),
            runtime_id: id.to_string(),
            agent: UnixConnect::new(self.socket(id)).into(),
            running: true,
            address: None,
        }
    }
}

#[async_trait]
impl Provider for Hostile {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new("none", [])
    }

    async fn create(&self, order: &BoxOrder, _: &dyn PullProgress) -> Result<BoxHandle, CreateError> {
        let handle = self.handle(order.id);
        let socket = self.socket(order.id);
        let listener = UnixListener::bind(&socket).unwrap();
        let manner = self.manner;
        if manner == Manner::Gone {
            std::fs::remove_file(&socket).unwrap();
        }
        let agent = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(behave(stream, manner));
            }
        });
        self.boxes.lock().unwrap().insert(order.id, agent);
        Ok(handle)
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), DestroyError> {
        if let Some(agent) = self.boxes.lock().unwrap().remove(&id) {
            agent.abort();
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

/// Connections stay open for as long as the caller lets them.
async fn behave(mut stream: UnixStream, manner: Manner) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    match manner {
        Manner::Closing => return,
        Manner::Garbage => drop(stream.write_all(&[7; 100_000]).await),
        Manner::Superseded => {
            let (read, write) = stream.split();
            let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
            let _ = Hello::receive(&mut reader).await;
            let _ = (Hello::ours().send(PROTOCOL_VERSION, &mut writer).await, writer.flush().await);
            let asked = reader.receive::<Request>().await;
            let started = Started { pid: 1, age: Duration::ZERO, stdin_offset: 0, fresh: true };
            let replies: &[Reply] = match asked {
                Ok(Some(Request::StartExec(_) | Request::AttachExec(_))) => {
                    &[Reply::Started(started), Reply::Superseded]
                }
                Ok(Some(Request::Ping)) => &[Reply::Done],
                _ => &[],
            };
            for reply in replies {
                let _ = writer.send(reply).await;
            }
            let _ = writer.flush().await;
        }
        Manner::Silent | Manner::Gone => {}
    }
    while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {}
}

async fn world(manner: Manner) -> World {
    World::with(|dir, _| {
        let name = "hostile".parse().unwrap();
        Arc::new(Hostile { name, manner, directory: dir.to_owned(), boxes: Mutex::default() })
    })
    .await
}

/// What no test here may ever need; what hung before did so for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs sandboxes with such agents, stops the executor over them, starts it again, and destroys them all.
async fn harms_only_itself(manner: Manner) {
    let mut world = world(manner).await;
    let mut sandboxes = Vec::new();
    for _ in 0..20 {
        sandboxes.push(world.create("any").await);
    }
    for sandbox in &sandboxes {
        world.until(*sandbox, "sandbox.running").await;
        world.start_exec(*sandbox, "true").await;
    }
    // Stops and joins however many of them there are.
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, world.stop_executor()).await.expect("it stops");
        world.start_executor();
        for sandbox in &sandboxes {
            world.start_exec(*sandbox, "true").await;
        }
    }
    for sandbox in &sandboxes {
        let destroy = world.envelope(*sandbox, Command::DestroySandbox { reason: DestroyReason::User });
        world.log.send(Destination::Node(&world.node), &destroy).await.unwrap();
    }
    for sandbox in &sandboxes {
        let all = world.until(*sandbox, "sandbox.destroyed").await;
        let last = &all.last().unwrap().event.data;
        assert_eq!(*last, SandboxDestroyed { reason: DestroyReason::User }.into());
    }
    tokio::time::timeout(PATIENCE, world.stop_executor()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_say_nothing_keep_no_node_from_joining_stopping_and_destroying() {
    harms_only_itself(Manner::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_say_that_another_has_it_and_fall_silent_keep_nobody() {
    harms_only_itself(Manner::Superseded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_talk_nonsense_keep_nobody() {
    harms_only_itself(Manner::Garbage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_hang_up_keep_nobody() {
    harms_only_itself(Manner::Closing).await;
}

/// There is no reaper here, and no agent that would end it.
#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_box_goes_whatever_its_agent_says() {
    let world = world(Manner::Silent).await;
    let time = chrono::TimeDelta::seconds(3);
    let sandbox = world.create_for("any", SecretMap::default(), time).await;
    world.until(sandbox, "sandbox.running").await;
    let all = world.until(sandbox, "sandbox.destroyed").await;
    let last = &all.last().unwrap().event.data;
    assert_eq!(*last, SandboxDestroyed { reason: DestroyReason::Ttl }.into());
    assert!(world.provider.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_nobody_can_reach_ends_with_the_reason() {
    let world = world(Manner::Gone).await;
    let sandbox = world.create("any").await;
    world.until(sandbox, "sandbox.running").await;
    let all = world.until(sandbox, "sandbox.destroyed").await;
    let last = &all.last().unwrap().event.data;
    assert_eq!(*last, SandboxDestroyed { reason: DestroyReason::AgentLost }.into());
    assert!(world.provider.list().await.unwrap().is_empty());
}
