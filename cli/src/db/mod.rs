//! `stacyvm db`: looks after the database of a server on this machine.

mod backup;
mod compact;
mod restore;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::{self, Config, ServerArgs};
use crate::output::Format;
use crate::roles;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Copy the SQLite database into a new file, also while the server runs, and check the copy.
    Backup {
        /// The file to make.
        #[arg(value_name = "FILE")]
        target: PathBuf,
        #[command(flatten)]
        server: DatabaseArgs,
    },
    /// Put a copy in the place of the SQLite database. The server must be stopped.
    Restore {
        /// A file that `backup` made.
        #[arg(value_name = "FILE")]
        source: PathBuf,
        /// Also in the place of a database that holds events; that one is kept beside it.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: DatabaseArgs,
    },
    /// State that other tools put an older copy in the place of the database (`pg_restore`): signed, in the checkpoint
    /// file and at the recorder's next start in the log, so that verification knows. No server may run.
    Restored {
        #[command(flatten)]
        server: DatabaseArgs,
    },
    /// Give free space in the file of the SQLite database back. The server must be stopped.
    Compact {
        #[command(flatten)]
        server: DatabaseArgs,
    },
    /// Show what takes how much.
    Stats {
        #[command(flatten)]
        server: DatabaseArgs,
    },
}

/// Which database.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// Where state lives [default: /var/lib/stacyvm for root, else ~/.stacyvm].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [default: stacyvm.yaml in the working directory, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database to use: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl DatabaseArgs {
    fn load(self, program: &clap::Command) -> anyhow::Result<(Config, String)> {
        let Self { data_dir, config, database } = self;
        let args = ServerArgs { data_dir, config, database, ..ServerArgs::default() };
        let config = config::load(&args, program)?;
        let url = roles::database_url(&config, Some(&config.data_dir()))?;
        Ok((config, url))
    }
}

/// Carries a command out. `program` is the whole command line, whose variables the configuration must know.
pub async fn run(command: DbCommand, format: Format, program: &clap::Command) -> anyhow::Result<ExitCode> {
    // A copy of the log is nobody else's to read either.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match command {
        DbCommand::Backup { target, server } => {
            let (_, url) = server.load(program)?;
            backup::run(&url, &target, format).await
        }
        DbCommand::Restore { source, force, server } => {
            let (config, url) = server.load(program)?;
            restore::run(&config, &url, &source, force, format).await
        }
        DbCommand::Restored { server } => {
            let (config, url) = server.load(program)?;
            restore::restored(&config, &url).await
        }
        DbCommand::Compact { server } => {
            let (config, url) = server.load(program)?;
            compact::run(&config, &url, format).await
        }
        DbCommand::Stats { server } => {
            let (_, url) = server.load(program)?;
            stats::run(&url, format).await
        }
    }
    .map(|()| ExitCode::SUCCESS)
}
