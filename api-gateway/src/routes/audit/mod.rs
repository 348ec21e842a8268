//! What happened, for auditors: lists, exports, and whether the log is what it was.

pub mod checkpoints;
pub mod export;
pub mod list;
pub mod query;
pub mod verify;

use audit::PublicKeys;
use events::TenantId;

use crate::auth::{Caller, Resource, authorize, log_of};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// Whose log is meant; `None` is everybody's, which is what an operator gets who does not say.
fn scope(wanted: Option<&str>, caller: &Caller) -> Result<Option<TenantId>, ApiError> {
    match wanted {
        Some(name) => log_of(caller, name),
        None if authorize(caller, caller.action, Resource::AllTenants).is_ok() => Ok(None),
        None => Ok(Some(caller.tenant.clone())),
    }
}

/// The keys by which checkpoints are known to be signed; none while the recorder has not written its own.
fn public_keys(gateway: &Gateway) -> Result<PublicKeys, ApiError> {
    let Some(path) = &gateway.config().audit.public_key_file else {
        return Ok(PublicKeys::default());
    };
    if !path.exists() {
        return Ok(PublicKeys::default());
    }
    PublicKeys::read(path).map_err(ApiError::internal)
}
