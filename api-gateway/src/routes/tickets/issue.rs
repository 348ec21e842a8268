//! `POST /tickets`

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ticket::{LIFETIME, Ticket};

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Issued {
    /// To be offered as the subprotocol `ticket.TICKET` of one WebSocket, beside `stacyvm.v1`.
    pub ticket: String,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}

/// A ticket for one WebSocket, as whoever asks for it: good for 60 seconds, once, at any gateway.
#[utoipa::path(
    post,
    path = "/tickets",
    tag = "tickets",
    responses((status = 201, description = "The ticket", body = Issued))
)]
pub(crate) async fn issue(State(gateway): State<Gateway>, caller: Caller) -> Result<Response, ApiError> {
    let expires_at = gateway.clock().now() + LIFETIME;
    let ticket = Ticket::issue(&caller, expires_at, &gateway).await?;
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(Issued { ticket, expires_at })).into_response())
}
