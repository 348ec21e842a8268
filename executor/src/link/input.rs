use std::time::Duration;

use agent::client::CallError;
use agent::protocol::{self, ExecRefusal};
use bytes::Bytes;
use events::{EventData, ExecId, ExecResized, ExecSignaled, TerminalSize};
use transport::{FaultCode, LinkFault, LinkIncoming, LinkValue};

use super::recording::Recording;
use super::{Answer, crowded, unanswered, unrecordable};
use crate::context::Context;
use crate::exec::SIGTERM;
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How long a process tree has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How often the gateway hears of input that the process does not take. Below what it takes for a broken link.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

fn agent_id(exec: ExecId) -> protocol::ExecId {
    exec.as_bytes().to_owned().into()
}

/// Bytes for stdin, until the gateway says that they were all. Each piece is the agent's before the next is taken.
pub(super) async fn stream(
    hosted: &Hosted,
    exec: ExecId,
    close: bool,
    mut recording: Option<Recording>,
    incoming: &mut LinkIncoming,
) -> Answer {
    let broken = |error: transport::LinkError| LinkFault::new(FaultCode::Internal, error.to_string());
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    while let Some(bytes) = incoming.read().await.map_err(broken)? {
        if let Some(recording) = &mut recording {
            recording.take(&bytes).await?;
        }
        write(hosted, exec, bytes, incoming).await?;
    }
    if let Some(recording) = recording {
        recording.finish().await?;
    }
    if close {
        return answer(hosted, hosted.agent.close_stdin(agent_id(exec)).await);
    }
    Ok(LinkValue::Done)
}

/// Waits until the agent has taken a piece, however long the process lets it wait, as long as the agent itself answers.
async fn write(
    hosted: &Hosted,
    exec: ExecId,
    bytes: Bytes,
    incoming: &mut LinkIncoming,
) -> Result<(), LinkFault> {
    let written = hosted.agent.write_stdin(agent_id(exec), None, bytes);
    tokio::pin!(written);
    loop {
        tokio::select! {
            written = &mut written => return written.map_err(|error| fault(hosted, error)),
            () = tokio::time::sleep(KEEP_ALIVE) => {
                // A gateway that is gone is noticed by the next read.
                let _ = incoming.keep_alive().await;
                hosted.agent.urgently().ping().await.map_err(|error| {
                    unanswered(hosted, &error, "input was not passed on: its agent does not answer")
                })?;
            }
        }
    }
}

/// What a client does to an exec is in the log before it is done: an audit must not miss what had an effect.
async fn tell(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    exec: ExecId,
    data: impl Into<EventData>,
) -> Result<(), LinkFault> {
    hosted.keep_in_order(exec);
    shared.log.publish(&[context.event(data)]).await.map_err(|error| {
        tracing::warn!(sandbox.id = %context.sandbox, error = %error, "not recorded, so not done");
        unrecordable()
    })
}

pub(super) async fn signal(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    exec: ExecId,
    signal: i32,
) -> Answer {
    tell(shared, context, hosted, exec, ExecSignaled { exec, signal, kill: false }).await?;
    answer(hosted, hosted.agent.signal_exec(agent_id(exec), signal).await)
}

pub(super) async fn resize(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    exec: ExecId,
    size: TerminalSize,
) -> Answer {
    tell(shared, context, hosted, exec, ExecResized { exec, size }).await?;
    let size = protocol::TerminalSize { rows: size.rows, cols: size.cols };
    answer(hosted, hosted.agent.resize_exec(agent_id(exec), size).await)
}

pub(super) async fn kill(shared: &Shared, context: &Context, hosted: &Hosted, exec: ExecId) -> Answer {
    tell(shared, context, hosted, exec, ExecSignaled { exec, signal: SIGTERM, kill: true }).await?;
    hosted.note_kill(exec, &context.actor);
    answer(hosted, hosted.agent.kill_exec(agent_id(exec), GRACE).await)
}

fn answer(hosted: &Hosted, outcome: Result<(), CallError<ExecRefusal>>) -> Answer {
    outcome.map(|()| LinkValue::Done).map_err(|error| fault(hosted, error))
}

fn fault(hosted: &Hosted, error: CallError<ExecRefusal>) -> LinkFault {
    match error {
        CallError::Refused(refusal) => {
            let code = match refusal {
                ExecRefusal::UnknownExec(_) | ExecRefusal::Ended | ExecRefusal::StdinClosed => {
                    FaultCode::ExecGone
                }
                ExecRefusal::NoTerminal => FaultCode::Unsupported,
                ExecRefusal::InvalidSignal(_) | ExecRefusal::StdinGap { .. } => FaultCode::InvalidPath,
            };
            LinkFault::new(code, refusal.to_string())
        }
        error @ (CallError::Crowded { .. } | CallError::Full { .. }) => crowded(&error),
        error @ CallError::Unsupported { .. } => LinkFault::new(FaultCode::Unsupported, error.to_string()),
        error @ (CallError::Transport { .. }
        | CallError::Silent { .. }
        | CallError::InvalidCall { .. }
        | CallError::Violation { .. }
        | CallError::Version { .. }) => unanswered(hosted, &error, "input was not passed on"),
    }
}
