use std::time::{Duration, Instant};

use anyhow::Context;
use events::{Actor, Clock, Event, EventId, SandboxId, SandboxRequested, SandboxSpec, SystemClock, TenantId};
use serde_json::json;
use transport::{Log, NatsConfig};

use crate::report::{Row, Target, ms};
use crate::rig::{CROWD, Rig};
use crate::serve::Serve;
use crate::stats::Samples;

/// How many live sandboxes the view has at the end: the real ones and synthetic ones, that is events of sandboxes that
/// nobody makes. The view, the reaper and the read models cannot tell them apart.
const VIEW: usize = 1_000;

/// How many execs run beside a spawn and a destroy.
const LIVE_EXECS: usize = 1_000;

/// Exec in a server with one sandbox and in one with many, alternating.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let crowd = rig.crowd().await?;
    let mut lonely = rig.start().await?;
    let sandbox = lonely.spawn(json!({})).await?;
    let crowded = crowd.sandboxes.first().context("an empty crowd")?;
    let mut rows = Vec::new();
    let count = rig.size(500, 30);
    let (one, many) = alternate((&lonely, &sandbox), (&crowd.serve, crowded), count).await?;
    rows.push(row(CROWD, None, &one, &many));
    add_synthetic(&crowd.serve, VIEW - CROWD).await?;
    let (one, many) = alternate((&lonely, &sandbox), (&crowd.serve, crowded), count).await?;
    let note = format!("{CROWD} real ones, the others as events only");
    rows.push(row(VIEW, Some(1.2), &one, &many).note(note));
    for sandbox in &crowd.sandboxes {
        for _ in 0..LIVE_EXECS / CROWD {
            crowd.serve.start_detached(sandbox, "sleep 3600").await?;
        }
    }
    rows.extend(lives(&lonely, &crowd.serve, rig.size(25, 2)).await?);
    lonely.destroy(&sandbox).await?;
    lonely.stop().await;
    Ok(rows)
}

/// Spawn and destroy beside many live execs and beside none, alternating.
async fn lives(few: &Serve, many: &Serve, count: usize) -> anyhow::Result<[Row; 2]> {
    let mut samples: [[Samples; 2]; 2] = Default::default();
    for _ in 0..count {
        for (serve, [spawns, destroys]) in [few, many].into_iter().zip(&mut samples) {
            let began = Instant::now();
            let sandbox = serve.spawn(json!({})).await?;
            spawns.push_time(began.elapsed());
            let began = Instant::now();
            serve.destroy(&sandbox).await?;
            destroys.push_time(began.elapsed());
        }
    }
    let [few, many] = samples;
    let text = |samples: &Samples, of: usize| (samples.p50(), format!("p50 {} with {of}", ms(samples.p50())));
    let row = |what: &str, index: usize| {
        let what = format!("{what} with {LIVE_EXECS} live execs against none");
        Row::compared(&what, Target::AtMost(1.2), text(&many[index], LIVE_EXECS), text(&few[index], 0))
    };
    Ok([row("spawn", 0), row("destroy", 1).note(format!("{count} each; {CROWD} live sandboxes against 1"))])
}

fn row(sandboxes: usize, target: Option<f64>, one: &Samples, many: &Samples) -> Row {
    let text = |samples: &Samples, of: usize| (samples.p50(), format!("p50 {} with {of}", ms(samples.p50())));
    let what = format!("exec with {sandboxes} live sandboxes against 1");
    let target = target.map_or(Target::NoneOfTime, Target::AtMost);
    Row::compared(&what, target, text(many, sandboxes), text(one, 1))
}

async fn alternate(
    one: (&Serve, &str),
    many: (&Serve, &str),
    count: usize,
) -> anyhow::Result<(Samples, Samples)> {
    let (mut first, mut second) = (Samples::default(), Samples::default());
    for (serve, sandbox) in [one, many] {
        for _ in 0..10 {
            serve.exec(sandbox, &["true"]).await?;
        }
    }
    for _ in 0..count {
        let began = Instant::now();
        one.0.exec(one.1, &["true"]).await?;
        first.push_time(began.elapsed());
        let began = Instant::now();
        many.0.exec(many.1, &["true"]).await?;
        second.push_time(began.elapsed());
    }
    Ok((first, second))
}

/// Publishes requests as the gateway does, but no commands, so that no executor takes them.
async fn add_synthetic(serve: &Serve, count: usize) -> anyhow::Result<()> {
    let log = Log::connect(&nats_config(serve)?).await.context("the server's nats-server")?;
    let provider: events::ProviderName = "docker".parse()?;
    for _ in 0..count {
        let now = SystemClock.now();
        let expires_at = now + Duration::from_secs(3600);
        let spec = SandboxSpec {
            provider: provider.clone(),
            image: "alpine:latest".to_owned(),
            memory_mib: 512,
            cpu_millis: 1000,
            pool: None,
            pids_limit: 256,
            network: events::Network::None,
            read_only_root: false,
            capabilities: None,
            runtime: None,
            owner: None,
            template: None,
            metadata: std::collections::BTreeMap::new(),
            env_names: Vec::new(),
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
            job: None,
            setup: Vec::new(),
        };
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: Some(SandboxId::new()),
            time: now,
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: SandboxRequested { spec, expires_at, lifetime_ends_at: expires_at, term: None }.into(),
        };
        log.publish(&[event]).await?;
    }
    Ok(())
}

/// How to get into the nats-server that the server started.
pub(super) fn nats_config(serve: &Serve) -> anyhow::Result<NatsConfig> {
    let path = serve.data("nats/nats.conf");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let quoted = |key: &str| {
        let rest = text.split_once(&format!("{key}: \""))?.1;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let value = |key: &str| quoted(key).with_context(|| format!("{} has no {key}", path.display()));
    Ok(NatsConfig {
        credentials: Some((value("user")?, value("password")?)),
        ..NatsConfig::new(format!("nats://{}", value("listen")?))
    })
}
