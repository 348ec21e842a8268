//! Takes commands, drives box-makers, and turns what agents say into events.
//!
//! The executor keeps nothing that it could not rebuild: which sandboxes are its own it asks of the record, which boxes
//! there are of the providers, what runs in them of the agents. It knows nothing of HTTP and holds no database
//! credentials.

pub mod artifacts;
mod capability;
mod commands;
mod context;
mod descriptors;
mod exec;
mod hosted;
mod link;
mod neighbours;
mod overdue;
pub mod provider;
pub mod providers;
mod pulse;
mod reconcile;
mod recorded;
mod resolver;
mod service;
mod shared;
mod shortage;
mod turns;

/// What an agent of this build says when it is asked for its version.
pub use agent::version as agent_version;
pub use descriptors::{agent_connections, raise_descriptor_limit};
pub use service::{Executor, ExecutorError};
pub use shared::ExecutorConfig;
pub use turns::BoxWork;
