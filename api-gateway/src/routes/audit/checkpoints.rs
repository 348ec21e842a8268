//! `GET /audit/checkpoints`

use api_types::CheckpointList;
use audit::{AuditQuery, CheckpointProof, list};
use axum::Json;
use axum::extract::State;
use events::{AuditCheckpoint, AuditEvent, EventData, Position, TenantId};
use record::{AuditFilter, EventStore, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use utoipa::IntoParams;

use super::query::AuditParams;
use super::{public_keys, scope};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;

/// Which checkpoints.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CheckpointsQuery {
    /// Those that speak of this tenant: for operators only.
    pub tenant: Option<String>,
    /// `desc`: the newest first. `asc` by default.
    pub order: Option<String>,
    /// Where the page before ended: its `next_after`.
    pub after: Option<String>,
    /// How many are looked at: 1 to 1000, 100 by default.
    pub limit: Option<String>,
}

/// All that a checkpoint says, or what it says to one tenant.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Checkpoint {
    /// All of it.
    Whole(AuditCheckpoint),
    /// One tenant's chain, and the proof that it was signed.
    Proof(CheckpointProof),
}

/// What some of the checkpoints after a position say to one tenant, and where to go on.
pub(super) async fn proofs(
    store: &dyn EventStore,
    tenant: &TenantId,
    after: Position,
) -> Result<(Vec<CheckpointProof>, Option<Position>), StoreError> {
    let query =
        AuditQuery { filter: of_checkpoints(), after: Some(after), limit: 100, ..AuditQuery::default() };
    let page = list(store, &query).await?;
    let proofs = page.events.into_iter().filter_map(|(_, event)| {
        let EventData::Audit(AuditEvent::Checkpoint(checkpoint)) = event.data else { return None };
        CheckpointProof::of(&checkpoint, tenant)
    });
    Ok((proofs.collect(), page.next_after))
}

fn of_checkpoints() -> AuditFilter {
    AuditFilter {
        tenant: Some(TenantId::system()),
        types: vec!["audit.checkpoint".to_owned()],
        ..AuditFilter::default()
    }
}

/// Signed checkpoints of the hash chains. A tenant is shown its own chain, with a proof that leads to what was signed.
#[utoipa::path(
    get,
    path = "/audit/checkpoints",
    tag = "audit",
    params(CheckpointsQuery),
    responses(
        (status = 200, description = "A page", body = CheckpointList),
        (status = 400, description = "No position, no order", body = ErrorBody),
        (status = 404, description = "No such tenant", body = ErrorBody),
    )
)]
pub(crate) async fn checkpoints(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<CheckpointsQuery>,
) -> Result<Json<CheckpointList>, ApiError> {
    let of = scope(query.tenant.as_deref(), &caller)?;
    let CheckpointsQuery { tenant: _, order, after, limit } = query;
    let params = AuditParams { order, after, limit, ..AuditParams::default() };
    let query = AuditQuery { filter: of_checkpoints(), ..params.read(&caller)? };
    let page = list(gateway.store(), &query).await.map_err(ApiError::store)?;
    let shown = page.events.into_iter().filter_map(|(_, event)| {
        let EventData::Audit(AuditEvent::Checkpoint(checkpoint)) = event.data else { return None };
        match &of {
            None => Some(Checkpoint::Whole(checkpoint)),
            Some(tenant) => CheckpointProof::of(&checkpoint, tenant).map(Checkpoint::Proof),
        }
    });
    let public_keys = public_keys(&gateway)?.iter().map(ToString::to_string).collect();
    let checkpoints = shown.map(|checkpoint| to_raw_value(&checkpoint)).collect::<Result<_, _>>();
    Ok(Json(CheckpointList {
        checkpoints: checkpoints.map_err(ApiError::internal)?,
        next_after: page.next_after.map(|position| position.0),
        public_keys,
    }))
}
