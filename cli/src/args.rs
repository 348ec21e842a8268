use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::db::DbCommand;
use crate::verbs::{ClientCommand, GlobalOptions};

/// Self-hosted sandboxes for generated code, built on an event log.
#[derive(Debug, Parser)]
#[command(name = "stacyvm", version, propagate_version = true)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run everything in one process: gateway, executor, reaper, recorder, webhooks, SQLite and a nats-server of its own.
    Serve(ServerArgs),
    /// Run the gateway alone: REST, WebSocket and SSE, against given NATS and Postgres.
    Gateway(ServerArgs),
    /// Run the executor of this node alone: makes sandboxes and runs work in them.
    Executor(ServerArgs),
    /// Run the reaper alone: ends what has outlived its time. Any number may run.
    Reaper(ServerArgs),
    /// Run the recorder alone: writes the event store.
    Recorder(ServerArgs),
    /// Run the deliverer of webhooks alone. Of any number, one works.
    Webhooks(ServerArgs),
    /// Look after the database: back up, restore, compact, measure.
    #[command(subcommand)]
    Db(DbCommand),
    #[command(flatten)]
    Client(ClientCommand),
}

/// What a server process is told on the command line, over everything else.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerArgs {
    /// Address and port to listen on [default: 127.0.0.1:7423].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where state lives [default: /var/lib/stacyvm for root, else ~/.stacyvm].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [default: stacyvm.yaml, ~/.stacyvm/config.yaml, ~/.stacyvm/stacyvm.yaml, /etc/stacyvm/stacyvm.yaml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Box-maker of sandboxes that name none: docker or bubblewrap.
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// NATS to use instead of an own one.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Database to use: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Least important log lines to show: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}
