use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::client::Client;
use chrono::{DateTime, Utc};
use events::{
    ErrorChain, FailureCode, NodeId, SandboxFailed, SandboxPhase, SandboxPulling, SandboxRunning,
    SandboxSpec, SandboxStarting, SecretMap, Term,
};
use transport::SandboxRecord;

use super::setup::{self, SetupOutcome};
use super::{Outcome, tell};
use crate::context::Context;
use crate::hosted::{Closing, Hosted};
use crate::provider::{BoxOrder, CreateError, Provider, Pull, PullProgress};
use crate::shared::Shared;

/// How much later than the log's the agent's deadline is: the reaper comes first, so that execs can tell their end; the
/// agent's own deadline is for when nobody comes.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often a failure that may pass is tried again before the sandbox has failed.
const ATTEMPTS: i64 = 3;

/// How long the image and the box may take, where the time to live only begins after that.
const MAKE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// When making it took longer than this, its agent is told once more how long it has: it counts from its own start.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// What a command asks for.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub spec: &'a SandboxSpec,
    pub env: &'a SecretMap,
    pub expires_at: DateTime<Utc>,
    pub term: Option<Term>,
}

impl Order<'_> {
    /// How long it is to live when it runs now; and how long making it may take.
    fn times(&self, now: DateTime<Utc>) -> (Duration, Duration) {
        match self.term {
            Some(term) => ((term.ends(now).0 - now).to_std().unwrap_or_default(), MAKE_WITHIN),
            None => {
                let left = (self.expires_at - now).to_std().unwrap_or_default();
                (left, left)
            }
        }
    }
}

pub(super) async fn run(shared: &Arc<Shared>, context: &Context, order: Order<'_>, attempt: i64) -> Outcome {
    let redaction = context.redaction.with_secrets(order.env.of(&order.spec.secret_names));
    match create(shared, &context.masking(&redaction), order, attempt).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}

async fn create(
    shared: &Arc<Shared>,
    context: &Context,
    asked: Order<'_>,
    attempt: i64,
) -> Result<(), Outcome> {
    let id = context.sandbox;
    let Order { spec, env, .. } = asked;
    let Some(provider) = shared.provider(&spec.provider) else {
        let message = format!("this node has no provider {:?}", spec.provider.as_str());
        return fail(shared, context, FailureCode::Unsupported, message).await;
    };
    let Some(_creating) = shared.registry.begin_create(id) else {
        // An earlier delivery of the same command is still at work.
        return Err(Outcome::Retry(Duration::from_secs(5)));
    };
    let now = shared.clock.now();
    if let Some(term) = asked.term.filter(|term| attempt <= 1 && term.start_by <= now) {
        // The reaper says the same; whoever comes first is heard.
        return fail(shared, context, FailureCode::QueueTimeout, queue_timeout(&term)).await;
    }
    let (time_left, make_within) = asked.times(now);
    if time_left.is_zero() {
        let message = "the deadline passed before the sandbox ran".to_owned();
        return fail(shared, context, FailureCode::DeadlinePassed, message).await;
    }
    if attempt > 1 && !is_still_wanted(shared, context).await? {
        discard(provider.as_ref(), context).await;
        return Ok(());
    }
    let began = Instant::now();
    let tenant = context.tenant.clone();
    let order = BoxOrder {
        id,
        tenant,
        spec: spec.clone(),
        time_left: time_left + GRACE,
        make_within,
        turns: Arc::clone(&shared.boxes),
    };
    let progress = Progress::new(shared, context);
    // The claim, the question whether it is still wanted, and the box take their time side by side. If it is not
    // wanted any more the box goes again; that is rare, and waiting for the answer first would cost every sandbox.
    let claim = context.event_once("starting", SandboxStarting { node: shared.config.node.clone() });
    let claim = [claim];
    let (claimed, record, made) = tokio::join!(
        shared.log.publish(&claim),
        shared.log.sandbox_record(id),
        provider.create(&order, &progress)
    );
    let wanted = record.ok().flatten().map_or(Wanted::Here, |record| wanted(&record, &shared.config.node));
    match wanted {
        Wanted::HadHere => {}
        Wanted::Not => {
            discard(provider.as_ref(), context).await;
            return Ok(());
        }
        Wanted::Here if claimed.is_err() => {
            discard(provider.as_ref(), context).await;
            return Err(Outcome::Retry(Duration::from_secs(1)));
        }
        Wanted::Here => {}
    }
    let handle = match made {
        Ok(handle) => handle,
        // It runs already, and what is wrong with it now is another matter.
        Err(_) if wanted == Wanted::HadHere => return Ok(()),
        Err(error) => return failed(shared, context, &error, attempt).await,
    };
    let agent = Client::with(handle.agent.clone()).sharing(shared.connections.of(context.tenant.as_str()));
    if !env.0.is_empty() {
        // The agent keeps it: an executor that takes over has it from nowhere else.
        let environment = env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Err(error) = agent.set_environment(environment).await {
            tracing::warn!(sandbox.id = %id, error = %error, "the environment was not set");
            discard(provider.as_ref(), context).await;
            return Err(Outcome::Retry(Duration::from_secs(1)));
        }
    }
    if wanted == Wanted::HadHere {
        // Reconciliation has taken it over, and has said that it runs: that is said once.
        return Ok(());
    }
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let redaction = context.redaction.clone();
    let hosted = Arc::new(Hosted::new(id, context.tenant.clone(), provider, agent, redaction));
    // Of an earlier delivery, or taken over: its pumps go on.
    let hosted = shared.registry.get(id).unwrap_or_else(|| {
        shared.registry.insert(Arc::clone(&hosted));
        hosted
    });
    hosted.may_live_until(now + (time_left + began.elapsed()));
    match setup::run(shared, context, &hosted, &spec.setup, time_left, attempt).await? {
        SetupOutcome::Done => {}
        // Who destroys it tells of it.
        SetupOutcome::Unwanted => return Ok(()),
        SetupOutcome::Failed(message) => {
            fail(shared, context, FailureCode::Invalid, message).await?;
            let closing = hosted.close();
            discard(hosted.provider.as_ref(), context).await;
            shared.registry.remove(id);
            closing.into_iter().for_each(Closing::over);
            return Ok(());
        }
    }
    // Its time begins when it runs.
    let now = shared.clock.now();
    let ends = asked.term.map(|term| term.ends(now));
    if let Some((expires_at, _)) = ends
        && (began.elapsed() > NOTICEABLE || attempt > 1)
    {
        let left = (expires_at - now).to_std().unwrap_or_default();
        if let Err(error) = hosted.agent.urgently().set_deadline(left + GRACE).await {
            tracing::warn!(sandbox.id = %id, error = %error, "the deadline was not set");
            discard(hosted.provider.as_ref(), context).await;
            shared.registry.remove(id);
            return Err(Outcome::Retry(Duration::from_secs(1)));
        }
    }
    if let Some((expires_at, _)) = ends {
        hosted.may_live_until(expires_at);
    }
    let running = SandboxRunning {
        node: shared.config.node.clone(),
        runtime_id: handle.runtime_id,
        expires_at: ends.map(|(expires_at, _)| expires_at),
        lifetime_ends_at: ends.map(|(_, lifetime_ends_at)| lifetime_ends_at),
        took_us,
        address: handle.address,
    };
    tell(shared, &[context.event_once("running", running)]).await
}

/// What comes again may have run and ended long ago: of what has had its time no box may be seen, not even for a moment. So
/// the record is asked first, which the first delivery does not wait for.
async fn is_still_wanted(shared: &Arc<Shared>, context: &Context) -> Result<bool, Outcome> {
    match shared.log.sandbox_record(context.sandbox).await {
        Ok(record) => Ok(record.is_none_or(|record| wanted(&record, &shared.config.node) != Wanted::Not)),
        Err(error) => {
            tracing::debug!(sandbox.id = %context.sandbox, error = %ErrorChain(&error), "the record does not answer");
            Err(Outcome::Retry(Duration::from_secs(1)))
        }
    }
}

/// Whether a box is still wanted, by the record.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Here, or nobody has heard of it yet.
    Here,
    /// It has one here already.
    HadHere,
    /// It has ended, or has one elsewhere.
    Not,
}

fn wanted(record: &SandboxRecord, here: &NodeId) -> Wanted {
    match &record.sandbox.phase {
        SandboxPhase::Requested | SandboxPhase::Starting { .. } => Wanted::Here,
        SandboxPhase::Running { node, .. } => {
            if node == here {
                Wanted::HadHere
            } else {
                Wanted::Not
            }
        }
        SandboxPhase::Failed { .. } | SandboxPhase::Destroyed { .. } => Wanted::Not,
    }
}

/// What is said of a sandbox that waited for too long.
fn queue_timeout(term: &Term) -> String {
    let until = term.start_by.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    format!("no executor had room for the sandbox until {until}")
}

async fn failed(
    shared: &Shared,
    context: &Context,
    error: &CreateError,
    attempt: i64,
) -> Result<(), Outcome> {
    let chain = ErrorChain(error).to_string();
    tracing::warn!(sandbox.id = %context.sandbox, error = %chain, attempt, "a sandbox could not be made");
    if error.is_retryable() && attempt < ATTEMPTS {
        return Err(Outcome::Retry(Duration::from_secs(1)));
    }
    fail(shared, context, error.code(), error.to_string()).await
}

async fn fail(shared: &Shared, context: &Context, code: FailureCode, message: String) -> Result<(), Outcome> {
    tell(shared, &[context.event_once("failed", SandboxFailed { code, message })]).await
}

async fn discard(provider: &dyn Provider, context: &Context) {
    if let Err(error) = provider.destroy(context.sandbox).await {
        // Reconciliation finds it again.
        tracing::warn!(sandbox.id = %context.sandbox, error = %error, "a box that nobody wants was not removed");
    }
}

/// Tells how an image pull gets on, a few times a second at most.
struct Progress {
    send: tokio::sync::mpsc::UnboundedSender<SandboxPulling>,
    last: Mutex<Option<Instant>>,
}

impl Progress {
    fn new(shared: &Arc<Shared>, context: &Context) -> Self {
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<SandboxPulling>();
        let (log, context) = (shared.log.clone(), context.clone());
        tokio::spawn(async move {
            while let Some(pulling) = receive.recv().await {
                if let Err(error) = log.publish(&[context.event(pulling)]).await {
                    // Progress: the next of it says more.
                    tracing::debug!(error = %error, "the progress of a pull was not published");
                }
            }
        });
        Self { send, last: Mutex::new(None) }
    }
}

impl PullProgress for Progress {
    fn pulling(&self, pull: &Pull) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let done = pull.total_bytes > 0 && pull.fetched_bytes >= pull.total_bytes;
        if !done && last.is_some_and(|at| at.elapsed() < Duration::from_millis(500)) {
            return;
        }
        *last = Some(Instant::now());
        // Nobody hears it when the command is over.
        let _ = self.send.send(SandboxPulling {
            image: pull.image.clone(),
            fetched_bytes: pull.fetched_bytes,
            total_bytes: pull.total_bytes,
        });
    }
}
