//! Starting an exec: listen for it first, then ask for it, so that nothing of it can be missed.

use events::{Command, CommandId, Destination, ExecId, NodeId, OutputReader, SandboxId, SandboxState};

use super::request::Runnable;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::idempotency::Idempotent;
use crate::variables::fingerprints;

/// An exec that was asked for.
pub struct Started {
    /// Its id.
    pub exec: ExecId,
    /// What it writes, and how it ends.
    pub output: OutputReader,
}

/// Asks for an exec with a fresh id.
pub async fn start_fresh(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (&SandboxState, &NodeId),
    exec: ExecId,
    runnable: Runnable,
) -> Result<OutputReader, ApiError> {
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let output = OutputReader::fresh(gateway.feed(), exec);
    ask(gateway, caller, (sandbox.id, node), CommandId::new(), exec, runnable).await?;
    Ok(output)
}

/// Asks for an exec. With an idempotency key, the exec that the key stands for: started now, running, or long ended.
pub async fn start(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (&SandboxState, &NodeId),
    mut runnable: Runnable,
    idempotent: Option<&Idempotent>,
) -> Result<Started, ApiError> {
    let Some(idempotent) = idempotent else {
        let exec = ExecId::new();
        let output = start_fresh(gateway, caller, (sandbox, node), exec, runnable).await?;
        return Ok(Started { exec, output });
    };
    let exec = ExecId::derived(&idempotent.parts());
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let recorded = gateway.store().exec(exec).await.map_err(ApiError::store)?;
    match recorded {
        Some(recorded) => {
            idempotent.check(recorded.spec.as_ref().and_then(|spec| spec.request_digest.as_deref()))?;
            let output = read(gateway, exec, 0, 0).await?;
            Ok(Started { exec, output })
        }
        None => {
            // The digest goes into the command's id too, so that another body is not taken for the same message.
            let [tenant, scope, key] = idempotent.parts();
            let command = CommandId::derived(&[tenant, scope, key, &idempotent.digest]);
            runnable.spec.request_digest = Some(idempotent.digest.clone());
            // Another request with the same key may be ahead of this one: read from the beginning.
            let output = read(gateway, exec, 0, 0).await?;
            ask(gateway, caller, (sandbox.id, node), command, exec, runnable).await?;
            Ok(Started { exec, output })
        }
    }
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
    match recorded.and_then(|state| state.spec) {
        Some(spec) => idempotent.check(spec.request_digest.as_deref()),
        // It failed before it started; there is nothing to compare.
        None => Ok(()),
    }
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

async fn ask(
    gateway: &Gateway,
    caller: &Caller,
    (sandbox, node): (SandboxId, &NodeId),
    command: CommandId,
    exec: ExecId,
    runnable: Runnable,
) -> Result<(), ApiError> {
    let Runnable { mut spec, env } = runnable;
    spec.env_hmac = fingerprints(&gateway.config().master_key, &caller.tenant, &env);
    let start = Command::StartExec { exec, spec, env };
    gateway.send(Destination::Node(node), caller, sandbox, command, start).await
}
