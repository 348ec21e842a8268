//! The live view: what the log says now, in memory, so that a request needs no SQL to find its sandbox.
//!
//! Started from the read models, kept current from the feed. It holds the live sandboxes, those that ended in the last
//! minute, the templates, the webhooks, and which nodes have shown signs of life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use events::{
    Aggregate, Category, Key, NodeId, PoolName, ProviderName, Registry, SandboxId, SandboxPhase,
    SandboxState, Template, TemplateState, TenantId, WebhookId, WebhookState,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use transport::{Heartbeat, Heartbeats, Log};

use crate::{After, Feed, FeedError, Held, Links, Recorded, Topic, Usage};

/// A node that has been silent for longer is not counted on.
const NODE_SILENCE: Duration = Duration::from_secs(5);
/// How long an ended sandbox stays in memory.
const KEEP_ENDED: Duration = Duration::from_secs(60);

type Slot = watch::Sender<Option<Arc<SandboxState>>>;

/// The live view of this process. Cheap to clone.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    sandboxes: DashMap<SandboxId, Slot>,
    /// Kinds of which there are few, by their names.
    held: Mutex<HashMap<&'static str, Held>>,
    links: Mutex<Links>,
    usage: Mutex<Usage>,
    nodes: DashMap<NodeId, (Heartbeat, Instant)>,
    ended: Mutex<std::collections::VecDeque<(Instant, SandboxId)>>,
    stop: CancellationToken,
    _tasks: DropGuard,
}

/// A node that has shown a sign of life lately.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// What it said last.
    pub heartbeat: Heartbeat,
    /// How long ago.
    pub silent_for: Duration,
}

impl View {
    /// Loads the read models and follows the feed from there.
    pub async fn start(log: &Log, feed: &Feed) -> Result<Self, FeedError> {
        Self::start_with(log, feed, &Registry::default()).await
    }

    /// The same, with kinds of things of its own.
    pub async fn start_with(log: &Log, feed: &Feed, registry: &Registry) -> Result<Self, FeedError> {
        let beats = log.heartbeats().await.map_err(|_| FeedError::Disconnected)?;
        let view = Self::load(feed, registry).await?;
        view.listen(beats);
        Ok(view)
    }

    /// What the log says, followed from here on, and no signs of life of nodes.
    pub(crate) async fn load(feed: &Feed, registry: &Registry) -> Result<Self, FeedError> {
        let (position, live) = feed.store().live_sandboxes().await?;
        // Later than the position: what happened in between is counted again, which changes nothing.
        let running = feed.store().live_execs().await?;
        let held = Held::load_all(&**feed.store(), registry).await?;
        let links = Links::load(&**feed.store()).await?;
        let mut reader = feed.subscribe(Topic::All, After::Position(position));
        let stop = CancellationToken::new();
        let view = Self {
            inner: Arc::new(Inner {
                sandboxes: live.into_iter().map(|state| (state.id, slot(state))).collect(),
                held: Mutex::new(held),
                links: Mutex::new(links),
                usage: Mutex::new(Usage::with(running)),
                nodes: DashMap::new(),
                ended: Mutex::default(),
                _tasks: stop.clone().drop_guard(),
                stop: stop.clone(),
            }),
        };
        let follower = Arc::downgrade(&view.inner);
        tokio::spawn(async move {
            loop {
                let recorded = tokio::select! {
                    () = stop.cancelled() => return,
                    recorded = reader.next() => recorded,
                };
                let Some(inner) = follower.upgrade() else { return };
                match recorded {
                    Ok(recorded) => inner.apply(&recorded),
                    Err(FeedError::Store(error)) => {
                        tracing::warn!(error = %error, "the view cannot catch up; trying again");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    Err(FeedError::Disconnected) => return,
                }
            }
        });
        Ok(view)
    }

    /// Hears signs of life.
    fn listen(&self, mut beats: Heartbeats) {
        let (weak, stop) = (Arc::downgrade(&self.inner), self.inner.stop.clone());
        tokio::spawn(async move {
            loop {
                let beat = tokio::select! {
                    () = stop.cancelled() => return,
                    beat = beats.next() => beat,
                };
                let (Some(beat), Some(inner)) = (beat, weak.upgrade()) else {
                    return;
                };
                inner.nodes.insert(beat.node.clone(), (beat, Instant::now()));
            }
        });
    }

    /// A sandbox that is live, or ended within the last minute. For older ones ask the store.
    pub fn sandbox(&self, id: SandboxId) -> Option<Arc<SandboxState>> {
        self.inner.sandboxes.get(&id)?.borrow().clone()
    }

    /// The same, if it is the tenant's.
    pub fn sandbox_of(&self, tenant: &TenantId, id: SandboxId) -> Option<Arc<SandboxState>> {
        self.sandbox(id).filter(|state| state.tenant == *tenant)
    }

    /// All sandboxes that have not ended.
    pub fn live_sandboxes(&self) -> Vec<Arc<SandboxState>> {
        self.inner
            .sandboxes
            .iter()
            .filter_map(|entry| entry.value().borrow().clone())
            .filter(|state| !state.is_terminal())
            .collect()
    }

    /// Waits until the log says of a sandbox what `wanted` looks for; `None` when that did not happen in time.
    pub async fn wait(
        &self,
        id: SandboxId,
        wanted: impl Fn(&SandboxState) -> bool,
        patience: Duration,
    ) -> Option<Arc<SandboxState>> {
        let mut watched =
            self.inner.sandboxes.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        let waited =
            tokio::time::timeout(patience, watched.wait_for(|state| state.as_deref().is_some_and(&wanted)));
        let found = match waited.await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        drop(watched);
        self.inner.forget_if_unknown(id);
        found
    }

    /// Looks at what tenants use.
    pub fn usage<T>(&self, look: impl FnOnce(&Usage) -> T) -> T {
        look(&self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The nodes that have shown a sign of life lately.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.inner
            .nodes
            .iter()
            .map(|entry| NodeStatus {
                heartbeat: entry.value().0.clone(),
                silent_for: entry.value().1.elapsed(),
            })
            .filter(|status| status.silent_for < NODE_SILENCE)
            .collect()
    }

    /// Whether some executor of this provider and pool lives and takes new sandboxes.
    pub fn pool_is_served(&self, provider: &ProviderName, pool: &PoolName) -> bool {
        self.inner.nodes.iter().any(|entry| {
            let (heartbeat, at) = entry.value();
            at.elapsed() < NODE_SILENCE
                && !heartbeat.draining
                && heartbeat.providers.iter().any(|it| it.name == *provider && it.pool() == *pool)
        })
    }

    /// How many sandboxes of the pool could begin right now: places of executors that live and take new ones, without those
    /// that are taken, and without those that are spoken for by sandboxes that wait.
    pub fn places(&self, provider: &ProviderName, pool: &PoolName) -> usize {
        let live = self.live_sandboxes();
        let waiting = live
            .iter()
            .filter(|state| {
                matches!(state.phase, SandboxPhase::Requested)
                    && state.spec.provider == *provider
                    && state.spec.pool() == *pool
            })
            .count();
        let free: usize = self
            .nodes()
            .iter()
            .filter(|node| !node.heartbeat.draining)
            .filter(|node| {
                node.heartbeat.providers.iter().any(|it| it.name == *provider && it.pool() == *pool)
            })
            .map(|node| {
                let heartbeat = &node.heartbeat;
                // The log is ahead of a heartbeat, and does not know of boxes that are about to go.
                let placed = live.iter().filter(|state| state.node() == Some(&heartbeat.node)).count();
                (heartbeat.capacity as usize).saturating_sub(placed.max(heartbeat.used as usize))
            })
            .sum();
        free.saturating_sub(waiting)
    }

    /// A tenant's thing, of a kind of which there are few.
    pub fn get<A: Aggregate>(&self, tenant: &TenantId, key: &Key) -> Option<A> {
        let held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(A::KIND)?.get(key).filter(|state: &&A| state.fields().tenant == *tenant).cloned()
    }

    /// All of a tenant's that have not ended, by their keys, of a kind of which there are few.
    pub fn list<A: Aggregate>(&self, tenant: &TenantId) -> Vec<A> {
        let held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(A::KIND).map(|held| held.of(tenant)).unwrap_or_default()
    }

    /// One template.
    pub fn template(&self, tenant: &TenantId, name: &str) -> Option<Template> {
        self.get(tenant, &TemplateState::key_of(tenant, name)).map(|state: TemplateState| state.template)
    }

    /// All templates of a tenant, by name.
    pub fn templates(&self, tenant: &TenantId) -> Vec<Template> {
        self.list(tenant).into_iter().map(|state: TemplateState| state.template).collect()
    }

    /// Looks at the viewer links that are good for something.
    pub fn links<T>(&self, look: impl FnOnce(&Links) -> T) -> T {
        look(&self.inner.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A tenant's webhook.
    pub fn webhook(&self, tenant: &TenantId, id: WebhookId) -> Option<WebhookState> {
        self.get(tenant, &id.into())
    }

    /// All webhooks of a tenant, the oldest first.
    pub fn webhooks(&self, tenant: &TenantId) -> Vec<WebhookState> {
        self.list(tenant)
    }
}

fn slot(state: SandboxState) -> Slot {
    watch::Sender::new(Some(Arc::new(state)))
}

impl Inner {
    /// An id that the log never spoke of leaves nothing behind, nor does what is said of a sandbox long after its end.
    fn forget_if_unknown(&self, id: SandboxId) {
        self.sandboxes.remove_if(&id, |_, slot| slot.receiver_count() == 0 && slot.borrow().is_none());
    }

    fn apply(&self, recorded: &Recorded) {
        let event = &recorded.event;
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).apply(event);
        if event.data.category() == Category::Access {
            self.links.lock().unwrap_or_else(PoisonError::into_inner).apply(recorded.position(), event);
            return;
        }
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values_mut()
            .for_each(|held| held.apply(event));
        // Execs and files change nothing here, and they are the bulk.
        if event.data.category() != Category::Sandbox {
            return;
        }
        let Some(id) = event.sandbox else { return };
        let slot = self.sandboxes.entry(id).or_insert_with(|| watch::Sender::new(None));
        let before = slot.borrow().clone();
        let after = SandboxState::apply(before.as_deref().cloned(), event);
        let (is_there, ended) = (after.is_some(), after.as_ref().is_some_and(SandboxState::is_terminal));
        slot.send_replace(after.map(Arc::new));
        drop(slot);
        if !is_there {
            self.forget_if_unknown(id);
        }
        let mut queue = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended {
            queue.push_back((Instant::now(), id));
        }
        while queue.front().is_some_and(|(at, _)| at.elapsed() > KEEP_ENDED) {
            if let Some((_, id)) = queue.pop_front() {
                self.sandboxes.remove(&id);
            }
        }
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
