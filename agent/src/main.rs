//! PID 1 of a sandbox: runs processes, keeps their output until it is safe elsewhere, serves files,
//! and ends the sandbox at its deadline. See `agent::protocol` for what it understands.

mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match server::Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("stacyvm-agent: {error}\n{}", server::USAGE);
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
