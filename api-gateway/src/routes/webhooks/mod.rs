//! Webhooks: readers of the log that are called over HTTP.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod ping;
pub mod redeliver;
pub mod spec;
pub mod update;

use api_types::{Webhook, WebhookRequest};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{Position, TenantId, WebhookId, WebhookPhase, WebhookState};
use record::{EventFilter, StoreError};

use crate::auth::Caller;
use crate::config::WebhookLimits;
use crate::error::ApiError;
use crate::followed::followed;
use crate::gateway::{Gateway, not_known};

/// Whether a request is in order, as far as it can be seen without looking at anything.
pub(crate) fn reads(
    request: Result<WebhookRequest, ApiError>,
    limits: &WebhookLimits,
    head: Position,
) -> bool {
    request.and_then(|request| spec::Spec::read(request, limits, head)).is_ok()
}

/// There is no such webhook, or it is another tenant's.
pub(crate) fn no_webhook(named: impl std::fmt::Display) -> ApiError {
    ApiError::absent("webhook", named)
}

/// One webhook of the tenant.
fn find(gateway: &Gateway, caller: &Caller, id: WebhookId) -> Result<WebhookState, ApiError> {
    gateway.view().webhook(&caller.tenant, id).ok_or_else(|| not_known(caller, no_webhook(id)))
}

/// Waits until the view shows what was just published.
async fn shown(
    gateway: &Gateway,
    tenant: &TenantId,
    id: WebhookId,
    is_there: impl Fn(Option<&WebhookState>) -> bool,
) -> Result<Option<WebhookState>, ApiError> {
    followed("webhooks", || {
        let state = gateway.view().webhook(tenant, id);
        is_there(state.as_ref()).then_some(state)
    })
    .await
}

async fn answer(gateway: &Gateway, state: WebhookState, secret: Option<String>) -> Result<Webhook, ApiError> {
    let lag = lag(gateway, &state).await?;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let failure = state.failure().cloned();
    use api_types::WebhookState as Word;
    let (name, failing_since, retry_at, suspended_at) = match &state.phase {
        WebhookPhase::Active => (Word::Active, None, None, None),
        WebhookPhase::Failing { since, retry_at, .. } => (Word::Failing, Some(*since), Some(*retry_at), None),
        WebhookPhase::Suspended { since, .. } => (Word::Suspended, None, None, Some(*since)),
    };
    Ok(Webhook {
        id: state.webhook.id.to_string(),
        url: state.webhook.url,
        types: state.webhook.types,
        sandbox: state.webhook.sandbox.map(|id| id.to_string()),
        description: state.webhook.description,
        state: name.into(),
        cursor: state.cursor.0,
        lag,
        created_at: time(state.created_at),
        last_success_at: state.delivered_at.map(time),
        attempts: failure.as_ref().map_or(0, |failure| failure.attempts),
        last_error: failure.map(|failure| failure.message),
        failing_since: failing_since.map(time),
        retry_at: retry_at.map(time),
        suspended_at: suspended_at.map(time),
        secret: secret.map(Into::into),
    })
}

/// A cursor is close to the end of the log or right before an event that waits: this looks at little.
async fn lag(gateway: &Gateway, state: &WebhookState) -> Result<u64, ApiError> {
    let filter = EventFilter {
        subject: None,
        tenant: Some(state.tenant.clone()),
        sandbox: state.webhook.sandbox,
        exec: None,
        types: state.webhook.wanted_types().into_iter().map(str::to_owned).collect(),
    };
    let waiting = match gateway.store().read(&filter, state.cursor, 1).await {
        // It was behind what is kept: it goes on with what is left.
        Err(StoreError::Trimmed { floor }) => gateway.store().read(&filter, floor, 1).await,
        read => read,
    };
    let waiting = waiting.map_err(ApiError::store)?;
    let head = gateway.feed().head();
    Ok(waiting.first().map_or(0, |first| (head.0 + 1).saturating_sub(first.position.0).max(1)))
}
