//! `DELETE /execs/{id}`

use std::time::Duration;

use api_types::Exec;
use axum::Json;
use axum::extract::State;
use events::ExecState;
use feed::{OutputItem, OutputReader};
use tokio::time::Instant;
use transport::LinkOp;

use super::{begins, find, read_nothing};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::Target;
use crate::exec::shown::shown;
use crate::extract::ExecPath;
use crate::gateway::Gateway;

/// How long the recorded end is waited for: the grace between SIGTERM and SIGKILL, and the way through the log.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends an exec with all its descendants (SIGTERM, after 2 s SIGKILL), and answers how it ended. One that has ended is
/// answered as it is; a pending one is ended when it has begun. Of one that has ended with its output open the output is closed: what
/// holds it open goes on, and nothing more of it is recorded.
#[utoipa::path(
    delete,
    path = "/execs/{id}",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    responses(
        (status = 200, description = "It has ended", body = Exec),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 503, description = "Its end is not known yet: ask again", body = ErrorBody),
    )
)]
pub(crate) async fn kill(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
) -> Result<Json<Exec>, ApiError> {
    let state = find(&gateway, &caller, id).await?;
    if state.is_over() {
        return Ok(Json(shown(&state)));
    }
    let mut output = read_nothing(&gateway, id).await?;
    let until = Instant::now() + PATIENCE;
    if state.output_open {
        return close(&gateway, caller, &state, output, until).await;
    }
    let late = || ApiError::unavailable("the end of an exec was not recorded in time").with_exec(id);
    if !tokio::time::timeout_at(until, begins(&mut output)).await.map_err(|_| late())?? {
        return find(&gateway, &caller, id).await.map(|state| Json(shown(&state)));
    }
    let target = Target { gateway: gateway.clone(), caller, sandbox: state.sandbox, exec: id };
    let asked = target.call(LinkOp::Kill { exec: id }).await;
    if asked.is_err() && find(&gateway, &target.caller, id).await?.end.is_none() {
        // A failure because it ended just now is none.
        asked?;
    }
    tokio::time::timeout_at(until, ends(&mut output)).await.map_err(|_| late())??;
    find(&gateway, &target.caller, id).await.map(|state| Json(shown(&state)))
}

/// Closes the output of one that has ended and left it open, and answers it as it is then.
async fn close(
    gateway: &Gateway,
    caller: Caller,
    state: &ExecState,
    mut output: OutputReader,
    until: Instant,
) -> Result<Json<Exec>, ApiError> {
    let id = state.id;
    let target =
        Target { gateway: gateway.clone(), caller: caller.clone(), sandbox: state.sandbox, exec: id };
    let asked = target.call(LinkOp::CloseOutput { exec: id }).await;
    if asked.is_err() && !find(gateway, &caller, id).await?.is_over() {
        // Where it was closed just now there was nothing to close.
        asked?;
    }
    let late =
        || ApiError::unavailable("the close of an exec's output was not recorded in time").with_exec(id);
    let closed = async {
        while output.next().await.map_err(ApiError::unavailable)?.is_some() {}
        Ok::<_, ApiError>(())
    };
    tokio::time::timeout_at(until, closed).await.map_err(|_| late())??;
    find(gateway, &caller, id).await.map(|state| Json(shown(&state)))
}

async fn ends(output: &mut OutputReader) -> Result<(), ApiError> {
    loop {
        match output.next().await.map_err(ApiError::unavailable)? {
            Some(OutputItem::Ended { .. }) | None => return Ok(()),
            Some(
                OutputItem::Output { .. }
                | OutputItem::Gone { .. }
                | OutputItem::Started
                | OutputItem::Resized(_)
                | OutputItem::Closed(_),
            ) => {}
        }
    }
}
