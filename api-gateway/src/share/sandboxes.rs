//! How many sandboxes a tenant has, and how large they are together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::{SandboxId, SandboxSpec, SandboxState, TenantId};

use crate::limit::Limit;
use crate::limits::Limits;

/// Sandboxes live for minutes.
pub const LATER: Duration = Duration::from_secs(5);

/// What one sandbox takes.
#[derive(Debug, Clone)]
pub struct Taken {
    tenant: TenantId,
    owner: Option<String>,
    cpu_millis: u64,
    memory_mib: u64,
}

/// What several take together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many there are.
    pub sandboxes: u64,
    /// Their CPU limits together.
    pub cpu_millis: u64,
    /// Their memory limits together.
    pub memory_mib: u64,
}

/// What is taken, as seen by a tenant that wants one more.
#[derive(Debug, Default)]
pub struct Before {
    /// Sandboxes of everybody.
    pub all: u64,
    /// Of the tenant.
    pub own: Sum,
    /// Sandboxes of the tenant that have the same owner.
    pub of_owner: u64,
}

/// A sandbox that is being asked for.
#[derive(Debug)]
pub struct Asked {
    pub(super) id: SandboxId,
    pub(super) all: Arc<Mutex<HashMap<SandboxId, Taken>>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Taken {
    pub fn of(tenant: &TenantId, spec: &SandboxSpec) -> Self {
        Self {
            tenant: tenant.clone(),
            owner: spec.owner.clone(),
            cpu_millis: spec.cpu_millis.into(),
            memory_mib: spec.memory_mib.into(),
        }
    }
}

/// What is live by the log, and what was asked for here and is not in the log yet.
pub fn taken(
    tenant: &TenantId,
    spec: &SandboxSpec,
    live: &[Arc<SandboxState>],
    asked: &HashMap<SandboxId, Taken>,
) -> Before {
    let recorded: HashSet<SandboxId> = live.iter().map(|state| state.id).collect();
    let live = live.iter().map(|state| Taken::of(&state.tenant, &state.spec));
    let asked = asked.iter().filter(|(id, _)| !recorded.contains(id)).map(|(_, taken)| taken.clone());
    let mut before = Before::default();
    for taken in live.chain(asked) {
        before.all += 1;
        if taken.tenant != *tenant {
            continue;
        }
        before.own.sandboxes += 1;
        before.own.cpu_millis += taken.cpu_millis;
        before.own.memory_mib += taken.memory_mib;
        if spec.owner.is_some() && taken.owner == spec.owner {
            before.of_owner += 1;
        }
    }
    before
}

/// Whether one more is within the limits, else which one it would pass. 0 is no limit.
pub fn check(
    tenant: &TenantId,
    limits: &Limits,
    before: &Before,
    spec: &SandboxSpec,
) -> Result<(), (Limit, String)> {
    let over = |has: u64, more: u64, most: u64| most > 0 && has.saturating_add(more) > most;
    let (own, most) = (&before.own, limits.of(tenant));
    let (cpu, memory) = (u64::from(spec.cpu_millis), u64::from(spec.memory_mib));
    let cpus = |millis: u64| millis as f64 / 1000.0;
    if over(before.all, 1, limits.sandboxes) {
        // How many others have is not this tenant's business.
        return Err((Limit::Sandboxes, "there are as many sandboxes as there may be".to_owned()));
    }
    if over(own.sandboxes, 1, most.sandboxes) {
        let (has, most) = (own.sandboxes, most.sandboxes);
        let message = format!("tenant {tenant} has {has} sandboxes, and may have {most}");
        return Err((Limit::TenantSandboxes, message));
    }
    if spec.owner.is_some() && over(before.of_owner, 1, most.sandboxes_per_owner) {
        let (has, most) = (before.of_owner, most.sandboxes_per_owner);
        let message = format!("this owner has {has} sandboxes, and may have {most}");
        return Err((Limit::OwnerSandboxes, message));
    }
    if over(own.cpu_millis, cpu, most.cpu_millis) {
        let (has, most, more) = (cpus(own.cpu_millis), cpus(most.cpu_millis), cpus(cpu));
        let message = format!(
            "the sandboxes of tenant {tenant} have {has} of the {most} CPUs that it may have: {more} more are too many"
        );
        return Err((Limit::TenantVcpus, message));
    }
    if over(own.memory_mib, memory, most.memory_mib) {
        let (has, most) = (own.memory_mib, most.memory_mib);
        let message = format!(
            "the sandboxes of tenant {tenant} have {has} of the {most} MiB that it may have: {memory} more are too many"
        );
        return Err((Limit::TenantMemory, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TenantLimits;

    #[test]
    fn each_limit_is_reached_at_its_own_number_and_named() {
        let tenant = TenantId::default_tenant();
        let spec = |cpu, memory| Sized { cpu_millis: cpu, memory_mib: memory };
        struct Sized {
            cpu_millis: u32,
            memory_mib: u32,
        }
        let limits = |change: fn(&mut Limits)| {
            let mut limits = Limits { tenant: TenantLimits::default(), ..Limits::default() };
            change(&mut limits);
            limits
        };
        let own = Sum { sandboxes: 3, cpu_millis: 3000, memory_mib: 1500 };
        for (change, asked, reached) in [
            ((|_| {}) as fn(&mut Limits), spec(1000, 500), None),
            (|limits| limits.sandboxes = 7, spec(1000, 500), Some(Limit::Sandboxes)),
            (|limits| limits.sandboxes = 8, spec(1000, 500), None),
            (|limits| limits.tenant.sandboxes = 3, spec(1000, 500), Some(Limit::TenantSandboxes)),
            (|limits| limits.tenant.sandboxes = 4, spec(1000, 500), None),
            (|limits| limits.tenant.sandboxes = 0, spec(1000, 500), None),
            (|limits| limits.tenant.sandboxes_per_owner = 2, spec(1000, 500), Some(Limit::OwnerSandboxes)),
            (|limits| limits.tenant.cpu_millis = 4000, spec(1000, 500), None),
            (|limits| limits.tenant.cpu_millis = 4000, spec(1001, 500), Some(Limit::TenantVcpus)),
            (|limits| limits.tenant.memory_mib = 2000, spec(1000, 500), None),
            (|limits| limits.tenant.memory_mib = 2000, spec(1000, 501), Some(Limit::TenantMemory)),
        ] {
            let before = Before { all: 7, own, of_owner: 2 };
            let mut limits = limits(change);
            let spec = SandboxSpec {
                cpu_millis: asked.cpu_millis,
                memory_mib: asked.memory_mib,
                owner: Some("alice".to_owned()),
                ..crate::routes::sandboxes::plan::plan(Default::default(), None, None, &Default::default())
                    .unwrap()
                    .spec
            };
            let found = check(&tenant, &limits, &before, &spec).err().map(|(limit, _)| limit);
            assert_eq!(found, reached, "{limits:?}");
            // What a tenant is given of its own counts instead.
            limits.tenants.insert(tenant.clone(), TenantLimits::default());
            limits.sandboxes = 0;
            assert!(check(&tenant, &limits, &before, &spec).is_ok());
        }
    }
}
