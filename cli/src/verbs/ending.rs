//! What a program and a person get to know of how an exec ended.

use client::{EndRecord, ExecOutcome};

use super::error::FAILURE;
use crate::output;

/// The exit code for a command whose time was up, as in timeout(1).
const TIMED_OUT: u8 = 124;

/// What the shell gets.
pub fn exit_code(end: &EndRecord) -> u8 {
    shell_code(end.outcome == ExecOutcome::TimedOut, end.exit_code)
}

/// The same of what is known without its record.
pub fn shell_code(timed_out: bool, exit_code: Option<i32>) -> u8 {
    match exit_code {
        _ if timed_out => TIMED_OUT,
        // A shell sees the low 8 bits of any exit status. What is not 0 must not become 0.
        Some(code) => u8::try_from(code & 0xff).ok().filter(|low| *low != 0 || code == 0).unwrap_or(1),
        // Nobody knows how it ended: that is not an exit code of the command.
        None => FAILURE,
    }
}

/// What a person should know beside the output.
pub fn remark(end: &EndRecord) -> Option<String> {
    let timed_out = end.outcome == ExecOutcome::TimedOut;
    let mut remarks = Vec::new();
    if timed_out {
        remarks.push("the command's time was up, and it was ended".to_owned());
    }
    if let Some(error) = &end.error {
        remarks.push(format!("{} ({})", error.message, error.code));
    } else if end.exit_code.is_none() && !timed_out {
        remarks.push(format!("the command ended as {}", end.outcome));
    }
    if end.truncated_bytes > 0 {
        remarks.push(format!(
            "the output is cut short: {} past the limit were thrown away",
            output::bytes(end.truncated_bytes)
        ));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// Says that output is missing that was there.
pub fn gone(from: u64, to: u64) -> String {
    let missing = output::bytes(to.saturating_sub(from));
    format!("{missing} of the output are not in the record any more")
}

#[cfg(test)]
mod tests {
    use client::{ErrorBody, ErrorCode, Open};

    use super::*;

    fn end(outcome: ExecOutcome, exit_code: Option<i32>) -> EndRecord {
        EndRecord { exit_code, ..EndRecord::new("ex-1".to_owned(), outcome) }
    }

    #[test]
    fn endings_become_exit_codes() {
        for (outcome, exit_code, code) in [
            (ExecOutcome::Exited, Some(0), 0),
            (ExecOutcome::Exited, Some(7), 7),
            (ExecOutcome::Killed, Some(137), 137),
            (ExecOutcome::Exited, Some(256), 1),
            (ExecOutcome::Exited, Some(-1), 255),
            (ExecOutcome::TimedOut, Some(124), 124),
            (ExecOutcome::TimedOut, None, 124),
            (ExecOutcome::Failed, None, 125),
            (ExecOutcome::OutcomeUnknown, None, 125),
        ] {
            assert_eq!(super::exit_code(&end(outcome, exit_code)), code, "{outcome} {exit_code:?}");
        }
    }

    #[test]
    fn remarks_say_what_the_exit_code_cannot() {
        assert_eq!(remark(&end(ExecOutcome::Exited, Some(3))), None);
        let failed = EndRecord {
            error: Some(ErrorBody { code: ErrorCode::BadRequest.into(), message: "no such program".into() }),
            ..end(ExecOutcome::Failed, None)
        };
        assert_eq!(remark(&failed).unwrap(), "no such program (BAD_REQUEST)");
        assert!(remark(&end(ExecOutcome::TimedOut, Some(124))).unwrap().contains("time was up"));
        let newer = EndRecord { outcome: Open::Other("new".into()), ..end(ExecOutcome::Failed, None) };
        assert_eq!(remark(&newer).unwrap(), "the command ended as new");
        let cut = EndRecord { truncated_bytes: 2048, ..end(ExecOutcome::Exited, Some(0)) };
        assert!(remark(&cut).unwrap().contains("2.00 KiB"));
    }
}
