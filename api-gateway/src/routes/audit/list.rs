//! `GET /audit`

use api_types::{AuditEntry, AuditList};
use audit::list as read;
use axum::Json;
use axum::extract::State;
use chrono::SecondsFormat;
use events::Event;
use record::AuditRow;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::query::{AuditParams, is_about_own};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;

#[derive(Deserialize)]
struct Header {
    data: Box<RawValue>,
}

fn entry(row: &AuditRow, event: &Event) -> AuditEntry {
    AuditEntry {
        position: row.position.0,
        id: event.id.to_string(),
        time: event.time.to_rfc3339_opts(SecondsFormat::Micros, true),
        tenant: event.tenant.to_string(),
        r#type: event.data.type_name().into(),
        sandbox_id: event.sandbox.map(|id| id.to_string()),
        exec_id: event.data.exec().map(|id| id.to_string()),
        actor: event.actor.to_string(),
        request_id: event.request_id.as_ref().map(ToString::to_string),
        cause: event.cause.map(|id| id.to_string()),
        body_bytes: row.body_length,
        data: serde_json::from_slice::<Header>(&row.header).ok().map(|header| header.data),
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
    let events = page.events.iter().map(|(row, event)| entry(row, event)).collect();
    Ok(Json(AuditList { events, next_after: page.next_after.map(|position| position.0) }))
}
