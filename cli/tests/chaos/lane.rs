//! One deployment that lives through many rounds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::record::Record;
use chrono::{DateTime, Utc};
use events::{Clock, SystemClock};

use crate::client::{Client, Violation};
use crate::deeds::{Ledger, Scene, World};
use crate::deployment::{Deployment, key_of};
use crate::feed::Watcher;
use crate::hold;
use crate::plan::{KEPT, Plan, Shape, TENANTS};
use crate::record;

/// After so many rounds everything is looked at.
const LOOK_EVERY: u64 = 20;
/// How long a sandbox may outlive its deadline, whoever is dead.
const GRACE: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
/// How old a sandbox gets: rounds end long before its deadline.
const MAX_AGE: Duration = Duration::from_secs(240);
/// How much a gateway may hold in memory, however many streams nobody reads.
const MAX_RSS_KIB: u64 = 400 << 10;

pub struct Lane {
    pub number: u64,
    shape: Shape,
    seed: u64,
    deployment: Deployment,
    world: Arc<World>,
    watchers: Vec<Watcher>,
    store: Record,
    kept: Vec<Vec<Option<Kept>>>,
    deadlines: Deadlines,
}

struct Kept {
    sandbox: String,
    since: Instant,
}

impl Lane {
    pub async fn start(number: u64, shape: Shape, seed: u64) -> Self {
        let deployment = Deployment::start(shape).await;
        let client = |tenant| Arc::new(Client::new(deployment.gateways(), key_of(tenant)));
        let clients: Vec<Arc<Client>> = (0..TENANTS.len()).map(client).collect();
        let watchers = clients.iter().map(|client| Watcher::start(Arc::clone(client))).collect();
        let world = World { clients, ledger: Mutex::new(Ledger::default()), held: Mutex::new(Vec::new()) };
        let world = Arc::new(world);
        let store = deployment.store().await;
        let kept = (0..TENANTS.len()).map(|_| (0..KEPT).map(|_| None).collect()).collect();
        let deadlines = Deadlines::watch(&world);
        Self { number, shape, seed, deployment, world, watchers, store, kept, deadlines }
    }

    /// Lives through the rounds and is looked at in the end.
    pub async fn run(mut self, rounds: u64) {
        for round in 0..rounds {
            let plan = Plan::draw(self.seed, self.number, round, self.shape);
            let began = Instant::now();
            let mut kept_to = self.round(round, &plan).await;
            if kept_to.is_ok() && (round + 1) % LOOK_EVERY == 0 {
                kept_to = self.look().await;
            }
            if let Err(why) = kept_to {
                self.fail(&format!("round {round}: {plan:?}"), &why).await;
            }
            if std::env::var_os("STACYVM_CHAOS_VERBOSE").is_some() {
                eprintln!("lane {} round {round}: {:?} in {:?}", self.number, plan.fault, began.elapsed());
            }
        }
        if let Err(why) = self.finish().await {
            self.fail("after the last round", &why).await;
        }
    }

    async fn round(&mut self, round: u64, plan: &Plan) -> Result<(), Violation> {
        let name = format!("n{}-{round}", self.number);
        let world = Arc::clone(&self.world);
        let slot = &mut self.kept[plan.tenant][plan.sandbox];
        let kept = match slot.take() {
            Some(kept) => kept,
            None => {
                let sandbox = world.spawn(plan.tenant, &name, "10m").await?;
                Kept { sandbox, since: Instant::now() }
            }
        };
        let perilous = plan.deeds.iter().any(|deed| matches!(deed, crate::plan::Deed::Destroy { .. }));
        let scene = Scene { tenant: plan.tenant, sandbox: kept.sandbox.clone(), perilous, name };
        let deeds = plan.deeds.iter().enumerate().map(|(number, deed)| world.act(&scene, number, *deed));
        let fault = async {
            tokio::time::sleep(Duration::from_millis(plan.fault_after_ms)).await;
            self.deployment.inject(plan.fault, Duration::from_millis(plan.outage_ms)).await;
        };
        let (outcomes, ()) = tokio::join!(futures::future::join_all(deeds), fault);
        for outcome in outcomes {
            outcome?;
        }
        self.deadlines.check()?;
        if perilous {
            return Ok(());
        }
        if plan.retire || kept.since.elapsed() > MAX_AGE {
            world.check_notes(plan.tenant, &kept.sandbox).await?;
            world.destroy(plan.tenant, &kept.sandbox).await?;
        } else {
            self.kept[plan.tenant][plan.sandbox] = Some(kept);
        }
        Ok(())
    }

    /// The promises about the whole log.
    async fn look(&self) -> Result<(), Violation> {
        record::check_chain(&self.store).await?;
        let events = record::read_all(&*self.store).await?;
        record::check_ends(&events)?;
        record::check_ledger(&self.world.ledger.lock().unwrap(), &events)?;
        let rss = self.deployment.gateways_rss_kib();
        hold!(rss < MAX_RSS_KIB, "a gateway holds {} MiB", rss >> 10);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Violation> {
        self.deployment.wait_ready().await;
        for tenant in 0..TENANTS.len() {
            for slot in std::mem::take(&mut self.kept[tenant]).into_iter().flatten() {
                self.world.check_notes(tenant, &slot.sandbox).await?;
                self.world.destroy(tenant, &slot.sandbox).await?;
            }
        }
        self.settle().await?;
        self.deadlines.check()?;
        self.look().await?;
        let mut shown = Vec::new();
        for (tenant, watcher) in self.watchers.iter().enumerate() {
            shown.extend(watcher.equals_the_replay(self.world.client(tenant)).await?);
        }
        shown.sort_unstable();
        hold!(shown.windows(2).all(|pair| pair[0] < pair[1]), "an event was shown to both tenants");
        Ok(())
    }

    /// Waits until the log says that nothing lives, and the host says the same.
    async fn settle(&self) -> Result<(), Violation> {
        let began = Instant::now();
        loop {
            let live = self.store.live_sandboxes().await.map_err(|error| error.to_string())?.1;
            let live: Vec<String> =
                live.iter().map(|state| format!("{} {:?}", state.id, state.phase)).collect();
            let (boxes, execs) = (self.deployment.boxes(), self.store.live_execs().await);
            let execs = execs.map_err(|error| error.to_string())?;
            if live.is_empty() && boxes.is_empty() && execs.is_empty() {
                return Ok(());
            }
            hold!(
                began.elapsed() < Duration::from_secs(90),
                "it does not come to rest: live {live:?}, boxes {boxes:?}, execs {:?}",
                execs.iter().map(|exec| (exec.id, exec.sandbox)).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Says all that helps to find out why, and leaves the files.
    async fn fail(&mut self, when: &str, why: &str) -> ! {
        self.deployment.keep_files();
        eprintln!("\nSTACYVM_CHAOS_SEED={} lane {} ({:?}), {when}", self.seed, self.number, self.shape);
        eprintln!("{why}");
        if let Ok(events) = record::read_all(&*self.store).await {
            let words = why.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
            let objects: std::collections::BTreeSet<&str> =
                words.filter(|word| word.starts_with("sb-") || word.starts_with("ex-")).collect();
            for object in objects.iter().take(5) {
                eprintln!("{object}:\n  {}", record::last_words(&events, object, 12).join("\n  "));
            }
        }
        eprintln!("logs and data: {}\n", self.deployment.dir().display());
        panic!("{why}");
    }
}

/// Looks at the host for boxes that have outlived their time.
struct Deadlines {
    missed: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Deadlines {
    fn watch(world: &Arc<World>) -> Self {
        let missed = Arc::new(Mutex::new(Vec::new()));
        let (found, world) = (Arc::clone(&missed), Arc::clone(world));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let now = SystemClock.now();
                let overdue = overdue(&world, now);
                let alive = Deployment::running_boxes(&overdue);
                found.lock().unwrap().extend(alive.iter().map(|id| format!("{id} runs at {now}")));
            }
        });
        Self { missed, task }
    }

    fn check(&self) -> Result<(), Violation> {
        let missed = self.missed.lock().unwrap();
        hold!(missed.is_empty(), "boxes outlived their deadline: {missed:?}");
        Ok(())
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn overdue(world: &World, now: DateTime<Utc>) -> Vec<String> {
    let ledger = world.ledger.lock().unwrap();
    let late = ledger.sandboxes.iter().filter(|(_, entry)| entry.expires_at + GRACE < now);
    late.map(|(id, _)| id.clone()).collect()
}
