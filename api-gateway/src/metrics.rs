//! Counters of the process, for Prometheus.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::denied::{ACCESS_DENIED, Denial};
use crate::limit::Limit;

/// Upper bounds of request times, in seconds: fine where execs are, coarse where image pulls are.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 5.0, 30.0, 120.0];

/// WebSockets that are attached to execs.
pub const EXEC_VIEWERS: &str = "stacyvm_exec_viewers";
/// WebSockets that were closed because their client did not read.
pub const SLOW_READERS_CLOSED: &str = "stacyvm_slow_readers_closed_total";
/// HTTP connections that were closed because their client took nothing of an answer, or sent nothing of a body.
pub const STALLED_CLIENTS_CLOSED: &str = "stacyvm_stalled_clients_closed_total";
/// Connections that had to go, or were not let in.
pub const CONNECTIONS_CLOSED: &str = "stacyvm_connections_closed_total";
/// Requests over a limit, by the key that sets it.
pub const LIMITED: &str = "stacyvm_limited_total";
/// Requests by method, route and status.
pub const HTTP_REQUESTS: &str = "stacyvm_http_requests_total";
/// How long they took.
pub const HTTP_REQUEST_SECONDS: &str = "stacyvm_http_request_seconds";

enum Kind {
    Counter,
    Gauge,
}

/// What has no labels: there from the first scrape on, because an alert on a metric that is not there never fires.
const PLAIN: &[(&str, Kind, &str)] = &[
    (SLOW_READERS_CLOSED, Kind::Counter, "WebSockets closed because their client did not keep up"),
    ("stacyvm_unaudited_refused_total", Kind::Counter, "Requests refused because they could not be recorded"),
    ("stacyvm_log_lines_lost_total", Kind::Counter, "Log lines that nobody read in time, or at all"),
    (EXEC_VIEWERS, Kind::Gauge, "WebSockets attached to execs"),
    ("stacyvm_sandboxes_live", Kind::Gauge, "Sandboxes that have not ended"),
    ("stacyvm_nodes_live", Kind::Gauge, "Executors that showed a sign of life in the last seconds"),
    ("stacyvm_feed_head_position", Kind::Gauge, "Newest recorded position that this gateway knows"),
    ("stacyvm_recorder_lag_seconds", Kind::Gauge, "Age of the oldest event that is not recorded"),
    (
        "stacyvm_recorder_lag_messages",
        Kind::Gauge,
        "Messages that waited for the recorder when it last spoke",
    ),
    (
        "stacyvm_clock_ahead_seconds",
        Kind::Gauge,
        "By how much the machine's clock jumped and is not believed",
    ),
    ("stacyvm_uptime_seconds", Kind::Gauge, "Time since this process began to serve"),
];

fn describe() {
    for (name, kind, help) in PLAIN {
        match kind {
            Kind::Counter => {
                metrics::describe_counter!(*name, *help);
                metrics::counter!(*name).increment(0);
            }
            Kind::Gauge => {
                metrics::describe_gauge!(*name, *help);
                metrics::gauge!(*name).increment(0.0);
            }
        }
    }
    metrics::describe_counter!(STALLED_CLIENTS_CLOSED, "Connections cut off because their client stopped");
    for of in ["answer", "body"] {
        metrics::counter!(STALLED_CLIENTS_CLOSED, "of" => of).increment(0);
    }
    metrics::describe_counter!(
        CONNECTIONS_CLOSED,
        "Connections closed or refused because there were too many"
    );
    for why in ["silent", "refused"] {
        metrics::counter!(CONNECTIONS_CLOSED, "why" => why).increment(0);
    }
    metrics::describe_counter!(LIMITED, "Requests over a limit, by the key that sets it");
    for limit in Limit::ALL {
        metrics::counter!(LIMITED, "limit" => limit.as_str()).increment(0);
    }
    metrics::describe_counter!(ACCESS_DENIED, "Requests that were turned away, by reason");
    for denial in Denial::ALL {
        metrics::counter!(ACCESS_DENIED, "reason" => denial.reason()).increment(0);
    }
    metrics::describe_counter!(HTTP_REQUESTS, "Requests by method, route and status");
    metrics::describe_histogram!(
        HTTP_REQUEST_SECONDS,
        "Time to the first byte of the answer, by method and route"
    );
}

/// Begins to collect the metrics of this process. A gateway does so itself; whoever runs other parts beside it calls this before
/// they begin to measure.
pub fn collect_metrics() {
    Metrics::install();
}

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
            let handle = builder().install_recorder().unwrap_or_else(|error| {
                tracing::warn!(error = %error, "another metrics recorder is installed already");
                builder().build_recorder().handle()
            });
            describe();
            handle
        });
        Self(handle.clone())
    }

    /// Folds what histograms have gathered. To be called every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// All of it as Prometheus text.
    pub fn render(&self) -> String {
        self.0.render()
    }
}
