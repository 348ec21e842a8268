//! Execs: one exec is one run of one command, and outlives the connection that asked for it.

pub mod attach;
pub mod get;
pub mod output;
pub mod recording;
pub mod run;
pub mod signal;
pub mod stream;
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
