//! The one place that decides whether somebody may do something to something.

use events::{ExecId, TenantId};

use super::action::Action;
use super::caller::Caller;
use super::role::{FOR_THE_OPERATOR, Role};
use crate::denied::Denial;
use crate::error::ApiError;

impl Caller {
    /// Whether numbers of the whole deployment are shown to it beside its tenant's own.
    pub fn sees_the_whole(&self) -> bool {
        authorize(self, Action::DeploymentRead, Resource::Deployment).is_ok()
    }
}

/// What something is done to, as far as a right can depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The server, as anybody sees it who can reach it.
    Server,
    /// The machine that it runs on.
    Host,
    /// All tenants together: their sums.
    Deployment,
    /// All tenants, each by itself: their logs.
    AllTenants,
    /// One tenant, with all that is the tenant's as a whole: lists, log, templates, webhooks.
    Tenant(&'a TenantId),
    /// A sandbox with its files, and the user of the tenant for whom it was made, if for one.
    Sandbox {
        /// The tenant that has it.
        tenant: &'a TenantId,
        /// The user of the tenant for whom it was made, if it was made for one.
        owner: Option<&'a str>,
    },
    /// A job with what it left, and the user of the tenant whose it is, if one's.
    Job {
        /// The tenant that has it.
        tenant: &'a TenantId,
        /// The user of the tenant whose it is, if it is one's.
        owner: Option<&'a str>,
    },
    /// An exec with its output.
    Exec {
        /// The tenant that has it.
        tenant: &'a TenantId,
        /// Its id.
        id: ExecId,
    },
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may not do that, whatever to: 403, with the reason.
    Forbidden(&'static str),
    /// It may do that, to what it knows of; this is not among it: 404, as if it did not exist.
    Unknown,
}

impl Refusal {
    /// The answer, where what was asked for is named as `missing` in case that it must look as if it did not exist.
    pub fn answer(self, caller: &Caller, missing: impl FnOnce() -> ApiError) -> ApiError {
        match self {
            Self::Forbidden(why) => ApiError::forbidden(why).denied(Denial::Right, Some(&caller.tenant)),
            Self::Unknown => missing().denied(Denial::Tenant, Some(&caller.tenant)),
        }
    }
}

/// The tenant of this name, if its log may be read; `None` is everybody's (`*`). Who may not read it is not told which tenants
/// there are.
pub fn log_of(caller: &Caller, name: &str) -> Result<Option<TenantId>, ApiError> {
    let missing = || ApiError::not_found("no such tenant");
    if name == "*" {
        authorize(caller, caller.action, Resource::AllTenants)
            .map_err(|refusal| refusal.answer(caller, missing))?;
        return Ok(None);
    }
    // What cannot be the name of a tenant is the name of nobody.
    let Ok(tenant) = name.parse::<TenantId>() else { return Err(Refusal::Unknown.answer(caller, missing)) };
    authorize(caller, caller.action, Resource::Tenant(&tenant))
        .map_err(|refusal| refusal.answer(caller, missing))?;
    Ok(Some(tenant))
}

/// Whether the caller may do this to that.
///
/// Called twice for a request: by a layer for every route, before anything is looked up, with what its action is done to in the
/// caller's own tenant; and for each thing that is looked up, by the gateway, with the thing.
pub fn authorize(caller: &Caller, action: Action, resource: Resource<'_>) -> Result<(), Refusal> {
    if !caller.role.has(action) {
        return Err(Refusal::Forbidden(caller.role.refusal()));
    }
    let is_admin = match caller.role {
        Role::DeploymentAdmin => true,
        Role::Viewer | Role::Reader | Role::Member => false,
    };
    let reaches = |tenant: &TenantId| *tenant == caller.tenant || is_admin && action.reads_log();
    let known = |known: bool| if known { Ok(()) } else { Err(Refusal::Unknown) };
    let open = |open: bool| if open { Ok(()) } else { Err(Refusal::Forbidden(FOR_THE_OPERATOR)) };
    match resource {
        Resource::Server => Ok(()),
        Resource::Host => open(is_admin),
        // Where there is nobody else the sums are the tenant's own.
        Resource::Deployment => open(is_admin || caller.is_of_only_tenant),
        Resource::AllTenants => known(is_admin && action.reads_log()),
        // No right depends on the owner yet: whoever has a tenant's key acts for all of its users.
        Resource::Tenant(tenant)
        | Resource::Sandbox { tenant, owner: _ }
        | Resource::Job { tenant, owner: _ } => known(reaches(tenant)),
        Resource::Exec { tenant, id } => {
            let watched = caller.viewer.as_ref().is_none_or(|watching| watching.exec() == id);
            known(reaches(tenant) && watched)
        }
    }
}
