//! How many execs a tenant has open, and how much it writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{ExecId, SandboxId, TenantId};
use feed::View;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::limit::Limit;
use crate::limits::TenantLimits;

/// How long an exec counts of which nothing was heard, and for which nobody waits: its command may be on its way.
const UNHEARD: Duration = Duration::from_secs(30);
/// When to come again: execs end all the time, an hour does not.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);

/// Execs that were asked for here, and are not known to the log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AskedExecs(Arc<Mutex<HashMap<TenantId, HashMap<ExecId, Unheard>>>>);

#[derive(Debug, Clone, Copy)]
struct Unheard {
    sandbox: SandboxId,
    /// Until when it counts; `None`: as long as somebody waits for it.
    until: Option<Instant>,
}

/// An exec that is being asked for.
#[derive(Debug)]
pub struct AskedExec {
    tenant: TenantId,
    exec: ExecId,
    all: AskedExecs,
    settled: bool,
}

impl AskedExecs {
    /// Lets a tenant have one more exec open, or says why not.
    pub fn reserve(
        &self,
        view: &View,
        limits: &TenantLimits,
        (tenant, sandbox, exec): (&TenantId, SandboxId, ExecId),
        now: DateTime<Utc>,
    ) -> Result<AskedExec, ApiError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = all.entry(tenant.clone()).or_default();
        let moment = Instant::now();
        asked.retain(|_, unheard| unheard.until.is_none_or(|until| until > moment));
        let (open, of_sandbox, written) = view.usage(|usage| {
            let new =
                |id: &ExecId, unheard: &Unheard| *id != exec && !usage.is_open(tenant, unheard.sandbox, *id);
            let unknown: Vec<SandboxId> = asked
                .iter()
                .filter(|(id, unheard)| new(id, unheard))
                .map(|(_, unheard)| unheard.sandbox)
                .collect();
            let (open, of_sandbox) = usage.open_execs(tenant, sandbox);
            // One that is asked for again is there already.
            let again = usize::from(usage.is_open(tenant, sandbox, exec));
            (
                open - again + unknown.len(),
                of_sandbox - again + unknown.iter().filter(|its| **its == sandbox).count(),
                usage.written(tenant, now),
            )
        });
        let over = |count: usize, most: usize| most > 0 && count >= most;
        let refused =
            |limit: Limit, message: String, after: Duration| Err(ApiError::limited(limit, message, after));
        if over(open, limits.execs) {
            let message = format!(
                "tenant {tenant} has {open} execs that have not ended, and may have {}",
                limits.execs
            );
            return refused(Limit::TenantExecs, message, SOON);
        }
        if over(of_sandbox, limits.execs_per_sandbox) {
            let most = limits.execs_per_sandbox;
            let message =
                format!("sandbox {sandbox} has {of_sandbox} execs that have not ended, and may have {most}");
            return refused(Limit::SandboxExecs, message, SOON);
        }
        if limits.log_bytes > 0 && written >= limits.log_bytes {
            let message = format!(
                "tenant {tenant} has written {written} bytes to the log within an hour, and may write {}",
                limits.log_bytes
            );
            return refused(Limit::TenantLog, message, LATER);
        }
        asked.insert(exec, Unheard { sandbox, until: None });
        Ok(AskedExec { tenant: tenant.clone(), exec, all: self.clone(), settled: false })
    }
}

impl AskedExec {
    /// Something was heard of it, so that the log counts it; or it was never asked for.
    pub fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for AskedExec {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = all.get_mut(&self.tenant) else { return };
        if self.settled {
            asked.remove(&self.exec);
        } else if let Some(unheard) = asked.get_mut(&self.exec) {
            unheard.until = Some(Instant::now() + UNHEARD);
        }
    }
}
