//! `POST /tickets`

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::auth::Caller;
use crate::auth::ticket::{LIFETIME, Ticket};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// A ticket for one WebSocket, as whoever asks for it: good for 60 seconds, once, at any gateway.
#[utoipa::path(
    post,
    path = "/tickets",
    tag = "tickets",
    responses((status = 201, description = "The ticket", body = api_types::Ticket))
)]
pub(crate) async fn issue(State(gateway): State<Gateway>, caller: Caller) -> Result<Response, ApiError> {
    let expires_at = gateway.clock().now() + LIFETIME;
    let maker = gateway.keys().maker(caller.key.as_ref());
    let ticket = Ticket::of(&caller, maker, expires_at);
    let signed = ticket.sign(&gateway.config().master_key)?;
    gateway.log().offer(ticket.id()).await.map_err(ApiError::unavailable)?;
    let headers = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, headers, Json(api_types::Ticket { ticket: signed.into(), expires_at }))
        .into_response())
}
