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
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], gateway.metrics().render(&gateway))
}
