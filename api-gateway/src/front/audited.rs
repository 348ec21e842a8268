//! Nothing is changed that cannot be recorded.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::auth::{Caller, Effect};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// The layer that refuses requests that change something while the recorder is silent or too far behind. Reads go through:
/// what is recorded can be shown.
pub async fn require(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let refused = match caller.action.effect() {
        Effect::Reads => None,
        Effect::MakesRoom => unrecordable(&gateway),
        Effect::MakesMore => unrecordable(&gateway).or_else(|| full(&gateway)),
    };
    match refused {
        Some(refused) => Err(refused),
        None => Ok(next.run(request).await),
    }
}

fn unrecordable(gateway: &Gateway) -> Option<ApiError> {
    let reason = gateway.readiness().refusal()?;
    metrics::counter!("stacyvm_unaudited_refused_total").increment(1);
    tracing::debug!(reason = %reason.code, "refused: what it would change could not be recorded");
    Some(ApiError::audit_unavailable())
}

/// What ends or removes something makes room, and is allowed to the last.
fn full(gateway: &Gateway) -> Option<ApiError> {
    let reason = gateway.readiness().disk_low()?;
    Some(ApiError::not_now(format!("{}: {}", reason.code, reason.message)))
}
