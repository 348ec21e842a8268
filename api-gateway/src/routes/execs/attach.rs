//! `GET /execs/{id}/attach`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::find;
use super::output::offset;
use super::ws::MAX_FRAME_BYTES;
use crate::auth::{Action, Caller, Resource, authorize};
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::Target;
use crate::exec::start::read;
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::Gateway;
use crate::stream::attach::{Rights, serve};
use crate::stream::attach_frame::PROTOCOL;
use crate::stream::socket::Upgrade;

/// Where to begin, and what for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// The first byte of stdout; 0 for all of it.
    pub stdout_offset: Option<String>,
    /// The first byte of stderr.
    pub stderr_offset: Option<String>,
    /// `rw` (the default), or `ro` to watch only.
    pub mode: Option<String>,
}

/// Attaches to an exec over a WebSocket: first what is recorded from the offsets on, then what comes, without a seam; and
/// the way back for input. Any number of viewers may be attached. A viewer that goes leaves the exec as it is.
///
/// Frames are binary. The first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 control (JSON). Output has its offset
/// behind it, 8 bytes big endian, then the bytes. The subprotocol is `stacyvm.attach.v1` or `stacyvm.v1`.
#[utoipa::path(
    get,
    path = "/execs/{id}/attach",
    tag = "execs",
    params(("id" = String, Path, description = "The exec"), AttachQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket request, no offset, or no such mode", body = ErrorBody),
        (status = 403, description = "A foreign origin", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn attach(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<AttachQuery>,
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    let state = find(&gateway, &caller, id).await?;
    let upgrade = upgrade?;
    let stdout = offset(query.stdout_offset.as_deref(), "stdout_offset")?;
    let stderr = offset(query.stderr_offset.as_deref(), "stderr_offset")?;
    let writes = match query.mode.as_deref() {
        None | Some("rw") => true,
        Some("ro") => false,
        Some(_) => return Err(ApiError::bad_request("mode must be rw or ro")),
    };
    let output = read(&gateway, id, stdout, stderr).await?;
    // Who may only watch watches, whatever is asked for.
    let types = Resource::Exec { tenant: &state.tenant, id };
    let rights = Rights { writes: writes && authorize(&caller, Action::ExecInput, types).is_ok() };
    let target = Target { gateway: gateway.clone(), caller, sandbox: state.sandbox, exec: id };
    let sessions = gateway.sessions().clone();
    Ok(upgrade.accept(&sessions, Some(PROTOCOL), MAX_FRAME_BYTES, move |socket| {
        serve(target, rights, output, socket)
    }))
}
