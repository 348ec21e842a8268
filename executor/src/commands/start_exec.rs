use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, ExecConnection};
use agent::protocol::{self, AttachRefusal, Features, StartErrorKind, StartExec, StartRefusal};
use events::{ExecFailed, ExecId, ExecSpec, ExecStarted, FailureCode, SecretMap};
use tokio::sync::oneshot;

use super::{Outcome, tell};
use crate::context::Context;
use crate::exec::{Exec, Resume};
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How long a command that has started waits to be acknowledged.
const ACK_PAUSE: Duration = Duration::from_millis(20);
/// How often a start that no command stands behind is tried with an agent that breaks the connection.
const BROKEN_ATTEMPTS: i64 = 5;
/// How often an agent that does not answer is asked to start it.
const SILENT_ATTEMPTS: i64 = 2;
const GONE: &str = "the sandbox is gone";

pub(super) async fn run(
    shared: &Arc<Shared>,
    context: &Context,
    exec: ExecId,
    spec: &ExecSpec,
    env: &SecretMap,
    attempt: i64,
) -> Outcome {
    if shared.registry.is_given_up(exec) {
        // Its end is in the log already.
        return Outcome::Done;
    }
    if attempt > 1 {
        // The agent knows its execs for a while, the record for ever: what has begun is not begun again, however late
        // its command comes back. Reconciliation goes on with what has not ended.
        match shared.log.exec_record(exec).await {
            Ok(None) => {}
            Ok(Some(state)) if state.pending && state.end.is_none() => {}
            Ok(Some(_)) => return Outcome::Done,
            Err(error) => {
                tracing::debug!(error = %error, exec.id = %exec, "cannot ask whether it has begun");
                return Outcome::Retry(Duration::from_secs(1));
            }
        }
    }
    match start(shared, context, exec, spec, env, attempt).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}

/// Starts an exec that no command stands behind: what a later delivery would do for a command is done here, in a row. Returns when
/// the agent has it, or when the log has been told why not.
pub(crate) async fn start_at_once(
    shared: &Arc<Shared>,
    context: &Context,
    exec: ExecId,
    spec: &ExecSpec,
    env: &SecretMap,
) -> Result<(), Untold> {
    for attempt in 1..=BROKEN_ATTEMPTS {
        let runs = shared.registry.get(context.sandbox).is_some_and(|hosted| hosted.execs.contains(&exec));
        if runs || shared.registry.is_given_up(exec) {
            // Asked for twice with one key: it runs, or its end is in the log.
            return Ok(());
        }
        match begin(shared, context, exec, spec, env, attempt).await {
            // The agent has it, and has it until it is recorded.
            Ok(_) | Err(Outcome::Done) => return Ok(()),
            Err(Outcome::Retry(pause)) if attempt < BROKEN_ATTEMPTS => tokio::time::sleep(pause).await,
            Err(Outcome::Retry(_)) => {}
        }
    }
    Err(Untold)
}

/// Nobody knows whether it began, and the log could not be told.
pub(crate) struct Untold;

async fn start(
    shared: &Arc<Shared>,
    context: &Context,
    exec: ExecId,
    spec: &ExecSpec,
    env: &SecretMap,
    attempt: i64,
) -> Result<(), Outcome> {
    let Some(is_durable) = begin(shared, context, exec, spec, env, attempt).await? else { return Ok(()) };
    // Only now is it safe to forget the command: until the log knows of the exec, the command is all that does.
    is_durable.await.map_err(|_| Outcome::Retry(Duration::from_secs(1)))?;
    // The acknowledgement is a write to disk as well: it need not compete with the events of a short exec.
    tokio::time::sleep(ACK_PAUSE).await;
    Ok(())
}

/// Has the agent start it. What is returned hears when the news of that is durable; nothing where the log was told why it did not
/// start.
async fn begin(
    shared: &Arc<Shared>,
    context: &Context,
    exec: ExecId,
    spec: &ExecSpec,
    env: &SecretMap,
    attempt: i64,
) -> Result<Option<oneshot::Receiver<()>>, Outcome> {
    let hosted = match shared.registry.get(context.sandbox) {
        Some(hosted) if hosted.tenant == context.tenant && !hosted.is_closing() => hosted,
        _ => {
            let exec = (exec, spec.request_digest.clone());
            return fail(shared, context, exec, FailureCode::SandboxGone, GONE.to_owned())
                .await
                .map(|()| None);
        }
    };
    shared.neighbours.note(&hosted.tenant);
    let redaction = hosted.redaction.with_secrets(env.of(&spec.secret_names));
    let context = &context.masking(&redaction);
    if !hosted.execs.insert(exec) {
        // Delivered again while it runs: the first delivery acknowledges it.
        return Err(Outcome::Retry(Duration::from_secs(5)));
    }
    let connection = tokio::select! {
        connection = shared.starts.in_turn(&hosted.tenant, hosted.id, connect(shared, &hosted, exec, spec, env)) => connection,
        () = hosted.gone() => {
            hosted.execs.remove(&exec);
            let exec = (exec, spec.request_digest.clone());
            return fail(shared, context, exec, FailureCode::SandboxGone, GONE.to_owned()).await.map(|()| None);
        }
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            hosted.execs.remove(&exec);
            let give_up = attempt >= SILENT_ATTEMPTS && matches!(error, CallError::Silent { .. });
            let digest = spec.request_digest.clone();
            return refused(shared, context, (exec, digest), &hosted, error, give_up).await.map(|()| None);
        }
    };
    let started =
        ExecStarted { exec, spec: spec.clone(), env_names: env.names(), pid: connection.started.pid };
    let (durable, is_durable) = oneshot::channel();
    let pumped = Exec {
        id: exec,
        hosted: Arc::clone(&hosted),
        context: context.clone(),
        log: shared.log.clone(),
        recorded: Arc::clone(&shared.recorded),
        max_output_bytes: shared.config.max_output_bytes,
        shutdown: shared.shutdown.clone(),
    };
    hosted.pumps.spawn(pumped.pump(connection, Resume::Started { started: Box::new(started), durable }));
    Ok(Some(is_durable))
}

async fn connect(
    shared: &Shared,
    hosted: &Hosted,
    exec: ExecId,
    spec: &ExecSpec,
    env: &SecretMap,
) -> Result<ExecConnection, CallError<StartRefusal>> {
    let linger = spec.linger_ms.map_or(shared.config.linger, Duration::from_millis);
    // An agent that cannot keep the output open waits for those who hold it, as long as it always has.
    let keeps_open = hosted.agent.hello().await.is_ok_and(|hello| hello.features.has(Features::OPEN_OUTPUT));
    let start = StartExec {
        linger: keeps_open.then_some(linger),
        env: env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        tty: spec.tty.map(|size| protocol::TerminalSize { rows: size.rows, cols: size.cols }),
        timeout: spec.timeout_ms.map(Duration::from_millis),
        stdin: spec.stdin,
        secret_names: spec.secret_names.clone(),
        ..StartExec::new(exec.as_bytes().to_owned().into(), spec.argv.iter().cloned())
    };
    hosted.agent.start_exec(start).await
}

async fn refused(
    shared: &Shared,
    context: &Context,
    asked: (ExecId, Option<String>),
    hosted: &Hosted,
    error: CallError<StartRefusal>,
    give_up: bool,
) -> Result<(), Outcome> {
    let exec = asked.0;
    let mut reason = error.to_string();
    context.redaction.text(&mut reason);
    tracing::info!(exec.id = %exec, sandbox.id = %context.sandbox, error = reason, "an exec did not start");
    let (code, message) = match error {
        CallError::Refused(StartRefusal::NotStarted { kind, message }) => {
            let code = match kind {
                StartErrorKind::InvalidArgument
                | StartErrorKind::WorkingDirectory
                | StartErrorKind::UnknownUser
                | StartErrorKind::UserNotPermitted => FailureCode::Invalid,
                StartErrorKind::Terminal | StartErrorKind::Resources => FailureCode::ResourceLimit,
                // Its time is up: it starts nothing any more.
                StartErrorKind::Other => FailureCode::SandboxGone,
            };
            (code, message)
        }
        // It was started before, published as far as the agent has forgotten it, and reconciliation goes on with it.
        CallError::Refused(StartRefusal::Attach(
            AttachRefusal::Released { .. } | AttachRefusal::BeyondEnd { .. } | AttachRefusal::UnknownExec(_),
        )) => return Ok(()),
        CallError::Transport { .. } => {
            // Whether it started is unknown; the same id starts it once, so the command may come again.
            if shared.registry.get(context.sandbox).is_some_and(|hosted| !hosted.is_closing()) {
                return Err(Outcome::Retry(Duration::from_millis(500)));
            }
            (FailureCode::SandboxGone, GONE.to_owned())
        }
        // The same id starts it once, so it may be asked for again; whether it ever began stays open if that fails too.
        CallError::Silent { .. } if !give_up && !hosted.is_closing() => {
            return Err(Outcome::Retry(Duration::from_millis(500)));
        }
        CallError::Silent { .. } => {
            shared.registry.give_up(exec);
            let message = "the agent of the sandbox does not answer: whether the command began is not known";
            (FailureCode::AgentUnreachable, message.to_owned())
        }
        error @ (CallError::Crowded { .. } | CallError::Full { .. }) => {
            (FailureCode::ResourceLimit, error.to_string())
        }
        // Its hello says so: it was not asked, and asking again is no use.
        CallError::Unsupported { missing, .. } => {
            let missing = missing.names().join(", ");
            let message =
                format!("the agent of this sandbox is too old for that ({missing}): make a new sandbox");
            (FailureCode::Unsupported, message)
        }
        CallError::InvalidCall { reason, .. } => (FailureCode::Invalid, reason),
        CallError::Violation { .. } | CallError::Version { .. } => {
            (FailureCode::AgentUnreachable, "the agent of the sandbox does not answer".to_owned())
        }
    };
    // What fails in a sandbox that is being destroyed fails because of that, unless it could never have been run.
    let closing = hosted.is_closing() && code != FailureCode::Invalid;
    let (code, message) = if closing { (FailureCode::SandboxGone, GONE.to_owned()) } else { (code, message) };
    fail(shared, context, asked, code, message).await
}

async fn fail(
    shared: &Shared,
    context: &Context,
    (exec, request_digest): (ExecId, Option<String>),
    code: FailureCode,
    message: String,
) -> Result<(), Outcome> {
    let failed = ExecFailed { exec, code, message, request_digest };
    tell(shared, &[context.event_once("failed", failed)]).await
}
