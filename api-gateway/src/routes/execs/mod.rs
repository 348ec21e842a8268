//! Execs: one exec is one run of one command, and outlives the connection that asked for it.

pub mod attach;
pub mod get;
pub mod kill;
pub mod list;
pub mod output;
pub mod recording;
mod reply;
pub mod resize;
pub mod run;
pub mod signal;
pub mod stdin;
pub mod stream;
pub mod viewers;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use events::{ExecId, ExecState};
use feed::{OutputItem, OutputReader};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::exec::start::read;
use crate::gateway::Gateway;

/// How long what is meant for a running exec waits for one that was asked for just now.
const START_PATIENCE: Duration = Duration::from_secs(25);

/// The tenant's exec, from the record.
pub(crate) async fn find(gateway: &Gateway, caller: &Caller, id: ExecId) -> Result<Arc<ExecState>, ApiError> {
    gateway.recorded_exec(caller, &caller.tenant, id).await.map(Arc::new)
}

/// The same, as long as it runs. One that was asked for and has not begun is waited for, for a while.
pub(crate) async fn running(
    gateway: &Gateway,
    caller: &Caller,
    id: ExecId,
) -> Result<Arc<ExecState>, ApiError> {
    let state = find(gateway, caller, id).await?;
    let state = if state.pending && state.end.is_none() {
        let mut output = read_nothing(gateway, id).await?;
        let begun = tokio::time::timeout(START_PATIENCE, begins(&mut output)).await;
        begun
            .map_err(|_| ApiError::conflict(format!("exec {id} has not begun: try again")).with_exec(id))??;
        find(gateway, caller, id).await?
    } else {
        state
    };
    if state.end.is_some() {
        return Err(ApiError::conflict(format!("exec {id} has ended")));
    }
    Ok(state)
}

/// A reader of an exec for whoever does not care what it writes: from wherever that would begin, it is of no interest.
pub(crate) async fn read_nothing(gateway: &Gateway, id: ExecId) -> Result<OutputReader, ApiError> {
    let skip = i64::MAX.unsigned_abs();
    read(gateway, id, skip, skip).await
}

/// Waits until it begins or ends, and says whether it begins first. At once where it has begun already.
pub(crate) async fn begins(output: &mut OutputReader) -> Result<bool, ApiError> {
    if output.state().is_some_and(|state| !state.pending) {
        return Ok(true);
    }
    loop {
        match output.next().await.map_err(ApiError::unavailable)? {
            Some(OutputItem::Started) => return Ok(true),
            Some(OutputItem::Ended { .. } | OutputItem::Closed(_)) | None => return Ok(false),
            Some(OutputItem::Output { .. } | OutputItem::Gone { .. } | OutputItem::Resized(_)) => {}
        }
    }
}
