//! What every endpoint stands on: the log, the record, the live view, the link to executors, and the clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{
    Clock, Command, CommandEnvelope, CommandId, Event, EventData, EventId, ExecId, ExecState, NodeId,
    SandboxId, SandboxPhase, SandboxState, TenantId,
};
use feed::{Feed, View};
use record::{EventStore, Record};
use secrets::Redaction;
use spelling::format_go_duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{
    Destination, LinkClient, LinkError, LinkOp, LinkRequest, LinkStream, LinkValue, Log, PublishError, Taken,
};

use crate::auth::{Caller, KeyRing, Refusal, Resource, authorize};
use crate::config::GatewayConfig;
use crate::denied::{Denial, Denials};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::share::{Counted, Shares};

/// How long a request waits for a sandbox that is still being made.
const READY_WAIT: Duration = Duration::from_secs(25);

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    config: GatewayConfig,
    keys: KeyRing,
    log: Log,
    record: Record,
    feed: Feed,
    view: View,
    link: LinkClient,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    started_at: Instant,
    closing: CancellationToken,
    sessions: TaskTracker,
    denials: Denials,
    shares: Shares,
}

/// What a tenant is told of a sandbox that does not exist or is another's: the same of both.
pub fn no_sandbox(named: impl fmt::Display) -> ApiError {
    ApiError::absent("sandbox", named)
}

/// The answer to whoever asks for what it does not have. Whether somebody else has it is not looked at: neither the answer, nor
/// the time that it takes, nor what is counted of it in the tenant's own log tells.
pub fn not_known(caller: &Caller, missing: ApiError) -> ApiError {
    if caller.is_of_only_tenant { missing } else { missing.denied(Denial::Tenant, Some(&caller.tenant)) }
}

/// Whether the caller may do to a sandbox that was looked up what it wants to do.
fn may_have(caller: &Caller, state: &SandboxState) -> Result<(), Refusal> {
    let owner = state.spec.owner.as_deref();
    authorize(caller, caller.action, Resource::Sandbox { tenant: &state.tenant, owner })
}

/// What ended while it was asked for something.
pub fn sandbox_gone() -> ApiError {
    ApiError::not_found("the sandbox went away meanwhile")
}

/// What its owner is told of a sandbox that has ended.
pub fn ended(state: &SandboxState, now: DateTime<Utc>) -> ApiError {
    let ago = |at: DateTime<Utc>| {
        let seconds = (now - at).num_seconds().max(0).unsigned_abs();
        spelling::format_go_duration(Duration::from_secs(seconds))
    };
    match &state.phase {
        SandboxPhase::Destroyed { reason, at } => ApiError::not_found(format!(
            "sandbox {} was destroyed {} ago, reason {}",
            state.id,
            ago(*at),
            reason.as_str()
        )),
        SandboxPhase::Failed { message, at, .. } => ApiError::not_found(format!(
            "sandbox {} never ran, and was given up {} ago: {message}",
            state.id,
            ago(*at)
        )),
        SandboxPhase::Requested | SandboxPhase::Starting { .. } | SandboxPhase::Running { .. } => {
            no_sandbox(state.id)
        }
    }
}

impl Gateway {
    /// A gateway over these ports.
    pub fn new(
        config: GatewayConfig,
        log: Log,
        record: Record,
        feed: Feed,
        view: View,
        link: LinkClient,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let keys = KeyRing::new(config.keys.clone(), &config.master_key);
        let shares = Shares::new(config.limits.clone());
        let closing = CancellationToken::new();
        let ports = (log.clone(), feed.clone(), Arc::clone(&record.store));
        let readiness = Readiness::new(ports, config.disk.clone(), config.audit.max_lag, closing.clone());
        Self {
            inner: Arc::new(Inner {
                config,
                keys,
                log,
                record,
                feed,
                view,
                link,
                clock,
                metrics: Metrics::install(),
                readiness,
                started_at: Instant::now(),
                closing,
                sessions: TaskTracker::new(),
                denials: Denials::default(),
                shares,
            }),
        }
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.inner.keys
    }

    pub(crate) fn log(&self) -> &Log {
        &self.inner.log
    }

    pub(crate) fn store(&self) -> &dyn EventStore {
        &*self.inner.record.store
    }

    /// What execs wrote, keys and evidence beside it.
    pub(crate) fn record(&self) -> &Record {
        &self.inner.record
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    pub(crate) fn view(&self) -> &View {
        &self.inner.view
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }

    /// How long it has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.inner.started_at.elapsed()
    }

    /// Who is turned away.
    pub(crate) fn denials(&self) -> &Denials {
        &self.inner.denials
    }

    /// The same as the API says it: a Go duration of whole milliseconds.
    pub(crate) fn uptime_text(&self) -> String {
        format_go_duration(Duration::from_millis(
            u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX),
        ))
    }

    /// Who takes how much.
    pub(crate) fn shares(&self) -> &Shares {
        &self.inner.shares
    }

    /// Cancelled when the gateway is about to stop: endless answers end then.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    /// WebSockets, which live on when their connection has become one.
    pub(crate) fn sessions(&self) -> &TaskTracker {
        &self.inner.sessions
    }

    /// The sandbox, whatever its state, as long as it was not destroyed.
    pub(crate) async fn sandbox(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<Arc<SandboxState>, ApiError> {
        let state = self.any_sandbox(caller, &caller.tenant, id).await?;
        if matches!(state.phase, SandboxPhase::Destroyed { .. }) {
            return Err(ended(&state, self.clock().now()));
        }
        Ok(state)
    }

    /// The sandbox of a tenant, also one that was destroyed, as long as the record knows of it.
    pub(crate) async fn any_sandbox(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        id: SandboxId,
    ) -> Result<Arc<SandboxState>, ApiError> {
        match self.view().sandbox_of(tenant, id) {
            Some(state) => {
                may_have(caller, &state).map_err(|refusal| refusal.answer(caller, || no_sandbox(id)))?;
                Ok(state)
            }
            None => self.find_recorded(caller, tenant, id).await.map(Arc::new),
        }
    }

    /// The sandbox from the record, which need not know of the newest yet.
    pub(crate) async fn recorded_sandbox(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<SandboxState, ApiError> {
        self.find_recorded(caller, &caller.tenant, id).await
    }

    async fn find_recorded(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        id: SandboxId,
    ) -> Result<SandboxState, ApiError> {
        let state = self.store().sandbox_of(tenant, id).await.map_err(ApiError::store)?;
        let state = state.ok_or_else(|| not_known(caller, no_sandbox(id)))?;
        may_have(caller, &state).map_err(|refusal| refusal.answer(caller, || no_sandbox(id)))?;
        Ok(state)
    }

    /// The live sandboxes that the caller may do this to.
    pub(crate) fn live_sandboxes(&self, caller: &Caller) -> Vec<Arc<SandboxState>> {
        let mut live = self.view().live_sandboxes();
        live.retain(|state| may_have(caller, state).is_ok());
        live
    }

    /// The exec of a tenant, from the record.
    pub(crate) async fn recorded_exec(
        &self,
        caller: &Caller,
        tenant: &TenantId,
        id: ExecId,
    ) -> Result<ExecState, ApiError> {
        let state = self.store().exec_of(tenant, id).await.map_err(ApiError::store)?;
        let missing = || ApiError::absent("exec", id);
        let state = state.ok_or_else(|| not_known(caller, missing()))?;
        authorize(caller, caller.action, Resource::Exec { tenant: &state.tenant, id: state.id })
            .map_err(|refusal| refusal.answer(caller, missing))?;
        Ok(state)
    }

    /// The sandbox with the node that has it. Waits a while for one that is still being made.
    pub(crate) async fn placed_sandbox(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<(Arc<SandboxState>, NodeId), ApiError> {
        let mut state = self.sandbox(caller, id).await?;
        if is_being_made(&state) {
            state =
                self.view().wait(id, |state| !is_being_made(state), READY_WAIT).await.ok_or_else(|| {
                    ApiError::conflict(format!("sandbox {id} is still being created: try again"))
                })?;
        }
        if state.is_terminal() {
            return Err(ended(&state, self.clock().now()));
        }
        if state.ending.is_some() {
            return Err(ApiError::conflict(format!("sandbox {id} is being destroyed")));
        }
        let node = state.node().cloned().ok_or_else(|| no_sandbox(id))?;
        Ok((state, node))
    }

    /// Sends a command about a sandbox.
    pub(crate) async fn send(
        &self,
        to: Destination<'_>,
        caller: &Caller,
        sandbox: SandboxId,
        id: CommandId,
        command: Command,
    ) -> Result<(), ApiError> {
        let envelope = CommandEnvelope {
            id,
            tenant: caller.tenant.clone(),
            actor: caller.actor(),
            request_id: Some(caller.request_id.clone()),
            traceparent: caller.traceparent.clone(),
            sandbox,
            command,
        };
        self.log().send(to, &envelope).await.map_err(publish_failed)
    }

    /// What is masked in every event.
    pub(crate) fn redaction(&self) -> Redaction {
        Redaction::from(&self.config().redaction)
    }

    /// Publishes one event. Durable on return.
    pub(crate) async fn publish(
        &self,
        caller: &Caller,
        sandbox: Option<SandboxId>,
        id: EventId,
        time: DateTime<Utc>,
        data: impl Into<EventData>,
    ) -> Result<(), ApiError> {
        self.publish_redacted(caller, sandbox, id, time, data, &self.redaction()).await
    }

    /// The same, where more is masked than in every event.
    pub(crate) async fn publish_redacted(
        &self,
        caller: &Caller,
        sandbox: Option<SandboxId>,
        id: EventId,
        time: DateTime<Utc>,
        data: impl Into<EventData>,
        redaction: &Redaction,
    ) -> Result<(), ApiError> {
        let mut data = data.into();
        redaction.event(&mut data);
        let event = Event {
            id,
            tenant: caller.tenant.clone(),
            sandbox,
            time,
            actor: caller.actor(),
            cause: None,
            request_id: Some(caller.request_id.clone()),
            traceparent: caller.traceparent.clone(),
            data,
        };
        self.log().publish(&[event]).await.map_err(publish_failed)
    }

    /// Asks the executor that has the sandbox.
    pub(crate) async fn call(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
        op: LinkOp,
    ) -> Result<LinkValue, ApiError> {
        self.try_call(caller, sandbox, op).await?.map_err(link_failed)
    }

    /// The same, for whoever wants to look at the refusal.
    pub(crate) async fn try_call(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
        op: LinkOp,
    ) -> Result<Result<LinkValue, LinkError>, ApiError> {
        let (_, node) = self.placed_sandbox(caller, sandbox).await?;
        let _counted = self.shares().call(sandbox)?;
        let request = self.link_request(caller, sandbox, op);
        let answer = self.inner.link.call(&node, &request).await;
        self.unless_ended(sandbox, answer)
    }

    /// Has the executor of the node start an exec.
    pub(crate) async fn start(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
        node: &NodeId,
        op: LinkOp,
    ) -> Result<Taken, ApiError> {
        if let Some(trouble) = self.log().refusal() {
            return Err(publish_failed(PublishError::Refused(trouble)));
        }
        // A start says by itself that it is under way, and sooner: nobody else has to.
        let request = LinkRequest { tell_working: false, ..self.link_request(caller, sandbox, op) };
        let answer = self.inner.link.start(node, &request).await;
        self.unless_ended(sandbox, answer)?.map_err(link_failed)
    }

    /// Opens a stream of bytes to or from the sandbox.
    pub(crate) async fn open(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
        op: LinkOp,
    ) -> Result<OpenCall, ApiError> {
        self.try_open(caller, sandbox, op).await?.map_err(link_failed)
    }

    /// The same, for whoever wants to look at the refusal.
    pub(crate) async fn try_open(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
        op: LinkOp,
    ) -> Result<Result<OpenCall, LinkError>, ApiError> {
        let (_, node) = self.placed_sandbox(caller, sandbox).await?;
        let counted = self.shares().call(sandbox)?;
        let request = self.link_request(caller, sandbox, op);
        let answer = self.inner.link.open(&node, &request).await;
        let answer = answer.map(|stream| OpenCall { stream, _counted: counted });
        self.unless_ended(sandbox, answer)
    }

    /// What fails with a sandbox that has ended meanwhile fails because of that.
    fn unless_ended<T>(
        &self,
        sandbox: SandboxId,
        answer: Result<T, LinkError>,
    ) -> Result<Result<T, LinkError>, ApiError> {
        let broke =
            matches!(answer, Err(LinkError::Unreachable | LinkError::Unanswered | LinkError::Broken(_)));
        let ended = || self.view().sandbox(sandbox).is_none_or(|state| state.is_terminal());
        if broke && ended() { Err(sandbox_gone()) } else { Ok(answer) }
    }

    fn link_request(&self, caller: &Caller, sandbox: SandboxId, op: LinkOp) -> LinkRequest {
        LinkRequest {
            tenant: caller.tenant.clone(),
            actor: caller.actor(),
            request_id: Some(caller.request_id.clone()),
            traceparent: caller.traceparent.clone(),
            sandbox,
            op,
            tell_working: true,
        }
    }
}

/// Bytes to or from a sandbox, and that they are under way.
pub(crate) struct OpenCall {
    stream: LinkStream,
    _counted: Counted<SandboxId>,
}

impl OpenCall {
    /// Says that all bytes are sent, and waits for the outcome.
    pub(crate) async fn finish(self) -> Result<LinkValue, LinkError> {
        self.stream.finish().await
    }
}

impl std::ops::Deref for OpenCall {
    type Target = LinkStream;

    fn deref(&self) -> &LinkStream {
        &self.stream
    }
}

impl std::ops::DerefMut for OpenCall {
    fn deref_mut(&mut self) -> &mut LinkStream {
        &mut self.stream
    }
}

fn is_being_made(state: &SandboxState) -> bool {
    matches!(state.phase, SandboxPhase::Requested | SandboxPhase::Starting { .. })
}

pub(crate) fn publish_failed(error: PublishError) -> ApiError {
    match error {
        PublishError::Full => {
            tracing::warn!("a queue is full: the recorder or the executors are behind");
            ApiError::resource_limit("too much is waiting already: try again", Duration::from_secs(1))
        }
        PublishError::Unavailable(_) => ApiError::unavailable(error),
        // Said once in the log by who watches the transport, and not again for each request.
        PublishError::Refused(_) => ApiError::audit_unavailable(),
        PublishError::Encode(_) => ApiError::internal(error),
    }
}

/// What a failure of the link means to a client.
pub(crate) fn link_failed(error: LinkError) -> ApiError {
    use transport::FaultCode as Fault;
    let LinkError::Refused(fault) = error else {
        return ApiError::unavailable(error);
    };
    let message = fault.message.clone();
    match fault.code {
        Fault::NotFound => ApiError::not_found(message),
        Fault::InvalidPath | Fault::IsADirectory | Fault::NotADirectory | Fault::Unsupported => {
            ApiError::bad_request(message)
        }
        Fault::PermissionDenied => ApiError::forbidden(message),
        Fault::AlreadyExists | Fault::DirectoryNotEmpty | Fault::Busy | Fault::Failed | Fault::ExecGone => {
            ApiError::conflict(message)
        }
        Fault::NoSpace | Fault::TooMany => ApiError::too_large(message),
        Fault::SandboxGone => sandbox_gone(),
        Fault::Unrecorded => ApiError::unrecorded(message),
        Fault::Crowded => ApiError::resource_limit(message, Duration::from_secs(1)),
        Fault::Unavailable => ApiError::unavailable(fault),
        Fault::Internal => ApiError::internal(fault),
    }
}

/// An executor that answers something else than it was asked for.
pub(crate) fn unexpected_answer() -> ApiError {
    ApiError::internal("the executor gave an answer that does not fit the request")
}

#[cfg(test)]
mod tests {
    use transport::{FaultCode, LinkFault};

    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn each_refusal_of_an_executor_has_its_code() {
        for (fault, code) in [
            (FaultCode::NotFound, ErrorCode::NotFound),
            (FaultCode::InvalidPath, ErrorCode::BadRequest),
            (FaultCode::PermissionDenied, ErrorCode::Forbidden),
            (FaultCode::IsADirectory, ErrorCode::BadRequest),
            (FaultCode::NotADirectory, ErrorCode::BadRequest),
            (FaultCode::AlreadyExists, ErrorCode::Conflict),
            (FaultCode::DirectoryNotEmpty, ErrorCode::Conflict),
            (FaultCode::NoSpace, ErrorCode::TooLarge),
            (FaultCode::Busy, ErrorCode::Conflict),
            (FaultCode::TooMany, ErrorCode::TooLarge),
            (FaultCode::Failed, ErrorCode::Conflict),
            (FaultCode::SandboxGone, ErrorCode::NotFound),
            (FaultCode::ExecGone, ErrorCode::Conflict),
            (FaultCode::Unsupported, ErrorCode::BadRequest),
            (FaultCode::Unrecorded, ErrorCode::Unavailable),
            (FaultCode::Unavailable, ErrorCode::Unavailable),
            (FaultCode::Crowded, ErrorCode::ResourceLimit),
            (FaultCode::Internal, ErrorCode::InternalError),
        ] {
            let error = LinkError::Refused(LinkFault::new(fault, "m"));
            assert_eq!(link_failed(error).code(), code, "{fault:?}");
        }
        assert_eq!(link_failed(LinkError::Unreachable).code(), ErrorCode::Unavailable);
        assert_eq!(link_failed(LinkError::Broken("x")).code(), ErrorCode::Unavailable);
    }
}
