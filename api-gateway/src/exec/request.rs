//! The body of an exec request, and what it means.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::{ExecRequest, Tty};
use events::{ExecSpec, SecretMap, TerminalSize};
use serde::Serialize;
use spelling::parse_go_duration;

use super::quoting::shell_line;
use crate::config::ExecLimits;
use crate::error::ApiError;
use crate::variables::Variables;
pub(crate) use crate::variables::{MAX_ARG_BYTES, MAX_ENTRIES};

/// The longest working directory and the longest name of a user are shorter than this, in bytes.
pub(crate) const MAX_WORKDIR: usize = 4096;
pub(crate) const MAX_USER: usize = 256;
/// The most that a request may put into one message: it must fit into 1 MiB with all that goes with it.
const MAX_MESSAGE_BYTES: usize = 768 << 10;

/// A request that can be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Runnable {
    /// The command, and how it runs.
    pub spec: ExecSpec,
    /// The values of its environment variables, which are in no event.
    pub env: SecretMap,
}

/// Whether somebody may attach and type.
pub fn is_interactive(request: &ExecRequest) -> bool {
    request.stdin == Some(true) || matches!(request.tty, Some(Tty::Wanted(true) | Tty::Size(_)))
}

/// Checks it, with its terminal and its input. `stdin` is whether input stays open where the request does not say.
pub fn interactive(request: ExecRequest, limits: &ExecLimits, stdin: bool) -> Result<Runnable, ApiError> {
    let tty = match request.tty {
        None | Some(Tty::Wanted(false)) => None,
        Some(Tty::Wanted(true)) => Some(terminal(request.rows.unwrap_or(24), request.cols.unwrap_or(80))?),
        Some(Tty::Size(size)) => Some(terminal(size.rows, size.cols)?),
    };
    let stdin = request.stdin.unwrap_or(stdin || tty.is_some());
    let mut runnable = runnable(request, limits)?;
    runnable.spec.tty = tty;
    runnable.spec.stdin = stdin;
    Ok(runnable)
}

/// Checks it, for a run that nobody attaches to.
pub fn runnable(request: ExecRequest, limits: &ExecLimits) -> Result<Runnable, ApiError> {
    let shell = match request.mode.as_deref() {
        None | Some("" | "shell") => true,
        Some("argv") => false,
        Some(_) => return Err(ApiError::bad_request("mode must be shell or argv")),
    };
    let command = request.command.ok_or_else(|| ApiError::bad_request("command is missing"))?;
    let args = request.args.unwrap_or_default();
    // To a shell nothing is a command that does nothing.
    if command.is_empty() && !shell {
        return Err(ApiError::bad_request("command is empty: in mode argv it is a program"));
    }
    if args.len() > MAX_ENTRIES {
        return Err(ApiError::bad_request(format!("args has more than {MAX_ENTRIES} entries")));
    }
    if command.contains('\0') || args.iter().any(|arg| arg.contains('\0')) {
        return Err(ApiError::bad_request("command and args must not contain NUL characters"));
    }
    let argv = if shell {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), shell_line(&command, &args)]
    } else {
        std::iter::once(command).chain(args).collect()
    };
    if argv.iter().any(|arg| arg.len() >= MAX_ARG_BYTES) {
        return Err(ApiError::bad_request(format!(
            "Linux takes no argument of {MAX_ARG_BYTES} bytes or more: write a file and run that"
        )));
    }
    let variables = Variables::read(request.env.map(|env| env.0), request.secrets.map(|secrets| secrets.0))?;
    check_message(&(&argv, &variables.env))?;
    Ok(Runnable {
        spec: ExecSpec {
            argv,
            cwd: checked_text(request.workdir, "workdir", MAX_WORKDIR)?,
            user: checked_text(request.user, "user", MAX_USER)?,
            tty: None,
            stdin: false,
            linger_ms: linger_ms(request.linger.as_deref())?,
            timeout_ms: timeout_ms(request.timeout.as_deref(), limits)?,
            // With the tenant it is known what to fill in.
            env_hmac: BTreeMap::new(),
            secret_names: variables.secret_names,
            request_digest: None,
        },
        env: variables.env,
    })
}

/// A terminal of a size that makes sense.
pub fn terminal(rows: u16, cols: u16) -> Result<TerminalSize, ApiError> {
    if rows == 0 || cols == 0 {
        return Err(ApiError::bad_request("rows and cols must be 1 to 65535"));
    }
    Ok(TerminalSize { rows, cols })
}

/// Refuses what does not fit into one message.
pub fn check_message(parts: &impl Serialize) -> Result<(), ApiError> {
    let mut size = Counter(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut size, parts);
    if size.0 > MAX_MESSAGE_BYTES {
        return Err(ApiError::too_large(format!(
            "the request is over the limit of {MAX_MESSAGE_BYTES} bytes: large content belongs into a file"
        )));
    }
    Ok(())
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn checked_text(text: Option<String>, name: &'static str, max: usize) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if text.len() >= max || text.contains('\0') => Err(ApiError::bad_request(format!(
            "{name} must be shorter than {max} bytes and must not contain NUL characters"
        ))),
        other => Ok(other),
    }
}

fn timeout_ms(text: Option<&str>, limits: &ExecLimits) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let timeout =
        parse_go_duration(text).map_err(|error| ApiError::bad_request(format!("timeout: {error}")))?;
    if timeout.is_zero() || timeout > limits.max_timeout {
        return Err(ApiError::bad_request(format!(
            "timeout must be more than 0s and at most {}",
            spelling::format_go_duration(limits.max_timeout)
        )));
    }
    // Below a millisecond there is nothing to time.
    Ok(Some(u64::try_from(timeout.max(Duration::from_millis(1)).as_millis()).unwrap_or(u64::MAX)))
}

/// How long the end waits at most, in milliseconds, for what it left running.
const MAX_LINGER_MS: u64 = 10_000;

fn linger_ms(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let linger =
        parse_go_duration(text).map_err(|error| ApiError::bad_request(format!("linger: {error}")))?;
    match u64::try_from(linger.as_millis()) {
        Ok(linger) if linger <= MAX_LINGER_MS => Ok(Some(linger)),
        Ok(_) | Err(_) => Err(ApiError::bad_request("linger must be 0s to 10s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn read(json: &str) -> Result<Runnable, ApiError> {
        let request: ExecRequest = crate::extract::parse_object(json.as_bytes())?;
        runnable(request, &ExecLimits::default())
    }

    #[test]
    fn shell_is_the_default_mode_and_argv_is_as_it_is() {
        let argv = |json| read(json).unwrap().spec.argv;
        assert_eq!(argv(r#"{"command":"echo","args":["it's"]}"#), ["/bin/sh", "-c", r"echo 'it'\''s'"]);
        assert_eq!(argv(r#"{"command":"echo","mode":""}"#), ["/bin/sh", "-c", "echo"]);
        assert_eq!(argv(r#"{"command":""}"#), ["/bin/sh", "-c", ""]);
        assert_eq!(argv(r#"{"command":"echo","args":["$A",""],"mode":"argv"}"#), ["echo", "$A", ""]);
    }

    #[test]
    fn the_timeout_is_in_go_syntax() {
        let timeout = |json| read(json).unwrap().spec.timeout_ms;
        assert_eq!(timeout(r#"{"command":"x","timeout":"1.5s"}"#), Some(1500));
        assert_eq!(timeout(r#"{"command":"x","timeout":"1us"}"#), Some(1));
        assert_eq!(timeout(r#"{"command":"x","timeout":""}"#), None);
        assert_eq!(timeout(r#"{"command":"x","timeout":null}"#), None);
    }

    #[test]
    fn bad_requests_are_told() {
        for json in [
            r#"{}"#,
            r#"{"command":null}"#,
            r#"{"command":"","mode":"argv"}"#,
            r#"{"command":5}"#,
            r#"{"command":["echo"]}"#,
            r#"{"command":"true","args":"x"}"#,
            r#"{"command":"true","args":[1]}"#,
            r#"{"command":"true","env":["A=b"]}"#,
            r#"{"command":"true","env":{"A":1}}"#,
            r#"{"command":"true","env":{"A=B":"c"}}"#,
            r#"{"command":"true","env":{"":"c"}}"#,
            r#"{"command":"true","env":{"A":"b\u0000c"}}"#,
            r#"{"command":"true","mode":"fancy"}"#,
            r#"{"command":"true","workdir":1}"#,
            r#"{"command":"true","workdir":"/tmp\u0000"}"#,
            r#"{"command":"true","timeout":5}"#,
            r#"{"command":"true","timeout":"-1s"}"#,
            r#"{"command":"true","timeout":"0s"}"#,
            r#"{"command":"true","timeout":"25h"}"#,
            r#"{"command":"true","timeout":"1d"}"#,
            r#"{"command":"true","stream":"yes"}"#,
            r#"{"command":"a\u0000b"}"#,
            r#"{"command":"true","args":["a\u0000b"]}"#,
        ] {
            assert_eq!(read(json).unwrap_err().code(), ErrorCode::BadRequest, "{json}");
        }
    }

    #[test]
    fn a_terminal_has_a_size_and_input() {
        let spec = |json: &str| {
            let request: ExecRequest = crate::extract::parse_object(json.as_bytes()).unwrap();
            interactive(request, &ExecLimits::default(), false).map(|runnable| runnable.spec)
        };
        let tty = spec(r#"{"command":"sh","tty":true}"#).unwrap();
        assert_eq!((tty.tty, tty.stdin), (Some(TerminalSize { rows: 24, cols: 80 }), true));
        let sized = spec(r#"{"command":"sh","tty":{"rows":1,"cols":2}}"#).unwrap();
        assert_eq!(sized.tty, Some(TerminalSize { rows: 1, cols: 2 }));
        let piped = spec(r#"{"command":"cat","stdin":true,"rows":5}"#).unwrap();
        assert_eq!((piped.tty, piped.stdin), (None, true));
        let plain = spec(r#"{"command":"cat"}"#).unwrap();
        assert_eq!((plain.tty, plain.stdin), (None, false));
        assert!(spec(r#"{"command":"sh","tty":true,"rows":0}"#).is_err());
    }

    #[test]
    fn what_no_kernel_and_no_message_takes_is_refused() {
        let long = format!(r#"{{"command":"true","mode":"argv","args":["{}"]}}"#, "x".repeat(MAX_ARG_BYTES));
        assert_eq!(read(&long).unwrap_err().code(), ErrorCode::BadRequest);
        let long = format!(r#"{{"command":"true","env":{{"A":"{}"}}}}"#, "x".repeat(MAX_ARG_BYTES));
        assert_eq!(read(&long).unwrap_err().code(), ErrorCode::BadRequest);
        let part = format!("\"{}\"", "x".repeat(100 << 10));
        let many = format!(r#"{{"command":"true","mode":"argv","args":[{}]}}"#, vec![part; 8].join(","));
        assert_eq!(read(&many).unwrap_err().code(), ErrorCode::TooLarge);
    }

    #[test]
    fn secrets_do_not_show() {
        let runnable = read(r#"{"command":"true","env":{"TOKEN":"hunter2"}}"#).unwrap();
        assert!(!format!("{runnable:?}").contains("hunter2"));
    }
}
