//! The loop of whoever holds the lease.

use std::time::Duration;

use events::{Clock, ErrorChain, Position};
use feed::FeedError;
use record::StoreError;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::effect_runner::EffectRunner;
use crate::entities::{Ended, Entities};
use crate::health::{EFFECTS, FAILING, LAG};
use crate::{CursorError, Failure, Health, Limits, Next, Outside, Reactor, StoredCursor, Touched, Turn};

/// How often it is said how it goes, and a cursor kept.
const LOOK: Duration = Duration::from_secs(1);
/// The longest sleep until something is due: a machine that slept meanwhile counted on only on its boot clock.
const DOZE: Duration = Duration::from_secs(1);
/// The pause after the store, or where the cursor is kept, could not be read.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// Failures of all entities write so many lines at most, and then one every [`LOOK`].
const LINES: u32 = 8;

/// How a tenure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Somebody else holds the lease, or may.
    Lost,
    /// We were told to stop.
    Stopped,
    /// The feed has ended.
    Disconnected,
}

/// What is in memory while the lease is held.
pub struct Tenure<'a, R: Reactor> {
    reactor: &'a mut R,
    outside: &'a dyn Outside,
    clock: &'a dyn Clock,
    health: &'a Health,
    name: &'static str,
    limits: Limits,
    entities: Entities<R::Key>,
    effects: EffectRunner<R::Key, R::Outcome>,
    /// Everything up to here was taken in.
    passed: Position,
    cursor: StoredCursor,
    lines: u32,
    unsaid: u64,
}

impl<'a, R: Reactor> Tenure<'a, R> {
    pub fn new(
        reactor: &'a mut R,
        outside: &'a dyn Outside,
        clock: &'a dyn Clock,
        health: &'a Health,
    ) -> Self {
        let (name, limits) = (reactor.name(), reactor.limits());
        Self {
            entities: Entities::new(limits.clone()),
            effects: EffectRunner::new(),
            reactor,
            outside,
            clock,
            health,
            name,
            limits,
            passed: Position::ZERO,
            cursor: StoredCursor::default(),
            lines: LINES,
            unsaid: 0,
        }
    }

    /// Works until it is told to stop.
    pub async fn work(&mut self, stop: &CancellationToken) -> Over {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Over::Stopped,
            () = self.load() => {}
        }
        let types = self.reactor.types();
        let mut events = self.outside.events(&types, self.passed);
        // Nothing is read until then.
        let mut read_again_at: Option<Instant> = None;
        let mut look_at = Instant::now() + LOOK;
        loop {
            self.take_turns(self.limits.batch, true);
            let due = self.entities.next_due();
            let clock = self.clock;
            // Not in order: an effect that ends at every look must not keep the others from their turn.
            tokio::select! {
                () = stop.cancelled() => return Over::Stopped,
                Some((key, result)) = self.effects.next_ended(), if !self.effects.is_empty() => {
                    self.ended(&key, result);
                }
                () = sleep_on_boot_clock(clock, due), if due.is_some() => {
                    self.entities.wake(self.clock.since_boot(), self.limits.batch);
                }
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + LOOK;
                    self.passed = self.passed.max(events.passed());
                    if let Err(CursorError::Replaced) = self.look().await {
                        return Over::Lost;
                    }
                }
                () = sleep_until(read_again_at.unwrap_or(look_at)), if read_again_at.is_some() => {
                    read_again_at = None;
                }
                taken = events.next(self.limits.batch),
                    if read_again_at.is_none() && self.entities.waiting() < self.limits.backlog =>
                {
                    match taken {
                        Ok(recorded) => {
                            for recorded in &recorded {
                                self.take(recorded);
                            }
                            self.passed = self.passed.max(events.passed());
                        }
                        Err(FeedError::Disconnected) => return Over::Disconnected,
                        Err(FeedError::Store(StoreError::Trimmed { floor })) => {
                            tracing::warn!(reactor = self.name, %floor, "events were dropped before they were read");
                            self.passed = self.passed.max(floor);
                            events = self.outside.events(&types, self.passed);
                        }
                        Err(FeedError::Store(error)) => {
                            self.note(format!("cannot follow the log: {}", ErrorChain(&error)));
                            read_again_at = Some(Instant::now() + STORE_PAUSE);
                        }
                    }
                }
                () = std::future::ready(()), if self.entities.has_turn() => {
                    // So many entities have their turn that others on this thread should have theirs, too.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Ends what is under way, and says the last words.
    pub async fn end(mut self, over: Over) {
        if over == Over::Stopped {
            let patience = self.limits.finish;
            let finish = async {
                while let Some((key, result)) = self.effects.next_ended().await {
                    self.ended(&key, result);
                }
            };
            let _ = timeout(patience, finish).await;
        }
        self.effects.drop_all().await;
        let farewell = self.reactor.farewell();
        let words = farewell.into_iter().map(|(key, effect)| self.reactor.perform(&key, effect));
        let _ = timeout(self.limits.last_words, futures::future::join_all(words)).await;
        if over == Over::Stopped && self.reactor.keeps_cursor() {
            // Those who are done come to rest; what is still to be done holds it back.
            self.take_turns(usize::MAX, false);
            let _ = timeout(self.limits.last_words, self.keep()).await;
        }
    }

    async fn load(&mut self) {
        loop {
            let loaded = async {
                let mut cursor = None;
                if self.reactor.keeps_cursor() {
                    self.cursor = self
                        .outside
                        .cursor(self.name)
                        .await
                        .map_err(|error| ErrorChain(&error).to_string())?;
                    cursor = self.cursor.position;
                }
                let loaded = self.reactor.load(cursor).await;
                loaded.map_err(|error| ErrorChain(&error).to_string())
            };
            match loaded.await {
                Ok(loaded) => {
                    self.passed = loaded.position;
                    for key in loaded.keys {
                        self.touch(key, loaded.position, false);
                    }
                    return;
                }
                Err(error) => {
                    self.note(format!("cannot read the state: {error}"));
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    fn take(&mut self, recorded: &feed::Recorded) {
        let mut touched = Touched(Vec::new());
        self.reactor.apply(recorded, &mut touched);
        for (key, anew) in touched.0 {
            self.touch(key, recorded.position(), anew);
        }
    }

    fn touch(&mut self, key: R::Key, position: Position, anew: bool) {
        let reactor = &*self.reactor;
        if self.entities.touch(key.clone(), position, anew, |key| reactor.tenant(key)) {
            self.effects.drop_effect(&key);
        }
    }

    /// Decides for those whose turn it is, for so many at most. Without `begin`, what is to be done is left undone.
    fn take_turns(&mut self, most: usize, begin: bool) {
        for _ in 0..most {
            let Some(key) = self.entities.next_turn() else { return };
            let Some(instants) = self.entities.instants(&key) else { continue };
            let mut turn = Turn::new(self.clock, instants);
            let now = turn.since_boot();
            match self.reactor.decide(&key, &mut turn) {
                Next::Act(_) if !begin => {}
                Next::Act(effect) => {
                    self.entities.act(&key);
                    let effect = self.reactor.perform(&key, effect);
                    self.effects.begin(key, effect, self.limits.patience);
                }
                Next::Wait(length) => self.entities.wait(&key, now.saturating_add(length)),
                Next::Rest => self.entities.rest(&key),
            }
        }
    }

    fn ended(&mut self, key: &R::Key, result: Option<Result<R::Outcome, Failure>>) {
        let (how, outcome) = match result {
            None => (Ended::Dropped, None),
            Some(Ok(outcome)) => (Ended::Done, Some(Ok(outcome))),
            Some(Err(failure)) => {
                let how = if failure.is_for_good() { Ended::FailedForGood } else { Ended::Failed };
                (how, Some(Err(failure)))
            }
        };
        if let (Some(outcome), Some(instants)) = (outcome, self.entities.instants(key)) {
            let mut turn = Turn::new(self.clock, instants);
            match outcome {
                Ok(outcome) => self.reactor.settle(key, Ok(outcome), &mut turn),
                Err(failure) => {
                    self.reactor.settle(key, Err(&failure), &mut turn);
                    self.note(format!("{key:?}: {}", failure.message()));
                }
            }
        }
        let label = match how {
            Ended::Done => "done",
            Ended::Failed | Ended::FailedForGood => "failed",
            Ended::Dropped => "dropped",
        };
        metrics::counter!(EFFECTS, "reactor" => self.name, "outcome" => label).increment(1);
        self.entities.ended(key, how, self.clock.since_boot(), fastrand::f64());
    }

    /// Something went wrong: it is in the health, and in the log unless too much of that was said already.
    fn note(&mut self, error: String) {
        if self.lines > 0 {
            self.lines -= 1;
            tracing::warn!(reactor = self.name, error, unsaid = self.unsaid, "it failed; trying again");
            self.unsaid = 0;
        } else {
            self.unsaid += 1;
        }
        let now = self.clock.now();
        self.health.update(|status| status.last_error = Some((now, error)));
    }

    /// Says how it goes, and keeps the cursor.
    async fn look(&mut self) -> Result<(), CursorError> {
        self.lines = self.lines.max(1);
        let kept = if self.reactor.keeps_cursor() { self.keep().await } else { Ok(()) };
        self.report();
        kept
    }

    fn report(&self) {
        let lag = self.outside.head().0.saturating_sub(self.passed.0);
        let entities = &self.entities;
        self.health.update(|status| {
            status.position = self.passed;
            status.lag = lag;
            status.cursor = self.cursor.position;
            status.waiting = entities.waiting();
            status.in_flight = entities.in_flight();
            status.failing = entities.failing();
        });
        metrics::gauge!(LAG, "reactor" => self.name).set(lag as f64);
        metrics::gauge!(FAILING, "reactor" => self.name).set(entities.failing() as f64);
    }

    /// Keeps the cursor, if everything up to a later position is done.
    async fn keep(&mut self) -> Result<(), CursorError> {
        let done = self.entities.done_up_to(self.passed);
        if self.cursor.position.is_some_and(|kept| kept >= done) {
            return Ok(());
        }
        match self.outside.keep_cursor(self.name, done, self.cursor).await {
            Ok(kept) => {
                self.cursor = kept;
                Ok(())
            }
            Err(CursorError::Replaced) => Err(CursorError::Replaced),
            Err(error @ CursorError::Unavailable(_)) => {
                // Until it can be kept, a restart repeats more.
                self.note(format!("cannot keep the cursor: {}", ErrorChain(&error)));
                Ok(())
            }
        }
    }
}

/// Sleeps until a moment on the boot clock, or for a while: then it is looked again.
async fn sleep_on_boot_clock(clock: &dyn Clock, until: Option<Duration>) {
    if let Some(until) = until {
        sleep(until.saturating_sub(clock.since_boot()).min(DOZE)).await;
    }
}
