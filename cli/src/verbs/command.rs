//! What to run, and how, from the command line to the request.

use std::collections::BTreeMap;

use client::ExecRequest;

use super::arguments::EnvPair;
use super::error::VerbError;
use super::terminal;

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

pub fn map(pairs: &[EnvPair]) -> Option<BTreeMap<String, String>> {
    let map: BTreeMap<_, _> = pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    (!map.is_empty()).then_some(map)
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

/// The request that the command line means.
pub fn request(words: Vec<String>, args: &CommandArgs) -> Result<ExecRequest, VerbError> {
    if words.is_empty() {
        return Err(VerbError::Usage("the command is missing: put it after --".to_owned()));
    }
    let mut request = ExecRequest::argv(words);
    if args.shell {
        request.mode = Some("shell".to_owned());
    }
    request.env = map(&args.env).map(Into::into);
    request.secrets = map(&args.secret).map(Into::into);
    request.workdir = args.workdir.clone();
    request.timeout = args.timeout.clone();
    Ok(request)
}

/// The same command, which is fed so.
pub fn fed(request: ExecRequest, input: Input) -> ExecRequest {
    match input {
        Input::Nothing => request,
        Input::Stdin => request.stdin(),
        Input::Terminal => {
            let mut request = request.terminal(terminal::size());
            // Programs look there for what our terminal can do.
            if let Some(term) = std::env::var("TERM").ok().filter(|term| !term.is_empty()) {
                request.env.get_or_insert_default().entry("TERM".to_owned()).or_insert(term);
            }
            request
        }
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
            serde_json::to_string(&request(words(&["echo", "a b"]), args).unwrap()).unwrap()
        };
        assert_eq!(json(&args()), r#"{"command":"echo","args":["a b"],"mode":"argv"}"#);
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
            r#"{"command":"echo","args":["a b"],"mode":"shell","env":{"A":"2"},"secrets":{"S":"2345"},"workdir":"/tmp","timeout":"3s"}"#
        );
        let piped = fed(request(words(&["sh"]), &args()).unwrap(), Input::Stdin);
        assert_eq!(serde_json::to_string(&piped).unwrap(), r#"{"command":"sh","mode":"argv","stdin":true}"#);
        let terminal = fed(request(words(&["sh"]), &args()).unwrap(), Input::Terminal);
        let terminal = serde_json::to_value(&terminal).unwrap();
        assert_eq!(terminal["stdin"], true);
        let size = |name: &str| terminal["tty"][name].as_u64();
        assert!(size("rows") > Some(0) && size("cols") > Some(0), "{terminal}");
        assert!(matches!(request(Vec::new(), &args()), Err(VerbError::Usage(_))));
    }
}
