//! The gateway over HTTP: a real nats-server, a real recorder on SQLite, and an executor that plays by a script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong in a test fails it")]

mod http {
    pub mod executor;
    pub mod world;

    pub mod raw;

    mod access;
    mod artifacts;
    mod attach;
    mod audit;
    mod authorized;
    mod compat;
    mod denied;
    mod events;
    mod exec_resources;
    mod execs;
    mod feed;
    mod files;
    mod gone;
    mod jobs;
    mod limits;
    mod links;
    mod past;
    mod presence;
    mod repeated;
    mod sandboxes;
    mod schedules;
    mod shares;
    mod shutdown;
    mod sockets;
    mod stalled;
    mod strict;
    mod templates;
    mod webhooks;
    mod websocket;
}
