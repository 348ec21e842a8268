//! A page of what happened.

use std::collections::HashMap;

use bytes::Bytes;
use events::{Actor, DecodeError, Event, Frame, Position, RequestId, SandboxId};
use record::{AuditFilter, AuditRow, EventStore, StoreError};

/// How many positions one page looks through at most: a page of rare events may come back short, with where to go on.
const MOST_POSITIONS: u64 = 200_000;
/// How many rows one read has.
const PAGE: u32 = 500;

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// What the database can look for.
    pub filter: AuditFilter,
    /// By this actor. What ends in `*` stands for all that begin so.
    pub actor: Option<String>,
    /// By a client that called itself so, whatever its key.
    pub user: Option<String>,
    /// About a sandbox with this label, a name and its value.
    pub label: Option<(String, String)>,
    /// That follow from this request.
    pub request_id: Option<RequestId>,
    /// The newest first.
    pub backwards: bool,
    /// Where the page before ended.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct AuditPage {
    /// The events, with what is stored of them.
    pub events: Vec<(AuditRow, Event)>,
    /// Where to go on; `None` at the end of the log.
    pub next_after: Option<Position>,
}

/// Reads a page. Stable: what is recorded between two pages is not in pages that go back, and at the end of those that go
/// forward.
pub async fn list(store: &dyn EventStore, query: &AuditQuery) -> Result<AuditPage, StoreError> {
    let head = store.head().await?.position;
    let mut page = AuditPage::default();
    let (mut low, mut high) = match (query.backwards, query.after) {
        (false, after) => (after.unwrap_or(Position::ZERO), head),
        (true, None) => (Position::ZERO, head),
        (true, Some(after)) => (Position::ZERO, Position(after.0.saturating_sub(1)).min(head)),
    };
    let mut left = MOST_POSITIONS;
    let mut labelled = Labelled::default();
    while low < high && left > 0 && page.events.len() < query.limit {
        let (from, to) = if query.backwards {
            (Position(high.0.saturating_sub(left).max(low.0)), high)
        } else {
            (low, Position(low.0.saturating_add(left).min(high.0)))
        };
        let rows = store.read_audit(&query.filter, from, to, query.backwards, PAGE).await?;
        let full = rows.len() >= PAGE as usize;
        let mut reached = None;
        for row in rows {
            reached = Some(row.position);
            if let Some(event) = decode(&row)
                && query.wants(&event)
                && labelled.wants(store, query, &event).await?
            {
                page.events.push((row, event));
                if page.events.len() == query.limit {
                    break;
                }
            }
        }
        let stopped = page.events.len() == query.limit || full;
        let before = (low, high);
        match (query.backwards, reached.filter(|_| stopped)) {
            (false, reached) => low = reached.unwrap_or(to),
            (true, reached) => high = reached.map_or(from, |at| Position(at.0.saturating_sub(1))),
        }
        left = left.saturating_sub((low.0 - before.0.0) + (before.1.0 - high.0));
    }
    if low < high {
        page.next_after = Some(if query.backwards { high.next() } else { low });
    }
    Ok(page)
}

fn decode(row: &AuditRow) -> Option<Event> {
    let frame =
        Frame { position: row.position, header: row.header.clone(), body: Bytes::new(), missing: None };
    match frame.decode() {
        Ok(event) => Some(event),
        Err(error) => {
            if !matches!(error, DecodeError::UnknownType(_)) {
                tracing::warn!(error = %error, event.position = %row.position, "an event cannot be read");
            }
            None
        }
    }
}

/// Which sandboxes have the label that is asked for: looked up once a page.
#[derive(Default)]
struct Labelled(HashMap<SandboxId, bool>);

impl Labelled {
    async fn wants(
        &mut self,
        store: &dyn EventStore,
        query: &AuditQuery,
        event: &Event,
    ) -> Result<bool, StoreError> {
        let Some((name, value)) = &query.label else { return Ok(true) };
        let Some(id) = event.sandbox else { return Ok(false) };
        if let Some(known) = self.0.get(&id) {
            return Ok(*known);
        }
        let state = store.sandbox(id).await?;
        let has = state.is_some_and(|state| state.spec.metadata.get(name) == Some(value));
        self.0.insert(id, has);
        Ok(has)
    }
}

impl AuditQuery {
    fn wants(&self, event: &Event) -> bool {
        let by = self.actor.as_deref().is_none_or(|wanted| {
            let actor = event.actor.to_string();
            match wanted.strip_suffix('*') {
                Some(start) => actor.starts_with(start),
                None => actor == wanted,
            }
        });
        let called = self.user.as_ref().is_none_or(
            |wanted| matches!(&event.actor, Actor::Client { user: Some(user), .. } if user == wanted),
        );
        by && called
            && self.request_id.as_ref().is_none_or(|wanted| event.request_id.as_ref() == Some(wanted))
    }
}
