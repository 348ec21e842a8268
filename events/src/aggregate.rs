//! What the log speaks of: things that are what their events make of them.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Category, Event, TenantId};

/// A kind of thing that the log speaks of, and whose state is made of its events alone.
///
/// Whoever records, stores, shows or checks things knows only this trait and the [`Registry`](crate::Registry): a new kind is its
/// words, an implementation of this, and a line in the registry.
///
/// What an implementation owes:
///
/// - **Pure and total**: no clock, no I/O, no panic, whatever events come in whatever order.
/// - **Repeatable**: any part of the log may be applied again, from some event on to its end, and leads to the same state.
/// - **The first end counts**: what comes after it changes nothing.
pub trait Aggregate:
    Clone + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What the store calls this kind. It never changes.
    const KIND: &'static str;

    /// The categories of the events that make its state.
    const TAKES: &'static [Category];

    /// How its events are found in the log.
    const FOUND_BY: FoundBy = FoundBy::Category;

    /// Which one of them an event changes, if any.
    fn changed_by(event: &Event) -> Option<Key>;

    /// Whether an event that would change one belongs in the record, given what is recorded. `Ok` says how many bytes at the front of
    /// its body are recorded already: zero for all that has no body.
    fn judge(_state: Option<&Self>, _event: &Event) -> Result<usize, DropReason> {
        Ok(0)
    }

    /// Whether an event begins one so that the store itself refuses a second beginning. It may then be taken for new without a look.
    fn begins_once(_event: &Event) -> bool {
        false
    }

    /// The state after an event, given the state before it. `None` before it was made and after it was deleted.
    fn apply(state: Option<Self>, event: &Event) -> Option<Self>;

    /// Which one it is.
    fn key(&self) -> Key;

    /// What it is found by.
    fn fields(&self) -> Fields;
}

/// How the events of one thing are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// By the sandbox of the event, which is its key.
    Sandbox,
    /// By the exec of the event, which is its key.
    Exec,
    /// By the [`Subject`] of the event: its key, in a column that is empty for all other events. For kinds of which there are many.
    /// An event has one subject at most, so no two such kinds take the same event.
    Subject,
    /// Among all events of its categories: for kinds of which there are few.
    Category,
}

/// What an event is about, where that is found by its key: which kind of thing, and which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    kind: &'static str,
    key: Key,
    bytes: Box<[u8]>,
}

impl Subject {
    /// The thing of this kind with this key.
    pub fn of(kind: &'static str, key: Key) -> Self {
        // Kinds have no slash in their names, so that no two things are the same subject and those of a kind stand together.
        let bytes = [kind.as_bytes(), b"/", key.as_bytes()].concat().into();
        Self { kind, key, bytes }
    }

    /// Which kind of thing it is.
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Which one it is.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Both, as the store knows it.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Between which bytes the subjects of a kind stand that come after a key: after the first and before the second.
    pub fn range(kind: &'static str, after: &Key) -> [Vec<u8>; 2] {
        // What stands after the slash.
        [Self::of(kind, after.clone()).bytes.into(), [kind.as_bytes(), b"0"].concat()]
    }
}

/// Which one of its kind: a sixteen-byte id, or a name in a tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(KeyBytes);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum KeyBytes {
    /// Sixteen bytes always are this variant, so that equal keys are equal.
    Id([u8; 16]),
    Other(Box<[u8]>),
}

impl Key {
    /// The one with this id.
    pub const fn of_id(id: [u8; 16]) -> Self {
        Self(KeyBytes::Id(id))
    }

    /// The one with this name in a tenant. No tenant has a slash in its name.
    pub fn of_name(tenant: &TenantId, name: &str) -> Self {
        Self::from_bytes(format!("{tenant}/{name}").as_bytes())
    }

    /// The one with these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(<[u8; 16]>::try_from(bytes).map_or_else(|_| KeyBytes::Other(bytes.into()), KeyBytes::Id))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            KeyBytes::Id(id) => id,
            KeyBytes::Other(bytes) => bytes,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            KeyBytes::Id(id) => uuid::Uuid::from_bytes(*id).fmt(f),
            KeyBytes::Other(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What things are found by, whatever their kind. A kind leaves out what it has no use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Whose it is. Never changes.
    pub tenant: TenantId,
    /// The user of the tenant whose it is.
    pub owner: Option<String>,
    /// The thing that it is a part of: the sandbox of an exec. What has no parent is listed by tenant, the rest by parent. Never
    /// changes.
    pub parent: Option<Key>,
    /// Where it is or waits: a node, a queue.
    pub place: Option<String>,
    /// Where it stands, in one word.
    pub status: &'static str,
    /// What it is counted together with: a pool, a group.
    pub label: Option<String>,
    /// Whether nothing can happen to it any more.
    pub ended: bool,
    /// What goes before what among those that wait: the least first.
    pub rank: i64,
    /// Its place in a list, the newest first, in microseconds since 1970. Never changes.
    pub sort_us: i64,
    /// When something is due to happen to it, in microseconds since 1970.
    pub due_us: Option<i64>,
}

impl Fields {
    /// Those of a thing of which only this is known.
    pub const fn new(tenant: TenantId, status: &'static str) -> Self {
        Self {
            tenant,
            owner: None,
            parent: None,
            place: None,
            status,
            label: None,
            ended: false,
            rank: 0,
            sort_us: 0,
            due_us: None,
        }
    }
}

/// Why an event is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It is recorded already.
    Duplicate,
    /// Something before it is not recorded. It will come again, after that.
    Gap,
    /// What it is about has ended.
    AfterEnd,
    /// It contradicts the record: an exec in another sandbox, a sandbox of another tenant.
    Contradiction,
    /// It is not for the executor to say that says it: of another node's sandbox, or nothing that executors say.
    Foreign,
}

/// Text from outside, for what is found by it: Postgres has no NUL in its text. The state keeps the exact text.
pub fn searchable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
