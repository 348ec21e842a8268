use std::time::Duration;

use anyhow::Context;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};

use crate::report::Row;
use crate::rig::{CROWD, Rig};
use crate::serve::Serve;
use crate::stats::Samples;

const MIB: f64 = 1024.0 * 1024.0;
/// How long the server is left alone before it is looked at: allocators give back with delay.
const REST: Duration = Duration::from_secs(5);

/// Resident memory of the server, of its nats-server and of the agents, with 100 idle sandboxes in Docker.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let empty = rig.serve().await?;
    let empty = resident(empty.pid().context("the server ended")?)?;
    let crowd = rig.crowd().await?;
    tokio::time::sleep(rig.size(REST, Duration::from_secs(1))).await;
    let serve = &crowd.serve;
    let server = resident(serve.pid().context("the server ended")?)?;
    let nats = resident(serve.nats_pid()?)?;
    let agents = agents(rig, serve).await?;
    let (mut all, mut own) = (Samples::default(), Samples::default());
    for agent in &agents {
        all.push(agent.all);
        own.push(agent.anonymous);
    }
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / MIB);
    let crowd_of = format!("with {CROWD} idle sandboxes");
    Ok(vec![
        Row::limited(
            &format!("RSS of serve, {crowd_of}"),
            server.all,
            mib(server.all),
            Some((60.0 * MIB, "at most 60 MiB")),
        )
        .note(format!(
            "Docker sandboxes; {} of it anonymous; a server that has made and destroyed a few: {}",
            mib(server.anonymous),
            mib(empty.all)
        )),
        Row::limited(&format!("RSS of its nats-server, {crowd_of}"), nats.all, mib(nats.all), None),
        Row::limited("RSS of serve and nats-server", server.all + nats.all, mib(server.all + nats.all), None),
        Row::limited(
            "RSS of one agent, idle",
            all.p50(),
            format!("p50 {}, max {}", mib(all.p50()), mib(all.max())),
            Some((4.0 * MIB, "at most 4 MiB")),
        )
        .note(format!(
            "{} agents; anonymous p50 {}, the rest is pages of the one binary, which all agents share",
            agents.len(),
            mib(own.p50())
        )),
    ])
}

struct Resident {
    all: f64,
    /// What is not backed by a file and so not shared.
    anonymous: f64,
}

fn resident(pid: u32) -> anyhow::Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).with_context(|| format!("{path} has no {name}"))
    };
    Ok(Resident { all: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

async fn agents(rig: &Rig, serve: &Serve) -> anyhow::Result<Vec<Resident>> {
    let docker = rig.docker().await?;
    let label = format!("stacyvm.deployment={}", serve.deployment()?);
    let options = ListContainersOptions {
        filters: Some([("label".to_owned(), vec![label])].into()),
        ..ListContainersOptions::default()
    };
    let mut agents = Vec::new();
    for container in docker.list_containers(Some(options)).await? {
        let id = container.id.unwrap_or_default();
        let seen = docker.inspect_container(&id, None::<InspectContainerOptions>).await?;
        let pid = seen
            .state
            .and_then(|state| state.pid)
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0);
        agents.push(resident(pid.with_context(|| format!("container {id} does not run"))?)?);
    }
    anyhow::ensure!(!agents.is_empty(), "no agents were found");
    Ok(agents)
}
