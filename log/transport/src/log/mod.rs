//! The transport: commands and events on NATS JetStream, announcements and signs of life on core NATS.
//!
//! JetStream carries, the store records. What is published here is durable on the server's disk when the call returns,
//! and stays there until the recorder has committed it.

mod access;
mod commands;
mod condition;
mod connecting;
mod cursor;
mod heartbeat;
mod leaders;
mod lease;
mod offers;
mod probe;
mod progress;
mod publish;
mod retained;
mod sealed;
mod source;
mod spent;
mod streams;

use std::time::Duration;

use async_nats::jetstream;
use backon::{ConstantBuilder, Retryable as _};

pub use access::NatsAccess;
pub use commands::{CommandConsumer, ConsumeError, Delivery};
pub use condition::TransportTrouble;
pub use cursor::{CursorError, StoredCursor};
pub use heartbeat::{Heartbeat, Heartbeats, Machine, ProviderHealth};
pub use lease::Lease;
pub(crate) use probe::reads as read_answer;
pub use probe::{ProbeError, ProbeFailure};
pub(crate) use progress::decode as read_progress;
pub use progress::{ExecProgress, ProgressNews};
pub use publish::{Destination, PendingPublish, PublishError};
pub(crate) use retained::read as read_mark;
pub use sealed::SealedError;
pub use source::{EventSource, SourceError, SourceMessage, StreamPlace};

use events::{NodeId, Subjects, TenantId};

/// The connection to NATS is closed for good.
#[derive(Debug, thiserror::Error)]
#[error("the connection to NATS is closed")]
pub struct ListenError;

/// Where NATS is, and how much it may hold.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// `nats://host:port`, several separated by commas.
    pub url: String,
    /// User and password, where the URL does not carry them.
    pub credentials: Option<(String, String)>,
    /// What else it takes to be let in.
    pub access: NatsAccess,
    /// What all subjects and streams start with.
    pub prefix: TenantId,
    /// Copies of each stream in a cluster: 1, 3 or 5.
    pub replicas: usize,
    /// How many bytes of events may wait for the recorder. When full, producers wait.
    pub max_events_bytes: i64,
    /// How many bytes of commands may wait for executors.
    pub max_commands_bytes: i64,
    /// How long to try to reach the server at the start.
    pub connect_timeout: Duration,
    /// Whether somebody starts the server anew when it takes no writes any more. Otherwise the log asks for it.
    pub supervised: bool,
}

impl NatsConfig {
    /// The defaults, for one server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            access: NatsAccess::default(),
            prefix: "stacyvm".parse().unwrap_or_else(|_| TenantId::default_tenant()),
            replicas: 1,
            max_events_bytes: 2 << 30,
            max_commands_bytes: 256 << 20,
            connect_timeout: Duration::from_secs(30),
            supervised: false,
        }
    }

    /// Whether there are others to go on with when one server fails.
    const fn is_cluster(&self) -> bool {
        self.replicas > 1
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server cannot be reached. A later try can succeed.
    #[error("cannot reach NATS at {url}")]
    Unreachable {
        /// Where it was sought.
        url: String,
        /// The cause.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server does not know who this is. Trying again does not help.
    #[error("NATS at {url} refuses the user, the password or the key that it is given")]
    Refused {
        /// The servers that were tried.
        url: String,
        /// What it said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// There is no secure connection. Trying again does not help.
    #[error("there is no secure connection (TLS) to NATS at {url}")]
    Tls {
        /// The servers that were tried.
        url: String,
        /// The cause.
        #[source]
        source: async_nats::ConnectError,
    },
    /// A file that it takes cannot be used.
    #[error("{what} {path:?} cannot be used")]
    File {
        /// Which one: a noun phrase.
        what: &'static str,
        /// Where it was sought.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The server is too old: older ones lose data or drop options in silence. Trying again does not help.
    #[error("nats-server {found} is too old: {floor} or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
        /// The oldest that is good.
        floor: &'static str,
    },
    /// JetStream is off or out of reach.
    #[error("cannot set up the JetStream stream {stream}")]
    Stream {
        /// The name of the stream.
        stream: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server did not keep an option that correctness needs.
    #[error("the JetStream stream {stream} has {option} = {found} where {wanted} is needed")]
    Config {
        /// The name of the stream.
        stream: String,
        /// Which option.
        option: &'static str,
        /// What the server has.
        found: String,
        /// What is needed.
        wanted: String,
    },
}

/// How many announcements (of less than 1 MiB each) may wait in a process.
const FEED_BACKLOG: usize = 32;

/// A server that is frozen keeps its connections: one that has been silent for this long is asked for a sign of life, and left
/// for another one when it owes three of them.
const PING: Duration = Duration::from_millis(400);
/// How long a server may take to greet. One that is frozen never does, and the next one is tried.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// How long the server may take for an answer, and for an acknowledgement.
const ANSWER: Duration = Duration::from_secs(2);
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);
/// The same where somebody else answers when it is asked again: what was sent to a node of a cluster that is frozen is lost.
const ANSWER_IN_CLUSTER: Duration = Duration::from_millis(500);
const ACKNOWLEDGEMENT_IN_CLUSTER: Duration = Duration::from_millis(1_500);

/// How soon it is noticed that a server was left for another one.
const NOTICE: Duration = Duration::from_millis(50);

/// How long to wait between attempts to reach a server that is not there yet.
const CONNECT_AGAIN: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(200)).without_max_times();

fn is_refusal(error: &async_nats::ConnectError) -> bool {
    use async_nats::ConnectErrorKind;
    matches!(error.kind(), ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation)
}

/// A certificate that is not trusted comes as data that make no sense, below.
fn is_of_tls(error: &async_nats::ConnectError) -> bool {
    let mut cause = std::error::Error::source(error);
    let mut senseless = false;
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        senseless |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData);
        cause = error.source();
    }
    error.kind() == async_nats::ConnectErrorKind::Tls || senseless
}

/// The servers of a URL, and the user and password that it carries: the client library takes them in its options only.
fn split_credentials(url: &str) -> (Vec<String>, Option<(String, String)>) {
    let mut credentials = None;
    let servers = url.split(',').map(|server| {
        let (scheme, rest) = server.trim().split_once("://").unwrap_or(("nats", server.trim()));
        let Some((user_info, host)) = rest.rsplit_once('@') else { return format!("{scheme}://{rest}") };
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        credentials.get_or_insert((user.to_owned(), password.to_owned()));
        format!("{scheme}://{host}")
    });
    (servers.collect(), credentials)
}

/// A connection to the log. Cheap to clone; it reconnects by itself for ever.
#[derive(Clone)]
pub struct Log {
    client: async_nats::Client,
    options: async_nats::ConnectOptions,
    jetstream: jetstream::Context,
    /// The same for short questions that are asked again when there is no answer.
    brisk: jetstream::Context,
    subjects: Subjects,
    config: std::sync::Arc<NatsConfig>,
    retained: std::sync::Arc<retained::Retained>,
    condition: std::sync::Arc<condition::Condition>,
    offering: std::sync::Arc<offers::Offering>,
    /// Whose executor speaks here.
    node: Option<NodeId>,
}

impl Log {
    /// Connects, checks the server, and creates the streams that are missing.
    pub async fn connect(config: &NatsConfig) -> Result<Self, ConnectError> {
        let log = Self::open(config, std::sync::Arc::default()).await?;
        log.watch();
        Ok(log)
    }

    /// One more connection, for another part of this process. What one of them notices of the transport the others know.
    pub async fn another(&self) -> Result<Self, ConnectError> {
        Self::open(&self.config, std::sync::Arc::clone(&self.condition)).await
    }

    async fn open(
        config: &NatsConfig,
        condition: std::sync::Arc<condition::Condition>,
    ) -> Result<Self, ConnectError> {
        let mut options = async_nats::ConnectOptions::new()
            .name("stacyvm")
            .connection_timeout(HANDSHAKE)
            .ping_interval(PING)
            .subscription_capacity(8 * 1024)
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(20u64.saturating_mul(1 << attempts.min(6)).min(1_000))
            });
        let (servers, in_url) = split_credentials(&config.url);
        if let Some((user, password)) = config.credentials.clone().or(in_url) {
            options = options.user_and_password(user, password);
        }
        options = config.access.apply(options)?;
        let started = tokio::time::Instant::now();
        let in_time = || started.elapsed() < config.connect_timeout;
        let client = (|| connecting::connect(&options, &servers)).retry(CONNECT_AGAIN);
        // A wrong password or certificate does not become right by itself.
        let client = client.when(|source| !is_refusal(source) && !is_of_tls(source) && in_time());
        let client = client.await.map_err(|source| {
            let url = servers.join(",");
            if is_refusal(&source) {
                ConnectError::Refused { url, source }
            } else if is_of_tls(&source) {
                ConnectError::Tls { url, source }
            } else {
                ConnectError::Unreachable { url, source }
            }
        })?;
        streams::check_version(&client.server_info().version)?;
        let (answer, acknowledgement) = if config.is_cluster() {
            (ANSWER_IN_CLUSTER, ACKNOWLEDGEMENT_IN_CLUSTER)
        } else {
            (ANSWER, ACKNOWLEDGEMENT)
        };
        let context = |answer| {
            let context = jetstream::context::ContextBuilder::new().timeout(answer);
            context.ack_timeout(acknowledgement).build(client.clone())
        };
        let (jetstream, brisk) = (context(ANSWER), context(answer));
        let log = Self {
            client,
            options,
            jetstream,
            brisk,
            subjects: Subjects::new(&config.prefix),
            config: std::sync::Arc::new(config.clone()),
            retained: std::sync::Arc::default(),
            condition,
            offering: std::sync::Arc::default(),
            node: None,
        };
        // A server may go away again while we come.
        let went_away = |error: &ConnectError| matches!(error, ConnectError::Stream { .. }) && in_time();
        let incarnation = (|| log.ensure_streams()).retry(CONNECT_AGAIN).when(went_away).await?;
        log.retained.begin(incarnation);
        // Refused only by a client that is closing.
        if let Err(error) = log.retain().await {
            tracing::warn!(error = %error, "what the transport loses will not be published again");
        }
        Ok(log)
    }

    /// The same, for the executor of a node: what it publishes can be told from what others do, and is recorded only of that
    /// node's sandboxes.
    pub fn on_node(mut self, node: &NodeId) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// Whether the connection stands right now.
    pub fn is_connected(&self) -> bool {
        matches!(self.client.connection_state(), async_nats::connection::State::Connected)
    }

    /// Which of its connections stands, or stood last.
    pub(crate) fn connection(&self) -> u64 {
        self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until there is another connection than this one.
    pub(crate) async fn another_connection(&self, than: u64) {
        while self.connection() == than {
            tokio::time::sleep(NOTICE).await;
        }
    }

    /// The names that this deployment uses.
    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// A connection of its own for the feed. Whoever reads too slowly there loses messages instead of piling them up, and
    /// reads what is missing from the store.
    pub(crate) async fn feed_client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let (servers, _) = split_credentials(&self.config.url);
        let options = self.options.clone().name("stacyvm-feed").subscription_capacity(FEED_BACKLOG);
        connecting::connect(&options, &servers).await
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// Waits until everything that was sent has left this process.
    pub async fn flush(&self) {
        // A connection that is down has nothing to flush; what was not acknowledged is sent again by its owner.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.flush()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_carry_user_and_password() {
        let (servers, credentials) = split_credentials("nats://ada:s3:cret@one:4222, nats://two:4222,three");
        assert_eq!(servers, ["nats://one:4222", "nats://two:4222", "nats://three"]);
        assert_eq!(credentials, Some(("ada".to_owned(), "s3:cret".to_owned())));
        assert_eq!(split_credentials("nats://one:4222").1, None);
    }
}
