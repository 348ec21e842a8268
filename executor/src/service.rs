//! The executor as a whole: start, serve, drain.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::client::Connections;
use backon::{ConstantBuilder, Retryable as _};
use events::{Actor, Clock, ErrorChain, Event, EventId, NodeDraining, NodeJoined, TenantId};
use secrets::Redaction;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Heartbeat, LinkServer, Log, Machine, ProviderHealth};

use crate::hosted::Registry;
use crate::neighbours::Neighbours;
use crate::provider::{Pooled, Provider};
use crate::pulse::Pulse;
use crate::reconcile::{self, Waiting};
use crate::recorded::Recorded;
use crate::shared::{ExecutorConfig, Shared};
use crate::turns::{BoxWork, Starts};
use crate::{commands, link, overdue, resolver};

/// How long commands that are being carried out get to finish.
const DRAIN: Duration = Duration::from_secs(10);
/// How long pumps have then to publish what they have read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long to wait before trying again to take commands.
const PAUSE: Duration = Duration::from_millis(200);
const AGAIN: ConstantBuilder = ConstantBuilder::new().with_delay(PAUSE).without_max_times();
/// How long one question for a command stands. One that is lost with a NATS server is asked again after twice as long.
const PULL: Duration = Duration::from_secs(1);
/// How often providers are asked whether they work.
const HEALTH_PERIOD: Duration = Duration::from_secs(10);
/// The same while one does not work: most of what is wrong passes, and nobody is to wait for long after it has.
const TROUBLE_PERIOD: Duration = Duration::from_secs(2);
/// How often providers look after what must hold beside their boxes, and how long the start waits for them.
const UPKEEP_PERIOD: Duration = Duration::from_secs(3);
const UPKEEP_AT_START: Duration = Duration::from_secs(10);
/// The most connections for input that are kept while nobody types.
const MOST_INPUTS: usize = 256;
/// How often an executor shows that it lives, and how often at most.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
const HEARTBEAT_PAUSE: Duration = Duration::from_millis(50);

/// Why an executor stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// It could not listen on the connection to NATS.
    #[error("cannot listen for requests")]
    Listen(#[from] transport::ListenError),
}

/// Carries out commands on one node.
pub struct Executor {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Executor {
    /// An executor with these box-makers. It does nothing until it runs.
    pub fn new(
        config: ExecutorConfig,
        log: Log,
        providers: Vec<Pooled>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Self {
        let registry = Arc::new(Registry::default());
        let log = log.on_node(&config.node);
        let neighbours = Arc::<Neighbours>::default();
        Self {
            shared: Arc::new(Shared {
                redaction: Redaction::from(&config.redaction),
                connections: Connections::new(config.agent_connections),
                inputs: Arc::new(Semaphore::new((config.agent_connections / 8).clamp(1, MOST_INPUTS))),
                config,
                log,
                providers,
                clock,
                registry,
                recorded: Arc::new(Recorded::new(&neighbours)),
                boxes: Arc::new(BoxWork::new(&neighbours)),
                neighbours,
                starts: Starts::default(),
                pulse: Pulse::default(),
                joined: CancellationToken::new(),
                shutdown,
            }),
            tasks: TaskTracker::new(),
        }
    }

    /// Works until it is told to stop. Sandboxes and what runs in them live on.
    pub async fn run(self) -> Result<(), ExecutorError> {
        resolver::describe_metrics();
        let shared = &self.shared;
        let news = shared.log.progress().await?;
        tokio::spawn(Arc::clone(&shared.recorded).listen(news, shared.shutdown.clone()));
        // Whoever asks from here on finds somebody who listens.
        let server = LinkServer::listen(&shared.log, &shared.config.node).await?;
        tokio::spawn(link::serve(Arc::clone(shared), server, self.tasks.clone()));
        let waiting = Arc::new(Waiting::default());
        // Boxes of a former process run meanwhile.
        let kept_up = futures::future::join_all(shared.providers.iter().map(|it| it.provider.upkeep()));
        if tokio::time::timeout(UPKEEP_AT_START, kept_up).await.is_err() {
            tracing::warn!("what must hold beside sandboxes was not looked at in time; it is tried again");
        }
        let learned = async {
            // For as long as it takes: nothing is done here before it is known.
            let learned = (|| reconcile::reconcile(shared, &waiting)).retry(AGAIN).notify(|error, _| {
                tracing::warn!(error = %ErrorChain(error), "waiting to learn what is on this node");
            });
            let _ = learned.await;
        };
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = learned => {}
        }
        shared.joined.cancel();
        self.announce(NodeJoined {
            node: shared.config.node.clone(),
            providers: shared.providers.iter().map(|it| it.provider.name().clone()).collect(),
            pools: shared.providers.iter().map(|it| it.pool.clone()).collect(),
            capacity: shared.config.capacity,
        })
        .await;
        let mut consumers = tokio::task::JoinSet::new();
        let pulse = Arc::clone(shared);
        consumers.spawn(async move { pulse.pulse.beat().await });
        consumers.spawn(heartbeats(Arc::clone(shared)));
        consumers.spawn(overdue::watch(Arc::clone(shared)));
        consumers.spawn(node_commands(Arc::clone(shared), self.tasks.clone()));
        for pooled in &shared.providers {
            consumers.spawn(upkeep(Arc::clone(&pooled.provider)));
            consumers.spawn(pool_commands(Arc::clone(shared), pooled.clone(), self.tasks.clone()));
        }
        let again = async {
            loop {
                tokio::time::sleep(reconcile::PERIOD).await;
                if let Err(error) = reconcile::reconcile(shared, &waiting).await {
                    tracing::debug!(error = %ErrorChain(&error), "reconciliation will run again");
                }
            }
        };
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            () = again => {}
        }
        self.drain(consumers).await;
        Ok(())
    }

    /// Takes nothing new, finishes what is being carried out, and leaves the rest to the agents.
    async fn drain(self, mut consumers: tokio::task::JoinSet<()>) {
        self.announce(NodeDraining { node: self.shared.config.node.clone() }).await;
        consumers.shutdown().await;
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some commands were not finished; they will be delivered again");
        }
        // All of them together: what one agent does not take or say is no reason to wait for it.
        let settled = self.shared.registry.all().into_iter().map(|hosted| async move {
            hosted.pumps.close();
            hosted.pumps.wait().await;
        });
        let _ = tokio::time::timeout(SETTLE, futures::future::join_all(settled)).await;
        self.shared.log.flush().await;
    }

    async fn announce(&self, data: impl Into<events::EventData>) {
        let shared = &self.shared;
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::system(),
            sandbox: None,
            time: shared.clock.now(),
            actor: Actor::Executor(shared.config.node.clone()),
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        if let Err(error) = shared.log.publish(&[event]).await {
            tracing::warn!(error = %error, "a node event was not published");
        }
    }
}

/// Commands for sandboxes that are here already.
async fn node_commands(shared: Arc<Shared>, tasks: TaskTracker) {
    let mut consumer = shared.log.node_commands(&shared.config.node);
    loop {
        match consumer.next().await {
            Ok(delivery) => {
                tasks.spawn(commands::carry_out(Arc::clone(&shared), delivery));
            }
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "cannot take commands; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Commands that any executor of the pool may take: this one does while it has room, one at a time, so that what it
/// cannot start yet is left for others.
async fn pool_commands(shared: Arc<Shared>, Pooled { pool, provider }: Pooled, tasks: TaskTracker) {
    let mut consumer = shared.log.pool_commands(&pool);
    loop {
        shared.registry.room(shared.config.capacity as usize).await;
        if shared.low_disk(&*provider).await.is_some() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        match consumer.take_one(PULL).await {
            Ok(Some(delivery)) => {
                tasks.spawn(commands::carry_out(Arc::clone(&shared), delivery));
                // Lets the command take its place before the next one is counted.
                tokio::task::yield_now().await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "cannot take commands; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn heartbeats(shared: Arc<Shared>) {
    let mut providers = Vec::new();
    let mut checked: Option<Instant> = None;
    let mut warned = HashSet::new();
    let machine = machine();
    loop {
        let well = providers.iter().all(|provider: &ProviderHealth| provider.healthy);
        let period = if well { HEALTH_PERIOD } else { TROUBLE_PERIOD };
        if checked.is_none_or(|at| at.elapsed() >= period) {
            providers = health(&shared, &mut warned).await;
            checked = Some(Instant::now());
        }
        let used = shared.registry.used();
        shared
            .log
            .beat(&Heartbeat {
                node: shared.config.node.clone(),
                providers: providers.clone(),
                capacity: shared.config.capacity,
                used: u32::try_from(used).unwrap_or(u32::MAX),
                draining: shared.shutdown.is_cancelled(),
                machine,
            })
            .await;
        // Whoever asks for room is told of it at once, and not more often than a host can make sandboxes.
        tokio::time::sleep(HEARTBEAT_PAUSE).await;
        if shared.registry.used() == used {
            let rest = HEARTBEAT_PERIOD - HEARTBEAT_PAUSE;
            let _ = tokio::time::timeout(rest, shared.registry.freed()).await;
        }
    }
}

/// In nobody's way, and in no hurry: one round after the other.
async fn upkeep(provider: Arc<dyn Provider>) {
    loop {
        tokio::time::sleep(UPKEEP_PERIOD).await;
        provider.upkeep().await;
    }
}

/// What this machine has, as far as it says.
fn machine() -> Option<Machine> {
    let cpus = std::thread::available_parallelism().ok()?.get();
    let memory = rustix::system::sysinfo();
    let memory_bytes = u64::from(memory.mem_unit).saturating_mul(memory.totalram);
    Some(Machine { cpus: u32::try_from(cpus).ok()?, memory_mib: memory_bytes >> 20 })
}

/// Asks all providers. What they warn of is logged once.
async fn health(shared: &Shared, warned: &mut HashSet<String>) -> Vec<ProviderHealth> {
    let boxes = shared.registry.all();
    let mut all = Vec::new();
    for Pooled { pool, provider } in &shared.providers {
        let began = Instant::now();
        let outcome = tokio::time::timeout(Duration::from_secs(5), provider.health()).await;
        let low = shared.low_disk(&**provider).await;
        let mut warnings = Vec::new();
        let (healthy, error) = match outcome {
            Ok(Ok(health)) => {
                warnings = health.warnings;
                for warning in &warnings {
                    if warned.insert(warning.clone()) {
                        tracing::warn!(provider = %provider.name(), provider.version = health.version, "{warning}");
                    }
                }
                (low.is_none(), low.map(|low| format!("disk_low: {low}")))
            }
            Ok(Err(_)) | Err(_) if low.is_some() => (false, low.map(|low| format!("disk_low: {low}"))),
            Ok(Err(error)) => (false, Some(error.reason)),
            Err(_) => (false, Some("the provider does not answer".to_owned())),
        };
        let count = boxes.iter().filter(|hosted| hosted.provider.name() == provider.name()).count();
        all.push(ProviderHealth {
            name: provider.name().clone(),
            pool: Some(pool.clone()),
            healthy,
            latency_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            error,
            capabilities: provider.capabilities().names(),
            boxes: u32::try_from(count).unwrap_or(u32::MAX),
            warnings,
        });
    }
    all
}
