//! The loop under a simulated clock, with a world in memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use events::{
    EventData, Position, SandboxEvent, SandboxId, SandboxTtlExtended, TemplateDeleted, TemplateEvent,
    TenantId,
};
use feed::Recorded;
use record::StoreError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::simulated::{SimulatedClock, World, at, away};
use crate::{Effecting, Failure, Health, Limits, Loaded, Next, Reactor, Runtime, Touched, Turn};

/// What a toy is to do: something for each event with a name, in order, and to ring at instants that the log names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Alarm(SandboxId),
}

/// What came of all toys of a test, and how their effects go.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    /// Effects that were done: whose, for which event, when.
    done: Vec<(Key, Position, Duration)>,
    /// Effects that were begun.
    begun: Vec<(Key, Position)>,
    failing: HashSet<String>,
    hanging: HashSet<String>,
    panicking: HashSet<String>,
    for_good: HashSet<String>,
    loads_that_fail: u32,
    slow_by: Duration,
}

impl Diary {
    fn with<T>(&self, look: impl FnOnce(&mut Pages) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn done(&self) -> Vec<u64> {
        self.with(|pages| pages.done.iter().map(|(_, position, _)| position.0).collect())
    }

    fn done_for(&self, name: &str) -> Vec<u64> {
        let key = Key::Name(name.to_owned());
        self.with(|pages| {
            let own = pages.done.iter().filter(|(whose, ..)| *whose == key);
            own.map(|(_, position, _)| position.0).collect()
        })
    }

    fn begun_for(&self, name: &str) -> usize {
        let key = Key::Name(name.to_owned());
        self.with(|pages| pages.begun.iter().filter(|(whose, _)| *whose == key).count())
    }
}

struct Toy {
    diary: Diary,
    began: Instant,
    limits: Limits,
    tenants: HashMap<Key, TenantId>,
    names: HashMap<String, VecDeque<Position>>,
    alarms: HashMap<SandboxId, (DateTime<Utc>, Position)>,
}

#[async_trait]
impl Reactor for Toy {
    type Key = Key;
    type Effect = Position;
    type Outcome = Position;

    fn name(&self) -> &'static str {
        "toy"
    }

    fn types(&self) -> Vec<&'static str> {
        vec!["template.deleted", "sandbox.ttl_extended"]
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn keeps_cursor(&self) -> bool {
        true
    }

    async fn load(&mut self, cursor: Option<Position>) -> Result<Loaded<Key>, StoreError> {
        let fails = self.diary.with(|pages| {
            let fails = pages.loads_that_fail > 0;
            pages.loads_that_fail = pages.loads_that_fail.saturating_sub(1);
            fails
        });
        if fails {
            return Err(away());
        }
        (self.names, self.alarms) = (HashMap::new(), HashMap::new());
        Ok(Loaded { position: cursor.unwrap_or_default(), keys: Vec::new() })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<Key>) {
        let (event, position) = (&recorded.event, recorded.position());
        if let EventData::Template(TemplateEvent::Deleted(deleted)) = &event.data {
            let key = Key::Name(deleted.name.clone());
            self.tenants.insert(key.clone(), event.tenant.clone());
            let open = self.names.entry(deleted.name.clone()).or_default();
            open.push_back(position);
            // A name in capitals is not to wait for what is under way.
            if deleted.name.chars().all(char::is_uppercase) {
                open.drain(..open.len() - 1);
                touched.anew(key);
            } else {
                touched.entity(key);
            }
        } else if let EventData::Sandbox(SandboxEvent::TtlExtended(extended)) = &event.data {
            let id = event.sandbox.unwrap();
            self.alarms.insert(id, (extended.expires_at, position));
            touched.entity(Key::Alarm(id));
        }
    }

    fn decide(&mut self, key: &Key, turn: &mut Turn<'_>) -> Next<Position> {
        match key {
            Key::Name(name) => self
                .names
                .get(name)
                .and_then(|open| open.front())
                .map_or(Next::Rest, |first| Next::Act(*first)),
            Key::Alarm(id) => match self.alarms.get(id) {
                Some((at, position)) if turn.passed(*at).is_some() => Next::Act(*position),
                Some((at, _)) => Next::Wait(turn.left(*at)),
                None => Next::Rest,
            },
        }
    }

    fn perform(&self, key: &Key, position: Position) -> Effecting<Position> {
        let (diary, key, began) = (self.diary.clone(), key.clone(), self.began);
        Box::pin(async move {
            let name = if let Key::Name(name) = &key { name.as_str() } else { "" };
            let (fails, hangs, panics, for_good, slow_by) = diary.with(|pages| {
                pages.begun.push((key.clone(), position));
                (
                    pages.failing.contains(name),
                    pages.hanging.contains(name),
                    pages.panicking.contains(name),
                    pages.for_good.contains(name),
                    pages.slow_by,
                )
            });
            sleep(slow_by).await;
            if hangs {
                std::future::pending::<()>().await;
            }
            assert!(!panics, "an effect that panics");
            if for_good {
                return Err(Failure::for_good("nobody can do this"));
            }
            if fails {
                return Err(Failure::passing(&away()));
            }
            diary.with(|pages| pages.done.push((key, position, began.elapsed())));
            Ok(position)
        })
    }

    fn settle(&mut self, key: &Key, outcome: Result<Position, &Failure>, _: &mut Turn<'_>) {
        match (key, outcome) {
            (Key::Name(name), Ok(done)) => {
                self.names.entry(name.clone()).or_default().retain(|open| *open != done);
            }
            (Key::Name(name), Err(failure)) if failure.is_for_good() => {
                self.names.remove(name);
            }
            (Key::Alarm(id), Ok(_)) => {
                self.alarms.remove(id);
            }
            (Key::Name(_) | Key::Alarm(_), Err(_)) => {}
        }
    }

    fn tenant(&self, key: &Key) -> Option<TenantId> {
        self.tenants.get(key).cloned()
    }
}

/// A world with toys in it.
struct Nursery {
    world: World,
    diary: Diary,
    clock: Arc<SimulatedClock>,
    began: Instant,
    limits: Limits,
}

struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
    health: Health,
}

impl Running {
    /// As if its process was killed: it gives nothing back and says nothing.
    fn kill(&self) {
        self.task.abort();
    }
}

impl Nursery {
    fn new() -> Self {
        Self {
            world: World::default(),
            diary: Diary::default(),
            clock: Arc::new(SimulatedClock::new()),
            began: Instant::now(),
            limits: Limits::default(),
        }
    }

    fn start(&self) -> Running {
        let toy = Toy {
            diary: self.diary.clone(),
            began: self.began,
            limits: self.limits.clone(),
            tenants: HashMap::new(),
            names: HashMap::new(),
            alarms: HashMap::new(),
        };
        let stop = CancellationToken::new();
        let runtime =
            Runtime::new(toy, self.world.clone(), Arc::<SimulatedClock>::clone(&self.clock), stop.clone());
        let health = runtime.health();
        Running { task: tokio::spawn(runtime.run()), stop, health }
    }

    fn delete(&self, tenant: &str, name: &str) -> u64 {
        self.world.record(tenant, None, TemplateDeleted { name: name.to_owned() }).0
    }

    fn alarm(&self, sandbox: SandboxId, expires_at: DateTime<Utc>) -> u64 {
        self.world.record("red", Some(sandbox), SandboxTtlExtended { expires_at }).0
    }

    fn cursor(&self) -> u64 {
        self.world.cursor_of("toy").unwrap_or_default().0
    }
}

/// Lets simulated time pass.
async fn pass(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_works_and_the_other_takes_over_within_the_term() {
    let nursery = Nursery::new();
    let (first, second) = (nursery.start(), nursery.start());
    for n in 0..20 {
        nursery.delete("red", &format!("t{n}"));
    }
    pass(3.0).await;
    let mut done = nursery.diary.done();
    done.sort_unstable();
    assert_eq!(done, (1..=20).collect::<Vec<u64>>(), "each once");
    assert_eq!(nursery.cursor(), 20);
    let holds = [first.health.status().holds, second.health.status().holds];
    assert_eq!(holds.iter().filter(|holds| **holds).count(), 1);

    // It dies between an effect and the cursor.
    nursery.delete("red", "u");
    pass(0.01).await;
    assert_eq!((nursery.diary.done_for("u"), nursery.cursor()), (vec![21], 20));
    let (dead, heir) = if holds[0] { (first, second) } else { (second, first) };
    dead.kill();
    nursery.delete("red", "v");
    let killed_at = nursery.began.elapsed();
    pass(8.0).await;
    assert_eq!(nursery.diary.done_for("u"), [21, 21], "what was not known to be done is done again");
    assert_eq!(nursery.diary.done().len(), 23, "and nothing that was");
    let taken_over_at = nursery.diary.with(|pages| pages.done.last().unwrap().2);
    assert!(taken_over_at - killed_at <= Duration::from_secs(7), "{taken_over_at:?} after {killed_at:?}");
    assert!(heir.health.status().holds);
}

#[tokio::test(start_paused = true)]
async fn after_a_clean_stop_the_next_one_works_at_once_and_repeats_nothing() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| pages.slow_by = Duration::from_millis(500));
    let first = nursery.start();
    nursery.delete("red", "a");
    pass(0.1).await;
    first.stop.cancel();
    pass(0.1).await;
    assert!(!first.task.is_finished(), "what is under way is finished");
    let second = nursery.start();
    pass(2.0).await;
    assert!(first.task.is_finished() && second.health.status().holds);
    assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![1], 1));
    assert_eq!(nursery.diary.begun_for("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_cursor_waits_for_effects_and_passes_what_nobody_wants() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| pages.hanging.insert("slow".to_owned()));
    let toy = nursery.start();
    nursery.delete("red", "a");
    let slow = nursery.delete("red", "slow");
    nursery.delete("red", "b");
    pass(5.0).await;
    assert_eq!(nursery.diary.done(), [1, 3], "one that takes long holds up nobody else");
    assert_eq!(nursery.cursor(), slow - 1, "and the cursor");
    assert_eq!(toy.health.status().in_flight, 1);
    nursery.diary.with(|pages| pages.hanging.clear());
    // It takes longer than anything may, and is tried again.
    pass(40.0).await;
    assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![1, 3, 2], 3));
    for _ in 0..10 {
        nursery.world.record("red", None, events::NodeDraining { node: "n".parse().unwrap() });
    }
    pass(2.0).await;
    let status = toy.health.status();
    assert_eq!((nursery.cursor(), status.position, status.lag), (13, Position(13), 0), "nobody wants these");
    nursery.delete("red", "c");
    pass(2.0).await;
    assert_eq!((nursery.cursor(), toy.health.status().lag), (14, 0));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_entity_is_tried_with_pauses_and_stops_no_other() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| pages.failing.insert("poison".to_owned()));
    let toy = nursery.start();
    let poisoned = nursery.delete("red", "poison");
    for n in 0..200 {
        // It is spoken of all the time, which makes its pauses no shorter.
        nursery.delete("red", if n % 2 == 0 { "poison" } else { "well" });
        pass(0.1).await;
    }
    assert_eq!(nursery.diary.done_for("well").len(), 100);
    let attempts = nursery.diary.begun_for("poison");
    assert!((5..=16).contains(&attempts), "{attempts} attempts in 20 s");
    let status = toy.health.status();
    assert_eq!((status.failing, status.cursor), (1, Some(Position(poisoned - 1))));
    let (_, error) = status.last_error.unwrap();
    assert!(error.contains("poison") && error.contains("it is away"), "{error}");

    nursery.diary.with(|pages| pages.failing.clear());
    pass(7.0).await;
    assert_eq!(nursery.diary.done_for("poison").len(), 101);
    assert_eq!((toy.health.status().failing, nursery.cursor()), (0, 201));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_panics_has_failed_and_one_that_fails_for_good_is_decided_upon_at_once() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| {
        pages.panicking.insert("bad".to_owned());
        pages.for_good.insert("hopeless".to_owned());
    });
    let toy = nursery.start();
    nursery.delete("red", "bad");
    nursery.delete("red", "hopeless");
    nursery.delete("red", "good");
    pass(1.5).await;
    assert_eq!(nursery.diary.done(), [3]);
    assert_eq!(nursery.diary.begun_for("hopeless"), 1);
    assert!(nursery.diary.begun_for("bad") >= 2);
    assert_eq!(toy.health.status().failing, 1);
    nursery.diary.with(|pages| pages.panicking.clear());
    pass(7.0).await;
    assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![3, 1], 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_done_then_and_a_clock_that_is_set_changes_nothing() {
    for jump in [TimeDelta::hours(2), TimeDelta::hours(-2)] {
        let nursery = Nursery::new();
        let (early, late) = (SandboxId::new(), SandboxId::new());
        let _toy = nursery.start();
        nursery.alarm(late, at(600));
        nursery.alarm(early, at(60));
        pass(1.0).await;
        nursery.clock.jump(jump);
        pass(58.0).await;
        assert_eq!(nursery.diary.done(), [0; 0]);
        pass(2.0).await;
        assert_eq!(nursery.diary.done(), [2]);
        assert_eq!(nursery.cursor(), 0, "what waits is still to be done");
        // The new instant counts from when it is seen, by the clock as it is set by then.
        nursery.alarm(late, at(661) + jump + TimeDelta::seconds(60));
        pass(640.0).await;
        assert_eq!(nursery.diary.done(), [2]);
        pass(25.0).await;
        assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![2, 3], 3));
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_is_taken_than_can_be_done() {
    let mut nursery = Nursery::new();
    nursery.limits = Limits { batch: 4, in_flight: 2, share: 2, backlog: 8, ..Limits::default() };
    nursery.diary.with(|pages| pages.slow_by = Duration::from_secs(1));
    let toy = nursery.start();
    for n in 0..1_000 {
        nursery.delete("red", &format!("t{n}"));
    }
    pass(0.5).await;
    for _ in 0..20 {
        pass(1.0).await;
        let status = toy.health.status();
        assert!(status.in_flight <= 2 && status.waiting <= 12, "{status:?}");
        let done = nursery.diary.done().len() as u64;
        assert!(status.position.0 <= done + 16, "{status:?} with {done} done");
        assert_eq!(status.lag, 1_000 - status.position.0);
    }
    assert!(nursery.diary.done().len() >= 38, "{}", nursery.diary.done().len());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_effects_hang_leaves_room_for_others() {
    let mut nursery = Nursery::new();
    nursery.limits = Limits { in_flight: 4, share: 1, ..Limits::default() };
    nursery.diary.with(|pages| {
        for n in 0..50 {
            pages.hanging.insert(format!("red{n}"));
        }
    });
    let toy = nursery.start();
    for n in 0..50 {
        nursery.delete("red", &format!("red{n}"));
    }
    for n in 0..20 {
        nursery.delete("blue", &format!("blue{n}"));
    }
    pass(3.0).await;
    assert_eq!(nursery.diary.done().len(), 20);
    let status = toy.health.status();
    assert_eq!((status.in_flight, status.waiting), (1, 49));
}

#[tokio::test(start_paused = true)]
async fn what_is_begun_anew_drops_what_is_under_way() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| pages.hanging.insert("A".to_owned()));
    let _toy = nursery.start();
    nursery.delete("red", "A");
    pass(1.0).await;
    nursery.diary.with(|pages| pages.hanging.clear());
    nursery.delete("red", "A");
    pass(1.5).await;
    assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![2], 2));
    // Nor does it wait out a pause.
    nursery.diary.with(|pages| pages.failing.insert("A".to_owned()));
    nursery.delete("red", "A");
    pass(60.0).await;
    nursery.diary.with(|pages| pages.failing.clear());
    nursery.delete("red", "A");
    pass(0.1).await;
    assert_eq!(nursery.diary.done(), [2, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let nursery = Nursery::new();
    nursery.diary.with(|pages| pages.loads_that_fail = 3);
    nursery.world.fail(3);
    nursery.delete("red", "a");
    let toy = nursery.start();
    pass(0.1).await;
    assert!(toy.health.status().last_error.unwrap().1.contains("it is away"));
    pass(4.0).await;
    assert_eq!(nursery.diary.done(), [1]);
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_lease_or_the_cursor_drops_what_is_under_way_and_begins_again_where_it_stands() {
    let nursery = Nursery::new();
    let toy = nursery.start();
    nursery.delete("red", "a");
    pass(2.0).await;
    nursery.diary.with(|pages| pages.hanging.insert("b".to_owned()));
    nursery.delete("red", "b");
    pass(1.0).await;
    nursery.world.take_away("toy");
    nursery.diary.with(|pages| pages.hanging.clear());
    pass(2.0).await;
    assert_eq!((nursery.diary.done(), nursery.cursor()), (vec![1, 2], 2));
    assert!(toy.health.status().holds);

    // Somebody else is further than we are: what he did is not done again.
    nursery.world.keep_as_another("toy", Position(3));
    nursery.delete("red", "c");
    nursery.delete("red", "d");
    pass(0.1).await;
    assert_eq!(nursery.diary.done(), [1, 2, 3, 4]);
    pass(10.0).await;
    assert_eq!(nursery.diary.done(), [1, 2, 3, 4, 4]);
    assert_eq!(nursery.cursor(), 4);
}
