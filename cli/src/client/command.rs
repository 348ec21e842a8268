//! What to run, and how, from the command line to the request.

use std::collections::BTreeMap;

use serde::Serialize;

use super::arguments::EnvPair;
use super::error::ClientError;
use super::terminal::{self, Size};

/// How a command shall run.
#[derive(Debug, Clone, clap::Args)]
pub struct CommandArgs {
    /// Environment variable for the command; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// The same for a secret: its value is masked in all that is recorded. NAME alone keeps it out of the command line.
    #[arg(long, value_name = "NAME=VALUE")]
    pub secret: Vec<EnvPair>,
    /// Working directory [default: /workspace].
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// End the command after this time (30s, 1h30m); the exit code is then 124.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Pass stdin on to the command.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the command a terminal: this one. Implies --interactive.
    #[arg(long, short)]
    pub tty: bool,
    /// Hand the command to /bin/sh -c; further words are quoted and appended.
    #[arg(long)]
    pub shell: bool,
    /// Write output to a terminal as it is, also what would ask it something or set the clipboard. With --tty it always is.
    #[arg(long)]
    pub raw: bool,
}

/// The body of an exec request.
#[derive(Debug, Clone, Serialize)]
pub struct ExecRequest {
    command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    mode: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    stream: bool,
    #[serde(skip_serializing_if = "is_false")]
    detach: bool,
    #[serde(skip_serializing_if = "is_false")]
    stdin: bool,
    #[serde(skip_serializing_if = "is_false")]
    tty: bool,
    #[serde(flatten)]
    size: Option<Size>,
}

fn map(pairs: &[EnvPair]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What the command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// Our stdin.
    Stdin,
    /// The keys of our terminal.
    Terminal,
}

impl CommandArgs {
    /// What it shall read.
    pub const fn input(&self) -> Input {
        match (self.tty, self.interactive) {
            (true, _) => Input::Terminal,
            (false, true) => Input::Stdin,
            (false, false) => Input::Nothing,
        }
    }
}

impl ExecRequest {
    /// The request that the command line means.
    pub fn new(mut words: Vec<String>, args: &CommandArgs) -> Result<Self, ClientError> {
        if words.is_empty() {
            return Err(ClientError::Usage("the command is missing: put it after --".to_owned()));
        }
        let command = words.remove(0);
        Ok(Self {
            command,
            args: words,
            mode: if args.shell { "shell" } else { "argv" },
            env: map(&args.env),
            secrets: map(&args.secret),
            workdir: args.workdir.clone(),
            timeout: args.timeout.clone(),
            stream: true,
            detach: false,
            stdin: false,
            tty: false,
            size: None,
        })
    }

    /// The same command, which is left running at once: its output is read and its input is given by its id.
    pub fn detached(mut self, input: Input) -> Self {
        (self.stream, self.detach) = (false, true);
        match input {
            Input::Nothing => {}
            Input::Stdin => self.stdin = true,
            Input::Terminal => {
                (self.stdin, self.tty, self.size) = (true, true, Some(terminal::size()));
                // Programs look there for what our terminal can do.
                if let Some(term) = std::env::var("TERM").ok().filter(|term| !term.is_empty()) {
                    self.env.entry("TERM".to_owned()).or_insert(term);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CommandArgs {
        CommandArgs {
            env: Vec::new(),
            secret: Vec::new(),
            workdir: None,
            timeout: None,
            interactive: false,
            tty: false,
            shell: false,
            raw: false,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn argv_is_the_default_and_shell_is_asked_for() {
        let json = |args: &CommandArgs| {
            serde_json::to_string(&ExecRequest::new(words(&["echo", "a b"]), args).unwrap()).unwrap()
        };
        assert_eq!(json(&args()), r#"{"command":"echo","args":["a b"],"mode":"argv","stream":true}"#);
        let full = CommandArgs {
            env: vec!["A=1".parse().unwrap(), "A=2".parse().unwrap()],
            secret: vec!["S=2345".parse().unwrap()],
            workdir: Some("/tmp".to_owned()),
            timeout: Some("3s".to_owned()),
            interactive: true,
            tty: false,
            shell: true,
            raw: false,
        };
        assert_eq!(
            json(&full),
            r#"{"command":"echo","args":["a b"],"mode":"shell","env":{"A":"2"},"secrets":{"S":"2345"},"workdir":"/tmp","timeout":"3s","stream":true}"#
        );
        let detached = ExecRequest::new(words(&["sh"]), &args()).unwrap().detached(Input::Stdin);
        assert_eq!(
            serde_json::to_string(&detached).unwrap(),
            r#"{"command":"sh","mode":"argv","detach":true,"stdin":true}"#
        );
        let terminal = ExecRequest::new(words(&["sh"]), &args()).unwrap().detached(Input::Terminal);
        let terminal = serde_json::to_value(&terminal).unwrap();
        assert_eq!((&terminal["tty"], &terminal["stdin"]), (&true.into(), &true.into()));
        assert!(terminal["rows"].as_u64() > Some(0) && terminal["cols"].as_u64() > Some(0), "{terminal}");
        assert!(matches!(ExecRequest::new(Vec::new(), &args()), Err(ClientError::Usage(_))));
    }
}
