//! Execs: one exec is one run of one command, and outlives the connection that asked for it.

pub mod attach;
pub mod get;
pub mod kill;
pub mod list;
pub mod output;
mod range;
pub mod recording;
pub mod resize;
pub mod run;
pub mod signal;
pub mod stdin;
pub mod stream;
pub mod viewers;
pub mod ws;

use std::sync::Arc;

use events::{ExecId, ExecState, TenantId};

use crate::error::ApiError;
use crate::gateway::Gateway;

/// The tenant's exec, from the record.
pub(crate) async fn find(
    gateway: &Gateway,
    tenant: &TenantId,
    id: ExecId,
) -> Result<Arc<ExecState>, ApiError> {
    let state = gateway.store().exec(id).await.map_err(ApiError::store)?;
    state
        .filter(|state| state.tenant == *tenant)
        .map(Arc::new)
        .ok_or_else(|| ApiError::not_found("exec not found"))
}

/// The same, as long as it runs.
pub(crate) async fn running(
    gateway: &Gateway,
    tenant: &TenantId,
    id: ExecId,
) -> Result<Arc<ExecState>, ApiError> {
    let state = find(gateway, tenant, id).await?;
    if state.end.is_some() {
        return Err(ApiError::conflict("the exec has ended"));
    }
    if state.pending {
        return Err(ApiError::conflict("the exec has not begun: try again"));
    }
    Ok(state)
}
