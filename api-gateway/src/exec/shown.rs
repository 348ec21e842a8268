//! An exec, as clients see it.

use std::time::Duration;

use api_types::{AskedToEnd, Exec, ExecLinks, OutputCloseReason, OutputClosed, TerminalSize};
use events::{Asked, EndCause, ExecEnd, ExecState};
use spelling::format_go_duration;

/// The word of the API for where an exec stands.
pub fn state_name(state: &ExecState) -> api_types::ExecState {
    use api_types::ExecState as Word;
    match &state.end {
        Some(ExecEnd::Exited { .. }) => Word::Exited,
        Some(ExecEnd::TimedOut { .. }) => Word::TimedOut,
        Some(ExecEnd::Killed { .. }) => Word::Killed,
        Some(ExecEnd::Failed { .. }) => Word::Failed,
        Some(ExecEnd::OutcomeUnknown { .. }) => Word::OutcomeUnknown,
        None if state.pending => Word::Pending,
        None => Word::Running,
    }
}

/// The exec as clients see it.
pub fn shown(state: &ExecState) -> Exec {
    let end = state.end.as_ref();
    let ended = end.and_then(ExecEnd::ended);
    let (signal, ended_at, message) = match end {
        None => (None, None, None),
        Some(ExecEnd::Exited { signal, at, .. }) => (*signal, Some(*at), None),
        Some(ExecEnd::Killed { signal, at, .. }) => (Some(*signal), Some(*at), None),
        Some(ExecEnd::TimedOut { signal, at, .. }) => (*signal, Some(*at), None),
        Some(ExecEnd::Failed { message, at, .. } | ExecEnd::OutcomeUnknown { message, at }) => {
            (None, Some(*at), Some(message.clone()))
        }
    };
    let spec = state.spec.as_ref();
    Exec {
        id: state.id.to_string(),
        sandbox_id: state.sandbox.to_string(),
        state: state_name(state).into(),
        exit_code: end.and_then(ExecEnd::exit_code),
        signal,
        argv: spec.map(|spec| spec.argv.clone()).unwrap_or_default(),
        workdir: spec.and_then(|spec| spec.cwd.clone()),
        tty: spec.and_then(|spec| spec.tty).map(|size| TerminalSize { rows: size.rows, cols: size.cols }),
        stdin: spec.is_some_and(|spec| spec.stdin),
        started_at: state.started_at,
        ended_at,
        duration: ended.map(|ended| format_go_duration(Duration::from_micros(ended.duration_us))),
        stdout_bytes: state.stdout_bytes,
        stderr_bytes: state.stderr_bytes,
        truncated_bytes: match &state.output_closed {
            Some(closed) => closed.truncated_bytes,
            None => ended.map_or(0, |ended| ended.truncated_bytes),
        },
        oom: ended.is_some_and(|ended| ended.oom),
        output_open: state.output_open,
        output_closed: state.output_closed.as_ref().map(output_closed),
        message,
        asked: state.asked.as_ref().map(asked_to_end),
        links: ExecLinks::of(state.id),
    }
}

fn output_closed(closed: &events::OutputClosed) -> OutputClosed {
    let reason = match closed.reason {
        events::OutputCloseReason::Eof => OutputCloseReason::Eof,
        events::OutputCloseReason::Request => OutputCloseReason::Request,
        events::OutputCloseReason::TooMany => OutputCloseReason::TooMany,
        events::OutputCloseReason::Limit => OutputCloseReason::Limit,
        events::OutputCloseReason::Sandbox => OutputCloseReason::Sandbox,
    };
    OutputClosed { reason: reason.into(), at: closed.at }
}

fn asked_to_end(asked: &Asked) -> AskedToEnd {
    let Asked { cause, by, signal } = asked;
    let cause = match cause {
        EndCause::Request => api_types::EndCause::Request,
        EndCause::Sandbox => api_types::EndCause::Sandbox,
    };
    AskedToEnd { cause: cause.into(), by: by.as_ref().map(ToString::to_string), signal: *signal }
}
