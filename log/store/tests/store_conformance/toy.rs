//! What a new kind of thing takes: this file, and its line in the registry. It is then recorded, listed, held in memory, seen as it
//! was, and checked against its events, as all others are.

use audit::refold_kinds;
use events::*;
use feed::Held;
use record::{AuditFilter, Past, Row, RowQuery};
use serde::{Deserialize, Serialize};

use super::Subject;
use super::scenario::*;

/// What the log says about all files with one path in a tenant's sandboxes: how often they were written, until one is deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Draft {
    tenant: TenantId,
    path: String,
    writes: u32,
    deleted: bool,
}

impl Draft {
    fn key_of(tenant: &TenantId, path: &str) -> Key {
        Key::of_name(tenant, path)
    }
}

impl Aggregate for Draft {
    const KIND: &'static str = "draft";
    const TAKES: &'static [Category] = &[Category::File];

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::File(said) = &event.data else { return None };
        let path = match said {
            FileEvent::Written(file) => &file.path,
            FileEvent::Deleted(file) => &file.path,
            FileEvent::Read(_) | FileEvent::Moved(_) | FileEvent::ModeChanged(_) => return None,
        };
        Some(Self::key_of(&event.tenant, path))
    }

    fn judge(state: Option<&Self>, event: &Event) -> Result<usize, DropReason> {
        match state {
            Some(state) if state.deleted => Err(DropReason::AfterEnd),
            None if matches!(event.data, EventData::File(FileEvent::Deleted(_))) => Err(DropReason::Gap),
            Some(_) | None => Ok(0),
        }
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::File(said) = &event.data else { return state };
        match (state, said) {
            (Some(state), _) if state.deleted => Some(state),
            (Some(state), FileEvent::Written(_)) => Some(Self { writes: state.writes + 1, ..state }),
            (Some(state), FileEvent::Deleted(_)) => Some(Self { deleted: true, ..state }),
            (None, FileEvent::Written(file)) => {
                let (tenant, path) = (event.tenant.clone(), file.path.clone());
                Some(Self { tenant, path, writes: 1, deleted: false })
            }
            (state, _) => state,
        }
    }

    fn key(&self) -> Key {
        Self::key_of(&self.tenant, &self.path)
    }

    fn fields(&self) -> Fields {
        let status = if self.deleted { "deleted" } else { "kept" };
        let label = Some(self.path.clone());
        Fields { label, ended: self.deleted, ..Fields::new(self.tenant.clone(), status) }
    }
}

fn written(of: &str, path: &str) -> Event {
    let written = FileWritten { path: path.to_owned(), size: 1, mode: 0o644 };
    Event { tenant: tenant(of), ..event(Some(1), written) }
}

fn deleted(of: &str, path: &str) -> Event {
    let deleted = FileDeleted { path: path.to_owned(), recursive: false };
    Event { tenant: tenant(of), ..event(Some(1), deleted) }
}

fn paths(drafts: &[Draft]) -> Vec<(&str, u32)> {
    drafts.iter().map(|draft| (draft.path.as_str(), draft.writes)).collect()
}

pub async fn a_new_kind_of_thing_is_recorded_listed_checked_and_seen_as_it_was(subject: &Subject) {
    let store = subject.open().await;
    let registry = Registry::default().with::<Draft>();
    let mut log = Recorder::keeping(registry.clone());
    let first = [written("red", "/a"), written("red", "/b"), written("blue", "/a"), written("red", "/a\0")];
    store.append(&log.batch(first.to_vec())).await.unwrap();
    // In the memory of those who follow the log from here on.
    let mut held = Held::load_all(&*store, &registry).await.unwrap().remove(Draft::KIND).unwrap();
    let then = [written("red", "/a"), deleted("red", "/b")];
    let batch = log.batch(then.to_vec());
    assert_eq!(batch.rows.iter().map(|row: &Row| row.kind).collect::<Vec<_>>(), ["draft", "draft"]);
    store.append(&batch).await.unwrap();
    then.iter().for_each(|event| held.apply(event));

    let (red, blue) = (tenant("red"), tenant("blue"));
    let key = Draft::key_of(&red, "/a");
    assert_eq!(store.get::<Draft>(key.clone()).await.unwrap().map(|draft| draft.writes), Some(2));
    assert_eq!(store.get_of::<Draft>(&blue, key.clone()).await.unwrap(), None);
    let of_red = store.of_tenant::<Draft>(&red).await.unwrap();
    assert_eq!(paths(&of_red), [("/a", 2), ("/a\0", 1), ("/b", 1)]);
    let lasting = RowQuery { tenant: Some(red.clone()), ended: Some(false), ..RowQuery::default() };
    let lasting = store.list::<Draft>(lasting).await.unwrap();
    assert_eq!(paths(&lasting), [("/a", 2), ("/a\0", 1)]);
    assert_eq!(held.of::<Draft>(&red), lasting);
    assert_eq!(paths(&held.of(&blue)), [("/a", 1)]);

    // As it was: after the first batch, and before all of it.
    let past = Past::<Draft>::one(&*store, &red, &key, Position(4)).await.unwrap().unwrap();
    assert_eq!((past.state.writes, past.position), (1, Position(1)));
    assert_eq!(Past::<Draft>::one(&*store, &blue, &key, Position(4)).await.unwrap(), None);
    let mut live = Past::<Draft>::live(&*store, &red, Position(4)).await.unwrap();
    live.sort_by_key(|past| past.state.key());
    let live: Vec<Draft> = live.into_iter().map(|past| past.state).collect();
    assert_eq!(paths(&live), [("/a", 1), ("/a\0", 1), ("/b", 1)]);

    // What it does not take is judged by it, and its events are in the trail.
    let of_files = AuditFilter {
        tenant: Some(red.clone()),
        types: Kind::of::<Draft>().types(),
        ..AuditFilter::default()
    };
    let trail = store.read_audit(&of_files, Position::ZERO, Position(100), false, 100).await.unwrap();
    assert_eq!(trail.iter().map(|row| row.position.0).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    assert_eq!(
        log.dropped(vec![written("red", "/b"), deleted("blue", "/b")]),
        [DropReason::AfterEnd, DropReason::Gap]
    );

    // What is shown of it is what its events make of it, and a forged row is found.
    let checked = async || {
        let mut counts = Default::default();
        refold_kinds(&store, Position::ZERO, &registry, &mut counts).await.unwrap()
    };
    assert_eq!(checked().await, None);
    subject.raw("UPDATE aggregates SET status = 'kept' WHERE kind = 'draft' AND ended = 1").await.unwrap();
    let found = checked().await.unwrap();
    assert!(found.explanation.contains("draft") && found.explanation.contains("/b"), "{}", found.explanation);
}
