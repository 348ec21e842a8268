//! The one binary: `stacyvm serve` runs everything, `stacyvm gateway|executor|reaper|recorder|webhooks|jobs` one role each, and the rest
//! talks to a server.

mod args;
mod config;
mod db;
mod installation;
mod nats_server;
mod output;
mod roles;
mod serve;
mod stop;
mod telemetry;
mod verbs;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use args::{Args, Verb};

/// How long log lines may take that are not written when the process ends, and what it says last.
const LAST_LINES: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and versions come this way too. Where nobody reads it, there is nobody to tell.
            let _ = error.print();
            let code = verbs::usage_exit_code(std::env::args_os().skip(1));
            return if error.use_stderr() { ExitCode::from(code) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&anyhow::Error::new(error).context("cannot start"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(args));
    telemetry::flush(LAST_LINES);
    // Tasks that are blocked in a system call must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.unwrap_or_else(|error| {
        report(&error);
        ExitCode::FAILURE
    })
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = |server: &config::ServerArgs| {
        // A server has a descriptor for each client, sandbox and exec; the usual soft limit is for programs that use `select`.
        executor::raise_descriptor_limit();
        config::load(server, &Args::command())
    };
    match args.verb {
        Verb::Serve(server) => serve::run(config(&server)?).await,
        Verb::Gateway(server) => roles::gateway(config(&server)?).await,
        Verb::Executor(server) => roles::executor(config(&server)?).await,
        Verb::Reaper(server) => roles::reaper(config(&server)?).await,
        Verb::Recorder(server) => roles::record(config(&server)?).await,
        Verb::Webhooks(server) => roles::webhooks(config(&server)?).await,
        Verb::Jobs(server) => roles::jobs(config(&server)?).await,
        Verb::Db(command) => return db::run(command, args.global.output, &Args::command()).await,
        Verb::Client(command) => return verbs::run(command, args.global).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// What went wrong, with all that lies under it, on one line.
fn report(error: &anyhow::Error) {
    telemetry::say(&format!("error: {error:#}\n"), LAST_LINES);
}
