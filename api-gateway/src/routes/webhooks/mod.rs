//! Webhooks: readers of the log that are called over HTTP.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod ping;
pub mod redeliver;
pub mod spec;
pub mod update;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use events::{Position, SandboxId, TenantId, WebhookId, WebhookPhase, WebhookState};
use record::{EventFilter, StoreError};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::config::WebhookLimits;
use crate::error::ApiError;
use crate::gateway::{Gateway, not_known};

/// How long a change may take to be recorded, and how often that is looked for.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);
const RECORD_PAUSE: Duration = Duration::from_millis(2);

/// Whether a request is in order, as far as it can be seen without looking at anything.
pub(crate) fn reads(
    request: Result<spec::WebhookRequest, ApiError>,
    limits: &WebhookLimits,
    head: Position,
) -> bool {
    request.and_then(|request| spec::Spec::read(request, limits, head)).is_ok()
}

/// A webhook and how it is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// Unique.
    #[schema(value_type = String)]
    pub id: WebhookId,
    /// Where events go.
    pub url: String,
    /// Which events; empty: all but output, input and the webhooks' own.
    pub types: Vec<String>,
    /// Only events of this sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sandbox: Option<SandboxId>,
    /// What its owner calls it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `active`, `failing` (an event is being tried again), `suspended` (it failed for too long, nothing is sent).
    pub state: &'static str,
    /// Everything up to this position was delivered, or did not match. About a second old.
    pub cursor: u64,
    /// 0 when nothing waits; else how many positions there are from the oldest event that waits to the end of the log.
    pub lag: u64,
    /// When it was made.
    pub created_at: String,
    /// When something was last delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<String>,
    /// How often the oldest event that waits was tried.
    pub attempts: u32,
    /// What went wrong last, while it has not been mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Since when it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// Since when it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<String>,
    /// The signing secret: only in the answer to the request that made or changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
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
    let began = Instant::now();
    loop {
        let state = gateway.view().webhook(tenant, id);
        if is_there(state.as_ref()) {
            return Ok(state);
        }
        if began.elapsed() > RECORD_PATIENCE {
            return Err(ApiError::unavailable(
                "the recorder does not follow: a change of webhooks is not recorded",
            ));
        }
        sleep(RECORD_PAUSE).await;
    }
}

async fn answer(gateway: &Gateway, state: WebhookState, secret: Option<String>) -> Result<Webhook, ApiError> {
    let lag = lag(gateway, &state).await?;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let failure = state.failure().cloned();
    let (name, failing_since, retry_at, suspended_at) = match &state.phase {
        WebhookPhase::Active => ("active", None, None, None),
        WebhookPhase::Failing { since, retry_at, .. } => ("failing", Some(*since), Some(*retry_at), None),
        WebhookPhase::Suspended { since, .. } => ("suspended", None, None, Some(*since)),
    };
    Ok(Webhook {
        id: state.webhook.id,
        url: state.webhook.url,
        types: state.webhook.types,
        sandbox: state.webhook.sandbox,
        description: state.webhook.description,
        state: name,
        cursor: state.cursor.0,
        lag,
        created_at: time(state.created_at),
        last_success_at: state.delivered_at.map(time),
        attempts: failure.as_ref().map_or(0, |failure| failure.attempts),
        last_error: failure.map(|failure| failure.message),
        failing_since: failing_since.map(time),
        retry_at: retry_at.map(time),
        suspended_at: suspended_at.map(time),
        secret,
    })
}

/// A cursor is close to the end of the log or right before an event that waits: this looks at little.
async fn lag(gateway: &Gateway, state: &WebhookState) -> Result<u64, ApiError> {
    let filter = EventFilter {
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
