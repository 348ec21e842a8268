//! `GET /audit`

use audit::list as read;
use axum::Json;
use axum::extract::State;
use chrono::SecondsFormat;
use events::{CommandId, Event, EventId, ExecId, Position, RequestId, SandboxId, TenantId};
use record::AuditRow;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::query::{AuditParams, is_about_own};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditList {
    /// The events.
    pub events: Vec<AuditEntry>,
    /// Where to go on; null at the end. A page may be short or empty and still have one: what is rare is looked for in
    /// pieces.
    #[schema(value_type = Option<u64>)]
    pub next_after: Option<Position>,
}

/// An event, without the bytes of its body.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Where it stands in the log.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Unique.
    #[schema(value_type = String)]
    pub id: EventId,
    /// When, in UTC.
    pub time: String,
    /// Whose.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// What happened.
    pub r#type: &'static str,
    /// About which sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sandbox_id: Option<SandboxId>,
    /// About which exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub exec_id: Option<ExecId>,
    /// Who did it.
    pub actor: String,
    /// The request that it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// The command that it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cause: Option<CommandId>,
    /// How many bytes its body had: output or input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// The details, which depend on the type.
    #[schema(value_type = Object)]
    pub data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Header {
    data: Box<RawValue>,
}

impl AuditEntry {
    fn new(row: &AuditRow, event: &Event) -> Self {
        Self {
            position: row.position,
            id: event.id,
            time: event.time.to_rfc3339_opts(SecondsFormat::Micros, true),
            tenant: event.tenant.clone(),
            r#type: event.data.type_name(),
            sandbox_id: event.sandbox,
            exec_id: event.data.exec(),
            actor: event.actor.to_string(),
            request_id: event.request_id.clone(),
            cause: event.cause,
            body_bytes: row.body_length,
            data: serde_json::from_slice::<Header>(&row.header).ok().map(|header| header.data),
        }
    }
}

/// What happened, in pages. Pages are stable: going on from `next_after` misses nothing and shows nothing twice.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "audit",
    params(AuditParams),
    responses(
        (status = 200, description = "A page", body = AuditList),
        (status = 400, description = "No such type, no time, no position", body = ErrorBody),
        (status = 404, description = "No such tenant", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(params): QueryOf<AuditParams>,
) -> Result<Json<AuditList>, ApiError> {
    let query = params.read(&caller)?;
    if !is_about_own(&gateway, &query).await? {
        return Ok(Json(AuditList { events: Vec::new(), next_after: None }));
    }
    let page = read(gateway.store(), &query).await.map_err(ApiError::store)?;
    let events = page.events.iter().map(|(row, event)| AuditEntry::new(row, event)).collect();
    Ok(Json(AuditList { events, next_after: page.next_after }))
}
