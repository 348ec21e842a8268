//! Which events an auditor wants.

use audit::AuditQuery;
use chrono::{DateTime, Utc};
use events::RequestId;
use record::AuditFilter;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::whole;
use crate::gateway::Gateway;
use crate::routes::events::query::{event_types, position};

/// How many events a page has that does not say, and at most.
const PAGE: usize = 100;
pub(crate) const MOST: usize = 1_000;

/// Which events.
#[derive(Debug, Default, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// Whose: for operators only, who get everybody's without it.
    pub tenant: Option<String>,
    /// By whom: `client:KEY/USER`, `executor:NODE`, `reaper`. `client:*` is all that begin so.
    pub actor: Option<String>,
    /// By clients that called themselves so (`X-User-ID`), whatever their key.
    pub user: Option<String>,
    /// About sandboxes with this label in their metadata: `NAME=VALUE`.
    pub label: Option<String>,
    /// Of these types, separated by commas: `exec.exited,sandbox.*`.
    pub r#type: Option<String>,
    /// About this sandbox.
    pub sandbox: Option<String>,
    /// About this exec.
    pub exec: Option<String>,
    /// At or after this time (RFC 3339).
    pub from: Option<String>,
    /// Before this time (RFC 3339).
    pub to: Option<String>,
    /// That follow from this request.
    pub request_id: Option<String>,
    /// `desc`: the newest first. `asc` by default.
    pub order: Option<String>,
    /// Where the page before ended: its `next_after`.
    pub after: Option<String>,
    /// How many: 1 to 1000, 100 by default.
    pub limit: Option<String>,
}

impl AuditParams {
    /// Checks it, for this caller.
    pub fn read(&self, caller: &Caller) -> Result<AuditQuery, ApiError> {
        let filter = AuditFilter {
            subject: None,
            tenant: super::scope(self.tenant.as_deref(), caller)?,
            sandbox: parsed(self.sandbox.as_deref(), "sandbox is not the id of a sandbox")?,
            exec: parsed(self.exec.as_deref(), "exec is not the id of an exec")?,
            types: self.r#type.as_deref().map(event_types).transpose()?.unwrap_or_default(),
            from: instant(self.from.as_deref(), "from is not a time in RFC 3339")?,
            to: instant(self.to.as_deref(), "to is not a time in RFC 3339")?,
        };
        let request_id = match &self.request_id {
            None => None,
            Some(text) => Some(
                RequestId::try_from(text.clone())
                    .map_err(|_| ApiError::bad_request("request_id is not the id of a request"))?,
            ),
        };
        let backwards = match self.order.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(ApiError::bad_request("order must be asc or desc")),
        };
        let limit = match self.limit.as_deref() {
            None => PAGE,
            Some(text) => whole(text)
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| ApiError::bad_request("limit must be 1 to 1000"))?,
        };
        let after = self.after.as_deref().map(position).transpose()?;
        let label = match self.label.as_deref().map(|text| text.split_once('=')) {
            None => None,
            Some(Some((name, value))) if !name.is_empty() => Some((name.to_owned(), value.to_owned())),
            Some(_) => return Err(ApiError::bad_request("label must be NAME=VALUE")),
        };
        Ok(AuditQuery {
            filter,
            actor: self.actor.clone(),
            user: self.user.clone(),
            label,
            request_id,
            backwards,
            after,
            limit,
        })
    }

    /// Whether it leaves anything out but other tenants.
    pub const fn is_whole(&self) -> bool {
        self.actor.is_none()
            && self.user.is_none()
            && self.label.is_none()
            && self.r#type.is_none()
            && self.sandbox.is_none()
            && self.exec.is_none()
            && self.from.is_none()
            && self.to.is_none()
            && self.request_id.is_none()
            && self.order.is_none()
            && self.after.is_none()
            && self.limit.is_none()
    }
}

/// Whether the sandbox and the exec that are asked for are the tenant's own: what is another's is not looked through, which
/// would take as long as there are events of it.
pub(crate) async fn is_about_own(gateway: &Gateway, query: &AuditQuery) -> Result<bool, ApiError> {
    let Some(tenant) = &query.filter.tenant else { return Ok(true) };
    let store = gateway.store();
    if let Some(sandbox) = query.filter.sandbox
        && store.sandbox_of(tenant, sandbox).await.map_err(ApiError::store)?.is_none()
    {
        return Ok(false);
    }
    if let Some(exec) = query.filter.exec
        && store.exec_of(tenant, exec).await.map_err(ApiError::store)?.is_none()
    {
        return Ok(false);
    }
    Ok(true)
}

fn parsed<T: std::str::FromStr>(text: Option<&str>, wrong: &'static str) -> Result<Option<T>, ApiError> {
    text.map(|text| text.parse().map_err(|_| ApiError::bad_request(wrong))).transpose()
}

fn instant(text: Option<&str>, wrong: &'static str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let read = |text: &str| DateTime::parse_from_rfc3339(text).map_err(|_| ApiError::bad_request(wrong));
    text.map(|text| read(text).map(|time| time.with_timezone(&Utc))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Action, Role};

    fn caller(role: Role) -> Caller {
        Caller::new("red".parse().unwrap(), role, Action::AuditList)
    }

    #[test]
    fn a_tenant_sees_itself_and_an_operator_whomever_it_names() {
        let of = |tenant: Option<&str>, role| {
            let params = AuditParams { tenant: tenant.map(str::to_owned), ..AuditParams::default() };
            params.read(&caller(role)).map(|query| query.filter.tenant)
        };
        let tenant = |name: &str| Some(name.parse().unwrap());
        assert_eq!(of(None, Role::Member).unwrap(), tenant("red"));
        assert_eq!(of(Some("red"), Role::Member).unwrap(), tenant("red"));
        assert!(of(Some("blue"), Role::Member).is_err());
        assert!(of(Some("*"), Role::Member).is_err());
        assert_eq!(of(None, Role::DeploymentAdmin).unwrap(), None);
        assert_eq!(of(Some("blue"), Role::DeploymentAdmin).unwrap(), tenant("blue"));
        assert_eq!(of(Some("_system"), Role::DeploymentAdmin).unwrap(), tenant("_system"));
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = [
            AuditParams { order: Some("up".to_owned()), ..AuditParams::default() },
            AuditParams { limit: Some("0".to_owned()), ..AuditParams::default() },
            AuditParams { limit: Some("1001".to_owned()), ..AuditParams::default() },
            AuditParams { after: Some("-1".to_owned()), ..AuditParams::default() },
            AuditParams { from: Some("yesterday".to_owned()), ..AuditParams::default() },
            AuditParams { r#type: Some("exec.nothing".to_owned()), ..AuditParams::default() },
            AuditParams { sandbox: Some("ex-1".to_owned()), ..AuditParams::default() },
        ];
        for params in wrong {
            assert!(params.read(&caller(Role::DeploymentAdmin)).is_err(), "{params:?}");
            assert!(!params.is_whole());
        }
    }
}
