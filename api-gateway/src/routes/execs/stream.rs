//! `GET /execs/{id}/stream`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::find;
use super::output::offset;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::start::read;
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::Gateway;
use crate::stream::exec::ExecRecords;
use crate::stream::ndjson::{self, Records};

/// Where to go on from.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// The first byte of stdout: a record's `next_offset`.
    pub stdout_offset: Option<String>,
    /// The first byte of stderr.
    pub stderr_offset: Option<String>,
    /// `all` (the default here): the id of the exec first, how it ended last. `output`: output and nothing else.
    #[param(pattern = "^(output|all)$")]
    pub records: Option<String>,
}

/// The same NDJSON as a streamed exec gives with `records=all`, from any two offsets on: what a client goes on with after its connection
/// broke, through any gateway.
#[utoipa::path(
    get,
    path = "/execs/{id}/stream",
    tag = "execs",
    params(("id" = String, Path, description = "The exec"), StreamQuery),
    responses(
        (status = 200, description = "The records", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "No offset", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn stream(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<StreamQuery>,
) -> Result<Response, ApiError> {
    let stdout = offset(query.stdout_offset.as_deref(), "stdout_offset")?;
    let stderr = offset(query.stderr_offset.as_deref(), "stderr_offset")?;
    let records = Records::read(query.records.as_deref(), Records::All)?;
    find(&gateway, &caller, id).await?;
    let output = read(&gateway, id, stdout, stderr).await?;
    let closing = gateway.closing().clone();
    Ok(ndjson::respond(ExecRecords::new(id, output, gateway.config().heartbeat, closing), records))
}
