//! `POST /execs/{id}/stdin`

use api_types::Reply;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use http_body_util::BodyExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::output::flag;
use super::running;
use crate::auth::Caller;
use crate::body::incomplete;
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::Target;
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::{Gateway, link_failed};
use crate::patience::Patience;
use crate::routes::done;

/// What comes after.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StdinQuery {
    /// `true`: the process reads the end of its input after these bytes.
    pub close: Option<String>,
}

/// Appends the raw body to the stdin of a running exec, of any size and as fast as the process reads. Answers when all of
/// it has been taken. Who else writes at the same time is neither overwritten nor lost; pieces alternate.
#[utoipa::path(
    post,
    path = "/execs/{id}/stdin",
    tag = "execs",
    params(("id" = String, Path, description = "The exec"), StdinQuery),
    request_body(content = String, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "All of it was taken", body = Reply),
        (status = 400, description = "The body broke off; what came before that was taken", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 409, description = "It takes no input, has not begun, or has ended", body = ErrorBody),
    )
)]
pub(crate) async fn stdin(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<StdinQuery>,
    request: Request,
) -> Result<Json<Reply>, ApiError> {
    let close = flag(query.close.as_deref(), "close")?;
    let state = running(&gateway, &caller, id).await?;
    if state.spec.as_ref().is_some_and(|spec| !spec.stdin && spec.tty.is_none()) {
        return Err(ApiError::conflict("the exec was started without stdin"));
    }
    let target = Target { gateway, caller, sandbox: state.sandbox, exec: id };
    let mut input = target.input(close).await?;
    // Input comes as somebody types it.
    if let Some(patience) = request.extensions().get::<Patience>() {
        patience.wait_for_body();
    }
    let mut body: Body = request.into_body();
    // Leaving early drops the link, which leaves stdin open.
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| incomplete(&error))?;
        if let Ok(bytes) = frame.into_data() {
            input.write(bytes).await.map_err(link_failed)?;
        }
    }
    input.finish().await.map_err(link_failed)?;
    Ok(done("written"))
}
