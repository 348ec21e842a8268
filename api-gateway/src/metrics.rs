//! Counters of the process, for Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::gateway::Gateway;

/// Upper bounds of request times, in seconds: fine where execs are, coarse where image pulls are.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 5.0, 30.0, 120.0];

/// WebSockets that are attached to execs.
pub const EXEC_VIEWERS: &str = "stacyvm_exec_viewers";
/// WebSockets that were closed because their client did not read.
pub const SLOW_READERS_CLOSED: &str = "stacyvm_slow_readers_closed_total";

/// The recorder of this process. Several gateways in one process share it.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once a process. Where somebody else installed one first, ours stays empty but for what is
    /// measured when it is read.
    pub fn install() -> Self {
        static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = RECORDER.get_or_init(|| {
            let builder = || PrometheusBuilder::new().set_buckets(&BUCKETS).unwrap_or_default();
            builder().install_recorder().unwrap_or_else(|error| {
                tracing::warn!(error = %error, "another metrics recorder is installed already");
                builder().build_recorder().handle()
            })
        });
        Self(handle.clone())
    }

    /// Folds what histograms have gathered. To be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// All of it as Prometheus text.
    pub fn render(&self, gateway: &Gateway) -> String {
        metrics::gauge!("stacyvm_sandboxes_live").set(gateway.view().live_sandboxes().len() as f64);
        metrics::gauge!("stacyvm_nodes_live").set(gateway.view().nodes().len() as f64);
        metrics::gauge!("stacyvm_feed_head_position").set(gateway.feed().head().0 as f64);
        let lag = gateway.feed().recorder_lag();
        metrics::gauge!("stacyvm_recorder_lag_seconds").set(lag.age.as_secs_f64());
        metrics::gauge!("stacyvm_recorder_lag_messages").set(lag.messages as f64);
        let uptime = gateway.uptime().as_secs_f64();
        format!("{}# TYPE stacyvm_uptime_seconds gauge\nstacyvm_uptime_seconds {uptime}\n", self.0.render())
    }
}
