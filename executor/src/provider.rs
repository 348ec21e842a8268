//! What the executor asks of a box-maker.
//!
//! A provider makes a box with the agent in it and hands back a way to that agent. It knows nothing of
//! execs, files, events or commands: all of that is between the executor and the agent.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::client::Connector;
use async_trait::async_trait;
use events::{FailureCode, PoolName, ProviderName, SandboxId, SandboxSpec, TenantId};
use serde::Serialize;

pub use crate::capability::{Capabilities, Capability};
use crate::shortage::is_shortage;
use crate::turns::BoxWork;

/// What lies under an error. It may name paths and addresses of the host: it is for the log, never for a client.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Makes, finds and removes boxes on this node.
///
/// # Obligations
///
/// - **The record is elsewhere.** A provider keeps nothing that it cannot read back from its runtime and its data
///   directory: a new value with the same configuration finds every box of the old one. Boxes live on when the value,
///   and the process, that made them are gone.
/// - **Boxes end themselves.** The agent is given the time left, so a box stops at its deadline with every process of
///   ours dead. What a stopped box leaves behind (a directory, a mount) stays until [`destroy`](Self::destroy).
/// - **Idempotent by sandbox id.** Commands are delivered more than once. Creating what is there and destroying what
///   is gone are successes.
/// - **Independent.** Calls for different sandboxes run at the same time; none waits behind another's image pull.
/// - **Cancel safe enough.** A call that is dropped half way may leave part of a box. That part shows up in
///   [`list`](Self::list) and goes with [`destroy`](Self::destroy), and a second `create` finishes or replaces it.
/// - **Ordering is the caller's.** `create` and `destroy` of one id may run at the same time without harm to others,
///   but which one wins is open: do not create an id after it was destroyed.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name: that of its kind. What it is for is said by its pool.
    fn name(&self) -> &ProviderName;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the box and waits until its agent answers. If the box is there already and its agent answers, that box
    /// is returned as it is: its limits and its deadline are those of the first call.
    ///
    /// On an error nothing that this call made is left; a box that was there before stays.
    async fn create(&self, order: &BoxOrder, progress: &dyn PullProgress) -> Result<BoxHandle, CreateError>;

    /// Ends everything in the box and takes it away. Returns when it is gone. Removing what work in it left is bounded here:
    /// what takes long, or cannot be removed now, goes on beside all else, and is no box that [`list`](Self::list) shows.
    async fn destroy(&self, id: SandboxId) -> Result<(), DestroyError>;

    /// Every box of this node and deployment, running or dead, whoever made it.
    async fn list(&self) -> Result<Vec<BoxHandle>, ListError>;

    /// What the box uses right now. Takes up to 200 ms, because a rate needs two samples.
    async fn stats(&self, id: SandboxId) -> Result<BoxStats, StatsError>;

    /// Sees that what must hold beside boxes while they run does (rules of their networks), puts back what somebody took away, and
    /// removes what is left of boxes that are gone. Called at the start, before any box is made or listed, and every few seconds. What
    /// cannot be put back is told by [`health`](Self::health).
    async fn upkeep(&self) {}

    /// Directories of this machine on whose disks boxes write. A provider that cannot know names none.
    async fn directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether boxes could be made right now.
    async fn health(&self) -> Result<Health, HealthError>;
}

/// A provider of this node, and the executors that it is one of.
#[derive(Clone)]
pub struct Pooled {
    /// The pool whose commands are carried out with it.
    pub pool: PoolName,
    /// Who carries them out.
    pub provider: Arc<dyn Provider>,
}

impl From<Arc<dyn Provider>> for Pooled {
    /// In the pool that is called as the provider.
    fn from(provider: Arc<dyn Provider>) -> Self {
        Self { pool: PoolName::from(provider.name()), provider }
    }
}

/// What to make.
#[derive(Debug, Clone)]
pub struct BoxOrder {
    /// The sandbox that the box is for.
    pub id: SandboxId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What was asked for.
    pub spec: SandboxSpec,
    /// How long the box may live from its start on: then it must have ended itself.
    pub time_left: Duration,
    /// How long making it may take, its image included.
    pub make_within: Duration,
    /// Whose turn it is to make one: a place is taken for what keeps the machine busy, and none while an image is fetched.
    pub turns: Arc<BoxWork>,
}

/// A box that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxHandle {
    /// The sandbox that the box is for.
    pub id: SandboxId,
    /// Who made it.
    pub provider: ProviderName,
    /// The runtime's own id for it.
    pub runtime_id: String,
    /// The way to its agent, and to nobody else, as far as the provider can tell.
    pub agent: Connector,
    /// Whether it runs. Of a dead one only remains are left; destroy it.
    pub running: bool,
    /// Its address on the provider's bridge, where it has one and the provider knows.
    pub address: Option<IpAddr>,
}

/// Hears how an image pull gets on. Called often; throttle before you publish.
pub trait PullProgress: Send + Sync {
    /// The image is not here yet. Called with zeros as soon as that is known, then as bytes arrive.
    fn pulling(&self, pull: &Pull);
}

/// How far an image pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The image, as the client named it.
    pub image: String,
    /// Bytes fetched so far, over all layers.
    pub fetched_bytes: u64,
    /// Bytes to fetch in all, as far as known.
    pub total_bytes: u64,
}

/// For callers who do not care about pulls.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl PullProgress for NoProgress {
    fn pulling(&self, _pull: &Pull) {}
}

/// What a box uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoxStats {
    /// CPU time as a share of one CPU, in percent: 150 is one and a half CPUs.
    pub cpu_pct: f64,
    /// Memory in use, page cache that can be dropped at once not counted.
    pub mem_bytes: u64,
    /// The memory limit; 0 when there is none.
    pub mem_limit_bytes: u64,
}

/// A provider that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How long its answer took.
    pub latency: Duration,
    /// Its version.
    pub version: String,
    /// What an operator should know: old versions with known holes, limits that do not take effect.
    pub warnings: Vec<String>,
}

/// Why a box could not be made. The text may be shown to the client; the source is for the log.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No registry has the image, or none may be asked.
    #[error("image {image:?} was not found: {cause}")]
    ImageNotFound {
        /// The image, as the client named it.
        image: String,
        /// Which part of its name leads nowhere.
        cause: PullCause,
        /// Who said so.
        #[source]
        source: Option<Source>,
    },
    /// The image could not be fetched: a registry is unreachable, refuses, or sends something broken.
    #[error("image {image:?} could not be pulled: {cause}")]
    ImagePullFailed {
        /// The image, as the client named it.
        image: String,
        /// What kind of failure it was.
        cause: PullCause,
        /// What went wrong.
        #[source]
        source: Source,
    },
    /// The spec names something that this provider does not have.
    #[error("the provider has no {what}")]
    Unsupported {
        /// A noun phrase: `runtime "kata"`.
        what: String,
    },
    /// The spec contradicts itself or the image.
    #[error("{reason}")]
    Invalid {
        /// One sentence.
        reason: String,
    },
    /// The runtime does not answer, or the machine ran out of something.
    #[error("the provider is not available")]
    Unavailable(#[source] Source),
    /// The box was made, but its agent did not answer in time or not at all.
    #[error("the agent of the sandbox did not answer")]
    AgentUnreachable(#[source] Source),
    /// There is no time left.
    #[error("the deadline passed before the sandbox ran")]
    DeadlinePassed,
    /// Anything else.
    #[error("the sandbox could not be made")]
    Failed(#[source] Source),
}

/// Why an image is not to be had. The text is one that a client may read: it names no address but what the image's name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PullCause {
    /// It is not here, and none may be pulled.
    #[error("it is not on this node, and nothing is pulled")]
    NotHere,
    /// The repository is there, the tag or digest is not.
    #[error("the registry has no such tag")]
    NoSuchTag,
    /// The registry does not have the repository, or hides it from whoever is not logged in.
    #[error("the registry has no such repository, or shows it only to those who are logged in")]
    NoSuchRepository,
    /// The registry wants to know who asks (401), or does not let in whoever it is.
    #[error("the registry wants a login: let the engine log in (docker login)")]
    Unauthorized,
    /// Nobody knows the registry's name.
    #[error("the name of the registry cannot be resolved")]
    UnknownHost,
    /// It is at no address that may be called. Of a name that nobody knows the same is said: whoever asks is not told which
    /// names there are inside.
    #[error("the name of the registry cannot be resolved to an address that may be called")]
    NotPublic,
    /// What the registry sends is not what it says, or is cut off.
    #[error("what the registry sends is broken")]
    Broken,
    /// There is a host, and nothing listens.
    #[error("the registry refuses connections")]
    Refused,
    /// There is no way to the host.
    #[error("there is no route to the registry")]
    NoRoute,
    /// It did not answer in time.
    #[error("the registry does not answer in time")]
    TimedOut,
    /// It is not who it should be, or does not speak TLS.
    #[error("there is no secure connection to the registry (TLS)")]
    Tls,
    /// Too much was pulled in too short a time.
    #[error("the registry lets nothing more be pulled for a while (rate limit)")]
    RateLimited,
    /// The image is for machines of another kind.
    #[error("the image is not there for machines of this kind")]
    OtherPlatform,
    /// Something else; the node's log has it.
    #[error("the node's log has the reason")]
    Other,
}

impl CreateError {
    /// Something failed on this machine: [`Unavailable`](Self::Unavailable) where it ran out of something, which passes.
    pub(crate) fn here(error: impl Into<Source>) -> Self {
        let error = error.into();
        if is_shortage(&*error) { Self::Unavailable(error) } else { Self::Failed(error) }
    }

    /// The kind of failure, as events say it.
    pub fn code(&self) -> FailureCode {
        match self {
            Self::ImageNotFound { .. } => FailureCode::ImageNotFound,
            Self::ImagePullFailed { .. } => FailureCode::ImagePullFailed,
            Self::Unsupported { .. } => FailureCode::Unsupported,
            Self::Invalid { .. } => FailureCode::Invalid,
            Self::Unavailable(_) => FailureCode::ProviderUnavailable,
            Self::AgentUnreachable(_) => FailureCode::AgentUnreachable,
            Self::DeadlinePassed => FailureCode::DeadlinePassed,
            // Broken, then: what the provider cannot do is no fault of whoever asks, nor of ours.
            Self::Failed(_) => FailureCode::ProviderUnavailable,
        }
    }

    /// Whether the same order may succeed later, or on another node.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::AgentUnreachable(_) | Self::Failed(_) => true,
            Self::ImageNotFound { .. }
            | Self::ImagePullFailed { .. }
            | Self::Unsupported { .. }
            | Self::Invalid { .. }
            | Self::DeadlinePassed => false,
        }
    }
}

/// Why a box could not be removed. Trying again may help in every case: `destroy` goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// The runtime does not answer.
    #[error("the provider is not available")]
    Unavailable(#[source] Source),
    /// Something of the box could not be removed.
    #[error("the sandbox could not be removed")]
    Failed(#[source] Source),
}

/// Why boxes could not be listed. Trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("the sandboxes of the provider could not be listed")]
pub struct ListError(#[source] pub Source);

/// Why there are no stats.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The box does not run.
    #[error("the sandbox does not run")]
    NotRunning,
    /// The runtime keeps no such numbers here. Trying again does not help.
    #[error("the provider keeps no stats")]
    Unsupported,
    /// The runtime does not answer, or makes no sense. Trying again may help.
    #[error("the stats could not be read")]
    Failed(#[source] Source),
}

/// Why no box could be made right now.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HealthError {
    /// One sentence that an operator may see.
    pub reason: String,
    /// What lies under it.
    #[source]
    pub source: Option<Source>,
}
