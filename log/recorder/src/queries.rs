//! Answers what executors ask the record: they hold no database credentials.

use std::sync::Arc;
use std::time::Duration;

use events::SandboxState;
use record::{EventStore, StoreError};
use tokio_util::sync::CancellationToken;
use transport::{Answer, Log, Query, SANDBOXES_A_PAGE, SandboxRecord};

/// Answers the questions of executors until `stop`. Any number of recorders may answer; one does.
pub async fn serve_queries(log: &Log, store: Arc<dyn EventStore>, stop: CancellationToken) {
    let mut requests = loop {
        match log.queries().await {
            Ok(requests) => break requests,
            Err(error) => {
                tracing::warn!(error = %error, "cannot listen for queries; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    loop {
        let request = tokio::select! {
            () = stop.cancelled() => return,
            request = requests.next() => request,
        };
        let Some((query, asker)) = request else { return };
        let answer = match query {
            Ok(query) => answer(&*store, query).await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "a query failed");
                Answer::Failed("the event store cannot be read".to_owned())
            }),
            Err(error) => Answer::Failed(error),
        };
        asker.answer(&answer).await;
    }
}

async fn answer(store: &dyn EventStore, query: Query) -> Result<Answer, StoreError> {
    let sandboxes = match query {
        Query::LiveOnNode { node, after } => {
            let mut live: Vec<SandboxState> = store
                .live_sandboxes()
                .await?
                .1
                .into_iter()
                .filter(|state| state.node() == Some(&node) && Some(state.id) > after)
                .collect();
            live.sort_by_key(|state| state.id);
            live.truncate(SANDBOXES_A_PAGE);
            live
        }
        Query::Exec { id } => return Ok(Answer::Exec(store.exec(id).await?.map(Box::new))),
        Query::Sandbox { id } => store.sandbox(id).await?.into_iter().collect(),
    };
    let mut execs = store.live_execs().await?;
    let records = sandboxes.into_iter().map(|sandbox| SandboxRecord {
        live_execs: execs.extract_if(.., |exec| exec.sandbox == sandbox.id).collect(),
        sandbox,
    });
    Ok(Answer::Sandboxes(records.collect()))
}
