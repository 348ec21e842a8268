//! Everything in one process: the same roles, a SQLite store, and a nats-server of our own.

use std::time::Duration;

use anyhow::Context;
use reaper::Reaper;
use schedules::Schedules;
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::config::Config;
use crate::installation::Installation;
use crate::nats_server::NatsServer;
use crate::roles::{self, Providers};
use crate::stop;

/// Runs until SIGINT or SIGTERM. Sandboxes live on.
pub async fn run(config: Config) -> anyhow::Result<()> {
    roles::begin(&config)?;
    api_gateway::collect_metrics();
    let installation = Installation::open(&config)?;
    let stop = stop::on_signal()?;
    // Taken first: a port that is in use is the most common mistake, and nothing has been started yet.
    let listener = roles::listen(&config).await?;
    let providers = Providers::find(&config, &installation).await?;
    let mut gateway_config =
        roles::gateway_config(&config, listener.local_addr()?, providers.names(), providers.first())?;
    let own = [installation.path(""), installation.path("nats")];
    gateway_config.disk = roles::disk_floor(&config, own);
    let (nats, nats_config) = start_nats(&config, &installation)?;
    // A connection a role: one is served by one task, and the roles work side by side.
    let log = stop::unless_stopped(&stop, connect(&nats_config, &installation)).await?;
    let executor_log = log.another().await.context("cannot use NATS")?;
    let recorder_log = log.another().await.context("cannot use NATS")?;
    let guard_stop = CancellationToken::new();
    if let Some(nats) = &nats {
        tokio::spawn(nats.guard().run(log.clone(), guard_stop.clone()));
    }
    let data_dir = installation.path("");
    let record = stop::unless_stopped(&stop, roles::open_store(&config, Some(&data_dir))).await?;

    // Stopped in this order: those who ask, those who do, and last the one who writes down.
    let recorder_stop = CancellationToken::new();
    let recorder = {
        let (log, record, stop) = (recorder_log, record.clone(), recorder_stop.clone());
        let (recorder_config, retention) = (roles::recorder_config(&config)?, roles::retention(&config));
        let checkpointer = roles::checkpointer(&config, &log, &record.store)?;
        tokio::spawn(async move {
            roles::run_recorder(&log, record, recorder_config, retention, checkpointer, stop).await;
        })
    };
    let (feed, view) = stop::unless_stopped(&stop, roles::follow(&log, record.clone())).await?;
    let reaper = Reaper::new(log.clone(), &feed, roles::clock(), stop.clone());
    let key = roles::master_key(&config)?;
    let schedules = Schedules::new(log.clone(), &feed, key, roles::clock(), stop.clone());
    let jobs = roles::driver(&config, &log, &feed, stop.clone())?;
    // Whoever waits for an exec is answered before the executor lets go of it.
    let executor_stop = CancellationToken::new();
    let serving = async {
        let serving = roles::serve_gateway(gateway_config, &log, &feed, &view, listener, stop.clone());
        let outcome = until_failure(serving, &stop).await;
        executor_stop.cancel();
        outcome
    };
    let (gateway, executor, webhooks, (), (), ()) = tokio::join!(
        serving,
        until_failure(roles::run_executor(&config, executor_log, providers, executor_stop.clone()), &stop),
        until_failure(roles::run_webhooks(&config, &log, &feed, stop.clone()), &stop),
        reaper.run(),
        schedules.run(),
        jobs.run(),
    );
    tokio::time::sleep(roles::LAST_EVENTS).await;
    recorder_stop.cancel();
    if tokio::time::timeout(Duration::from_secs(10), recorder).await.is_err() {
        tracing::warn!("the recorder did not finish; it goes on at the next start");
    }
    log.flush().await;
    record.close().await;
    guard_stop.cancel();
    if let Some(nats) = nats {
        tokio::task::spawn_blocking(move || nats.stop()).await.context("stopping nats-server")?;
    }
    gateway.and(executor).and(webhooks)
}

/// One part that fails takes the others along: half a server is worse than none.
async fn until_failure(
    part: impl Future<Output = anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let outcome = part.await;
    if let Err(error) = &outcome {
        tracing::error!(error = %format!("{error:#}"), "stopping");
    }
    stop.cancel();
    outcome
}

/// The nats-server of the configuration, or one of our own.
fn start_nats(
    config: &Config,
    installation: &Installation,
) -> anyhow::Result<(Option<NatsServer>, transport::NatsConfig)> {
    if let Some(url) = &config.nats.url {
        return Ok((None, roles::nats_config(config, url)?));
    }
    let nats = NatsServer::start(&installation.path("nats"), config.nats.server_path.as_deref())?;
    let credentials = Some(nats.credentials.clone());
    let nats_config =
        transport::NatsConfig { credentials, supervised: true, ..roles::nats_config(config, &nats.url)? };
    Ok((Some(nats), nats_config))
}

async fn connect(nats_config: &transport::NatsConfig, installation: &Installation) -> anyhow::Result<Log> {
    Log::connect(nats_config).await.with_context(|| {
        let log = installation.path("nats/nats-server.log");
        format!("cannot use NATS; if it is our own, see {}", log.display())
    })
}
