//! What each tenant may take of this gateway and of the deployment, so that one of them is in nobody's way.
//!
//! Sandboxes are counted from the log, so all gateways count the same; connections, requests and bytes in memory are each
//! gateway's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{ApiKeyId, ExecId, SandboxId, SandboxSpec, TenantId};
use feed::View;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Caller;
use crate::denied::source_name;
use crate::error::ApiError;
use crate::limit::Limit;
use crate::limits::{Limits, RateBy, TenantLimits};

mod comings;
pub mod connections;
mod count;
mod execs;
pub mod memory;
mod rate;
mod sandboxes;
mod turns;
pub mod visit;

use comings::Comings;
use connections::Connections;
use count::{Counts, Each};
use execs::AskedExecs;
use memory::{Budget, Held};
use rate::{Rate, Rates};
use turns::Turns;
use visit::Visit;

pub use count::Counted;
pub use execs::AskedExec;
pub use sandboxes::{Asked, Taken};
pub use turns::Turn;

/// When it makes sense to come again: others end their requests all the time.
const SOON: Duration = Duration::from_secs(1);
/// What takes long.
const LATER: Duration = Duration::from_secs(5);

/// Who takes how much.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    connections: Connections,
    /// Viewers that came lately.
    comings: Comings,
    bodies: Budget,
    /// As many as there are tenants with keys.
    tenants: Each<TenantId, Share>,
    requests: Counts<TenantId>,
    requests_of_keys: Counts<ApiKeyId>,
    streams: Counts<TenantId>,
    calls: Counts<SandboxId>,
    execs: AskedExecs,
    rates: Rates,
    /// Whoever walks the whole log.
    verifying: Turns,
    /// Whoever reads much of it.
    reading: Turns,
    /// Sandboxes that were asked for here and have not come back from the log.
    asked: Arc<Mutex<HashMap<SandboxId, Taken>>>,
}

/// One tenant's part. Cheap to clone.
#[derive(Debug, Clone)]
struct Share {
    limits: TenantLimits,
    bodies: Budget,
    rate: Rate,
    spawns: Arc<Semaphore>,
}

impl Shares {
    /// Nobody has taken anything yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            connections: Connections::new(&limits),
            comings: Comings::default(),
            bodies: Budget::new(limits.memory_bytes),
            tenants: Each::default(),
            requests: Counts::default(),
            requests_of_keys: Counts::default(),
            streams: Counts::default(),
            calls: Counts::default(),
            execs: AskedExecs::default(),
            rates: Rates::new(limits.rate),
            verifying: Turns::new(2, 1),
            reading: Turns::new(3, 2),
            asked: Arc::default(),
            limits,
        }
    }

    pub const fn connections(&self) -> &Connections {
        &self.connections
    }

    pub const fn comings(&self) -> &Comings {
        &self.comings
    }

    fn of(&self, tenant: &TenantId) -> Share {
        self.tenants.of(tenant, || {
            let limits = self.limits.of(tenant).clone();
            let spawns = if limits.spawns == 0 { Semaphore::MAX_PERMITS } else { limits.spawns };
            Share {
                bodies: Budget::new(limits.memory_bytes),
                rate: Rate::new(limits.requests_per_minute, limits.burst),
                spawns: Arc::new(Semaphore::new(spawns)),
                limits,
            }
        })
    }

    /// Lets a request of a known caller in, or says why not.
    pub fn admit(&self, caller: &Caller, visit: &Visit) -> Result<(), ApiError> {
        if caller.is_admin_by_key() {
            return Ok(());
        }
        if visit.is_reserved() {
            let message = "there are as many connections as there may be: what is left is for operators";
            return Err(ApiError::limited(Limit::Connections, message, SOON).closing());
        }
        let share = self.of(&caller.tenant);
        let tenant = &caller.tenant;
        if let Err(after) = share.rate.take() {
            let message = format!(
                "tenant {tenant} asks more often than the {} times a minute that it may",
                share.rate.a_minute()
            );
            return Err(ApiError::limited(Limit::TenantRate, message, after).rated(share.rate.a_minute()));
        }
        let client = match self.rates.by() {
            RateBy::Key => format!("{:?}", caller.key),
            RateBy::Owner => format!("{tenant} {:?}", caller.user),
            RateBy::Address => caller.source.map_or_else(String::new, source_name),
        };
        if let Err(after) = self.rates.take(client) {
            let a_minute = self.rates.a_minute();
            let message =
                format!("this client asks more often than the {a_minute} times a minute that it may");
            return Err(ApiError::limited(Limit::Rate, message, after).rated(a_minute));
        }
        let most = share.limits.requests;
        let Some(counted) = self.requests.enter(tenant, most) else {
            let message =
                format!("tenant {tenant} has {most} requests under way, which is as many as it may");
            return Err(ApiError::limited(Limit::TenantRequests, message, SOON));
        };
        visit.keep(counted);
        if let Some(key) = &caller.key {
            let most = self.limits.requests_per_key;
            let Some(counted) = self.requests_of_keys.enter(key, most) else {
                let message = format!("key {key} has {most} requests under way, which is as many as it may");
                return Err(ApiError::limited(Limit::RequestsPerKey, message, SOON));
            };
            visit.keep(counted);
        }
        Ok(())
    }

    /// Lets an answer be a stream, or says why not.
    pub fn stream(&self, caller: &Caller, visit: &Visit) -> Result<(), ApiError> {
        if caller.is_admin_by_key() {
            return Ok(());
        }
        let (tenant, most) = (&caller.tenant, self.limits.of(&caller.tenant).streams);
        let Some(counted) = self.streams.enter(tenant, most) else {
            let message = format!("tenant {tenant} has {most} streams open, which is as many as it may");
            return Err(ApiError::limited(Limit::TenantStreams, message, SOON));
        };
        visit.keep(counted);
        Ok(())
    }

    /// Counts a call into a sandbox as long as it is under way, or says why it may not be.
    pub fn call(&self, sandbox: SandboxId) -> Result<Counted<SandboxId>, ApiError> {
        let most = self.limits.calls_per_sandbox;
        self.calls.enter(&sandbox, most).ok_or_else(|| {
            let message = format!("sandbox {sandbox} has {most} calls under way, which is as many as it may");
            ApiError::limited(Limit::SandboxCalls, message, SOON)
        })
    }

    /// Lets a tenant have one more exec open, or says why not.
    pub fn exec(
        &self,
        view: &View,
        (tenant, sandbox, exec): (&TenantId, SandboxId, ExecId),
        now: DateTime<Utc>,
    ) -> Result<AskedExec, ApiError> {
        self.execs.reserve(view, self.limits.of(tenant), (tenant, sandbox, exec), now)
    }

    /// Waits until fewer of the tenant's sandboxes are being made, so that they are not all before another's.
    pub async fn spawn_turn(
        &self,
        tenant: &TenantId,
        patience: Duration,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let share = self.of(tenant);
        let turn = tokio::time::timeout(patience, Arc::clone(&share.spawns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let message = format!(
                "{} sandboxes of tenant {tenant} are being made already, and none was done in time",
                share.limits.spawns
            );
            ApiError::limited(Limit::TenantSpawns, message, LATER)
        })
    }

    /// Waits for a turn to walk the whole log.
    pub async fn verifying(&self, caller: &Caller) -> Result<Turn, ApiError> {
        let turn = self.verifying.take(&caller.tenant, caller.is_admin_by_key()).await;
        turn.ok_or_else(|| ApiError::limited(Limit::Turns, "others are verifying already", LATER))
    }

    /// Waits for a turn to read much of the log.
    pub async fn reading(&self, caller: &Caller) -> Result<Turn, ApiError> {
        let turn = self.reading.take(&caller.tenant, caller.is_admin_by_key()).await;
        turn.ok_or_else(|| ApiError::limited(Limit::Turns, "others are reading already", SOON))
    }

    /// Takes memory for a body of so many bytes. With `now` nothing is waited for.
    pub async fn memory(&self, caller: &Caller, bytes: usize, now: bool) -> Result<Held, ApiError> {
        let share = self.of(&caller.tenant);
        // Operators come through where others together have taken all.
        let both = [&share.bodies, &self.bodies];
        let budgets = if caller.is_admin_by_key() { &both[..1] } else { &both[..] };
        let held = if now { memory::try_take(budgets, bytes) } else { memory::take(budgets, bytes).await };
        held.ok_or_else(|| {
            let own = memory::try_take(&both[..1], bytes).is_none();
            let (limit, who) =
                if own { (Limit::TenantBodies, "this tenant") } else { (Limit::Memory, "everybody") };
            let message = format!("too many bytes of bodies of {who} are under way: try again");
            ApiError::limited(limit, message, SOON)
        })
    }

    /// Lets a tenant have one more sandbox, or says why not. It counts as taken while the answer lives, and then by the log.
    pub fn sandbox(
        &self,
        view: &View,
        tenant: &TenantId,
        id: SandboxId,
        spec: &SandboxSpec,
    ) -> Result<Asked, ApiError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let live = view.live_sandboxes();
        sandboxes::check(tenant, &self.limits, &sandboxes::taken(tenant, spec, &live, &asked), spec)
            .map_err(|(limit, message)| ApiError::limited(limit, message, sandboxes::LATER))?;
        asked.insert(id, Taken::of(tenant, spec));
        Ok(Asked { id, all: Arc::clone(&self.asked) })
    }

    /// How full a tenant is, and whether it could have one more.
    pub fn fullness(&self, view: &View, tenant: &TenantId, spec: &SandboxSpec) -> Fullness {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = sandboxes::taken(tenant, spec, &view.live_sandboxes(), &asked);
        let limits = self.limits.of(tenant);
        let reached = sandboxes::check(tenant, &self.limits, &taken, spec).err().map(|(limit, _)| limit);
        Fullness {
            sandboxes: taken.own.sandboxes,
            most: limits.sandboxes,
            of_owner: taken.of_owner,
            most_of_owner: limits.sandboxes_per_owner,
            reached,
        }
    }
}

/// How many sandboxes a tenant has, and may have.
#[derive(Debug)]
pub struct Fullness {
    /// How many it has.
    pub sandboxes: u64,
    /// How many it may have; 0: no limit.
    pub most: u64,
    /// How many of them are the owner's.
    pub of_owner: u64,
    /// How many an owner may have; 0: no limit.
    pub most_of_owner: u64,
    /// What keeps it from one more.
    pub reached: Option<Limit>,
}
