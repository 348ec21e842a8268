//! `GET /diagnostics`

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::Word as _;
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, SubsecRound, Utc};
use events::{Network, SandboxState};
use feed::NodeStatus;
use serde::Serialize;
use spelling::format_go_duration;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::gateway::Gateway;
use crate::routes::health::Build;
use crate::routes::providers::{Provider, shown};
use crate::routes::quotas::summary::QuotaSummary;
use crate::routes::sandboxes::state_name;

/// How long the event store may take to say that it is there.
const STORE_PATIENCE: Duration = Duration::from_secs(3);

/// How everything stands, without a secret in it: what to send along with a question.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diagnostics {
    /// When this was put together.
    pub generated_at: DateTime<Utc>,
    /// What runs.
    pub build: Build,
    /// The gateway's process.
    pub process: Process,
    /// The event store.
    pub store: Part,
    /// NATS.
    pub transport: Part,
    /// What a spawn gets, and what it may ask for.
    pub limits: Limits,
    /// The box-makers.
    pub providers: Vec<Provider>,
    /// The nodes that show signs of life: for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,
    /// The tenant's live sandboxes.
    pub sandboxes: Sandboxes,
    /// The log: for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Log>,
    /// Quotas of owners. There are none yet.
    pub quotas: QuotaSummary,
}

/// A process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Process {
    /// Since its start, as a Go duration.
    pub uptime: String,
    /// Its resident memory, in bytes; absent where the system does not say, and for all but operators where there are several
    /// tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Something that the gateway leans on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Part {
    /// Whether it answers.
    pub healthy: bool,
    /// How long the answer took, in milliseconds, where it was asked; for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// Defaults and maxima.
#[derive(Debug, Serialize, ToSchema)]
pub struct Limits {
    /// The provider of a spawn that names none.
    pub default_provider: String,
    /// The image of a spawn that names none.
    pub default_image: String,
    /// The network of a spawn that names none.
    #[schema(value_type = String)]
    pub default_network: Network,
    /// The time to live of a spawn that names none, as a Go duration.
    pub default_ttl: String,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
    /// When a sync exec that names no timeout is ended, as a Go duration.
    pub default_exec_timeout: String,
    /// The greatest timeout of an exec, as a Go duration.
    pub max_exec_timeout: String,
}

/// Nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workers {
    /// How many show signs of life.
    pub total: usize,
    /// How many of them take sandboxes.
    pub online: usize,
    /// Each of them.
    pub items: Vec<Worker>,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub struct Worker {
    /// Its name.
    pub id: String,
    /// `online` or `draining`.
    pub status: &'static str,
    /// How many sandboxes it takes.
    pub capacity: u32,
    /// How many it has.
    pub used: u32,
    /// Its box-makers.
    pub providers: Vec<String>,
    /// When it was heard last.
    pub last_heartbeat: DateTime<Utc>,
}

/// Counts of sandboxes.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Sandboxes {
    /// All.
    pub total: usize,
    /// Those that run.
    pub active: usize,
    /// By state.
    pub by_state: BTreeMap<&'static str, usize>,
    /// By provider.
    pub by_provider: BTreeMap<String, usize>,
    /// By node.
    pub by_worker: BTreeMap<String, usize>,
}

/// Where the log stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Log {
    /// The position of the newest event that this gateway has seen.
    pub head: u64,
    /// How far the recorder is behind, or silent, in seconds.
    pub recorder_lag_seconds: f64,
}

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
        build: Build::this(),
        process: Process { uptime: gateway.uptime_text(), memory_bytes: resident_bytes().filter(|_| whole) },
        store: Part {
            healthy: matches!(head, Ok(Ok(_))),
            latency_ms: whole.then(|| u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX)),
        },
        transport: Part { healthy: gateway.log().is_connected(), latency_ms: None },
        limits: Limits {
            default_provider: sandboxes.default_provider.to_string(),
            default_image: sandboxes.default_image.clone(),
            default_network: sandboxes.default_network,
            default_ttl: format_go_duration(sandboxes.default_ttl),
            max_ttl: format_go_duration(sandboxes.max_ttl),
            default_exec_timeout: format_go_duration(execs.sync_timeout()),
            max_exec_timeout: format_go_duration(execs.max_timeout),
        },
        providers: shown(&gateway, &caller),
        workers: whole.then(|| Workers::of(&gateway.view().nodes(), now)),
        sandboxes: Sandboxes::count(live.iter().map(AsRef::as_ref), now),
        events: whole.then(|| Log {
            head: gateway.feed().head().0,
            recorder_lag_seconds: gateway.feed().recorder_lag().age.as_secs_f64(),
        }),
        quotas: QuotaSummary::default(),
    })
}

impl Workers {
    fn of(nodes: &[NodeStatus], now: DateTime<Utc>) -> Self {
        let worker = |node: &NodeStatus| Worker {
            id: node.heartbeat.node.to_string(),
            status: if node.heartbeat.draining { "draining" } else { "online" },
            capacity: node.heartbeat.capacity,
            used: node.heartbeat.used,
            providers: node.heartbeat.providers.iter().map(|provider| provider.name.to_string()).collect(),
            last_heartbeat: (now - node.silent_for).trunc_subsecs(6),
        };
        let online = nodes.iter().filter(|node| !node.heartbeat.draining).count();
        Self { total: nodes.len(), online, items: nodes.iter().map(worker).collect() }
    }
}

impl Sandboxes {
    fn count<'a>(live: impl Iterator<Item = &'a SandboxState>, now: DateTime<Utc>) -> Self {
        let mut counts = Self::default();
        for state in live {
            let word = state_name(state, now).as_str();
            counts.total += 1;
            counts.active += usize::from(word == "running");
            *counts.by_state.entry(word).or_insert(0) += 1;
            *counts.by_provider.entry(state.spec.provider.to_string()).or_insert(0) += 1;
            if let Some(node) = state.node() {
                *counts.by_worker.entry(node.to_string()).or_insert(0) += 1;
            }
        }
        counts
    }
}

/// `VmRSS` of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
