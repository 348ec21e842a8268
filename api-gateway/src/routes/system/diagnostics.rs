//! `GET /diagnostics`

use std::time::Duration;

use api_types::{
    Diagnostics, LogHealth, PartHealth, ProcessHealth, QuotaSummary, SandboxCounts, SpawnLimits, Worker,
    WorkerState, Workers,
};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, SubsecRound, Utc};
use events::SandboxState;
use feed::NodeStatus;
use spelling::format_go_duration;
use tokio::time::Instant;

use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::routes::health::build;
use crate::routes::providers::shown;
use crate::routes::sandboxes::{network, state_name};

/// How long the event store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// How everything stands, without a secret in it.
#[utoipa::path(
    get,
    path = "/diagnostics",
    tag = "system",
    responses((status = 200, description = "How it stands", body = Diagnostics))
)]
pub(crate) async fn diagnostics(State(gateway): State<Gateway>, caller: Caller) -> Json<Diagnostics> {
    let now = gateway.clock().now();
    let whole = caller.sees_the_whole();
    let live = gateway.live_sandboxes(&caller);
    let (asked, head) = (Instant::now(), tokio::time::timeout(STORE_PATIENCE, gateway.store().head()).await);
    let (sandboxes, execs) = (&gateway.config().sandboxes, &gateway.config().execs);
    Json(Diagnostics {
        generated_at: now,
        build: build(),
        process: ProcessHealth {
            uptime: gateway.uptime_text(),
            memory_bytes: resident_bytes().filter(|_| whole),
        },
        store: PartHealth {
            healthy: matches!(head, Ok(Ok(_))),
            latency_ms: whole.then(|| u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX)),
        },
        transport: PartHealth { healthy: gateway.log().is_connected(), latency_ms: None },
        limits: SpawnLimits {
            default_provider: sandboxes.default_provider.to_string(),
            default_image: sandboxes.default_image.clone(),
            default_network: network(sandboxes.default_network).into(),
            default_ttl: format_go_duration(sandboxes.default_ttl),
            max_ttl: format_go_duration(sandboxes.max_ttl),
            default_exec_timeout: format_go_duration(execs.sync_timeout()),
            max_exec_timeout: format_go_duration(execs.max_timeout),
        },
        providers: shown(&gateway, &caller),
        workers: whole.then(|| workers(&gateway.view().nodes(), now)),
        sandboxes: count(live.iter().map(AsRef::as_ref), now),
        events: whole.then(|| LogHealth {
            head: gateway.feed().head().0,
            recorder_lag_seconds: gateway.feed().recorder_lag().age.as_secs_f64(),
        }),
        quotas: QuotaSummary::default(),
    })
}

fn workers(nodes: &[NodeStatus], now: DateTime<Utc>) -> Workers {
    let worker = |node: &NodeStatus| Worker {
        id: node.heartbeat.node.to_string(),
        status: if node.heartbeat.draining { WorkerState::Draining } else { WorkerState::Online }.into(),
        capacity: node.heartbeat.capacity,
        used: node.heartbeat.used,
        providers: node.heartbeat.providers.iter().map(|provider| provider.name.to_string()).collect(),
        last_heartbeat: (now - node.silent_for).trunc_subsecs(6),
    };
    let online = nodes.iter().filter(|node| !node.heartbeat.draining).count();
    Workers { total: nodes.len(), online, items: nodes.iter().map(worker).collect() }
}

fn count<'a>(live: impl Iterator<Item = &'a SandboxState>, now: DateTime<Utc>) -> SandboxCounts {
    let mut counts = SandboxCounts::default();
    for state in live {
        let word = state_name(state, now);
        counts.total += 1;
        counts.active += usize::from(word == api_types::SandboxState::Running);
        *counts.by_state.entry(word.to_string()).or_insert(0) += 1;
        *counts.by_provider.entry(state.spec.provider.to_string()).or_insert(0) += 1;
        if let Some(node) = state.node() {
            *counts.by_worker.entry(node.to_string()).or_insert(0) += 1;
        }
    }
    counts
}

/// `VmRSS` of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
