//! The gateway: REST, NDJSON, WebSocket and server-sent events in front of the log.
//!
//! It authenticates, checks, publishes commands and shows what is recorded. It knows nothing of containers and holds no
//! state that it could not rebuild from the log. It is the only crate that sees axum.

mod auth;
mod body;
mod config;
mod denied;
mod error;
mod exec;
mod extract;
mod followed;
mod front;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod idempotency;
mod leniency;
mod limit;
mod limits;
mod linger;
mod metrics;
mod moment;
mod openapi;
mod origin;
mod patience;
mod readiness;
mod router;
mod routes;
mod server;
mod share;
mod stream;
mod strict;
mod table;
mod variables;

pub use auth::{ApiKey, Role};
pub use config::{AuditLimits, ExecLimits, GatewayConfig, SandboxLimits, WebhookLimits};
pub use gateway::Gateway;
pub use limits::{Limits, RateBy, RateLimit, TenantLimits};
pub use metrics::collect_metrics;
pub use origin::{Origin, OriginError};
pub use router::openapi_document;
pub use server::serve;
