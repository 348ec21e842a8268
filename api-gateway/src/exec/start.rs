//! Starting an exec: listen for it first, then ask for it, so that nothing of it can be missed.

use std::sync::Arc;
use std::time::Duration;

use events::{
    Command, CommandId, EventId, ExecId, ExecRequested, ExecState, NodeId, SandboxId, SandboxState,
};
use feed::{After, OutputReader, Topic};
use transport::{Destination, LinkOp, Taken};

use super::request::Runnable;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::{Gateway, link_failed};
use crate::idempotency::Idempotent;
use crate::share::AskedExec;
use crate::variables::fingerprints;

/// How long a detached exec's answer waits for the record. It is durable before that.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// An exec that an executor took, and of which nothing was heard yet.
pub struct Asked {
    counted: AskedExec,
    taken: Taken,
}

impl Asked {
    /// Something was heard of it.
    pub fn settle(self) {
        self.counted.settle();
    }

    /// Waits until it is known that nothing will be heard of it: its executor went away before it began. Never returns once it
    /// has. Cancel safe.
    pub async fn failed(&mut self) -> ApiError {
        link_failed(self.taken.failed().await)
    }
}

/// An exec that was asked for.
pub struct Started {
    /// Its id.
    pub exec: ExecId,
    /// What it writes, and how it ends.
    pub output: OutputReader,
    /// That it counts until something is heard of it; none where it was asked for before.
    pub asked: Option<Asked>,
}

/// Asks for an exec with a fresh id.
pub async fn start_fresh(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (&SandboxState, &NodeId),
    exec: ExecId,
    runnable: Runnable,
) -> Result<(OutputReader, Asked), ApiError> {
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let output = OutputReader::fresh(gateway.feed(), exec);
    let asked = start_on_node(gateway, caller, (sandbox.id, node), CommandId::new(), exec, runnable).await?;
    Ok((output, asked))
}

/// Where an exec is to run: its sandbox, and the node that has it.
pub type Place = (Arc<SandboxState>, NodeId);

/// The exec that a key stands for, if it was asked for before, with the same body. Its sandbox may be long gone.
pub async fn known(gateway: &Gateway, idempotent: &Idempotent) -> Result<Option<ExecState>, ApiError> {
    let exec = ExecId::derived(&idempotent.parts());
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let named = |error: ApiError| error.with_exec(exec);
    let recorded = gateway.store().exec(exec).await.map_err(ApiError::store).map_err(named)?;
    if let Some(recorded) = &recorded {
        check(idempotent, recorded).map_err(named)?;
    }
    Ok(recorded)
}

/// Asks for an exec. With an idempotency key, the exec that the key stands for: started now, running, or long ended.
/// One that is `known` needs no place.
pub async fn start(
    gateway: &Gateway,
    caller: &Caller,
    place: Option<Place>,
    known: Option<ExecState>,
    mut runnable: Runnable,
    idempotent: Option<&Idempotent>,
) -> Result<Started, ApiError> {
    let exec = match (&known, idempotent) {
        (Some(known), _) => known.id,
        (None, Some(idempotent)) => ExecId::derived(&idempotent.parts()),
        (None, None) => ExecId::new(),
    };
    let started = async {
        let (Some((sandbox, node)), None) = (&place, known) else {
            return Ok((read(gateway, exec, 0, 0).await?, None));
        };
        let Some(idempotent) = idempotent else {
            let (output, asked) = start_fresh(gateway, caller, (sandbox, node), exec, runnable).await?;
            return Ok((output, Some(asked)));
        };
        let command = command_of(idempotent);
        runnable.spec.request_digest = Some(idempotent.digest.clone());
        // Another request with the same key may be ahead of this one: read from the beginning.
        let output = read(gateway, exec, 0, 0).await?;
        let asked = start_on_node(gateway, caller, (sandbox.id, node), command, exec, runnable).await?;
        Ok((output, Some(asked)))
    };
    // Whatever became of the question: if it runs after all, this is where it is found.
    let (output, asked) = started.await.map_err(|error: ApiError| error.with_exec(exec))?;
    Ok(Started { exec, output, asked })
}

/// Asks for an exec that nobody waits for. It is in the record before its command is on its way, so that there is an end
/// to be told whatever becomes of the command. With an idempotency key, the exec that the key stands for.
pub async fn start_detached(
    gateway: &Gateway,
    caller: &Caller,
    (id, place): (SandboxId, Option<Place>),
    known: Option<ExecState>,
    runnable: Runnable,
    idempotent: Option<&Idempotent>,
) -> Result<ExecId, ApiError> {
    let (exec, command) = match idempotent {
        None => (ExecId::new(), CommandId::new()),
        Some(idempotent) => (ExecId::derived(&idempotent.parts()), command_of(idempotent)),
    };
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let place = match (place, &known) {
        (Some(place), _) => place,
        // The request before this one may have been cut off before the command was sent. Where there is no sandbox any
        // more that is no loss.
        (None, Some(known)) if known.pending && known.end.is_none() => {
            match gateway.placed_sandbox(caller, id).await {
                Ok(place) => place,
                Err(_) => return Ok(exec),
            }
        }
        (None, _) => return Ok(exec),
    };
    let asked =
        publish_detached(gateway, caller, &place, (exec, command), known.is_some(), runnable, idempotent);
    asked.await.map_err(|error| error.with_exec(exec))?;
    Ok(exec)
}

async fn publish_detached(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): &Place,
    (exec, command): (ExecId, CommandId),
    is_recorded: bool,
    mut runnable: Runnable,
    idempotent: Option<&Idempotent>,
) -> Result<(), ApiError> {
    // Before it is in the record: what is refused has left nothing behind.
    let asked = count(gateway, caller, sandbox.id, exec)?;
    let mut events = gateway.feed().subscribe(Topic::Exec(exec), After::Now);
    runnable.spec.request_digest = idempotent.map(|idempotent| idempotent.digest.clone());
    let mut spec = runnable.spec.clone();
    spec.env_hmac = fingerprints(&gateway.config().master_key, &caller.tenant, &runnable.env);
    if !sandbox.spec.secret_names.is_empty() {
        // Only the sandbox still knows the values of its secrets; the event of the start says what runs.
        spec.argv.iter_mut().chain(&mut spec.cwd).for_each(|text| *text = "*".repeat(text.len()));
    }
    let requested = ExecRequested { exec, spec, env_names: runnable.env.names() };
    let id = EventId::derived(&["exec.requested", &exec.to_string()]);
    let redaction = gateway.redaction().with_secrets(runnable.env.of(&runnable.spec.secret_names));
    let now = gateway.clock().now();
    gateway.publish_redacted(caller, Some(sandbox.id), id, now, requested, &redaction).await?;
    send(gateway, caller, (sandbox.id, node), command, exec, runnable, asked).await?.settle();
    // A client that asks for the exec right after this answer finds it.
    if !is_recorded && tokio::time::timeout(RECORD_PATIENCE, events.next()).await.is_ok() {
        verify(gateway, exec, idempotent).await?;
    }
    Ok(())
}

/// The digest goes into the command's id too, so that another body is not taken for the same message.
fn command_of(idempotent: &Idempotent) -> CommandId {
    let [tenant, scope, key] = idempotent.parts();
    CommandId::derived(&[tenant, scope, key, &idempotent.digest])
}

/// Whether the exec that ran is the one that this request asked for: two bodies may have raced for one key.
pub async fn verify(
    gateway: &Gateway,
    exec: ExecId,
    idempotent: Option<&Idempotent>,
) -> Result<(), ApiError> {
    let Some(idempotent) = idempotent else {
        return Ok(());
    };
    let recorded = gateway.store().exec(exec).await.map_err(ApiError::store)?;
    recorded.map_or(Ok(()), |recorded| check(idempotent, &recorded))
}

/// Whether a recorded exec came from the same request. One that failed before it started, in records from before that was
/// kept, says nothing to compare.
fn check(idempotent: &Idempotent, recorded: &ExecState) -> Result<(), ApiError> {
    let digest = recorded.request_digest();
    if recorded.spec.is_none() && digest.is_none() { Ok(()) } else { idempotent.check(digest) }
}

/// Reads an exec from byte offsets on.
pub async fn read(
    gateway: &Gateway,
    exec: ExecId,
    stdout: u64,
    stderr: u64,
) -> Result<OutputReader, ApiError> {
    gateway.feed().exec_output(exec, stdout, stderr).await.map_err(ApiError::unavailable)
}

/// Asks the executor of the node to start an exec that somebody waits for. Nothing is durable of it before it begins.
async fn start_on_node(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (SandboxId, &NodeId),
    command: CommandId,
    exec: ExecId,
    runnable: Runnable,
) -> Result<Asked, ApiError> {
    let counted = count(gateway, caller, sandbox, exec)?;
    let Runnable { mut spec, env } = runnable;
    spec.env_hmac = fingerprints(&gateway.config().master_key, &caller.tenant, &env);
    let op = LinkOp::StartExec { command, exec, spec, env, sent_at: gateway.clock().now() };
    match gateway.start(caller, sandbox, node, op).await {
        Ok(taken) => Ok(Asked { counted, taken }),
        Err(error) => {
            counted.settle();
            Err(error)
        }
    }
}

/// Lets the tenant have one more exec.
fn count(
    gateway: &Gateway,
    caller: &Caller,
    sandbox: SandboxId,
    exec: ExecId,
) -> Result<AskedExec, ApiError> {
    let now = gateway.clock().now();
    gateway.shares().exec(gateway.view(), (&caller.tenant, sandbox, exec), now)
}

/// Sends the command. What is given back says that the exec counts until something is heard of it.
async fn send(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (SandboxId, &NodeId),
    command: CommandId,
    exec: ExecId,
    runnable: Runnable,
    asked: AskedExec,
) -> Result<AskedExec, ApiError> {
    let Runnable { mut spec, env } = runnable;
    spec.env_hmac = fingerprints(&gateway.config().master_key, &caller.tenant, &env);
    let start = Command::StartExec { exec, spec, env };
    match gateway.send(Destination::Node(node), caller, sandbox, command, start).await {
        Ok(()) => Ok(asked),
        Err(error) => {
            asked.settle();
            Err(error)
        }
    }
}
