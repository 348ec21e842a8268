//! Whether what is shown is what the events make of it: every row of the read models, made again.
//!
//! Of kinds of which there are many, one thing at a time, in the order of keys: memory grows with the largest history of one thing's
//! states, not with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use events::{Aggregate, Slot, TemplateState, WebhookState};
use events::{Event, ExecState, FoundBy, Frame, Key, Kind, Position, Registry, SandboxState};
use record::{AuditFilter, EventFilter, Record, RowQuery, StoreError, row_columns};

use super::report::{Fault, Finding, Refolded};

/// Events that are read at once.
const PAGE: u32 = 500;
/// The longest body that one event can have: as many zeros stand for it when only its length counts.
const ZEROS: &[u8] = &[0; 1 << 20];
/// Events are recorded while this reads, and a row may be newer than the events that were read for it. How often it is looked
/// again, and after how long, before it counts as forged.
const LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Makes all rows of all kinds again, and says which is the first that is something else.
pub(super) async fn refold(
    store: &Record,
    floor: Position,
    counts: &mut Refolded,
) -> Result<Option<Finding>, StoreError> {
    refold_kinds(store, floor, &Registry::default(), counts).await
}

/// Makes all rows of these kinds again, and says which is the first that is something else. What began at or below `floor` may have lost
/// its beginning, and is only counted.
pub async fn refold_kinds(
    store: &Record,
    floor: Position,
    registry: &Registry,
    counts: &mut Refolded,
) -> Result<Option<Finding>, StoreError> {
    for kind in registry.kinds() {
        let right = match kind.found_by {
            FoundBy::Sandbox | FoundBy::Exec | FoundBy::Subject => many(store, floor, kind, counts).await?,
            FoundBy::Category => {
                few(store, floor, kind, counts, async || tokio::time::sleep(LOOK_AGAIN).await).await?
            }
        };
        match right {
            Ok(right) => count(counts, kind, right),
            Err(finding) => return Ok(Some(finding)),
        }
    }
    Ok(None)
}

fn count(counts: &mut Refolded, kind: &Kind, right: u64) {
    match kind.name {
        SandboxState::KIND => counts.sandboxes = right,
        ExecState::KIND => counts.execs = right,
        TemplateState::KIND => counts.templates = right,
        WebhookState::KIND => counts.webhooks = right,
        // The report has no number for it.
        _ => {}
    }
}

/// How many rows of a kind are right, or the first one that is not.
async fn many(
    store: &Record,
    floor: Position,
    kind: &Kind,
    counts: &mut Refolded,
) -> Result<Result<u64, Finding>, StoreError> {
    let (mut after, mut right) = (Key::from_bytes(&[]), 0);
    while let Some(key) = store.evidence.next_key(kind, &after).await? {
        match one(store, kind, &key, floor).await? {
            Seen::Right => right += 1,
            Seen::Begun => counts.begun_before += 1,
            Seen::Wrong(finding) => return Ok(Err(finding)),
        }
        after = key;
    }
    Ok(Ok(right))
}

enum Seen {
    Right,
    /// Its first events were dropped: what became of it cannot be made again.
    Begun,
    Wrong(Finding),
}

/// How a row and what the events make of it differ, if they do.
async fn differs(store: &Record, kind: &Kind, key: &Key, made: &Slot) -> Result<Option<String>, StoreError> {
    let what = kind.name;
    let row = store.evidence.whole_row(kind.name, key).await?;
    Ok(match (row.as_ref().and_then(|row| Some((row, row.state.as_ref()?))), made.fields()) {
        (None, None) => None,
        (None, Some(_)) => Some(format!("the {what} {key} has events and is not shown")),
        (Some(_), None) => Some(format!("the {what} {key} is shown and has no events")),
        (Some((row, state)), Some(fields)) => {
            let right = row.columns == row_columns(&fields) && made.is_written_as(state);
            (!right).then(|| format!("what is shown of the {what} {key} is not what its events say"))
        }
    })
}

async fn one(store: &Record, kind: &Kind, key: &Key, floor: Position) -> Result<Seen, StoreError> {
    let mut looks = 0;
    loop {
        let (mut made, mut last) = (kind.empty(), Position::ZERO);
        // The row is read after the events: while it is newer than those, they are read again.
        walk(store, &EventFilter::of_thing(kind, key).into(), |position, event| {
            if kind.changed_by(event).as_ref() == Some(key) {
                made.apply(event);
                last = position;
            }
        })
        .await?;
        let Some(explanation) = differs(store, kind, key, &made).await? else { return Ok(Seen::Right) };
        if made.is_empty() && floor > Position::ZERO {
            return Ok(Seen::Begun);
        }
        looks += 1;
        if looks == LOOKS {
            return Ok(Seen::Wrong(Finding { position: last, fault: Fault::ReadModel, explanation }));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn walk(
    store: &Record,
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

/// Looks at all things of a kind of which there are few at once, and again after a pause while something is wrong.
async fn few(
    store: &Record,
    floor: Position,
    kind: &Kind,
    counts: &mut Refolded,
    mut pause: impl AsyncFnMut(),
) -> Result<Result<u64, Finding>, StoreError> {
    let mut looks = 1;
    loop {
        match look(store, floor, kind).await? {
            Ok((right, begun_before)) => {
                // Of what one look saw: the same row is seen in each.
                counts.begun_before += begun_before;
                return Ok(Ok(right));
            }
            Err(finding) if looks == LOOKS => return Ok(Err(finding)),
            Err(_) => {}
        }
        looks += 1;
        pause().await;
    }
}

/// How many are right, and how many began before the log did.
async fn look(
    store: &Record,
    floor: Position,
    kind: &Kind,
) -> Result<Result<(u64, u64), Finding>, StoreError> {
    let filter = EventFilter::of_kind(kind).into();
    let mut made: BTreeMap<Key, Slot> = BTreeMap::new();
    walk(store, &filter, |_, event| {
        if let Some(key) = kind.changed_by(event) {
            made.entry(key).or_insert_with(|| kind.empty()).apply(event);
        }
    })
    .await?;
    let shown = store.rows(&RowQuery { kind: kind.name, ..RowQuery::default() }).await?;
    for row in shown {
        made.entry(row.key).or_insert_with(|| kind.empty());
    }
    let (mut right, mut begun_before) = (0, 0);
    for (key, slot) in &made {
        match differs(store, kind, key, slot).await? {
            None if slot.is_empty() => {}
            None => right += 1,
            Some(_) if slot.is_empty() && floor > Position::ZERO => begun_before += 1,
            Some(explanation) => {
                return Ok(Err(Finding { position: Position::ZERO, fault: Fault::ReadModel, explanation }));
            }
        }
    }
    Ok(Ok((right, begun_before)))
}

#[cfg(test)]
#[path = "refold_tests.rs"]
mod tests;
