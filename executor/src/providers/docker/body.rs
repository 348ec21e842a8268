use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use events::{Network, SandboxId};

use super::DockerConfig;
use crate::provider::BoxOrder;
use crate::providers::image::ImageConfig;
use crate::providers::inside::{self, InMemory};
use crate::providers::ulimits::ULIMITS;
use crate::providers::{privileges, run_dir};

pub(super) const SANDBOX_LABEL: &str = "stacyvm.sandbox";
pub(super) const NODE_LABEL: &str = "stacyvm.node";
pub(super) const DEPLOYMENT_LABEL: &str = "stacyvm.deployment";

const MIB: i64 = 1024 * 1024;
/// How much fits into the tmpfs that engines put at `/dev`, in bytes.
const ENGINES_DEV: u64 = 64 << 20;
/// The period that CPU limits are counted in, in microseconds: the kernel's own default.
const CPU_PERIOD_US: i64 = 100_000;
/// On a host that runs out of memory boxes go before the control plane. Within a box the agent raises this further
/// for what it runs, so that the workload goes before the agent.
const OOM_SCORE_ADJ: i64 = 500;

/// The name of the box's container.
pub(super) fn container_name(config: &DockerConfig, id: SandboxId) -> String {
    format!("{}-{id}", config.deployment)
}

/// The name of the box's network, where it has one.
pub(super) fn network_name(config: &DockerConfig, id: SandboxId) -> String {
    format!("{}-{}", config.bridge_network, container_name(config, id))
}

/// The labels of every container of ours.
pub(super) fn own_labels(config: &DockerConfig) -> [(&'static str, String); 2] {
    [(DEPLOYMENT_LABEL, config.deployment.clone()), (NODE_LABEL, config.node.to_string())]
}

/// What the engine is asked to create.
pub(super) fn create_body(
    config: &DockerConfig,
    seccomp: &str,
    shared_dir: &Path,
    order: &BoxOrder,
    image: &ImageConfig,
    cgroup_parent: Option<String>,
    name_server: Option<Ipv4Addr>,
) -> ContainerCreateBody {
    let spec = &order.spec;
    let mut labels: HashMap<_, _> = own_labels(config).map(|(name, value)| (name.to_owned(), value)).into();
    labels.insert(SANDBOX_LABEL.to_owned(), order.id.to_string());
    let memory = i64::from(spec.memory_mib) * MIB;
    let in_memory = InMemory::of(spec.memory_mib, ENGINES_DEV);
    let host = HostConfig {
        // What work in it has written is not the engine's to remove.
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(
            privileges::capabilities(spec.capabilities).iter().map(|name| (*name).to_owned()).collect(),
        ),
        security_opt: Some(vec!["no-new-privileges:true".to_owned(), format!("seccomp={seccomp}")]),
        privileged: Some(false),
        init: Some(false),
        memory: Some(memory),
        // The same as `memory`: no swap on top of it.
        memory_swap: Some(memory),
        pids_limit: limit(i64::from(spec.pids_limit)),
        cpu_period: limit(i64::from(spec.cpu_millis)).map(|_| CPU_PERIOD_US),
        cpu_quota: limit(i64::from(spec.cpu_millis)).map(|millis| millis * CPU_PERIOD_US / 1000),
        cgroup_parent,
        oom_score_adj: Some(OOM_SCORE_ADJ),
        ulimits: Some(ulimits()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        mounts: Some(vec![
            bind(&config.agent_path, inside::AGENT, true),
            bind(&run_dir::shared(shared_dir), inside::RUN_DIR, false),
        ]),
        network_mode: Some(network_mode(config, order)),
        // Whom the engine's resolver in the box asks; and no domains of the host's to look names up in.
        dns: name_server.map(|address| vec![address.to_string()]),
        dns_search: name_server.map(|_| vec![".".to_owned()]),
        readonly_rootfs: Some(spec.read_only_root),
        tmpfs: spec.read_only_root.then(|| tmpfs(in_memory)),
        shm_size: in_memory.and_then(|sizes| i64::try_from(sizes.shm).ok()),
        // On a network the engine writes the host name into /etc/hosts itself.
        extra_hosts: (spec.network == Network::None).then(|| vec![format!("{}:127.0.0.1", order.id)]),
        // Left to the engine, none could be another one than those that are listed.
        runtime: spec.runtime.clone().or_else(|| config.runtimes.first().cloned()),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(order.id.to_string()),
        // Whatever user and directory the image names: the agent sees to them.
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        entrypoint: Some(inside::agent_command(
            order,
            image,
            privileges::users_can_change(spec.capabilities),
        )),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        tty: Some(false),
        open_stdin: Some(false),
        labels: Some(labels),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// The engine's setting up of a network namespace is half of a cold start; a namespace made beforehand and named here
/// as `container:ID` would save it.
fn network_mode(config: &DockerConfig, order: &BoxOrder) -> String {
    match order.spec.network {
        Network::None => "none".to_owned(),
        Network::Bridge => network_name(config, order.id),
    }
}

fn ulimits() -> Vec<ResourcesUlimits> {
    let limit = |(_, name, most): (_, &str, u64)| {
        let most = i64::try_from(most).ok();
        ResourcesUlimits { name: Some(name.to_owned()), soft: most, hard: most }
    };
    ULIMITS.map(limit).into()
}

fn limit(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// What may still be written under a read-only root. It counts as memory of the box.
fn tmpfs(sizes: Option<InMemory>) -> HashMap<String, String> {
    let options = |mode: &str, size: Option<u64>| {
        let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
        format!("rw,exec,nosuid,nodev,mode={mode}{size}")
    };
    HashMap::from([
        ("/tmp".to_owned(), options("1777", sizes.map(|sizes| sizes.tmp))),
        (inside::WORKSPACE.to_owned(), options("0755", sizes.map(|sizes| sizes.workspace))),
    ])
}
