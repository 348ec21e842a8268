//! PID 1 of a sandbox: runs processes, keeps their output until it is safe elsewhere, serves files,
//! and ends the sandbox at its deadline. On the host it removes what sandboxes leave. See `agent::protocol` for what it understands.

mod removal;
mod server;

use std::io::Write as _;
use std::process::ExitCode;

const VERSION_USAGE: &str = "       stacyvm-agent --version";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--remove").is_some() {
        return removal::run(arguments);
    }
    if arguments.peek().is_some_and(|argument| argument == "--version") {
        return match writeln!(std::io::stdout(), "{}", agent::version()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let options = match server::Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("stacyvm-agent: {error}\n{}\n{}\n{VERSION_USAGE}", server::USAGE, removal::USAGE);
            return ExitCode::from(2);
        }
    };
    match server::run(options) {
        Ok(server::Ending::Shutdown) => ExitCode::SUCCESS,
        Ok(server::Ending::Deadline) => ExitCode::from(3),
        Err(error) => {
            eprintln!("stacyvm-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
