//! All sandboxes that live, as a reactor.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use events::{Category, Position, SandboxId, SandboxState, TenantId};
use feed::Recorded;
use reactor::{Effecting, Failure, Loaded, Next, Reactor, Touched, Turn};
use record::{EventStore, StoreError};
use transport::{Destination, Log};

use crate::watched::{Addressee, Ask, Done, Watched};

/// All sandboxes that live.
pub struct Sandboxes {
    log: Log,
    store: Arc<dyn EventStore>,
    live: HashMap<SandboxId, Watched>,
}

impl Sandboxes {
    pub fn new(log: Log, store: Arc<dyn EventStore>) -> Self {
        Self { log, store, live: HashMap::new() }
    }
}

#[async_trait]
impl Reactor for Sandboxes {
    type Key = SandboxId;
    type Effect = Ask;
    type Outcome = Done;

    fn name(&self) -> &'static str {
        "reaper"
    }

    fn types(&self) -> Vec<&'static str> {
        Category::Sandbox.words().iter().map(|word| word.name).collect()
    }

    /// What lives now: nothing that has ended is read again.
    async fn load(&mut self, _: Option<Position>) -> Result<Loaded<SandboxId>, StoreError> {
        let (position, live) = self.store.live_sandboxes().await?;
        self.live = live.into_iter().map(|state| (state.id, Watched::new(state))).collect();
        Ok(Loaded { position, keys: self.live.keys().copied().collect() })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<SandboxId>) {
        let event = &recorded.event;
        let Some(id) = event.sandbox else { return };
        let after = match self.live.remove(&id) {
            Some(watched) => watched.apply(event),
            None => SandboxState::apply(None, event).map(Watched::new),
        };
        if let Some(after) = after {
            self.live.insert(id, after);
        }
        touched.entity(id);
    }

    fn decide(&mut self, id: &SandboxId, turn: &mut Turn<'_>) -> Next<Ask> {
        self.live.get_mut(id).map_or(Next::Rest, |watched| watched.decide(turn))
    }

    fn perform(&self, _: &SandboxId, ask: Ask) -> Effecting<Done> {
        let log = self.log.clone();
        Box::pin(async move {
            let sent = match &ask {
                Ask::End(command, Addressee::Node(node), _) => {
                    log.send(Destination::Node(node), command).await
                }
                Ask::End(command, Addressee::Pool(pool), _) | Ask::Again(command, pool) => {
                    log.send(Destination::Pool(pool), command).await
                }
                Ask::NeverRan(event, _) => log.publish(&[(**event).clone()]).await,
            };
            sent.map_err(|error| Failure::passing(&error))?;
            Ok(match ask {
                Ask::End(_, _, asked) | Ask::NeverRan(_, asked) => Done::End(asked),
                Ask::Again(..) => Done::Again,
            })
        })
    }

    fn settle(&mut self, id: &SandboxId, outcome: Result<Done, &Failure>, _: &mut Turn<'_>) {
        if let (Some(watched), Ok(done)) = (self.live.get_mut(id), outcome) {
            watched.done(done);
        }
    }

    fn tenant(&self, id: &SandboxId) -> Option<TenantId> {
        self.live.get(id).map(|watched| watched.state().tenant.clone())
    }
}
