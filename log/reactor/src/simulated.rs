//! A world in memory for the tests of the loop: its clock is the test's, which tokio moves on when nobody has anything to do.
//!
//! This is a mock. The lease, the cursor and the feed of a real nats-server and a real store are in `tests/takeover.rs`; here is
//! what cannot be had there deterministically: deaths between two steps, clocks that jump, effects that hang, minutes that pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use events::{Actor, Clock, Event, EventData, EventId, Position, SandboxId, TenantId};
use feed::{FeedError, Recorded};
use record::StoreError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::{CursorError, Events, Held, Outside, StoredCursor};

/// The clock of a test: it goes with tokio's, and its time of day can be set.
pub struct SimulatedClock {
    began: Instant,
    set_by: Mutex<TimeDelta>,
}

impl SimulatedClock {
    pub fn new() -> Self {
        Self { began: Instant::now(), set_by: Mutex::default() }
    }

    pub fn jump(&self, by: TimeDelta) {
        *self.set_by.lock().unwrap() += by;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.began.elapsed()).unwrap();
        at(0) + passed + *self.set_by.lock().unwrap()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(3600) + self.began.elapsed()
    }
}

/// So many seconds after the beginning of the test, by a clock that nobody sets.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
}

/// What a store says that is not there.
pub fn away() -> StoreError {
    StoreError::Unavailable { operation: "read", source: "it is away".into() }
}

/// Everything outside of a runtime, shared by all that run.
#[derive(Clone, Default)]
pub struct World(Arc<Inside>);

#[derive(Default)]
struct Inside {
    log: Mutex<Vec<Arc<Recorded>>>,
    grown: Notify,
    leases: Mutex<HashMap<String, (u64, Instant)>>,
    holders: Mutex<u64>,
    cursors: Mutex<HashMap<String, StoredCursor>>,
    /// How often the feed fails before it gives anything.
    unwell: Mutex<u32>,
}

impl World {
    /// Records an event.
    pub fn record(&self, tenant: &str, sandbox: Option<SandboxId>, data: impl Into<EventData>) -> Position {
        let event = Event {
            id: EventId::new(),
            tenant: tenant.parse::<TenantId>().unwrap(),
            sandbox,
            time: at(0),
            actor: Actor::Recorder,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        let mut log = self.0.log.lock().unwrap();
        let position = Position(log.len() as u64 + 1);
        let mut frame = event.to_frame().unwrap();
        frame.position = position;
        log.push(Arc::new(Recorded { frame, event }));
        self.0.grown.notify_waiters();
        position
    }

    pub fn cursor_of(&self, name: &str) -> Option<Position> {
        self.0.cursors.lock().unwrap().get(name).and_then(|cursor| cursor.position)
    }

    /// Somebody else keeps a cursor.
    pub fn keep_as_another(&self, name: &str, position: Position) {
        let mut cursors = self.0.cursors.lock().unwrap();
        let cursor = cursors.entry(name.to_owned()).or_default();
        *cursor = StoredCursor { position: Some(position), version: cursor.version + 1 };
    }

    /// The lease is taken from whoever holds it.
    pub fn take_away(&self, name: &str) {
        self.0.leases.lock().unwrap().remove(name);
    }

    /// Lets the feed fail so often.
    pub fn fail(&self, times: u32) {
        *self.0.unwell.lock().unwrap() = times;
    }
}

#[async_trait]
impl Outside for World {
    async fn take_lease(&self, name: &str, term: Duration) -> Box<dyn Held> {
        let holder = {
            let mut holders = self.0.holders.lock().unwrap();
            *holders += 1;
            *holders
        };
        loop {
            {
                let mut leases = self.0.leases.lock().unwrap();
                if leases.get(name).is_none_or(|(_, until)| *until <= Instant::now()) {
                    leases.insert(name.to_owned(), (holder, Instant::now() + term));
                    return Box::new(SimulatedLease {
                        world: self.clone(),
                        name: name.to_owned(),
                        holder,
                        term,
                    });
                }
            }
            sleep(term / 5).await;
        }
    }

    async fn cursor(&self, name: &str) -> Result<StoredCursor, CursorError> {
        Ok(self.0.cursors.lock().unwrap().get(name).copied().unwrap_or_default())
    }

    async fn keep_cursor(
        &self,
        name: &str,
        position: Position,
        last: StoredCursor,
    ) -> Result<StoredCursor, CursorError> {
        let mut cursors = self.0.cursors.lock().unwrap();
        let cursor = cursors.entry(name.to_owned()).or_default();
        if cursor.version != last.version {
            return Err(CursorError::Replaced);
        }
        *cursor = StoredCursor { position: Some(position), version: last.version + 1 };
        Ok(*cursor)
    }

    fn events(&self, types: &[&'static str], after: Position) -> Box<dyn Events> {
        Box::new(SimulatedEvents { world: self.clone(), types: types.to_vec(), passed: after })
    }

    fn head(&self) -> Position {
        Position(self.0.log.lock().unwrap().len() as u64)
    }
}

struct SimulatedLease {
    world: World,
    name: String,
    holder: u64,
    term: Duration,
}

#[async_trait]
impl Held for SimulatedLease {
    async fn hold(&mut self) {
        loop {
            sleep(self.term / 5).await;
            let mut leases = self.world.0.leases.lock().unwrap_or_else(PoisonError::into_inner);
            match leases.get_mut(&self.name) {
                Some((holder, until)) if *holder == self.holder => *until = Instant::now() + self.term,
                Some(_) | None => return,
            }
        }
    }

    async fn release(self: Box<Self>) {
        let mut leases = self.world.0.leases.lock().unwrap();
        if leases.get(&self.name).is_some_and(|(holder, _)| *holder == self.holder) {
            leases.remove(&self.name);
        }
    }
}

struct SimulatedEvents {
    world: World,
    types: Vec<&'static str>,
    passed: Position,
}

#[async_trait]
impl Events for SimulatedEvents {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Recorded>>, FeedError> {
        loop {
            let inside = Arc::clone(&self.world.0);
            let grown = inside.grown.notified();
            {
                let mut unwell = inside.unwell.lock().unwrap();
                if *unwell > 0 {
                    *unwell -= 1;
                    return Err(FeedError::Store(away()));
                }
            }
            let mut found = Vec::new();
            let log = inside.log.lock().unwrap().clone();
            for recorded in log.iter().skip(usize::try_from(self.passed.0).unwrap()) {
                self.passed = recorded.position();
                if self.types.is_empty() || self.types.contains(&recorded.event.data.type_name()) {
                    found.push(Arc::clone(recorded));
                }
                if found.len() == max {
                    break;
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            grown.await;
        }
    }

    fn passed(&self) -> Position {
        self.passed
    }
}
