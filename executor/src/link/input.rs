use std::time::Duration;

use agent::client::CallError;
use agent::protocol::{self, ExecRefusal};
use events::{ErrorChain, ExecId, FaultCode, LinkFault, LinkIncoming, LinkValue, TerminalSize};

use super::recording::Recording;
use super::{Answer, internal};
use crate::hosted::Hosted;

/// How long a process tree has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

fn agent_id(exec: ExecId) -> protocol::ExecId {
    exec.as_bytes().to_owned().into()
}

/// Bytes for stdin, until the gateway says that they were all.
pub(super) async fn stream(
    hosted: &Hosted,
    exec: ExecId,
    mut recording: Option<Recording>,
    incoming: &mut LinkIncoming,
) -> Answer {
    let broken = |error: events::LinkError| LinkFault::new(FaultCode::Internal, error.to_string());
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    while let Some(bytes) = incoming.read().await.map_err(broken)? {
        if let Some(recording) = &mut recording {
            recording.take(&bytes).await?;
        }
        hosted.agent.write_stdin(agent_id(exec), None, bytes).await.map_err(|error| fault(hosted, error))?;
    }
    if let Some(recording) = recording {
        recording.finish().await?;
    }
    answer(hosted, hosted.agent.close_stdin(agent_id(exec)).await)
}

pub(super) async fn signal(hosted: &Hosted, exec: ExecId, signal: i32) -> Answer {
    answer(hosted, hosted.agent.signal_exec(agent_id(exec), signal).await)
}

pub(super) async fn resize(hosted: &Hosted, exec: ExecId, size: TerminalSize) -> Answer {
    let size = protocol::TerminalSize { rows: size.rows, cols: size.cols };
    answer(hosted, hosted.agent.resize_exec(agent_id(exec), size).await)
}

pub(super) async fn kill(hosted: &Hosted, exec: ExecId) -> Answer {
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
        error @ (CallError::Transport { .. }
        | CallError::InvalidCall { .. }
        | CallError::Violation { .. }
        | CallError::Version { .. }) => {
            tracing::warn!(sandbox.id = %hosted.id, error = %ErrorChain(&error), "input was not passed on");
            internal()
        }
    }
}
