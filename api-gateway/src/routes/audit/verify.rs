//! `GET /audit/verify`

use std::time::Duration;

use audit::{
    CheckpointFileError, FileStatement, PublicKeys, Report, StoreSource, VerifyError, read_statements,
    verify as check,
};
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use events::TenantId;
use serde::Deserialize;
use tokio::task::JoinHandle;
use utoipa::IntoParams;

use super::{public_keys, scope};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::share::Turn;

/// How often a line break shows that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What to verify.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct VerifyQuery {
    /// Whose chain: for operators only, who get everybody's without it.
    pub tenant: Option<String>,
    /// Leaves out whether what lists and queries show is what the events say: that takes about as long again.
    #[serde(default)]
    pub quick: bool,
}

/// Walks the log and checks it: that nothing is missing, that every event is the one that was chained, and that every signed
/// checkpoint agrees; for an operator also that what lists and queries show is what the events say. A tenant's own chain, or everybody's for an operator. Takes as long as it takes; line breaks before
/// the JSON show that it goes on. `ok` and `finding` say how it ended, with the first bad position.
#[utoipa::path(
    get,
    path = "/audit/verify",
    tag = "audit",
    params(VerifyQuery),
    responses(
        (status = 200, description = "A report: `ok`, `finding` (`position`, `fault`, `explanation`), counts, and what it proves and does not prove", body = Object),
        (status = 404, description = "No such tenant", body = ErrorBody),
        (status = 429, description = "Others are verifying already", body = ErrorBody),
    )
)]
pub(crate) async fn verify(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<VerifyQuery>,
) -> Result<Response, ApiError> {
    let tenant = scope(query.tenant.as_deref(), &caller)?;
    let keys = public_keys(&gateway)?;
    // It reads the whole log: many at once would be in the way of everybody else, and one tenant's of another's.
    let turn = gateway.shares().verifying(&caller).await?;
    // Whoever goes away ends it: the task is aborted when its answer is dropped.
    let task = Task { handle: tokio::spawn(run(gateway, tenant, keys, query.quick)), _turn: turn };
    let body = futures::stream::try_unfold(Some(task), |task| async move {
        let Some(mut task) = task else { return Ok(None) };
        match tokio::time::timeout(SIGN_OF_LIFE, &mut task.handle).await {
            Err(_) => Ok(Some((Bytes::from_static(b"\n"), Some(task)))),
            Ok(Ok(Ok(report))) => {
                let mut bytes = serde_json::to_vec(&report).map_err(std::io::Error::other)?;
                bytes.push(b'\n');
                Ok(Some((Bytes::from(bytes), None)))
            }
            // The answer has begun: breaking it off says that there is no report.
            Ok(Ok(Err(error))) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the log could not be verified");
                Err(std::io::Error::other(error))
            }
            Ok(Err(error)) => Err(std::io::Error::other(error)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

struct Task {
    handle: JoinHandle<Result<Report, VerifyError>>,
    _turn: Turn,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

type Line = Result<(u64, FileStatement), CheckpointFileError>;

async fn run(
    gateway: Gateway,
    tenant: Option<TenantId>,
    keys: PublicKeys,
    quick: bool,
) -> Result<Report, VerifyError> {
    let file: Box<dyn Iterator<Item = Line> + Send> = match &gateway.config().audit.checkpoint_file {
        Some(path) if path.exists() => Box::new(read_statements(path)?),
        Some(_) | None => Box::new(std::iter::empty()),
    };
    let mut source = StoreSource::open(gateway.record(), tenant).await?.quick(quick);
    check(&mut source, &keys, file).await
}
