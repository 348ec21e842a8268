//! Whether what is shown is what the events make of it: every row of the read models, made again.
//!
//! One thing at a time, in the order of ids: memory grows with the largest history of one sandbox's states, not with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use events::{
    Event, EventData, ExecId, ExecState, Frame, Position, SandboxId, SandboxState, Template, TemplateEvent,
    TenantId, WebhookId, WebhookState,
};
use record::{AuditFilter, EventStore, Shown, StoreError, exec_columns, sandbox_columns};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::report::{Fault, Finding, Refolded};

/// Events that are read at once.
const PAGE: u32 = 500;
/// The longest body that one event can have: as many zeros stand for it when only its length counts.
const ZEROS: &[u8] = &[0; 1 << 20];
/// Events are recorded while this reads, and a row may be newer than the events that were read for it. How often it is looked
/// again, and after how long, before it counts as forged.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Makes all rows again, and says which is the first that is something else.
pub(super) async fn refold(
    store: &dyn EventStore,
    floor: Position,
    counts: &mut Refolded,
) -> Result<Option<Finding>, StoreError> {
    counts.sandboxes = match all::<SandboxState>(store, floor, counts).await? {
        Ok(right) => right,
        Err(finding) => return Ok(Some(finding)),
    };
    counts.execs = match all::<ExecState>(store, floor, counts).await? {
        Ok(right) => right,
        Err(finding) => return Ok(Some(finding)),
    };
    looked_at(store, floor, counts, async || tokio::time::sleep(LOOK_AGAIN).await).await
}

/// Looks at what is few, and again after a pause while something is wrong.
async fn looked_at(
    store: &dyn EventStore,
    floor: Position,
    counts: &mut Refolded,
    mut pause: impl AsyncFnMut(),
) -> Result<Option<Finding>, StoreError> {
    let mut looks = 1;
    loop {
        match small(store, floor).await? {
            Ok(found) => {
                (counts.templates, counts.webhooks) = (found.templates, found.webhooks);
                // Of what one look saw: the same row is seen in each.
                counts.begun_before += found.begun_before;
                return Ok(None);
            }
            Err(finding) if looks == LOOKS => return Ok(Some(finding)),
            Err(_) => {}
        }
        looks += 1;
        pause().await;
    }
}

/// What has a row of its own, made of its events alone.
trait Made: PartialEq + DeserializeOwned + Send + Sized {
    const KIND: Shown;
    const NAME: &'static str;

    fn filter(id: Uuid) -> AuditFilter;
    fn apply(state: Option<Self>, event: &Event) -> Option<Self>;
    fn columns(&self) -> Vec<Option<String>>;
}

impl Made for SandboxState {
    const KIND: Shown = Shown::Sandbox;
    const NAME: &'static str = "sandbox";

    fn filter(id: Uuid) -> AuditFilter {
        let sandbox = Some(SandboxId::from_bytes(id.into_bytes()));
        AuditFilter { sandbox, types: types(&["sandbox."]), ..AuditFilter::default() }
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        Self::apply(state, event)
    }

    fn columns(&self) -> Vec<Option<String>> {
        sandbox_columns(self)
    }
}

impl Made for ExecState {
    const KIND: Shown = Shown::Exec;
    const NAME: &'static str = "exec";

    fn filter(id: Uuid) -> AuditFilter {
        AuditFilter { exec: Some(ExecId::from_bytes(id.into_bytes())), ..AuditFilter::default() }
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        Self::apply(state, event)
    }

    fn columns(&self) -> Vec<Option<String>> {
        exec_columns(self)
    }
}

/// The types whose names begin so.
fn types(prefixes: &[&str]) -> Vec<String> {
    let wanted = |name: &&&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    EventData::TYPES.iter().filter(wanted).map(|name| (*name).to_owned()).collect()
}

/// How many rows of a kind are right, or the first one that is not.
async fn all<T: Made>(
    store: &dyn EventStore,
    floor: Position,
    counts: &mut Refolded,
) -> Result<Result<u64, Finding>, StoreError> {
    let (mut after, mut right) = (Uuid::nil(), 0);
    while let Some(id) = store.next_shown(T::KIND, after).await? {
        after = id;
        match one::<T>(store, id, floor).await? {
            Seen::Right => right += 1,
            Seen::Begun => counts.begun_before += 1,
            Seen::Wrong(finding) => return Ok(Err(finding)),
        }
    }
    Ok(Ok(right))
}

enum Seen {
    Right,
    /// Its first events were dropped: what became of it cannot be made again.
    Begun,
    Wrong(Finding),
}

async fn one<T: Made>(store: &dyn EventStore, id: Uuid, floor: Position) -> Result<Seen, StoreError> {
    let mut looks = 0;
    loop {
        let row = store.shown(T::KIND, id).await?;
        let (mut made, mut last): (Option<T>, Position) = (None, Position::ZERO);
        walk(store, &T::filter(id), |position, event| {
            made = T::apply(made.take(), event);
            last = position;
        })
        .await?;
        let fits = match (&row, &made) {
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
            (Some(row), Some(made)) => {
                row.columns == made.columns()
                    && serde_json::from_str::<T>(&row.state).is_ok_and(|shown| shown == *made)
            }
        };
        if fits {
            return Ok(Seen::Right);
        }
        if made.is_none() && floor > Position::ZERO {
            return Ok(Seen::Begun);
        }
        looks += 1;
        if looks == LOOKS {
            let what = T::NAME;
            let explanation = match (&row, &made) {
                (None, _) => format!("the {what} {id} has events and is not shown"),
                (Some(_), None) => format!("the {what} {id} is shown and has no events"),
                (Some(_), Some(_)) => format!("what is shown of the {what} {id} is not what its events say"),
            };
            return Ok(Seen::Wrong(Finding { position: last, fault: Fault::ReadModel, explanation }));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn walk(
    store: &dyn EventStore,
    filter: &AuditFilter,
    mut step: impl FnMut(Position, &Event) + Send,
) -> Result<(), StoreError> {
    let mut after = Position::ZERO;
    loop {
        let rows = store.read_audit(filter, after, Position(i64::MAX as u64), false, PAGE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.position;
        for row in &rows {
            let length = usize::try_from(row.body_length.unwrap_or(0)).unwrap_or(usize::MAX);
            let body = Bytes::from_static(&ZEROS[..length.min(ZEROS.len())]);
            let frame = Frame { position: row.position, header: row.header.clone(), body, missing: None };
            // An event of a newer build changes nothing that this one shows.
            if let Ok(event) = frame.decode() {
                step(row.position, &event);
            }
        }
        if rows.len() < PAGE as usize {
            return Ok(());
        }
    }
}

/// Templates and webhooks: few, and looked at all at once.
async fn small(store: &dyn EventStore, floor: Position) -> Result<Result<Refolded, Finding>, StoreError> {
    let mut counts = Refolded::default();
    let filter = AuditFilter { types: types(&["template.", "webhook."]), ..AuditFilter::default() };
    let mut templates: BTreeMap<(TenantId, String), Template> = BTreeMap::new();
    let mut webhooks: BTreeMap<WebhookId, WebhookState> = BTreeMap::new();
    walk(store, &filter, |_, event| {
        if let EventData::Template(TemplateEvent::Saved(saved)) = &event.data {
            templates.insert((event.tenant.clone(), saved.template.name.clone()), saved.template.clone());
        } else if let EventData::Template(TemplateEvent::Deleted(deleted)) = &event.data {
            templates.remove(&(event.tenant.clone(), deleted.name.clone()));
        } else if let Some(id) = event.data.webhook()
            && let Some(state) = WebhookState::apply(webhooks.remove(&id), event)
        {
            webhooks.insert(id, state);
        }
    })
    .await?;
    let wrong =
        |explanation: String| Err(Finding { position: Position::ZERO, fault: Fault::ReadModel, explanation });
    let shown: BTreeMap<(TenantId, String), Template> = store
        .all_templates()
        .await?
        .into_iter()
        .map(|(tenant, template)| ((tenant, template.name.clone()), template))
        .collect();
    for (key, template) in &shown {
        match templates.get(key) {
            Some(made) if made == template => {}
            None if floor > Position::ZERO => counts.begun_before += 1,
            _ => {
                return Ok(wrong(format!(
                    "the template {:?} of {} is not what its events say",
                    key.1, key.0
                )));
            }
        }
    }
    if let Some(key) = templates.keys().find(|key| !shown.contains_key(*key)) {
        return Ok(wrong(format!("the template {:?} of {} has events and is not shown", key.1, key.0)));
    }
    let (_, shown) = store.webhooks().await?;
    for state in &shown {
        match webhooks.remove(&state.webhook.id) {
            Some(made) if made == *state => {}
            None if floor > Position::ZERO => counts.begun_before += 1,
            _ => return Ok(wrong(format!("the webhook {} is not what its events say", state.webhook.id))),
        }
    }
    if let Some(id) = webhooks.keys().next() {
        return Ok(wrong(format!("the webhook {id} has events and is not shown")));
    }
    counts.templates = templates.len() as u64;
    counts.webhooks = shown.len() as u64;
    Ok(Ok(counts))
}

#[cfg(test)]
#[path = "refold_tests.rs"]
mod tests;
