use std::sync::Arc;

use events::{
    Actor, Clock, CommandEnvelope, CommandId, Event, EventData, EventId, ExecEnd, ExecFailed, ExecId,
    ExecOutputClosed, ExecState, FailureCode, NodeId, OutputCloseReason, RequestId, SandboxId, SandboxState,
    TenantId,
};
use secrets::Redaction;
use transport::LinkRequest;

/// What all events of one piece of work have in common: who, where, and because of what.
#[derive(Clone)]
pub struct Context {
    pub tenant: TenantId,
    pub sandbox: SandboxId,
    pub actor: Actor,
    pub cause: Option<CommandId>,
    pub request_id: Option<RequestId>,
    pub traceparent: Option<String>,
    /// What is masked in the text of its events.
    pub redaction: Redaction,
    clock: Arc<dyn Clock>,
}

impl Context {
    /// Work that a command asks for. Its events name who asked: that is what an audit wants to know, and the sandbox
    /// tells the node.
    pub fn of_command(envelope: &CommandEnvelope, redaction: &Redaction, clock: &Arc<dyn Clock>) -> Self {
        Self {
            tenant: envelope.tenant.clone(),
            sandbox: envelope.sandbox,
            actor: envelope.actor.clone(),
            cause: Some(envelope.id),
            request_id: envelope.request_id.clone(),
            traceparent: envelope.traceparent.clone(),
            redaction: redaction.clone(),
            clock: Arc::clone(clock),
        }
    }

    /// Work that a gateway asks for over the link, on behalf of a client.
    pub fn of_link(request: &LinkRequest, redaction: &Redaction, clock: &Arc<dyn Clock>) -> Self {
        Self {
            tenant: request.tenant.clone(),
            sandbox: request.sandbox,
            actor: request.actor.clone(),
            cause: None,
            request_id: request.request_id.clone(),
            traceparent: request.traceparent.clone(),
            redaction: redaction.clone(),
            clock: Arc::clone(clock),
        }
    }

    /// What the executor notices by itself. Its words are its own: there is nothing in them to mask.
    pub fn of_sandbox(state: &SandboxState, node: &NodeId, clock: &Arc<dyn Clock>) -> Self {
        Self {
            tenant: state.tenant.clone(),
            sandbox: state.id,
            actor: Actor::Executor(node.clone()),
            cause: None,
            request_id: None,
            traceparent: None,
            redaction: Redaction::default(),
            clock: Arc::clone(clock),
        }
    }

    /// The same work, with this masked.
    pub fn masking(&self, redaction: &Redaction) -> Self {
        Self { redaction: redaction.clone(), ..self.clone() }
    }

    /// The same work, for somebody else.
    pub fn on_behalf_of(&self, actor: Actor) -> Self {
        Self { actor, ..self.clone() }
    }

    /// The same work, as part of something else.
    pub fn because_of(&self, cause: CommandId) -> Self {
        Self { cause: Some(cause), ..self.clone() }
    }

    /// An event that happens once.
    pub fn event(&self, data: impl Into<EventData>) -> Event {
        self.event_with_id(EventId::new(), data)
    }

    /// An event that a repeated command would tell again: its id follows from the command and `what`, so the record
    /// keeps it once.
    pub fn event_once(&self, what: &str, data: impl Into<EventData>) -> Event {
        let cause = self.cause.map(|cause| cause.to_string()).unwrap_or_default();
        self.event_with_id(EventId::derived(&[&cause, &self.sandbox.to_string(), what]), data)
    }

    /// The end of an exec that was asked for and will not begin. Told twice it is one event.
    pub fn never_began(&self, exec: ExecId, code: FailureCode, message: &str) -> Event {
        let failed = ExecFailed { exec, code, message: message.to_owned(), request_digest: None };
        self.event_with_id(EventId::derived(&["exec.never_began", &exec.to_string()]), failed)
    }

    /// Nothing more comes of an exec that had ended with its output open: its sandbox has gone. Told twice it is one event.
    pub fn output_gone(&self, exec: &ExecState) -> Event {
        let closed = ExecOutputClosed {
            exec: exec.id,
            reason: OutputCloseReason::Sandbox,
            stdout_bytes: exec.stdout_bytes,
            stderr_bytes: exec.stderr_bytes,
            truncated_bytes: exec
                .end
                .as_ref()
                .and_then(ExecEnd::ended)
                .map_or(0, |ended| ended.truncated_bytes),
        };
        self.event_with_id(EventId::derived(&["exec.output_gone", &exec.id.to_string()]), closed)
    }

    fn event_with_id(&self, id: EventId, data: impl Into<EventData>) -> Event {
        let mut data = data.into();
        self.redaction.event(&mut data);
        Event {
            id,
            tenant: self.tenant.clone(),
            sandbox: Some(self.sandbox),
            time: self.clock.now(),
            actor: self.actor.clone(),
            cause: self.cause,
            request_id: self.request_id.clone(),
            traceparent: self.traceparent.clone(),
            data,
        }
    }
}
