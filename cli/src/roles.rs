//! One role a process, against given NATS and database. `serve` puts the same pieces together in one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::audit::Checkpointer;
use anyhow::{Context, bail};
use api_gateway::{ApiKey, Gateway, GatewayConfig};
use backon::{ConstantBuilder, Retryable as _};
use events::{Clock, SystemClock};
use executor::{Executor, ExecutorConfig};
use feed::{Feed, View};
use policy::DiskFloor;
use reaper::Reaper;
use record::Record;
use recorder::{JetStreamTransport, RecorderConfig, RetentionPolicy, Sealing, SteadyClock};
use schedules::Schedules;
use secrets::{MasterKey, RedactionRules};
use tokio_util::sync::CancellationToken;
use transport::{LinkClient, Log};

use crate::config::Config;
use crate::installation::{self, Installation};
use crate::{stop, telemetry};

mod agent_program;
mod agent_providers;
mod artifacts;
mod audit;
mod gateway_config;
mod images;
mod jobs;
mod webhooks;

pub use agent_providers::Providers;
pub use audit::{checkpoint_file, checkpointer, signing_key};
pub use gateway_config::gateway_config;
pub use jobs::{driver, jobs};
pub use webhooks::{run_webhooks, webhooks};

/// What starts beside us is waited for: half a minute, looked at twice a second.
const BESIDE_US: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(500)).with_max_times(60);
/// How long the recorder may take to write what is under way when it stops.
pub const LAST_EVENTS: Duration = Duration::from_millis(300);

/// Runs the gateway alone.
pub async fn gateway(config: Config) -> anyhow::Result<()> {
    begin(&config)?;
    let stop = stop::on_signal()?;
    let log = stop::unless_stopped(&stop, connect(&config, "gateway")).await?;
    let record = stop::unless_stopped(&stop, open_store(&config, None)).await?;
    let (feed, view) = stop::unless_stopped(&stop, follow(&log, record)).await?;
    let listener = listen(&config).await?;
    let providers =
        executor::providers::registry::KINDS.iter().filter_map(|name| name.parse().ok()).collect();
    let gateway_config = gateway_config(&config, listener.local_addr()?, providers, None)?;
    serve_gateway(gateway_config, &log, &feed, &view, listener, stop).await
}

/// Runs the executor alone.
pub async fn executor(config: Config) -> anyhow::Result<()> {
    begin(&config)?;
    let installation = Installation::open(&config)?;
    let stop = stop::on_signal()?;
    let role = format!("node.{}", installation::node_id(&config)?);
    let log = stop::unless_stopped(&stop, connect(&config, &role)).await?;
    let providers = Providers::find(&config, &installation).await?;
    run_executor(&config, log, providers, stop).await
}

/// Runs the reaper alone.
pub async fn reaper(config: Config) -> anyhow::Result<()> {
    begin(&config)?;
    let stop = stop::on_signal()?;
    let log = stop::unless_stopped(&stop, connect(&config, "reaper")).await?;
    let record = stop::unless_stopped(&stop, open_store(&config, None)).await?;
    let feed = stop::unless_stopped(&stop, follow_feed(&log, record)).await?;
    let schedules =
        store_key(&config)?.map(|key| Schedules::new(log.clone(), &feed, key, clock(), stop.clone()));
    if schedules.is_none() {
        tracing::info!("without the master key no jobs of schedules are submitted here");
    }
    tracing::info!("reaper ready");
    let reaper = Reaper::new(log, &feed, clock(), stop);
    tokio::join!(reaper.run(), async {
        if let Some(schedules) = schedules {
            schedules.run().await;
        }
    });
    Ok(())
}

/// Runs the recorder alone.
pub async fn record(config: Config) -> anyhow::Result<()> {
    begin(&config)?;
    let stop = stop::on_signal()?;
    let log = stop::unless_stopped(&stop, connect(&config, "recorder")).await?;
    let record = stop::unless_stopped(&stop, open_store(&config, None)).await?;
    tracing::info!("recorder ready");
    let checkpointer = audit::checkpointer(&config, &log, &record.store)?;
    run_recorder(&log, record, recorder_config(&config)?, retention(&config), checkpointer, stop).await;
    Ok(())
}

/// The master key as configured: that of the whole deployment, so all its processes must be given the same.
pub fn master_key(config: &Config) -> anyhow::Result<MasterKey> {
    if let Some(key) = &config.secrets.key {
        return MasterKey::from_hex(key).context("secrets.key");
    }
    let path = config.secrets.key_file.clone().unwrap_or_else(|| config.data_dir().join("master.key"));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("the directory {}", dir.display()))?;
    }
    MasterKey::load_or_create(&path).with_context(|| format!("the master key {}", path.display()))
}

/// What is masked in all that is recorded.
pub fn redaction(config: &Config) -> anyhow::Result<RedactionRules> {
    let rules = config.redaction.rules.iter().map(|rule| (rule.name.as_str(), rule.pattern.as_str()));
    RedactionRules::new(rules).context("redaction.rules")
}

/// The master key for whoever only reads: as configured or found, but never a new one.
fn store_key(config: &Config) -> anyhow::Result<Option<MasterKey>> {
    let secrets = &config.secrets;
    let configured = secrets.key.is_some() || secrets.key_file.is_some() || config.encryption.enabled;
    let found = config.data_dir().join("master.key").is_file();
    if configured || found { master_key(config).map(Some) } else { Ok(None) }
}

/// What the recorder is set to.
pub fn recorder_config(config: &Config) -> anyhow::Result<RecorderConfig> {
    let sealing = Sealing { enabled: config.encryption.enabled, master_key: store_key(config)? };
    Ok(RecorderConfig { sealing })
}

/// How long things are kept.
pub fn retention(config: &Config) -> RetentionPolicy {
    RetentionPolicy { output: config.retention.output.0, lifecycle: config.retention.lifecycle.0 }
}

static CLOCK: OnceLock<Arc<SteadyClock>> = OnceLock::new();

/// What every server process begins with: its log, and a clock that a jump of the machine's does not move.
pub fn begin(config: &Config) -> anyhow::Result<()> {
    telemetry::start(config)?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let kept = config.data_dir().join("clock.json");
    let steady = SteadyClock::kept_in(Arc::new(SystemClock), kept, boot_id.trim().to_owned());
    let clock = Arc::clone(CLOCK.get_or_init(|| Arc::new(steady)));
    std::thread::Builder::new().name("clock".to_owned()).spawn(move || clock.keep_watch())?;
    Ok(())
}

/// The clock of this process.
pub fn clock() -> Arc<dyn Clock> {
    let steady = || Arc::new(SteadyClock::new(Arc::new(SystemClock)));
    Arc::<SteadyClock>::clone(CLOCK.get_or_init(steady))
}

/// NATS as configured.
pub fn nats_config(config: &Config, url: &str) -> anyhow::Result<transport::NatsConfig> {
    let prefix =
        config.nats.prefix.parse().with_context(|| format!("nats.prefix: {:?}", config.nats.prefix))?;
    let nats = &config.nats;
    let password = match (&nats.password, &nats.password_file) {
        (Some(_), Some(_)) => bail!("nats.password_file: nats.password is there too: set one of the two"),
        (_, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("nats.password_file: {} cannot be read", path.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (password, None) => password.clone(),
    };
    if nats.user.is_none() && password.is_some() {
        bail!("nats.user: there is a password and nobody whose it is");
    }
    let credentials = nats.user.clone().map(|user| (user, password.unwrap_or_default()));
    let ways = [credentials.is_some(), nats.credentials_file.is_some(), nats.nkey_file.is_some()];
    if ways.iter().filter(|given| **given).count() > 1 {
        bail!(
            "nats.user: it, nats.credentials_file and nats.nkey_file are three ways to say the same: take one"
        );
    }
    let certificate = match (&nats.certificate_file, &nats.certificate_key_file) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            bail!("nats.certificate_file: it and nats.certificate_key_file are only of use together")
        }
    };
    let access = transport::NatsAccess {
        role: None,
        credentials_file: nats.credentials_file.clone(),
        nkey_file: nats.nkey_file.clone(),
        ca_file: nats.ca_file.clone(),
        certificate,
        require_tls: nats.require_tls,
    };
    let max_events_bytes = i64::try_from(config.nats.max_events.0).context("nats.max_events")?;
    Ok(transport::NatsConfig {
        credentials,
        access,
        prefix,
        replicas: config.nats.replicas,
        max_events_bytes,
        ..transport::NatsConfig::new(url)
    })
}

/// As this role: the server can keep it from listening to what others are answered.
async fn connect(config: &Config, role: &str) -> anyhow::Result<Log> {
    let Some(url) = &config.nats.url else {
        bail!("nats.url is not set: name a NATS server with --nats or STACYVM_NATS_URL");
    };
    tracing::info!(nats.url = %redact(url), "connecting");
    let mut nats_config = nats_config(config, url)?;
    nats_config.access.role = Some(role.to_owned());
    Log::connect(&nats_config).await.context("cannot use NATS")
}

/// The database as configured, or in the data directory of `serve`.
pub fn database_url(config: &Config, data_dir: Option<&Path>) -> anyhow::Result<String> {
    let database = &config.database;
    Ok(match (&database.url, database.driver.as_str()) {
        (Some(url), _) => url.clone(),
        (None, "postgres") => database.dsn.clone().context("database.dsn is not set")?,
        (None, "sqlite") => {
            let default: Option<PathBuf> = data_dir.map(|dir| dir.join("events.db"));
            let path = database.path.clone().or(default).context(
                "database.url is not set: name a database with --database or STACYVM_DATABASE_URL",
            )?;
            format!("sqlite:{}", path.display())
        }
        (None, other) => bail!("database.driver: {other:?} is neither sqlite nor postgres"),
    })
}

/// What has to stay free: where the database is, if that is a file, and in these directories.
pub fn disk_floor(config: &Config, directories: impl IntoIterator<Item = PathBuf>) -> DiskFloor {
    let file = database_url(config, None).ok();
    let file = file.as_deref().and_then(|url| url.strip_prefix("sqlite:")).map(PathBuf::from);
    let database = file.and_then(|file| file.parent().map(Path::to_owned));
    let directories = directories.into_iter().chain(database).filter(|path| !path.as_os_str().is_empty());
    DiskFloor { directories: directories.collect(), min_free_bytes: config.disk.min_free.0 }
}

/// The event store as configured, or in the data directory of `serve`.
pub async fn open_store(config: &Config, data_dir: Option<&Path>) -> anyhow::Result<Record> {
    let url = database_url(config, data_dir)?;
    let options = store::StoreOptions { master_key: store_key(config)? };
    // A database that starts beside us needs a moment.
    let opened =
        (|| store::open_store_with(&url, &options)).retry(BESIDE_US).when(|error| error.is_retryable());
    let opened = opened.notify(|error, _| tracing::info!(error = %error, "waiting for the database"));
    opened.await.with_context(|| format!("cannot open {}", redact(&url)))
}

/// The feed and the live view over it. NATS or the database may go away and come back while we start: waited for, like
/// one that starts beside us.
pub async fn follow(log: &Log, record: Record) -> anyhow::Result<(Feed, View)> {
    let started = async || {
        let feed = Feed::start(log, record.clone()).await.context("cannot follow the log")?;
        let view = View::start(log, &feed).await.context("cannot load the live view")?;
        anyhow::Ok((feed, view))
    };
    let followed = (|| started()).retry(BESIDE_US);
    followed.notify(still_waiting).await
}

/// The feed alone.
pub async fn follow_feed(log: &Log, record: Record) -> anyhow::Result<Feed> {
    let started = async || Feed::start(log, record.clone()).await.context("cannot follow the log");
    let followed = (|| started()).retry(BESIDE_US);
    followed.notify(still_waiting).await
}

fn still_waiting(error: &anyhow::Error, _: Duration) {
    tracing::info!(error = %format!("{error:#}"), "waiting to follow the log");
}

/// The socket of the gateway.
pub async fn listen(config: &Config) -> anyhow::Result<tokio::net::TcpListener> {
    let address = config.listen_address()?;
    tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until `stop`, and then until open requests have ended.
pub async fn serve_gateway(
    config: GatewayConfig,
    log: &Log,
    feed: &Feed,
    view: &View,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(listen = %listener.local_addr()?, keys = config.keys.len(), "gateway ready");
    let record = feed.record().clone();
    let link = LinkClient::new(log);
    let gateway = Gateway::new(config, log.clone(), record, feed.clone(), view.clone(), link, clock());
    api_gateway::serve(listener, gateway, stop).await.context("the gateway failed")
}

/// Runs the executor until `stop`.
pub async fn run_executor(
    config: &Config,
    log: Log,
    providers: Providers,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let executor_config = ExecutorConfig {
        node: installation::node_id(config)?,
        capacity: config.node.capacity,
        max_output_bytes: config.node.max_output.0,
        linger: config.node.linger.0,
        redaction: redaction(config)?,
        record_input: config.audit.record_input,
        disk: disk_floor(config, [config.data_dir()]),
        objects: Some(artifacts::objects(config)?),
        agent_connections: executor::agent_connections(executor::raise_descriptor_limit()),
    };
    tracing::info!(node.id = %executor_config.node, providers = providers.list(), "executor ready");
    let executor = Executor::new(executor_config, log, providers.all, clock(), stop);
    executor.run().await.context("the executor failed")
}

/// Records, signs checkpoints and answers queries until `stop`.
pub async fn run_recorder(
    log: &Log,
    record: Record,
    config: RecorderConfig,
    retention: RetentionPolicy,
    checkpointer: Checkpointer,
    stop: CancellationToken,
) {
    let queries = recorder::serve_queries(log, Arc::clone(&record.store), stop.clone());
    let retaining = recorder::retain(log.clone(), record.clone(), retention, clock(), stop.clone());
    // It goes on until the last checkpoint is recorded.
    let recorder_stop = CancellationToken::new();
    let checkpoints = async {
        checkpointer.run(stop).await;
        recorder_stop.cancel();
    };
    let recording = recorder::run_with(JetStreamTransport::new(log), record, config, recorder_stop.clone());
    let gathering = log.gather_leaders(recorder_stop.clone());
    tokio::join!(queries, retaining, checkpoints, recording, gathering);
}

/// The keys of the configuration, hashed.
fn keys(config: &Config, address: SocketAddr) -> anyhow::Result<Vec<ApiKey>> {
    let keys = gateway_config::keys(&config.auth)?;
    if keys.is_empty() && !address.ip().is_loopback() {
        bail!("refusing to listen on {address} without an API key: set auth.api_key or STACYVM_API_KEY");
    }
    Ok(keys)
}

/// A URL without its password.
fn redact(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}
