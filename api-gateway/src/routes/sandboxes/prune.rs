//! `DELETE /sandboxes`

use std::time::Duration;

use api_types::Pruned;
use axum::Json;
use axum::extract::State;
use events::DestroyReason;
use futures::StreamExt;

use crate::auth::Caller;
use crate::gateway::Gateway;

/// How many are destroyed at once.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes the tenant's sandboxes whose deadline has passed. They go by themselves too; this waits for it.
#[utoipa::path(
    delete,
    path = "/sandboxes",
    tag = "sandboxes",
    responses((status = 200, description = "How many were removed", body = Pruned))
)]
pub(crate) async fn prune(State(gateway): State<Gateway>, caller: Caller) -> Json<Pruned> {
    let now = gateway.clock().now();
    let mut expired = gateway.live_sandboxes(&caller);
    expired.retain(|state| state.is_expired(now));
    let pruned = futures::stream::iter(expired)
        .map(|state| {
            let (gateway, caller) = (gateway.clone(), caller.clone());
            async move {
                super::destroy::ask_and_wait(&gateway, &caller, &state, DestroyReason::Ttl, PATIENCE).await
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter(|gone| std::future::ready(matches!(gone, Ok(true))))
        .count()
        .await;
    Json(Pruned { pruned })
}
