//! What a program and a person get to know of how an exec ended.

use client::ExecEnd;

use super::error::FAILURE;
use crate::output;

/// The exit code for a command whose time was up, as in timeout(1).
const TIMED_OUT: u8 = 124;

/// What the shell gets.
pub fn exit_code(end: &ExecEnd) -> u8 {
    match end.exit_code {
        _ if end.outcome == "timed_out" => TIMED_OUT,
        // A shell sees the low 8 bits of any exit status. What is not 0 must not become 0.
        Some(code) => u8::try_from(code & 0xff).ok().filter(|low| *low != 0 || code == 0).unwrap_or(1),
        // Nobody knows how it ended: that is not an exit code of the command.
        None => FAILURE,
    }
}

/// What a person should know beside the output.
pub fn remark(end: &ExecEnd) -> Option<String> {
    let mut remarks = Vec::new();
    if end.outcome == "timed_out" {
        remarks.push("the command's time was up, and it was ended".to_owned());
    }
    if let Some(error) = &end.error {
        remarks.push(format!("{} ({})", error.message, error.code));
    } else if end.exit_code.is_none() && end.outcome != "timed_out" {
        remarks.push(match end.outcome.as_str() {
            "" => "the server did not say how the command ended".to_owned(),
            outcome => format!("the command ended as {outcome}"),
        });
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
    use client::Record;

    use super::*;

    fn end(json: &str) -> ExecEnd {
        match Record::read(json.as_bytes()).unwrap() {
            Some(Record::Ended(end)) => end,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn endings_become_exit_codes() {
        for (json, code) in [
            (r#"{"exec_id":"ex-1","outcome":"exited","exit_code":0,"stdout_bytes":3,"stderr_bytes":0}"#, 0),
            (r#"{"outcome":"exited","exit_code":7}"#, 7),
            (r#"{"outcome":"killed","exit_code":137,"signal":9}"#, 137),
            (r#"{"outcome":"exited","exit_code":256}"#, 1),
            (r#"{"outcome":"exited","exit_code":-1}"#, 255),
            (r#"{"outcome":"timed_out","exit_code":124}"#, 124),
            (r#"{"outcome":"timed_out"}"#, 124),
            (r#"{"outcome":"failed","error":{"code":"BAD_REQUEST","message":"no such program"}}"#, 125),
            (r#"{"type":"done"}"#, 125),
            (r#"{"type":"exit","exit_code":5}"#, 5),
        ] {
            assert_eq!(exit_code(&end(json)), code, "{json}");
        }
    }

    #[test]
    fn remarks_say_what_the_exit_code_cannot() {
        let remark = |json: &str| remark(&end(json));
        assert_eq!(remark(r#"{"outcome":"exited","exit_code":3}"#), None);
        assert_eq!(
            remark(r#"{"outcome":"failed","error":{"code":"BAD_REQUEST","message":"no such program"}}"#)
                .unwrap(),
            "no such program (BAD_REQUEST)"
        );
        assert_eq!(
            remark(r#"{"type":"error","code":"NOT_FOUND","message":"sandbox not found"}"#).unwrap(),
            "sandbox not found (NOT_FOUND)"
        );
        assert!(remark(r#"{"outcome":"timed_out","exit_code":124}"#).unwrap().contains("time was up"));
        assert_eq!(remark(r#"{"outcome":"new"}"#).unwrap(), "the command ended as new");
        let cut = remark(r#"{"outcome":"exited","exit_code":0,"truncated_bytes":2048}"#).unwrap();
        assert!(cut.contains("2.00 KiB"), "{cut}");
    }
}
