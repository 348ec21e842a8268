//! All kinds of things that the log speaks of, for those who treat them alike.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::{
    Aggregate, Category, DropReason, Event, ExecState, Fields, FoundBy, JobState, Key, SandboxState,
    ScheduleState, Subject, TemplateState, WebhookState, searchable,
};

/// The kinds of things. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry(Arc<[Kind]>);

impl Default for Registry {
    fn default() -> Self {
        Self(Arc::new([
            Kind::of::<ExecState>(),
            Kind::of::<JobState>(),
            Kind::of::<SandboxState>(),
            Kind::of::<TemplateState>(),
            Kind::of::<WebhookState>(),
            Kind::of::<ScheduleState>(),
        ]))
    }
}

impl Registry {
    /// These and one more.
    #[must_use]
    pub fn with<A: Aggregate>(self) -> Self {
        Self(self.0.iter().copied().chain([Kind::of::<A>()]).collect())
    }

    /// All of them, always in the same order.
    pub fn kinds(&self) -> &[Kind] {
        &self.0
    }

    /// What an event is about, if that is of a kind whose events are found by it.
    pub fn subject(&self, event: &Event) -> Option<Subject> {
        let mut kinds = self.0.iter().filter(|kind| kind.found_by == FoundBy::Subject);
        kinds.find_map(|kind| Some(Subject::of(kind.name, kind.changed_by(event)?)))
    }
}

/// One kind, as those see it who do not know which.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What the store calls it.
    pub name: &'static str,
    /// The categories of the events that make its states.
    pub takes: &'static [Category],
    /// How the events of one are found.
    pub found_by: FoundBy,
    changed_by: fn(&Event) -> Option<Key>,
    begins_once: fn(&Event) -> bool,
    empty: fn() -> Slot,
    read: fn(&str) -> serde_json::Result<Slot>,
}

impl Kind {
    /// That of an aggregate.
    pub const fn of<A: Aggregate>() -> Self {
        Self {
            name: A::KIND,
            takes: A::TAKES,
            found_by: A::FOUND_BY,
            changed_by: A::changed_by,
            begins_once: A::begins_once,
            empty: || Slot(Box::new(None::<A>)),
            read: |state| Ok(Slot(Box::new(Some(serde_json::from_str::<A>(state)?)))),
        }
    }

    /// Which one of this kind an event changes, if any.
    pub fn changed_by(&self, event: &Event) -> Option<Key> {
        (self.changed_by)(event)
    }

    /// See [`Aggregate::begins_once`].
    pub fn begins_once(&self, event: &Event) -> bool {
        (self.begins_once)(event)
    }

    /// Room for one that the log has not spoken of.
    pub fn empty(&self) -> Slot {
        (self.empty)()
    }

    /// One whose state was written down.
    pub fn read(&self, state: &str) -> Result<Slot, StateError> {
        (self.read)(state).map_err(|error| StateError(crate::without_values(&error)))
    }

    /// The names of the types that make its states.
    pub fn types(&self) -> Vec<String> {
        let words = self.takes.iter().flat_map(|category| category.words());
        words.map(|word| word.name.to_owned()).collect()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

/// A state that cannot be read or written, and what is wrong with it without its values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged state: {0}")]
pub struct StateError(String);

/// What the log has made of one thing so far, of whatever kind; or that there is none.
pub struct Slot(Box<dyn Held>);

impl Slot {
    /// The state, if there is one and it is of this kind.
    pub fn state<A: Aggregate>(&self) -> Option<&A> {
        self.0.as_any().downcast_ref::<Option<A>>()?.as_ref()
    }

    /// See [`Aggregate::judge`].
    pub fn judge(&self, event: &Event) -> Result<usize, DropReason> {
        self.0.judge(event)
    }

    /// See [`Aggregate::apply`].
    pub fn apply(&mut self, event: &Event) {
        self.0.apply(event);
    }

    /// Which one it is; `None` if there is none.
    #[cfg(test)]
    fn key(&self) -> Option<Key> {
        self.0.key()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.fields().is_none()
    }

    /// What it is found by; `None` if there is none.
    pub fn fields(&self) -> Option<Fields> {
        self.0.fields()
    }

    /// The state, written down; `None` if there is none.
    pub fn write(&self) -> Result<Option<String>, StateError> {
        self.0.write().map_err(|error| StateError(crate::without_values(&error)))
    }

    /// Whether a written state says the same.
    pub fn is_written_as(&self, state: &str) -> bool {
        self.0.is_written_as(state)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

trait Held: fmt::Debug + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn judge(&self, event: &Event) -> Result<usize, DropReason>;
    fn apply(&mut self, event: &Event);
    #[cfg(test)]
    fn key(&self) -> Option<Key>;
    fn fields(&self) -> Option<Fields>;
    fn write(&self) -> serde_json::Result<Option<String>>;
    fn is_written_as(&self, state: &str) -> bool;
}

impl<A: Aggregate> Held for Option<A> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn judge(&self, event: &Event) -> Result<usize, DropReason> {
        // Nothing changes hands, whatever its kind: what another tenant says of it would change nothing, and would be there for good.
        if self.as_ref().is_some_and(|state| state.fields().tenant != event.tenant) {
            return Err(DropReason::Contradiction);
        }
        A::judge(self.as_ref(), event)
    }

    fn apply(&mut self, event: &Event) {
        *self = A::apply(self.take(), event);
    }

    #[cfg(test)]
    fn key(&self) -> Option<Key> {
        self.as_ref().map(A::key)
    }

    fn fields(&self) -> Option<Fields> {
        let mut fields = self.as_ref().map(A::fields)?;
        for text in [&mut fields.owner, &mut fields.place, &mut fields.label].into_iter().flatten() {
            if text.contains('\0') {
                *text = searchable(text);
            }
        }
        Some(fields)
    }

    fn write(&self) -> serde_json::Result<Option<String>> {
        self.as_ref().map(serde_json::to_string).transpose()
    }

    fn is_written_as(&self, state: &str) -> bool {
        serde_json::from_str::<A>(state).is_ok_and(|read| self.as_ref() == Some(&read))
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
