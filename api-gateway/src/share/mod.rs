//! What each tenant may take of this gateway and of the deployment, so that one of them is in nobody's way.
//!
//! Sandboxes are counted from the log, so all gateways count the same; connections, requests and bytes in memory are each
//! gateway's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::{ApiKeyId, SandboxId, SandboxSpec, TenantId, View};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::limits::{Limits, TenantLimits};

pub mod connections;
mod count;
pub mod memory;
mod sandboxes;
pub mod visit;

use connections::Connections;
use count::{Counter, Each};
use memory::{Budget, Held};
use visit::Visit;

pub use sandboxes::{Asked, Taken};

/// When it makes sense to come again: others end their requests all the time.
const SOON: Duration = Duration::from_secs(1);

/// Which limit was reached. Its name is that of the key that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connections in all, or of one address.
    Connections,
    /// Requests of one key.
    RequestsPerKey,
    /// Bytes of bodies, in all.
    Memory,
    /// Sandboxes of all.
    Sandboxes,
    /// A tenant's sandboxes.
    TenantSandboxes,
    /// Those of one owner.
    OwnerSandboxes,
    /// Their CPUs.
    TenantVcpus,
    /// Their memory.
    TenantMemory,
    /// A tenant's requests.
    TenantRequests,
    /// Bytes of a tenant's bodies.
    TenantBodies,
}

impl Limit {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Connections,
        Self::RequestsPerKey,
        Self::Memory,
        Self::Sandboxes,
        Self::TenantSandboxes,
        Self::OwnerSandboxes,
        Self::TenantVcpus,
        Self::TenantMemory,
        Self::TenantRequests,
        Self::TenantBodies,
    ];

    /// The key that sets it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::RequestsPerKey => "limits.requests_per_key",
            Self::Memory => "limits.bodies",
            Self::Sandboxes => "limits.sandboxes",
            Self::TenantSandboxes => "limits.tenant.sandboxes",
            Self::OwnerSandboxes => "limits.tenant.sandboxes_per_owner",
            Self::TenantVcpus => "limits.tenant.vcpus",
            Self::TenantMemory => "limits.tenant.memory_mb",
            Self::TenantRequests => "limits.tenant.requests",
            Self::TenantBodies => "limits.tenant.bodies",
        }
    }
}

/// Who takes how much.
#[derive(Debug)]
pub struct Shares {
    limits: Limits,
    connections: Connections,
    bodies: Budget,
    /// As many as there are tenants with keys.
    tenants: Each<TenantId, Share>,
    keys: Each<ApiKeyId, Counter>,
    /// Sandboxes that were asked for here and have not come back from the log.
    asked: Arc<Mutex<HashMap<SandboxId, Taken>>>,
}

/// One tenant's part. Cheap to clone.
#[derive(Debug, Clone)]
struct Share {
    limits: TenantLimits,
    requests: Counter,
    bodies: Budget,
}

impl Shares {
    /// Nobody has taken anything yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            connections: Connections::new(&limits),
            bodies: Budget::new(limits.memory_bytes),
            tenants: Each::default(),
            keys: Each::default(),
            asked: Arc::default(),
            limits,
        }
    }

    pub const fn connections(&self) -> &Connections {
        &self.connections
    }

    fn of(&self, tenant: &TenantId) -> Share {
        self.tenants.of(tenant, || {
            let limits = self.limits.of(tenant).clone();
            Share { requests: Counter::default(), bodies: Budget::new(limits.memory_bytes), limits }
        })
    }

    /// Lets a request of a known caller in, or says why not.
    pub fn admit(&self, caller: &Caller, visit: &Visit) -> Result<(), ApiError> {
        if caller.is_operator_by_key() {
            return Ok(());
        }
        if visit.is_reserved() {
            let message = "there are as many connections as there may be: what is left is for operators";
            return Err(ApiError::limited(Limit::Connections, message, SOON).closing());
        }
        let share = self.of(&caller.tenant);
        let Some(counted) = share.requests.enter(share.limits.requests) else {
            let (tenant, most) = (&caller.tenant, share.limits.requests);
            let message =
                format!("tenant {tenant} has {most} requests under way, which is as many as it may");
            return Err(ApiError::limited(Limit::TenantRequests, message, SOON));
        };
        visit.keep(counted);
        if let Some(key) = &caller.key {
            let most = self.limits.requests_per_key;
            let Some(counted) = self.keys.of(key, Counter::default).enter(most) else {
                let message = format!("key {key} has {most} requests under way, which is as many as it may");
                return Err(ApiError::limited(Limit::RequestsPerKey, message, SOON));
            };
            visit.keep(counted);
        }
        Ok(())
    }

    /// Takes memory for a body of so many bytes. With `now` nothing is waited for.
    pub async fn memory(&self, caller: &Caller, bytes: usize, now: bool) -> Result<Held, ApiError> {
        let share = self.of(&caller.tenant);
        // Operators come through where others together have taken all.
        let both = [&share.bodies, &self.bodies];
        let budgets = if caller.is_operator_by_key() { &both[..1] } else { &both[..] };
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
