//! Execs: runs of commands in sandboxes.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::hidden::Environment;
use crate::records::is_zero;
use crate::word::{Open, words};

words! {
    /// Where an exec stands, or how it ended.
    ExecState {
        /// It was asked for and has not begun.
        Pending => "pending",
        /// It runs.
        Running => "running",
        /// It left by itself, or by a signal that nobody sent to end it.
        Exited => "exited",
        /// Its time was up.
        TimedOut => "timed_out",
        /// Its end was asked for.
        Killed => "killed",
        /// It could not be run.
        Failed => "failed",
        /// Nobody can say how it ended.
        OutcomeUnknown => "outcome_unknown",
    }
}

words! {
    /// Who or what asks an exec to end.
    EndCause {
        /// A client asked for the end of this exec.
        Request => "request",
        /// Its sandbox ends: it was destroyed, or its deadline passed.
        Sandbox => "sandbox",
    }
}

words! {
    /// Why the output of an exec was closed that had ended with it open.
    OutputCloseReason {
        /// Whatever held it open has closed it or has ended.
        Eof => "eof",
        /// A client closed it. What holds it open goes on, and what it writes is thrown away.
        Request => "request",
        /// More execs of the sandbox had left their output open than are kept, and this was the oldest of them.
        TooMany => "too_many",
        /// The limit of the exec's output was reached.
        Limit => "limit",
        /// The sandbox ended.
        Sandbox => "sandbox",
    }
}

/// How the output of an exec was closed after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputClosed {
    /// Why.
    #[cfg_attr(feature = "openapi", schema(value_type = OutputCloseReason))]
    pub reason: Open<OutputCloseReason>,
    /// When.
    pub at: DateTime<Utc>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TerminalSize {
    /// The height.
    pub rows: u16,
    /// The width.
    pub cols: u16,
}

/// An exec, as the record knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exec {
    /// Its id.
    pub id: String,
    /// Where it runs.
    pub sandbox_id: String,
    /// Where it stands, or how it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = ExecState))]
    pub state: Open<ExecState>,
    /// As in a shell; absent while it runs, and where nothing ran to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The working directory, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The terminal's size, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// Whether it was started with its stdin open.
    pub stdin: bool,
    /// When it started; when it was asked for, while it is pending.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it ran, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes of stdout in the record.
    pub stdout_bytes: u64,
    /// Bytes of stderr in the record.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were thrown away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// `true`: the memory of the sandbox was used up, and the kernel ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// `true`: it has ended, and something that it left running holds its output open. What that writes is recorded as output of this
    /// exec, until it is closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_open: bool,
    /// How the output was closed of one that had ended with it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_closed: Option<OutputClosed>,
    /// Why it did not run, or why nobody can say how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// That it was asked to end. How it ended after that is told above: it may have left by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedToEnd>,
    /// Where it is read, watched and fed.
    pub links: ExecLinks,
}

impl Exec {
    /// Whether it runs on a terminal.
    pub const fn has_terminal(&self) -> bool {
        self.tty.is_some()
    }

    /// Whether it has come to an end. What a newer server calls by another name is taken for one.
    pub fn has_ended(&self) -> bool {
        self.state != ExecState::Pending && self.state != ExecState::Running
    }
}

/// Who or what asked an exec to end, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AskedToEnd {
    /// Because of what.
    #[cfg_attr(feature = "openapi", schema(value_type = EndCause))]
    pub cause: Open<EndCause>,
    /// Who asked, as events name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The signal that it was sent first.
    pub signal: i32,
}

/// Paths about one exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecLinks {
    /// The exec itself.
    #[serde(rename = "self")]
    pub itself: String,
    /// Its output as raw bytes.
    pub output: String,
    /// Its output as NDJSON.
    pub stream: String,
    /// A WebSocket to watch it and to type.
    pub attach: String,
}

impl ExecLinks {
    /// The paths about this exec.
    pub fn of(exec: impl fmt::Display) -> Self {
        let path = format!("/api/v1/execs/{exec}");
        Self {
            output: format!("{path}/output"),
            stream: format!("{path}/stream"),
            attach: format!("{path}/attach"),
            itself: path,
        }
    }
}

/// A page of execs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecList {
    /// The newest first.
    pub execs: Vec<Exec>,
    /// What to send as `before` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a sync exec gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecReply {
    /// The exec.
    pub exec_id: String,
    /// As in a shell: 128 plus the number of the signal that ended it.
    pub exit_code: i32,
    /// What it wrote to stdout, with U+FFFD in place of bytes that are not UTF-8.
    pub stdout: String,
    /// The same for stderr.
    pub stderr: String,
    /// How long it ran, as a Go duration.
    #[cfg_attr(feature = "openapi", schema(example = "1.002s"))]
    pub duration: String,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Bytes past the output limit, which were thrown away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// `true`: the memory of the sandbox was used up, and the kernel ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
}

/// What a detached exec is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detached {
    /// The exec.
    pub exec_id: String,
    /// `pending`; of a repeated request with the same `Idempotency-Key`, whatever it is by now.
    #[cfg_attr(feature = "openapi", schema(value_type = ExecState))]
    pub state: Open<ExecState>,
    /// Where it is read, watched and fed.
    pub links: ExecLinks,
}

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecRequest {
    /// A line for `/bin/sh -c`, or in mode `argv` the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "echo hello"))]
    pub command: Option<String>,
    /// Arguments. In shell mode they are quoted and appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// `shell` (the default) or `argv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Environment variables, over those of the sandbox. Their values are in no event and in no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub env: Option<Environment>,
    /// More of them, whose values are masked with `*` in whatever the command writes. Each of at least 4 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub secrets: Option<Environment>,
    /// The working directory; `/workspace` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// When to end it, as a Go duration (`30s`). A sync exec has a default, a stream has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How long its end waits for what it left running in the background to close its output, as a Go duration of 0s to 10s; the server
    /// has a default. What is written after that is recorded as its output, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger: Option<String>,
    /// Whether to answer with NDJSON while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// `uid`, `uid:gid` or a name from the sandbox's /etc/passwd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether to answer with the exec's id at once, before it begins. Such an exec runs until it ends; it is watched,
    /// fed and ended by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detach: Option<bool>,
    /// A terminal instead of pipes: `true` or `{"rows","cols"}`. Only where somebody can attach: with `detach`, and over
    /// a WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<bool>))]
    pub tty: Option<Tty>,
    /// The height of the terminal; 24 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// The width of the terminal; 80 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
    /// Whether stdin stays open for input. Only with `detach` and over a WebSocket; always with a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
}

impl ExecRequest {
    /// A program with its arguments, without a shell.
    ///
    /// ```
    /// use api_types::ExecRequest;
    ///
    /// let request = ExecRequest::argv(["echo", "a b"]).env("LANG", "C.UTF-8").timeout("30s");
    /// let json = serde_json::to_string(&request)?;
    /// assert_eq!(json, r#"{"command":"echo","args":["a b"],"mode":"argv","env":{"LANG":"C.UTF-8"},"timeout":"30s"}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut words = words.into_iter().map(Into::into);
        Self {
            command: words.next(),
            args: Some(words.collect::<Vec<_>>()).filter(|args| !args.is_empty()),
            mode: Some("argv".to_owned()),
            ..Self::default()
        }
    }

    /// A line for `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self { command: Some(line.into()), mode: Some("shell".to_owned()), ..Self::default() }
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.get_or_insert_default().insert(name.into(), value.into());
        self
    }

    /// Adds one whose value is masked in all that is recorded.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.get_or_insert_default().insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// Sets when it is ended, as a Go duration (`30s`, `1h30m`).
    pub fn timeout(mut self, timeout: impl Into<String>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// Keeps stdin open for input, where somebody attaches.
    pub fn stdin(mut self) -> Self {
        self.stdin = Some(true);
        self
    }

    /// Gives it a terminal of this size, where somebody attaches.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        (self.stdin, self.tty) = (Some(true), Some(Tty::Size(size)));
        self
    }
}

/// Whether there is a terminal, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tty {
    /// Of the size that `rows` and `cols` say.
    Wanted(bool),
    /// Of this size.
    Size(TerminalSize),
}

impl Serialize for Tty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Wanted(wanted) => wanted.serialize(serializer),
            Self::Size(size) => size.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Tty {
    /// By hand, because an untagged enum would swallow the fields that it does not know.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tty;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or {\"rows\",\"cols\"}")
            }

            fn visit_bool<E>(self, wanted: bool) -> Result<Tty, E> {
                Ok(Tty::Wanted(wanted))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tty, A::Error> {
                TerminalSize::deserialize(MapAccessDeserializer::new(map)).map(Tty::Size)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_wanted_or_has_a_size() {
        for (json, tty) in [
            ("true", Tty::Wanted(true)),
            ("false", Tty::Wanted(false)),
            (r#"{"rows":3,"cols":4}"#, Tty::Size(TerminalSize { rows: 3, cols: 4 })),
        ] {
            assert_eq!(serde_json::from_str::<Tty>(json).unwrap(), tty);
            assert_eq!(serde_json::to_string(&tty).unwrap(), json);
        }
        assert!(serde_json::from_str::<Tty>("3").is_err());
    }

    #[test]
    fn only_what_was_said_is_asked_for() {
        let json = |request: &ExecRequest| serde_json::to_string(request).unwrap();
        assert_eq!(json(&ExecRequest::argv(["sh"])), r#"{"command":"sh","mode":"argv"}"#);
        assert_eq!(json(&ExecRequest::shell("a b")), r#"{"command":"a b","mode":"shell"}"#);
        let terminal = ExecRequest::argv(["sh"]).terminal(TerminalSize { rows: 3, cols: 4 });
        assert_eq!(
            json(&terminal),
            r#"{"command":"sh","mode":"argv","tty":{"rows":3,"cols":4},"stdin":true}"#
        );
    }

    #[test]
    fn a_newer_server_breaks_nothing() {
        let exec: Exec = serde_json::from_str(
            r#"{"id":"ex-1","sandbox_id":"sb-1","state":"hibernated","stdin":false,"mood":"new",
                "asked":{"cause":"quota","signal":15},"started_at":"2026-01-02T03:04:05Z","stdout_bytes":0,
                "stderr_bytes":0,"links":{"self":"/a","output":"/b","stream":"/c","attach":"/d","more":"/e"}}"#,
        )
        .unwrap();
        assert_eq!(exec.state.as_str(), "hibernated");
        assert_eq!(exec.asked.unwrap().cause.as_str(), "quota");
    }
}
