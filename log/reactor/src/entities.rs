//! Where each entity stands: whose turn it is, who waits until when, who failed, and up to where all is done. No I/O, no clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use events::{Position, TenantId};

use crate::Limits;
use crate::turn::Instants;

/// The entities that are not at rest. Those that are take no memory.
pub struct Entities<K> {
    limits: Limits,
    all: HashMap<K, Entity>,
    groups: HashMap<Option<TenantId>, Group<K>>,
    /// The groups that have somebody waiting and room for him, each once.
    rotation: VecDeque<Option<TenantId>>,
    /// Who waits until when, on the boot clock. The number tells those of one moment apart.
    due: BTreeMap<(Duration, u64), K>,
    numbered: u64,
    /// The first events that entities were touched by, and how many entities of each.
    open: BTreeMap<Position, usize>,
    waiting: usize,
    in_flight: usize,
    failing: usize,
}

/// The entities of one tenant, or of nobody.
struct Group<K> {
    waiting: VecDeque<K>,
    in_flight: usize,
    /// Whether it is in the rotation.
    listed: bool,
}

struct Entity {
    group: Option<TenantId>,
    /// The first event that it was touched by since it was last at rest.
    since: Position,
    place: Place,
    /// Failures in a row.
    failures: u32,
    instants: Instants,
}

enum Place {
    /// In the queue of its group.
    Waiting,
    /// Between the queue and an effect, a wait or rest.
    Deciding,
    /// An effect is under way. `again`: it was touched meanwhile.
    Acting { again: bool },
    /// It has nothing to do before then.
    Asleep { due: (Duration, u64) },
    /// It failed, and pauses until then.
    Pausing { due: (Duration, u64) },
}

/// How an effect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Trying again may help.
    Failed,
    /// Trying the same again does not help.
    FailedForGood,
    /// Somebody wanted it no more.
    Dropped,
}

impl<K: Clone + Eq + Hash> Entities<K> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            all: HashMap::new(),
            groups: HashMap::new(),
            rotation: VecDeque::new(),
            due: BTreeMap::new(),
            numbered: 0,
            open: BTreeMap::new(),
            waiting: 0,
            in_flight: 0,
            failing: 0,
        }
    }

    /// An event at this position concerns an entity. True: what is under way for it is to be dropped.
    pub fn touch(
        &mut self,
        key: K,
        position: Position,
        anew: bool,
        tenant: impl FnOnce(&K) -> Option<TenantId>,
    ) -> bool {
        let Some(entity) = self.all.get_mut(&key) else {
            let group = tenant(&key);
            let entity = Entity {
                group: group.clone(),
                since: position,
                place: Place::Waiting,
                failures: 0,
                instants: Instants::default(),
            };
            *self.open.entry(position).or_default() += 1;
            self.all.insert(key.clone(), entity);
            self.enqueue(group, key);
            return false;
        };
        if anew && entity.failures > 0 {
            entity.failures = 0;
            self.failing -= 1;
        }
        match &mut entity.place {
            Place::Waiting | Place::Deciding => false,
            Place::Acting { again } => {
                *again = true;
                anew
            }
            // A pause is not cut short by what happens meanwhile, or one that is touched often would never pause.
            Place::Pausing { .. } if !anew => false,
            Place::Asleep { due } | Place::Pausing { due } => {
                self.due.remove(due);
                entity.place = Place::Waiting;
                let group = entity.group.clone();
                self.enqueue(group, key);
                false
            }
        }
    }

    fn enqueue(&mut self, group: Option<TenantId>, key: K) {
        self.waiting += 1;
        self.group(&group).waiting.push_back(key);
        self.list(group);
    }

    fn group(&mut self, group: &Option<TenantId>) -> &mut Group<K> {
        self.groups.entry(group.clone()).or_insert_with(|| Group {
            waiting: VecDeque::new(),
            in_flight: 0,
            listed: false,
        })
    }

    const fn share(&self, group: &Option<TenantId>) -> usize {
        if group.is_some() { self.limits.share } else { self.limits.in_flight }
    }

    /// Puts a group into the rotation, if somebody of it may have a turn.
    fn list(&mut self, group: Option<TenantId>) {
        let share = self.share(&group);
        let listed = self.group(&group);
        if !listed.listed && !listed.waiting.is_empty() && listed.in_flight < share {
            listed.listed = true;
            self.rotation.push_back(group);
        }
    }

    /// Whether somebody could have a turn now.
    pub fn has_turn(&self) -> bool {
        self.in_flight < self.limits.in_flight && !self.rotation.is_empty()
    }

    /// Whose turn it is. It must be told what was decided.
    pub fn next_turn(&mut self) -> Option<K> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        while let Some(name) = self.rotation.pop_front() {
            let share = self.share(&name);
            let group = self.group(&name);
            group.listed = false;
            if group.in_flight >= share {
                continue;
            }
            let Some(key) = group.waiting.pop_front() else { continue };
            self.waiting -= 1;
            self.list(name);
            if let Some(entity) = self.all.get_mut(&key) {
                entity.place = Place::Deciding;
                entity.instants.prune();
            }
            return Some(key);
        }
        None
    }

    /// The instants that an entity has asked for.
    pub fn instants(&mut self, key: &K) -> Option<&mut Instants> {
        self.all.get_mut(key).map(|entity| &mut entity.instants)
    }

    /// It was decided to act.
    pub fn act(&mut self, key: &K) {
        let Some(entity) = self.all.get_mut(key) else { return };
        entity.place = Place::Acting { again: false };
        let group = entity.group.clone();
        self.in_flight += 1;
        self.group(&group).in_flight += 1;
    }

    /// It was decided to wait until then, on the boot clock.
    pub fn wait(&mut self, key: &K, until: Duration) {
        let due = self.number(until);
        if let Some(entity) = self.all.get_mut(key) {
            entity.place = Place::Asleep { due };
            self.due.insert(due, key.clone());
        }
    }

    fn number(&mut self, until: Duration) -> (Duration, u64) {
        self.numbered += 1;
        (until, self.numbered)
    }

    /// It was decided that there is nothing to do.
    pub fn rest(&mut self, key: &K) {
        let Some(entity) = self.all.remove(key) else { return };
        if entity.failures > 0 {
            self.failing -= 1;
        }
        if let Some(count) = self.open.get_mut(&entity.since) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&entity.since);
            }
        }
        self.forget_if_idle(&entity.group);
    }

    fn forget_if_idle(&mut self, group: &Option<TenantId>) {
        if self.groups.get(group).is_some_and(|it| it.waiting.is_empty() && it.in_flight == 0 && !it.listed) {
            self.groups.remove(group);
        }
    }

    /// An effect has ended, at `now` on the boot clock. `dice` in 0..1 spreads the pauses of those that fail together.
    pub fn ended(&mut self, key: &K, how: Ended, now: Duration, dice: f64) {
        let Some(entity) = self.all.get_mut(key) else { return };
        let group = entity.group.clone();
        self.in_flight -= 1;
        let failed = match how {
            Ended::Done => {
                if std::mem::take(&mut entity.failures) > 0 {
                    self.failing -= 1;
                }
                false
            }
            Ended::Dropped => false,
            Ended::Failed | Ended::FailedForGood => {
                entity.failures = entity.failures.saturating_add(1);
                if entity.failures == 1 {
                    self.failing += 1;
                }
                // What failed for good is decided upon at once; but only once in a row.
                how == Ended::Failed || entity.failures > 1
            }
        };
        if failed {
            let due = (now.saturating_add(pause(&self.limits, entity.failures, dice)), self.numbered + 1);
            entity.place = Place::Pausing { due };
            self.numbered += 1;
            self.due.insert(due, key.clone());
        } else {
            entity.place = Place::Waiting;
            self.enqueue(group.clone(), key.clone());
        }
        self.group(&group).in_flight -= 1;
        self.list(group.clone());
        self.forget_if_idle(&group);
    }

    /// When the next wait is over, on the boot clock.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Those whose waits are over have a turn again; at most so many at once.
    pub fn wake(&mut self, now: Duration, most: usize) {
        for _ in 0..most {
            let Some(first) = self.due.first_entry().filter(|entry| entry.key().0 <= now) else { return };
            let key = first.remove();
            let Some(entity) = self.all.get_mut(&key) else { continue };
            entity.place = Place::Waiting;
            let group = entity.group.clone();
            self.enqueue(group, key);
        }
    }

    /// Up to where everything is done, when everything up to `passed` was taken in.
    pub fn done_up_to(&self, passed: Position) -> Position {
        match self.open.first_key_value() {
            Some((first, _)) => passed.min(Position(first.0.saturating_sub(1))),
            None => passed,
        }
    }

    /// How many wait for their turn.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many act.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many have failed.
    pub const fn failing(&self) -> usize {
        self.failing
    }
}

/// The pause after so many failures in a row: it doubles each time, and the later half of it is left to chance.
fn pause(limits: &Limits, failures: u32, dice: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = limits.first_pause.saturating_mul(1 << doublings).min(limits.longest_pause);
    full.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        batch: 4,
        in_flight: 4,
        share: 2,
        backlog: 8,
        patience: Duration::from_secs(30),
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(10),
        finish: Duration::ZERO,
        last_words: Duration::ZERO,
    };

    fn tenant(key: &u8) -> Option<TenantId> {
        ["red", "blue"].get(usize::from(key % 3)).map(|name| name.parse().unwrap())
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let of = |failures| pause(&LIMITS, failures, 1.0).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 99, u32::MAX].map(of), [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(pause(&LIMITS, 1, 0.0), Duration::from_millis(500));
    }

    #[test]
    fn tenants_take_turns_and_none_has_more_than_its_share() {
        let mut entities = Entities::new(Limits { in_flight: 3, ..LIMITS });
        // Red has 0, 3, 6, 9; blue has 1, 4.
        for key in [0, 3, 6, 9, 1, 4] {
            entities.touch(key, Position(1), false, tenant);
        }
        let mut turns = Vec::new();
        while let Some(key) = entities.next_turn() {
            entities.act(&key);
            turns.push(key);
        }
        assert_eq!(turns, [0, 1, 3]);
        entities.ended(&0, Ended::Failed, Duration::ZERO, 1.0);
        assert_eq!(entities.next_turn(), Some(4));
        entities.rest(&4);
        assert_eq!(entities.next_turn(), Some(6));
        assert_eq!((entities.waiting(), entities.failing()), (1, 1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Touch(u8, bool),
        Turn(u8),
        End(u8, Ended),
        Sleep(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let ended = prop_oneof![
            Just(Ended::Done),
            Just(Ended::Failed),
            Just(Ended::FailedForGood),
            Just(Ended::Dropped)
        ];
        prop_oneof![
            (0..9u8, any::<bool>()).prop_map(|(key, anew)| Step::Touch(key, anew)),
            (0..4u8).prop_map(Step::Turn),
            (0..9u8, ended).prop_map(|(nth, how)| Step::End(nth, how)),
            (0..20u64).prop_map(Step::Sleep),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_forgotten_and_no_limit_is_passed(steps in prop::collection::vec(any_step(), 0..80)) {
            let mut entities: Entities<u8> = Entities::new(LIMITS);
            let (mut now, mut position) = (Duration::ZERO, Position::ZERO);
            let mut acting: Vec<u8> = Vec::new();
            // The first event of each that is not at rest.
            let mut open: BTreeMap<u8, Position> = BTreeMap::new();
            let decide = |entities: &mut Entities<u8>, acting: &mut Vec<u8>, now, what: u8| {
                let key = entities.next_turn()?;
                match what {
                    0 => entities.rest(&key),
                    1 => entities.wait(&key, now + Duration::from_secs(3)),
                    2.. => {
                        entities.act(&key);
                        acting.push(key);
                    }
                }
                Some(key).filter(|_| what == 0)
            };
            for step in steps {
                match step {
                    Step::Touch(key, anew) => {
                        position = position.next();
                        let drops = entities.touch(key, position, anew, tenant);
                        prop_assert!(!drops || acting.contains(&key));
                        open.entry(key).or_insert(position);
                    }
                    Step::Turn(what) => {
                        if let Some(key) = decide(&mut entities, &mut acting, now, what) {
                            open.remove(&key);
                        }
                    }
                    Step::End(nth, how) if !acting.is_empty() => {
                        let key = acting.remove(usize::from(nth) % acting.len());
                        entities.ended(&key, how, now, 0.5);
                    }
                    Step::End(..) => {}
                    Step::Sleep(seconds) => {
                        now += Duration::from_secs(seconds);
                        entities.wake(now, 2);
                    }
                }
                prop_assert_eq!(entities.in_flight(), acting.len());
                prop_assert!(acting.len() <= LIMITS.in_flight);
                for name in ["red", "blue"] {
                    let own = acting.iter().filter(|key| tenant(key).is_some_and(|it| it.as_str() == name));
                    prop_assert!(own.count() <= LIMITS.share);
                }
                let unique: HashSet<&u8> = acting.iter().collect();
                prop_assert_eq!(unique.len(), acting.len(), "two effects of one entity");
                let first = open.values().min().map_or(position, |first| Position(first.0 - 1));
                prop_assert_eq!(entities.done_up_to(position), first);
            }
            // All that are left get to rest.
            for _ in 0..100 {
                now += Duration::from_secs(20);
                entities.wake(now, 9);
                for key in std::mem::take(&mut acting) {
                    entities.ended(&key, Ended::Done, now, 0.5);
                }
                while let Some(key) = decide(&mut entities, &mut acting, now, 0) {
                    open.remove(&key);
                }
            }
            prop_assert_eq!(open, BTreeMap::new());
            prop_assert!(entities.all.is_empty() && entities.groups.is_empty() && entities.due.is_empty());
            let counts = (entities.waiting(), entities.in_flight(), entities.failing());
            prop_assert_eq!(counts, (0, 0, 0));
        }
    }
}
