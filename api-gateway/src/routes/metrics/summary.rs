//! `GET /metrics`

use std::collections::BTreeMap;

use api_types::Word as _;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use transport::Heartbeat;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::routes::sandboxes::state_name;

/// A few numbers, for people and scripts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Metrics {
    /// Since the start of the gateway.
    pub uptime_seconds: f64,
    /// The tenant's live sandboxes.
    pub sandboxes_live: usize,
    /// The same, by state.
    pub sandboxes_by_state: BTreeMap<&'static str, usize>,
    /// Whether the transport is connected.
    pub nats_connected: bool,
    /// Nodes that show signs of life. This and what follows is of the whole deployment: for operators where there are several
    /// tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_live: Option<usize>,
    /// Sandboxes that all of them take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// How many they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The position of the newest event that this gateway has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_head: Option<u64>,
    /// How far the recorder is behind, or silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorder_lag_seconds: Option<f64>,
}

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
        *by_state.entry(state_name(state, now).as_str()).or_insert(0) += 1;
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
