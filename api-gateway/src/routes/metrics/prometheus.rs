//! `GET /metrics/prometheus`

use axum::extract::State;
use axum::http::{HeaderName, header};

use crate::gateway::Gateway;

/// All metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics/prometheus",
    tag = "metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"))
)]
pub(crate) async fn prometheus(State(gateway): State<Gateway>) -> ([(HeaderName, &'static str); 1], String) {
    measure(&gateway);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], gateway.metrics().render())
}

/// Sets the gauges of what is not counted as it happens.
fn measure(gateway: &Gateway) {
    metrics::gauge!("stacyvm_sandboxes_live").set(gateway.view().live_sandboxes().len() as f64);
    metrics::gauge!("stacyvm_nodes_live").set(gateway.view().nodes().len() as f64);
    metrics::gauge!("stacyvm_feed_head_position").set(gateway.feed().head().0 as f64);
    let lag = gateway.feed().recorder_lag();
    metrics::gauge!("stacyvm_recorder_lag_seconds").set(lag.age.as_secs_f64());
    metrics::gauge!("stacyvm_recorder_lag_messages").set(lag.messages as f64);
    let ahead = gateway.clock().doubt().map_or(0.0, |ahead| ahead.as_seconds_f64());
    metrics::gauge!("stacyvm_clock_ahead_seconds").set(ahead);
    metrics::gauge!("stacyvm_uptime_seconds").set(gateway.uptime().as_secs_f64());
}
