use clap::{Parser, Subcommand};

use crate::config::ServerArgs;
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
    /// Run everything in one process: gateway, executor, reaper, recorder, webhooks, jobs, SQLite and a nats-server of its own.
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
    /// Run the driver of jobs alone. Of any number, one works.
    Jobs(ServerArgs),
    /// Look after the database: back up, restore, compact, measure.
    #[command(subcommand)]
    Db(DbCommand),
    #[command(flatten)]
    Client(ClientCommand),
}
