//! Links with which others may watch an exec, and tickets for one WebSocket.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;

/// For how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewerRequest {
    /// A Go duration, at most `168h`; `1h` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "1h"))]
    pub ttl: Option<String>,
}

/// A link with which anybody may watch the exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Viewer))]
pub struct ViewerLink {
    /// Its name, by which it is revoked: whoever comes by it is `viewer:ID` in the log.
    pub id: String,
    /// The WebSocket to attach to, on this server. The same `viewer=` opens `/execs/{id}`, its output and its recording.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub url: Hidden,
    /// The token in it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: Hidden,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// Links with which an exec may be watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Viewers))]
pub struct ViewerList {
    /// The oldest first.
    pub viewers: Vec<SharedLink>,
}

/// A link, without the token that opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SharedLink {
    /// Its name: whoever comes by it is `viewer:ID` in the log.
    pub id: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Until when it is good, unless it is revoked or its key goes.
    pub expires_at: DateTime<Utc>,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Issued))]
pub struct Ticket {
    /// To be offered as the subprotocol `ticket.TICKET` of one WebSocket, beside `stacyvm.v1`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ticket: Hidden,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}
