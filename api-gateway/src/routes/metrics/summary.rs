//! `GET /metrics`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
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
    /// Of the whole deployment: for operators where there are several tenants.
    #[serde(flatten)]
    pub whole: Option<Whole>,
}

/// What all tenants have together.
#[derive(Debug, Serialize, ToSchema)]
pub struct Whole {
    /// Nodes that show signs of life.
    pub nodes_live: usize,
    /// Sandboxes that all of them take, and have.
    pub capacity: u64,
    /// How many they have.
    pub used: u64,
    /// The position of the newest event that this gateway has seen.
    pub feed_head: u64,
    /// How far the recorder is behind, or silent.
    pub recorder_lag_seconds: f64,
}

impl Whole {
    fn of(gateway: &Gateway) -> Self {
        let nodes = gateway.view().nodes();
        Self {
            nodes_live: nodes.len(),
            capacity: nodes.iter().map(|node| u64::from(node.heartbeat.capacity)).sum(),
            used: nodes.iter().map(|node| u64::from(node.heartbeat.used)).sum(),
            feed_head: gateway.feed().head().0,
            recorder_lag_seconds: gateway.feed().recorder_lag().age.as_secs_f64(),
        }
    }
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
    let mut live = gateway.view().live_sandboxes();
    live.retain(|state| state.tenant == caller.tenant);
    let mut by_state = BTreeMap::new();
    for state in &live {
        *by_state.entry(state_name(state, now)).or_insert(0) += 1;
    }
    Json(Metrics {
        uptime_seconds: gateway.uptime().as_secs_f64(),
        sandboxes_live: live.len(),
        sandboxes_by_state: by_state,
        nats_connected: gateway.log().is_connected(),
        whole: caller.sees_the_whole(&gateway).then(|| Whole::of(&gateway)),
    })
}
