use std::time::Duration;

use agent::client::CallError;
use agent::protocol::{self, ExecRefusal, Features, Hello, OutputEnd};
use bytes::Bytes;
use events::{EventData, ExecId, ExecResized, ExecSignaled, TerminalSize};
use tokio::time::Instant;
use transport::{FaultCode, LinkFault, LinkIncoming, LinkValue};

use super::recording::Recording;
use super::typing::Typing;
use super::{Answer, crowded, unanswered, unrecordable};
use crate::context::Context;
use crate::exec::SIGTERM;
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How long a process tree has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How often the gateway hears of input that the process does not take. Below what it takes for a broken link.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(super) fn agent_id(exec: ExecId) -> protocol::ExecId {
    exec.as_bytes().to_owned().into()
}

/// Bytes for stdin, until the gateway says that they were all.
pub(super) async fn stream(
    shared: &Shared,
    hosted: &Hosted,
    exec: ExecId,
    close: bool,
    mut recording: Option<Recording>,
    incoming: &mut LinkIncoming,
) -> Answer {
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    let is_stream = |hello: Hello| hello.features.has(Features::INPUT_STREAM);
    if hosted.agent.hello().await.is_ok_and(is_stream) {
        pass_on(shared, hosted, exec, &mut recording, incoming).await?;
    } else {
        while let Some(bytes) = incoming.read().await.map_err(broken)? {
            record(&mut recording, &bytes).await?;
            write(hosted, exec, bytes, incoming).await?;
        }
    }
    if let Some(recording) = recording {
        recording.finish().await?;
    }
    if close {
        return answer(hosted, hosted.agent.close_stdin(agent_id(exec)).await);
    }
    Ok(LinkValue::Done)
}

fn broken(error: transport::LinkError) -> LinkFault {
    LinkFault::new(FaultCode::Internal, error.to_string())
}

async fn record(recording: &mut Option<Recording>, bytes: &Bytes) -> Result<(), LinkFault> {
    match recording {
        Some(recording) => recording.take(bytes).await,
        None => Ok(()),
    }
}

/// Passes bytes on as they come, and returns when the agent has taken all of them. A process that does not read makes the gateway wait, for
/// as long as the agent itself answers.
async fn pass_on(
    shared: &Shared,
    hosted: &Hosted,
    exec: ExecId,
    recording: &mut Option<Recording>,
    incoming: &mut LinkIncoming,
) -> Result<(), LinkFault> {
    let mut typing = Typing::new(hosted, exec, &shared.inputs);
    let mut alive_at = Instant::now() + KEEP_ALIVE;
    let mut is_all = false;
    while !(is_all && typing.is_settled()) {
        let waits = !typing.is_settled();
        let rests_at = typing.rests_at();
        tokio::select! {
            read = incoming.read(), if !is_all && typing.has_room() => match read.map_err(broken)? {
                Some(bytes) => {
                    record(recording, &bytes).await?;
                    typing.push(bytes).await.map_err(|error| fault(hosted, error))?;
                    if !waits {
                        alive_at = Instant::now() + KEEP_ALIVE;
                    }
                }
                None => is_all = true,
            },
            settled = typing.settle() => settled.map_err(|error| fault(hosted, error))?,
            () = tokio::time::sleep_until(rests_at.unwrap_or(alive_at)), if rests_at.is_some() => typing.rest(),
            () = tokio::time::sleep_until(alive_at), if waits => {
                alive_at = Instant::now() + KEEP_ALIVE;
                // A gateway that is gone is noticed by the next read.
                let _ = incoming.keep_alive().await;
                hosted.agent.urgently().ping().await.map_err(|error| {
                    unanswered(hosted, &error, "input was not passed on: its agent does not answer")
                })?;
            }
        }
    }
    Ok(())
}

/// For an agent that takes no streams: a connection for each piece. Waits until it has taken it, however long the process lets it wait, as long as the agent itself answers.
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
async fn record_deed(
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
    record_deed(shared, context, hosted, exec, ExecSignaled { exec, signal, kill: false }).await?;
    answer(hosted, hosted.agent.signal_exec(agent_id(exec), signal).await)
}

pub(super) async fn resize(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    exec: ExecId,
    size: TerminalSize,
) -> Answer {
    record_deed(shared, context, hosted, exec, ExecResized { exec, size }).await?;
    let size = protocol::TerminalSize { rows: size.rows, cols: size.cols };
    answer(hosted, hosted.agent.resize_exec(agent_id(exec), size).await)
}

pub(super) async fn kill(shared: &Shared, context: &Context, hosted: &Hosted, exec: ExecId) -> Answer {
    record_deed(shared, context, hosted, exec, ExecSignaled { exec, signal: SIGTERM, kill: true }).await?;
    hosted.note_kill(exec, &context.actor);
    answer(hosted, hosted.agent.kill_exec(agent_id(exec), GRACE).await)
}

/// No more of what an exec left running is recorded. The record says so when the agent has said where it stands.
pub(super) async fn close_output(hosted: &Hosted, exec: ExecId) -> Answer {
    answer(hosted, hosted.agent.close_output(agent_id(exec), OutputEnd::Request).await)
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
