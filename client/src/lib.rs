//! A client of StacyVM: sandboxes, commands, files and events of a server, over its HTTP API.
//!
//! ```no_run
//! use client::{Client, ExecRequest, ExecUpdate, SpawnRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("http://127.0.0.1:7423").api_key("the key").build()?;
//! let sandbox = client.spawn(&SpawnRequest::image("python:3.12")).await?;
//! client.write_file(&sandbox.id, "/workspace/job.py", "print(6 * 7)").await?;
//!
//! let mut exec = client.exec_stream(&sandbox.id, ExecRequest::argv(["python3", "job.py"])).await?;
//! while let Some(update) = exec.next().await {
//!     match update? {
//!         ExecUpdate::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
//!         ExecUpdate::Ended(end) => println!("exit code {:?}", end.exit_code),
//!         ExecUpdate::Started(_) | ExecUpdate::Gone { .. } | ExecUpdate::Interrupted(_) => {}
//!     }
//! }
//! client.destroy(&sandbox.id).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Streams go on.** [`ExecStream`], [`EventStream`] and [`Attachment`] open their connection again when it breaks, through
//! whatever gateway answers, and go on where they stood: by byte offsets for output, by the position in the log for events.
//! No byte and no event is lost or comes twice. They give up after [`ClientBuilder::patience`] without a server.
//!
//! **What is done once.** [`Client::spawn`], [`Client::run`], [`Client::exec_stream`] and [`Client::start_exec`] send an
//! [`IdempotencyKey`]: where an answer is lost they ask again, and it is the same sandbox, the same command.
//!
//! **Newer servers.** Fields and types of events that this crate does not know are passed over, and words that it does not
//! know are kept ([`Open`]). Raw requests
//! ([`Client::request`], [`Client::fetch`] with `serde_json::Value`) reach what a newer server has and this crate does not.
//!
//! Requests are sent with `Prefer: handling=strict`: a field that the server does not know is an error, never left out in
//! silence.

/// The examples of the README are compiled, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod artifacts;
mod attachment;
mod audit;
mod client;
mod download;
mod error;
mod events;
mod exec_stream;
mod execs;
mod files;
mod frames;
mod history;
mod jobs;
mod key;
mod lines;
mod offsets;
mod patience;
mod record;
mod sandboxes;
mod schedules;
mod server;
mod sse;
mod templates;
mod tls;
mod viewers;
mod webhooks;
mod websocket;

pub use api_types::*;
pub use attachment::{AttachRequest, AttachUpdate, Attachment};
pub use audit::AuditQuery;
pub use client::{Client, ClientBuilder};
pub use download::Download;
pub use error::{BuildError, Cause, ClientError, Refusal};
pub use events::{EventBody, EventStream, EventUpdate, EventsQuery, FeedEvent};
pub use exec_stream::{ExecStream, ExecUpdate};
pub use execs::ExecsQuery;
pub use files::{ReadOptions, WriteOptions};
pub use frames::AttachInput;
pub use history::{Replay, ReplayQuery};
pub use jobs::JobsQuery;
pub use key::IdempotencyKey;
pub use lines::{LineSplitter, LineTooLong};
pub use offsets::Offsets;
pub use patience::Patience;
pub use record::Record;
pub use reqwest::{Method, RequestBuilder, Response, Url};
pub use sandboxes::Destroyed;
