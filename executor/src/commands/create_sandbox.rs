use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::client::Client;
use chrono::{DateTime, Utc};
use events::{
    ErrorChain, FailureCode, SandboxFailed, SandboxPulling, SandboxRunning, SandboxSpec, SandboxStarting,
    SecretMap,
};

use super::{Outcome, tell};
use crate::context::Context;
use crate::hosted::Hosted;
use crate::provider::{BoxOrder, CreateError, Provider, Pull, PullProgress};
use crate::service::Shared;

/// How much later than the log's the agent's deadline is: the reaper comes first, so that execs can tell their end; the
/// agent's own deadline is for when nobody comes.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How often a failure that may pass is tried again before the sandbox has failed.
const ATTEMPTS: i64 = 3;

pub(super) async fn run(
    shared: &Arc<Shared>,
    context: &Context,
    spec: &SandboxSpec,
    env: &SecretMap,
    expires_at: DateTime<Utc>,
    attempt: i64,
) -> Outcome {
    let redaction = context.redaction.with_secrets(env.of(&spec.secret_names));
    match create(shared, &context.masking(&redaction), spec, env, expires_at, attempt).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}

async fn create(
    shared: &Arc<Shared>,
    context: &Context,
    spec: &SandboxSpec,
    env: &SecretMap,
    expires_at: DateTime<Utc>,
    attempt: i64,
) -> Result<(), Outcome> {
    let id = context.sandbox;
    let Some(provider) = shared.provider(&spec.provider) else {
        let message = format!("this node has no provider {:?}", spec.provider.as_str());
        return fail(shared, context, FailureCode::Unsupported, message).await;
    };
    let Some(_creating) = shared.registry.begin_create(id) else {
        // An earlier delivery of the same command is still at work.
        return Err(Outcome::Retry(Duration::from_secs(5)));
    };
    let time_left = (expires_at - shared.clock.now()).to_std().unwrap_or_default();
    if time_left.is_zero() {
        let message = "the deadline passed before the sandbox ran".to_owned();
        return fail(shared, context, FailureCode::DeadlinePassed, message).await;
    }
    let began = Instant::now();
    let order = BoxOrder { id, spec: spec.clone(), time_left: time_left + GRACE };
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
    let unwanted = record.is_ok_and(|record| record.is_some_and(|record| record.sandbox.is_terminal()));
    if unwanted || claimed.is_err() {
        discard(provider.as_ref(), context).await;
        return if unwanted { Ok(()) } else { Err(Outcome::Retry(Duration::from_secs(1))) };
    }
    let handle = match made {
        Ok(handle) => handle,
        Err(error) => return failed(shared, context, &error, attempt).await,
    };
    let agent = Client::new(&handle.socket);
    if !env.0.is_empty() {
        // The agent keeps it: an executor that takes over has it from nowhere else.
        let environment = env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Err(error) = agent.set_environment(environment).await {
            tracing::warn!(sandbox.id = %id, error = %error, "the environment was not set");
            discard(provider.as_ref(), context).await;
            return Err(Outcome::Retry(Duration::from_secs(1)));
        }
    }
    let redaction = context.redaction.clone();
    shared.registry.insert(Arc::new(Hosted::new(id, context.tenant.clone(), provider, agent, redaction)));
    let running = SandboxRunning {
        node: shared.config.node.clone(),
        runtime_id: handle.runtime_id,
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    tell(shared, &[context.event_once("running", running)]).await
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
                // Progress that is not published is not missed.
                let _ = log.publish(&[context.event(pulling)]).await;
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
        let _ = self.send.send(SandboxPulling {
            image: pull.image.clone(),
            fetched_bytes: pull.fetched_bytes,
            total_bytes: pull.total_bytes,
        });
    }
}
