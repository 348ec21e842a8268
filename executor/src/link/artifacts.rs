use std::time::Duration;

use events::{ErrorChain, JobArtifact, JobId, ObjectOwner, ObjectPlace};
use objects::{ReadError, Store, StoreError};
use transport::{CollectedLine, FaultCode, LinkFault, LinkIncoming, LinkValue};

use super::files::{broken, fault};
use super::{Answer, unavailable};
use crate::artifacts::{self, CollectError, PlaceError, Wanted};
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How often whoever waits hears that it is being worked on.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The longest that collecting the artifacts of one job may take.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How long putting artifacts into a sandbox may take.
const PLACING: Duration = Duration::from_secs(30 * 60);

pub(super) async fn collect(
    shared: &Shared,
    hosted: &Hosted,
    job: JobId,
    mut wanted: Wanted,
    incoming: &mut LinkIncoming,
) -> Answer {
    let (store, place) = (store(shared)?, place_of(hosted, job));
    wanted.within = wanted.within.min(LONGEST);
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    let collecting = artifacts::collect(&hosted.agent, store, &place, &wanted);
    let collected = told(incoming, collecting).await?.map_err(|error| match error {
        CollectError::Search(error) | CollectError::Agent(error) => fault(hosted, error),
        CollectError::Store(error) => store_fault(hosted, &error),
        late @ CollectError::Late(_) => LinkFault::new(FaultCode::Failed, late.to_string()),
    })?;
    let stored = collected.artifacts.into_iter().map(CollectedLine::Stored);
    let left = collected.named.into_iter();
    let left = left.map(|it| CollectedLine::LeftOut { path: it.path, reason: it.reason.as_str().to_owned() });
    for line in stored.chain(left).chain([CollectedLine::End { left_out: collected.left_out }]) {
        let mut bytes = serde_json::to_vec(&line).map_err(|_| unavailable())?;
        bytes.push(b'\n');
        incoming.write(bytes.into()).await.map_err(broken)?;
    }
    Ok(LinkValue::Done)
}

pub(super) async fn place(
    shared: &Shared,
    hosted: &Hosted,
    job: JobId,
    artifacts: &[JobArtifact],
    directory: &str,
    incoming: &mut LinkIncoming,
) -> Answer {
    let (store, from) = (store(shared)?, place_of(hosted, job));
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    let placing = artifacts::place(&hosted.agent, store, &from, artifacts, directory);
    match told(incoming, tokio::time::timeout(PLACING, placing)).await? {
        Ok(Ok(())) => Ok(LinkValue::Done),
        Ok(Err(PlaceError::Write { source, .. })) => Err(fault(hosted, source)),
        Ok(Err(PlaceError::Read { source: ReadError::Store(error), .. })) => Err(store_fault(hosted, &error)),
        Ok(Err(PlaceError::Read { path, source: source @ (ReadError::NotFound | ReadError::Damaged) })) => {
            Err(LinkFault::new(FaultCode::NotFound, format!("the artifact {path:?}: {source}")))
        }
        Err(_) => {
            Err(LinkFault::new(FaultCode::Failed, "the artifacts did not come into the sandbox in time"))
        }
    }
}

/// Whose sandbox it is decides whose artifacts they are: no request says it.
fn place_of(hosted: &Hosted, job: JobId) -> ObjectPlace {
    ObjectPlace { tenant: hosted.tenant.clone(), owner: ObjectOwner::Job(job) }
}

fn store(shared: &Shared) -> Result<&Store, LinkFault> {
    let missing = || LinkFault::new(FaultCode::Unsupported, "this node has no store of artifacts");
    shared.config.objects.as_ref().ok_or_else(missing)
}

fn store_fault(hosted: &Hosted, error: &StoreError) -> LinkFault {
    tracing::warn!(sandbox.id = %hosted.id, error = %ErrorChain(error), "the store of artifacts failed");
    let code = if error.is_transient() { FaultCode::Unavailable } else { FaultCode::Internal };
    LinkFault::new(code, format!("the artifacts were not stored: {error}"))
}

/// Works, and shows it meanwhile.
async fn told<T>(incoming: &mut LinkIncoming, work: impl Future<Output = T>) -> Result<T, LinkFault> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            () = tokio::time::sleep(TELL_EVERY) => incoming.keep_alive().await.map_err(broken)?,
        }
    }
}
