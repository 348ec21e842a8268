//! What an implementor writes.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use async_trait::async_trait;
use events::{ErrorChain, Position, TenantId};
use feed::Recorded;
use futures::future::BoxFuture;
use record::StoreError;

use crate::Turn;

/// An effect on its way.
pub type Effecting<T> = BoxFuture<'static, Result<T, Failure>>;

/// Something that reads the log and acts on it.
///
/// The state belongs to one task: [`apply`](Self::apply), [`decide`](Self::decide) and [`settle`](Self::settle) are called one
/// after the other, must return soon, and do no I/O. What takes time is an effect.
///
/// What every implementation owes:
///
/// - **Effects bear repetition.** Their ids follow from what they are for (the entity, the attempt, the instant that passed),
///   so that two processes that both believe to be at work ask for the same thing.
/// - **An effect changes what is decided.** [`settle`](Self::settle) notes that it was done, or `decide` would ask for it again
///   without an end: the event that tells of it comes later.
/// - **Whole on load.** [`load`](Self::load) replaces all state: it is called at the start of each tenure.
#[async_trait]
pub trait Reactor: Send + 'static {
    /// What it acts for, one effect at a time: a job, a schedule, a sandbox.
    type Key: Clone + Debug + Eq + Hash + Send + Sync + 'static;
    /// Something to be done, as data.
    type Effect: Send + 'static;
    /// What came of it.
    type Outcome: Send + 'static;

    /// What its lease, its cursor, its metrics and its log lines are called: one word.
    fn name(&self) -> &'static str;

    /// The types of events that it reads, as they are named on the wire; none: all. They come without bodies.
    fn types(&self) -> Vec<&'static str>;

    /// How long after the death of one process another one takes over.
    fn term(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How much of everything.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Whether what is to be done follows from events alone, with no read model that says what is still to do. Its place in the
    /// log is kept then: it moves past an event once the entities that it touched are at [rest](Next::Rest).
    fn keeps_cursor(&self) -> bool {
        false
    }

    /// Reads the state, from wherever the reactor was given to read it. `cursor` is where work stands, for one that keeps a cursor;
    /// `None` the first time, and when the transport has lost it: then nothing that is still to do may lie before what is
    /// returned.
    async fn load(&mut self, cursor: Option<Position>) -> Result<Loaded<Self::Key>, StoreError>;

    /// Takes in an event, and says whom it may concern. Events that the state knows already may come again.
    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<Self::Key>);

    /// What is to be done for this entity now. Asked when it was touched, when its wait is over, and after each of its effects.
    fn decide(&mut self, key: &Self::Key, turn: &mut Turn<'_>) -> Next<Self::Effect>;

    /// Begins an effect. It is dropped, wherever it is, when the lease is lost or its entity [begins anew](Touched::anew).
    fn perform(&self, key: &Self::Key, effect: Self::Effect) -> Effecting<Self::Outcome>;

    /// Notes what came of an effect. One that failed is decided upon again after a pause, unless the failure
    /// [is for good](Failure::for_good): then only once something touches its entity.
    fn settle(&mut self, key: &Self::Key, outcome: Result<Self::Outcome, &Failure>, turn: &mut Turn<'_>) {
        let _ = (key, outcome, turn);
    }

    /// Whose entity it is: effects of one tenant leave room for those of others. `None`: nobody's.
    fn tenant(&self, key: &Self::Key) -> Option<TenantId> {
        let _ = key;
        None
    }

    /// What is still to be done when the tenure ends, by a stop or because another process took over: short last words that do
    /// no harm when the other one speaks already.
    fn farewell(&mut self) -> Vec<(Self::Key, Self::Effect)> {
        Vec::new()
    }
}

/// What was loaded.
#[derive(Debug, Clone)]
pub struct Loaded<K> {
    /// The position that the state is true at: events after it are read.
    pub position: Position,
    /// All entities that something may be to be done for.
    pub keys: Vec<K>,
}

/// Whom an event concerns.
#[derive(Debug)]
pub struct Touched<K>(pub(crate) Vec<(K, bool)>);

impl<K> Touched<K> {
    /// This entity is to be decided upon, after the effect that is under way for it.
    pub fn entity(&mut self, key: K) {
        self.0.push((key, false));
    }

    /// The same, and what is under way for it is not wanted any more; nor is a pause after a failure.
    pub fn anew(&mut self, key: K) {
        self.0.push((key, true));
    }
}

/// What is to be done for an entity now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<E> {
    /// This; and then it is decided upon again.
    Act(E),
    /// Nothing for so long, or until it is touched. It counts as still to be done: a cursor does not move past it.
    Wait(Duration),
    /// Nothing, until it is touched. The runtime forgets it.
    Rest,
}

/// Why an effect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    for_good: bool,
}

impl Failure {
    /// It may go better another time.
    pub fn passing(error: &dyn std::error::Error) -> Self {
        Self { message: ErrorChain(error).to_string(), for_good: false }
    }

    /// Trying again is of no use.
    pub fn for_good(message: impl Into<String>) -> Self {
        Self { message: message.into(), for_good: true }
    }

    pub(crate) fn again(message: impl Into<String>) -> Self {
        Self { message: message.into(), for_good: false }
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether trying again is of no use.
    pub const fn is_for_good(&self) -> bool {
        self.for_good
    }
}

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Events that are taken in at once.
    pub batch: usize,
    /// Effects that are under way at once.
    pub in_flight: usize,
    /// Those of one tenant, of them.
    pub share: usize,
    /// While so many entities wait for their turn, no more events are taken. For a reactor whose entities come from events
    /// alone: one whose entities are all in its state wins nothing by it, and a tenant of many could hold up others.
    pub backlog: usize,
    /// How long an effect may take. One that takes longer has failed.
    pub patience: Duration,
    /// The pause after the first failure of an entity. It doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause. What went away and came back is tried again within it.
    pub longest_pause: Duration,
    /// How long effects may go on at a clean stop before they are dropped.
    pub finish: Duration,
    /// How long last words may take.
    pub last_words: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 128,
            in_flight: 64,
            share: 16,
            backlog: usize::MAX,
            patience: Duration::from_secs(30),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
            finish: Duration::from_secs(2),
            last_words: Duration::from_secs(2),
        }
    }
}
