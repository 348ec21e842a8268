//! Answers what executors ask the record: they hold no database credentials.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use events::{ExecState, Key, SandboxId, SandboxState};
use record::{EventStore, Order, RowQuery, StoreError};
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

/// Costs what is asked for, however much lives elsewhere.
async fn answer(store: &dyn EventStore, query: Query) -> Result<Answer, StoreError> {
    let sandboxes: Vec<SandboxState> = match query {
        Query::LiveOnNode { node, after } => {
            let on_node = RowQuery {
                place: Some(node.as_str().to_owned()),
                ended: Some(false),
                order: Order::Key(after.map(Key::from)),
                limit: u32::try_from(SANDBOXES_A_PAGE).ok(),
                ..RowQuery::default()
            };
            store.list(on_node).await?
        }
        Query::Exec { id } => return Ok(Answer::Exec(store.exec(id).await?.map(Box::new))),
        Query::Sandbox { id } => store.sandbox(id).await?.into_iter().collect(),
    };
    let ids: Vec<SandboxId> = sandboxes.iter().map(|sandbox| sandbox.id).collect();
    let mut execs: HashMap<SandboxId, Vec<ExecState>> = HashMap::new();
    for exec in store.live_execs_of(&ids).await? {
        execs.entry(exec.sandbox).or_default().push(exec);
    }
    let records = sandboxes
        .into_iter()
        .map(|sandbox| SandboxRecord { live_execs: execs.remove(&sandbox.id).unwrap_or_default(), sandbox });
    Ok(Answer::Sandboxes(records.collect()))
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
