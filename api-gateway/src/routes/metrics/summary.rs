//! `GET /metrics`

use std::collections::BTreeMap;

use api_types::Metrics;
use axum::Json;
use axum::extract::State;
use transport::Heartbeat;

use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::routes::sandboxes::state_name;

/// A few numbers as JSON. All of them are at `/metrics/prometheus`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "metrics",
    responses((status = 200, description = "The numbers", body = Metrics))
)]
pub(crate) async fn summary(State(gateway): State<Gateway>, caller: Caller) -> Json<Metrics> {
    let now = gateway.clock().now();
    let live = gateway.live_sandboxes(&caller);
    let mut by_state = BTreeMap::new();
    for state in &live {
        *by_state.entry(state_name(state, now).to_string()).or_insert(0) += 1;
    }
    let nodes = caller.sees_the_whole().then(|| gateway.view().nodes());
    let sum = |of: fn(&Heartbeat) -> u32| {
        nodes.as_ref().map(|nodes| nodes.iter().map(|node| u64::from(of(&node.heartbeat))).sum())
    };
    Json(Metrics {
        uptime_seconds: gateway.uptime().as_secs_f64(),
        sandboxes_live: live.len(),
        sandboxes_by_state: by_state,
        nats_connected: gateway.log().is_connected(),
        nodes_live: nodes.as_ref().map(Vec::len),
        capacity: sum(|heartbeat| heartbeat.capacity),
        used: sum(|heartbeat| heartbeat.used),
        feed_head: nodes.as_ref().map(|_| gateway.feed().head().0),
        recorder_lag_seconds: nodes.as_ref().map(|_| gateway.feed().recorder_lag().age.as_secs_f64()),
    })
}
