//! All jobs that have not ended, as a reactor.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::{
    Aggregate, Category, Event, EventData, ExecId, JobEvent, JobId, JobOutcome, JobState, PoolName, Position,
    SandboxEvent, SandboxId, SandboxState, TenantId,
};
use feed::Recorded;
use reactor::{Effecting, Failure, Limits, Loaded, Next, Reactor, Touched, Turn};
use record::StoreError;

use crate::decide::decide;
use crate::effect::{Came, Deed, Effect, News, Step};
use crate::entry::{Claim, Entry, Light, Phase};
use crate::fleet::Fleet;
use crate::outside::Outside;
use crate::queue::{FairQueue, Rank};
use crate::retry::INPUT_LOST;
use crate::{JobsConfig, asking};

/// How many jobs leave the queue with one message.
const ADMITTED_AT_ONCE: usize = 64;
/// How often it is looked whether one may, where no event says so.
const LOOK: Duration = Duration::from_millis(250);
/// How long it is waited for the record of that before it is said again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Of so many jobs that wait everything is kept in memory: those need not be read when their turn comes.
const KEPT_WHOLE: usize = 1_024;

/// Who something is to be done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKey {
    /// A job.
    Job(JobId),
    /// All that wait for their turn.
    Queue,
}

/// All jobs that have not ended.
pub struct JobDriver {
    outside: Arc<dyn Outside>,
    config: JobsConfig,
    fleet: Fleet,
    entries: HashMap<JobId, Entry>,
    /// Whom the events of a sandbox concern.
    homes: HashMap<SandboxId, HashSet<JobId>>,
    /// Whose an exec is.
    execs: HashMap<ExecId, JobId>,
    /// Who needs a job.
    waiters: HashMap<JobId, Vec<JobId>>,
    queue: FairQueue,
    promised: HashSet<JobId>,
    /// What is taken: jobs at work, slots of pools, places under keys.
    running: usize,
    slots: HashMap<PoolName, usize>,
    keys: HashMap<(TenantId, String), usize>,
    /// Sandboxes that are no job's, by their pool.
    others: HashMap<SandboxId, PoolName>,
}

impl JobDriver {
    pub fn new(outside: Arc<dyn Outside>, config: JobsConfig, fleet: Fleet) -> Self {
        Self {
            outside,
            config,
            fleet,
            entries: HashMap::new(),
            homes: HashMap::new(),
            execs: HashMap::new(),
            waiters: HashMap::new(),
            queue: FairQueue::default(),
            promised: HashSet::new(),
            running: 0,
            slots: HashMap::new(),
            keys: HashMap::new(),
            others: HashMap::new(),
        }
    }

    fn forget_all(&mut self) {
        self.entries.clear();
        self.homes.clear();
        self.execs.clear();
        self.waiters.clear();
        self.queue = FairQueue::default();
        self.promised.clear();
        self.running = 0;
        self.slots.clear();
        self.keys.clear();
        self.others.clear();
    }

    /// Changes an entry, and with it all that follows from it.
    fn change(&mut self, id: JobId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = entry.claim();
        change(entry);
        let after = entry.claim();
        let (indexed, attempt) = (entry.indexed, entry.attempt());
        entry.indexed = attempt;
        if entry.promised.is_none() {
            self.promised.remove(&id);
        }
        self.count(before, after);
        if indexed != attempt {
            self.index(id, indexed, attempt);
        }
        self.line_up(id);
    }

    fn count(&mut self, before: Claim, after: Claim) {
        self.running = self.running.saturating_sub(before.running) + after.running;
        if let Some((pool, slots)) = before.slots
            && slots > 0
        {
            free(&mut self.slots, &pool, slots);
        }
        if let Some((pool, slots)) = after.slots
            && slots > 0
        {
            *self.slots.entry(pool).or_default() += slots;
        }
        if let Some(key) = before.key {
            free(&mut self.keys, &key, 1);
        }
        if let Some(key) = after.key {
            *self.keys.entry(key).or_default() += 1;
        }
    }

    fn index(&mut self, id: JobId, before: Option<(SandboxId, ExecId)>, after: Option<(SandboxId, ExecId)>) {
        if let Some((sandbox, exec)) = before {
            self.execs.remove(&exec);
            let still = self.entries.get(&id).is_some_and(|entry| entry.sandboxes.contains_key(&sandbox));
            if !still {
                self.leave_home(sandbox, id);
            }
        }
        if let Some((sandbox, exec)) = after {
            self.execs.insert(exec, id);
            self.homes.entry(sandbox).or_default().insert(id);
        }
    }

    fn leave_home(&mut self, sandbox: SandboxId, id: JobId) {
        if let Some(home) = self.homes.get_mut(&sandbox) {
            home.remove(&id);
            if home.is_empty() {
                self.homes.remove(&sandbox);
            }
        }
    }

    /// Puts a job into the queue, or takes it out. One that rests between two attempts comes when its pause is over.
    fn line_up(&mut self, id: JobId) {
        let waits = self.entries.get(&id).and_then(|entry| {
            let light = entry.light.as_ref()?;
            (light.phase == Phase::Queued && light.waits_for_turn() && entry.promised.is_none())
                .then(|| (light.owner(), light.queue.clone(), light.gate(), rank(light)))
        });
        match waits {
            Some((owner, queue, gate, rank)) => self.queue.push(owner, &queue, gate, rank),
            None => self.queue.remove(id),
        }
    }

    /// The pause of a job is over.
    fn line_up_again(&mut self, id: JobId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if let Some(light) = &entry.light
            && light.waits_for_turn()
            && entry.promised.is_none()
        {
            let (owner, gate, rank, queue) = (light.owner(), light.gate(), rank(light), light.queue.clone());
            self.queue.push(owner, &queue, gate, rank);
        }
    }

    /// Adds an entry.
    fn enter(&mut self, id: JobId, entry: Entry) {
        self.entries.insert(id, Entry::new(None));
        self.change(id, |placeholder| *placeholder = entry);
        let needs: Vec<JobId> = self
            .entries
            .get(&id)
            .and_then(|entry| entry.light.as_ref())
            .map(|light| light.needs.iter().map(|need| need.job).collect())
            .unwrap_or_default();
        for need in needs {
            self.waiters.entry(need).or_default().push(id);
            let known = self.entries.get(&need).and_then(|entry| entry.light.as_ref());
            match known.map(|light| light.phase) {
                Some(Phase::Ended(outcome, _)) => self.need_ended(id, need, Some(outcome)),
                // It is heard when it ends.
                Some(Phase::Waiting | Phase::Queued | Phase::Retrying(_) | Phase::Active) => {
                    self.need_lives(id, need);
                }
                None => {}
            }
        }
    }

    fn need_ended(&mut self, id: JobId, need: JobId, outcome: Option<JobOutcome>) {
        self.with_need(id, need, |need| {
            need.outcome.get_or_insert(outcome);
            need.is_looked_for = false;
        });
    }

    fn need_lives(&mut self, id: JobId, need: JobId) {
        self.with_need(id, need, |need| need.is_looked_for = false);
    }

    fn with_need(&mut self, id: JobId, need: JobId, change: impl Fn(&mut crate::entry::Need)) {
        let Some(light) = self.entries.get_mut(&id).and_then(|entry| entry.light.as_mut()) else { return };
        light.needs.iter_mut().filter(|known| known.job == need).for_each(change);
    }

    /// Tells those who need a job that it has ended.
    fn tell_waiters(&mut self, id: JobId, outcome: JobOutcome) -> Vec<JobId> {
        let waiters = self.waiters.remove(&id).unwrap_or_default();
        for waiter in &waiters {
            self.need_ended(*waiter, id, Some(outcome));
        }
        waiters
    }

    fn take_job(&mut self, event: &Event, said: &JobEvent, touched: &mut Touched<JobKey>) {
        let id = said.job();
        if let JobEvent::Submitted(_) = said
            && !self.entries.contains_key(&id)
            && let Some(state) = JobState::apply(None, event)
        {
            let mut entry = Entry::submitted(state);
            if self.entries.len() >= KEPT_WHOLE {
                entry.slim();
            }
            self.enter(id, entry);
        } else {
            self.change(id, |entry| entry.apply(event));
        }
        let phase = self.entries.get(&id).and_then(|entry| entry.light.as_ref()).map(|light| light.phase);
        if let Some(Phase::Ended(outcome, _)) = phase {
            for waiter in self.tell_waiters(id, outcome) {
                touched.entity(JobKey::Job(waiter));
            }
        }
        touched.entity(JobKey::Job(id));
        self.forget_if_over(id);
    }

    fn take_sandbox(&mut self, event: &Event, said: &SandboxEvent, touched: &mut Touched<JobKey>) {
        let Some(id) = event.sandbox else { return };
        if let SandboxEvent::Requested(requested) = said {
            match requested.spec.job {
                Some(job) => {
                    self.homes.entry(id).or_default().insert(job);
                    self.entries.entry(job).or_insert_with(|| Entry::new(None));
                }
                None if !self.others.contains_key(&id) => {
                    self.note_other(id, requested.spec.pool());
                }
                None => {}
            }
        }
        if said.word().ends
            && let Some(pool) = self.others.remove(&id)
        {
            free(&mut self.slots, &pool, 1);
        }
        let home: Vec<JobId> = self.homes.get(&id).into_iter().flatten().copied().collect();
        for job in home {
            self.change(job, |entry| entry.apply(event));
            let needed = self.entries.get(&job).is_some_and(|entry| {
                entry.sandboxes.contains_key(&id) || entry.attempt().is_some_and(|(sandbox, _)| sandbox == id)
            });
            if !needed {
                self.leave_home(id, job);
            }
            touched.entity(JobKey::Job(job));
            self.forget_if_over(job);
        }
    }

    fn note_other(&mut self, id: SandboxId, pool: PoolName) {
        *self.slots.entry(pool.clone()).or_default() += 1;
        self.others.insert(id, pool);
    }

    /// Forgets a job that has ended and has no sandbox any more.
    fn forget_if_over(&mut self, id: JobId) {
        let over = self.entries.get(&id).is_some_and(|entry| {
            let ended = match &entry.light {
                Some(light) => matches!(light.phase, Phase::Ended(..)),
                None => true,
            };
            ended && entry.sandboxes.values().all(SandboxState::is_terminal)
        });
        if over {
            self.change(id, |entry| *entry = Entry::new(None));
            self.entries.remove(&id);
            self.waiters.remove(&id);
        }
    }

    /// Lets those out of the queue whose turn it is.
    fn admit(&mut self, turn: &Turn<'_>) -> Next<Effect> {
        let mut leaving: Vec<JobId> = Vec::new();
        let stale = |entry: &Entry| {
            entry.promised.is_some_and(|at| turn.since_boot().saturating_sub(at) >= SAY_AGAIN_AFTER)
        };
        let promised = self.promised.iter().filter(|id| self.entries.get(id).is_some_and(stale));
        leaving.extend(promised.copied().take(ADMITTED_AT_ONCE));
        while leaving.len() < ADMITTED_AT_ONCE && self.running < self.config.max_running {
            let (slots, keys, fleet) = (&self.slots, &self.keys, &self.fleet);
            let is_open = |owner: &crate::queue::Owner, _: &str, gate: &crate::queue::Gate| {
                let room = gate
                    .pool
                    .as_ref()
                    .is_none_or(|pool| slots.get(pool).copied().unwrap_or(0) < fleet.capacity(pool));
                room && gate.key.as_ref().is_none_or(|(key, limit)| {
                    let taken = keys.get(&(owner.tenant.clone(), key.clone())).copied().unwrap_or(0);
                    taken < *limit as usize
                })
            };
            let Some(id) = self.queue.pop(is_open, |_, _| 1) else { break };
            self.promised.insert(id);
            self.change(id, |entry| entry.promised = Some(turn.since_boot()));
            leaving.push(id);
        }
        if leaving.is_empty() {
            return Next::Wait(LOOK);
        }
        let mut messages: HashMap<TenantId, Vec<Event>> = HashMap::new();
        for id in leaving {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.promised = Some(turn.since_boot());
            if let Some(light) = &entry.light {
                let events = asking::admitted(light, turn.now());
                messages.entry(light.tenant.clone()).or_default().extend(events);
            }
        }
        Next::Act(Effect { step: Step::Admit, deed: Deed::Say(messages.into_values().collect()) })
    }
}

fn rank(light: &Light) -> Rank {
    Rank { priority: Reverse(light.priority), since_us: light.queued_at.timestamp_micros(), job: light.id }
}

fn free<K: Clone + Eq + std::hash::Hash>(taken: &mut HashMap<K, usize>, key: &K, count: usize) {
    if let Some(known) = taken.get_mut(key) {
        *known = known.saturating_sub(count);
        if *known == 0 {
            taken.remove(key);
        }
    }
}

#[async_trait]
impl Reactor for JobDriver {
    type Key = JobKey;
    type Effect = Effect;
    type Outcome = Came;

    fn name(&self) -> &'static str {
        "jobs"
    }

    fn types(&self) -> Vec<&'static str> {
        let of = |category: Category| category.words().iter().map(|word| word.name);
        // Of execs what says that they were asked for, began and ended.
        let execs = of(Category::Exec).filter(|name| {
            !matches!(
                *name,
                "exec.output"
                    | "exec.input"
                    | "exec.resized"
                    | "exec.signaled"
                    | "exec.attached"
                    | "exec.detached"
                    | "exec.output_closed"
            )
        });
        of(Category::Job).chain(of(Category::Sandbox)).chain(execs).collect()
    }

    fn limits(&self) -> Limits {
        Limits { in_flight: 256, share: 128, patience: Duration::from_secs(120), ..Limits::default() }
    }

    /// What lives now: jobs, and the sandboxes that take up room. All that is kept of a job that waits is little.
    async fn load(&mut self, _: Option<Position>) -> Result<Loaded<JobKey>, StoreError> {
        let (jobs_at, jobs) = self.outside.live_jobs().await?;
        let (sandboxes_at, sandboxes) = self.outside.live_sandboxes().await?;
        self.forget_all();
        for light in jobs {
            self.enter(light.id, Entry::new(Some(light)));
        }
        for state in sandboxes {
            let Some(job) = state.spec.job else {
                self.note_other(state.id, state.spec.pool());
                continue;
            };
            self.homes.entry(state.id).or_default().insert(job);
            self.entries.entry(job).or_insert_with(|| Entry::new(None));
            self.change(job, |entry| {
                entry.sandboxes.insert(state.id, state);
            });
        }
        let keys = self.entries.keys().copied().map(JobKey::Job).chain([JobKey::Queue]).collect();
        Ok(Loaded { position: jobs_at.min(sandboxes_at), keys })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<JobKey>) {
        let event = &recorded.event;
        let (queue, running) = (self.queue.len(), self.running);
        let slots: usize = self.slots.values().sum();
        if let EventData::Job(said) = &event.data {
            self.take_job(event, said, touched);
        } else if let EventData::Sandbox(said) = &event.data {
            self.take_sandbox(event, said, touched);
        } else if let Some(job) = event.data.exec().and_then(|exec| self.execs.get(&exec)).copied() {
            self.change(job, |entry| entry.apply(event));
            touched.entity(JobKey::Job(job));
        }
        let more_room = self.running < running || self.slots.values().sum::<usize>() < slots;
        if self.queue.len() > queue || (more_room && self.queue.len() > 0) {
            touched.entity(JobKey::Queue);
        }
    }

    fn decide(&mut self, key: &JobKey, turn: &mut Turn<'_>) -> Next<Effect> {
        let JobKey::Job(id) = key else { return self.admit(turn) };
        let Some(entry) = self.entries.get_mut(id) else { return Next::Rest };
        let next = decide(entry, turn, &self.fleet);
        let pause = entry.light.as_ref().and_then(|light| match light.phase {
            Phase::Retrying(due) if light.waits_for_turn() => Some(due),
            Phase::Retrying(_) | Phase::Waiting | Phase::Queued | Phase::Active | Phase::Ended(..) => None,
        });
        let Some(due) = pause else { return next };
        let left = turn.left(due);
        if left.is_zero() {
            self.line_up_again(*id);
            return next;
        }
        match next {
            Next::Act(effect) => Next::Act(effect),
            Next::Wait(length) => Next::Wait(length.min(left)),
            Next::Rest => Next::Wait(left),
        }
    }

    fn perform(&self, _: &JobKey, effect: Effect) -> Effecting<Came> {
        let outside = Arc::clone(&self.outside);
        Box::pin(async move {
            let Effect { step, deed } = effect;
            outside.perform(deed).await.map(|news| Came { step, news })
        })
    }

    fn settle(&mut self, key: &JobKey, outcome: Result<Came, &Failure>, turn: &mut Turn<'_>) {
        let JobKey::Job(id) = key else { return };
        let Ok(Came { step, news }) = outcome else { return };
        let at = turn.since_boot();
        match (step, news) {
            (_, News::Loaded(whole)) => {
                self.change(*id, |entry| entry.settle(*whole));
                self.forget_if_over(*id);
            }
            (_, News::Ended(ended)) => {
                for (need, outcome) in ended {
                    match outcome {
                        // It has not: it is heard when it does.
                        Some(None) => self.need_lives(*id, need),
                        Some(Some(outcome)) => self.need_ended(*id, need, Some(outcome)),
                        None => self.need_ended(*id, need, None),
                    }
                }
            }
            (Step::Destroy(sandbox), _) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    let rounds = entry.destroys.get(&sandbox).map_or(0, |(_, rounds)| *rounds);
                    entry.destroys.insert(sandbox, (at, rounds.saturating_add(1)));
                }
            }
            (Step::Collect(attempt), news) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    let collected = match news {
                        News::Refused(message) => Err(message),
                        News::Done | News::InputLost | News::Loaded(_) | News::Ended(_) => Ok(()),
                    };
                    entry.collected = Some((attempt, collected));
                }
            }
            (Step::Sandbox(attempt) | Step::Begin(attempt) | Step::Command(attempt), News::InputLost) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.refused = Some((attempt, INPUT_LOST.to_owned()));
                }
            }
            (Step::Begin(attempt), News::Refused(message)) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.refused = Some((attempt, message));
                }
            }
            (step, News::Done | News::Refused(_) | News::InputLost) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.asked = Some((step, at));
                }
            }
        }
    }

    fn tenant(&self, key: &JobKey) -> Option<TenantId> {
        let JobKey::Job(id) = key else { return None };
        Some(self.entries.get(id)?.light.as_ref()?.tenant.clone())
    }
}
