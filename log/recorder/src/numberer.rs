use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use audit::link;
use bytes::Bytes;
use events::{
    Aggregate, Category, ChainHash, ChainPoint, DecodeError, DropReason, Event, EventData, EventId,
    ExecEvent, ExecState, Frame, Gone, Key, LogEvent, LogTrimmed, MissingBody, NodeEvent, NodeId, OutputMark,
    Position, Registry, SandboxEvent, SandboxId, SandboxPhase, SandboxState, Slot, StateError, StreamMark,
    TenantId,
};
use record::{AppendBatch, AppendBody, AppendEvent, Floor, Head, Row};

use super::cache::Cache;
use super::encoder::{Encode, EncodeError};

/// Things of each kind that stay in memory between batches; others are read from the store when they are needed.
const CACHED_STATES: usize = 2_000;

/// An event that has arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The event.
    pub event: Event,
    /// Its exact bytes.
    pub frame: Frame,
    /// The node whose executor says it; `None` where somebody says it who may speak of all sandboxes.
    pub node: Option<Arc<str>>,
    /// Whether it was only offered: what cannot be recorded of it is of no interest, because it comes through the stream as well.
    pub offered: bool,
}

impl Incoming {
    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        Ok(Self { event: frame.decode()?, frame, node: None, offered: false })
    }
}

/// What must be known before a batch can be drafted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Things to load, by the name of their kind.
    pub things: BTreeMap<&'static str, BTreeSet<Key>>,
    /// Tenants whose newest link is needed.
    pub tenants: BTreeSet<TenantId>,
}

/// What the store says about [`Missing`] things. What is not in it does not exist.
#[derive(Debug, Default)]
pub struct Known {
    /// Things, by the name of their kind.
    pub things: HashMap<(&'static str, Key), Slot>,
    /// Newest links.
    pub links: HashMap<TenantId, ChainHash>,
}

/// Why nothing was drafted.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// An event could not be cut.
    #[error("cannot encode an event")]
    Event(#[from] DecodeError),
    /// A body could not be brought into the form in which it is kept.
    #[error(transparent)]
    Body(#[from] EncodeError),
    /// A state could not be written down.
    #[error("cannot write down what is known of a thing")]
    State(#[from] StateError),
}

/// A batch that is ready for the store.
#[derive(Debug)]
pub struct Draft {
    /// What to append.
    pub batch: AppendBatch,
    /// What is not recorded, and why.
    pub dropped: Vec<(EventId, DropReason)>,
    /// Those of them that somebody said who had no business to.
    pub foreign: Vec<Frame>,
    /// The execs that changed, as they are after it.
    pub execs: Vec<ExecState>,
}

/// Decides what is recorded, and numbers it. Pure: it is told everything it must know.
///
/// After a draft it assumes that the batch was appended. If that fails, it is wrong about everything: start a new one
/// from the head of the log.
#[derive(Debug)]
pub struct Numberer {
    head: Position,
    links: HashMap<TenantId, ChainHash>,
    registry: Registry,
    /// What is known of things, in the order of the kinds.
    things: Vec<Cache<Key, Slot>>,
    /// Where sandboxes are, or were until their end.
    nodes: Cache<SandboxId, NodeId>,
}

impl Numberer {
    /// One that goes on from a head.
    pub fn new(head: &Head) -> Self {
        Self::with(head, Registry::default())
    }

    /// The same, with kinds of things of its own.
    pub fn with(head: &Head, registry: Registry) -> Self {
        Self {
            head: head.position,
            links: HashMap::new(),
            things: registry.kinds().iter().map(|_| Cache::new(CACHED_STATES)).collect(),
            nodes: Cache::new(CACHED_STATES),
            registry,
        }
    }

    /// The kinds of things that it keeps.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where the next event goes after.
    pub const fn head(&self) -> Position {
        self.head
    }

    /// What must be loaded before these events can be drafted.
    ///
    /// With `trusting`, an exec that says that it starts is taken for a new one without a look: nearly all are. The
    /// store refuses a second start of an exec; then the batch is drafted again without trust.
    pub fn missing(&mut self, incoming: &[Incoming], trusting: bool) -> Missing {
        self.things.iter_mut().for_each(Cache::trim);
        self.nodes.trim();
        let mut missing = Missing::default();
        for Incoming { event, node, .. } in incoming {
            if !self.links.contains_key(&event.tenant) {
                missing.tenants.insert(event.tenant.clone());
            }
            for (kind, known) in self.registry.kinds().iter().zip(&mut self.things) {
                // Whether an executor may say it is in the state of the sandbox.
                if let (Some(_), Some(sandbox)) = (node, event.sandbox)
                    && kind.name == SandboxState::KIND
                    && !known.contains(&sandbox.into())
                {
                    missing.things.entry(kind.name).or_default().insert(sandbox.into());
                }
                let Some(key) = kind.changed_by(event) else { continue };
                let asked = missing.things.get(kind.name).is_some_and(|keys| keys.contains(&key));
                if asked || known.contains(&key) {
                    continue;
                }
                if trusting && kind.begins_once(event) {
                    known.insert(key, kind.empty());
                } else {
                    missing.things.entry(kind.name).or_default().insert(key);
                }
            }
        }
        missing
    }

    /// Takes in what was missing.
    pub fn learn(&mut self, missing: Missing, mut known: Known) {
        for (kind, things) in self.registry.kinds().iter().zip(&mut self.things) {
            for key in missing.things.get(kind.name).into_iter().flatten() {
                let slot = known.things.remove(&(kind.name, key.clone())).unwrap_or_else(|| kind.empty());
                things.insert(key.clone(), slot);
            }
        }
        for tenant in missing.tenants {
            let link = known.links.remove(&tenant).unwrap_or(ChainHash::GENESIS);
            self.links.insert(tenant, link);
        }
    }

    /// The ids that must be looked up in the store, because no state would show that the event is recorded already.
    pub fn ids_to_check(incoming: &[Incoming]) -> Vec<EventId> {
        incoming
            .iter()
            .filter(|incoming| !incoming.event.data.word().told_by_state)
            .map(|incoming| incoming.event.id)
            .collect()
    }

    /// Numbers what is to be recorded. `recorded` holds those of the ids that were looked up and found.
    pub fn draft(
        &mut self,
        incoming: Vec<Incoming>,
        recorded: &HashSet<EventId>,
        stream: StreamMark,
        encoder: &mut impl Encode,
    ) -> Result<Draft, DraftError> {
        let mut draft = Draft {
            batch: AppendBatch {
                after: self.head,
                stream,
                events: Vec::with_capacity(incoming.len()),
                ..AppendBatch::default()
            },
            dropped: Vec::new(),
            foreign: Vec::new(),
            execs: Vec::new(),
        };
        let mut ids = HashSet::with_capacity(incoming.len());
        let mut changed: BTreeMap<(usize, Key), TenantId> = BTreeMap::new();
        let mut tenants: BTreeMap<TenantId, Position> = BTreeMap::new();
        for incoming in incoming {
            let id = incoming.event.id;
            let judged = if recorded.contains(&id) || ids.contains(&id) {
                Err(DropReason::Duplicate)
            } else {
                self.judge_origin(&incoming).and_then(|()| self.judge(&incoming.event))
            };
            let skip = match judged {
                Ok(skip) => skip,
                Err(reason) => {
                    if reason == DropReason::Foreign && !incoming.offered {
                        draft.foreign.push(incoming.frame);
                    }
                    draft.dropped.push((id, reason));
                    continue;
                }
            };
            let Incoming { event, mut frame, .. } = if skip == 0 { incoming } else { cut(incoming, skip)? };
            ids.insert(id);
            self.head = self.head.next();
            frame.position = self.head;
            self.apply(&event, &mut changed);
            note_floor(&event, &mut draft.batch.floors);
            let previous = self.links.get(&event.tenant).copied().unwrap_or(ChainHash::GENESIS);
            let body = encoder.encode(&event, &frame)?;
            if let Some(AppendBody { length, stored: None, .. }) = body {
                // What is announced is what is kept.
                frame.body = Bytes::new();
                frame.missing = Some(MissingBody { why: Gone::Erased, length });
            }
            let body_hash = body.as_ref().map(|body| &body.hash);
            let hash = link(&previous, self.head, &frame.header, body_hash);
            match self.links.get_mut(&event.tenant) {
                Some(link) => *link = hash,
                None => {
                    self.links.insert(event.tenant.clone(), hash);
                }
            }
            match tenants.get_mut(&event.tenant) {
                Some(newest) => *newest = self.head,
                None => {
                    tenants.insert(event.tenant.clone(), self.head);
                }
            }
            let subject = self.registry.subject(&event);
            draft.batch.events.push(AppendEvent { subject, ..AppendEvent::new(&event, frame, body, hash) });
        }
        draft.batch.data_keys = encoder.key_changes();
        for ((index, key), tenant) in changed {
            let (kind, Some(slot)) = (&self.registry.kinds()[index], self.things[index].get(&key)) else {
                continue;
            };
            draft.execs.extend(slot.state::<ExecState>().cloned());
            draft.batch.rows.push(Row::new(kind, key, slot, tenant)?);
        }
        draft.batch.chain_heads = tenants
            .into_iter()
            .filter_map(|(tenant, position)| {
                let hash = *self.links.get(&tenant)?;
                Some(ChainPoint { tenant, position, hash })
            })
            .collect();
        Ok(draft)
    }

    /// Changes what is known by an event that is recorded.
    fn apply(&mut self, event: &Event, changed: &mut BTreeMap<(usize, Key), TenantId>) {
        for (index, (kind, things)) in self.registry.kinds().iter().zip(&mut self.things).enumerate() {
            let Some(key) = kind.changed_by(event) else { continue };
            let mut slot = things.remove(&key).unwrap_or_else(|| kind.empty());
            let node = |slot: &Slot| slot.state::<SandboxState>().and_then(SandboxState::node).cloned();
            // Its end forgets where it was.
            let before = node(&slot);
            slot.apply(event);
            if let (Some(node), Some(sandbox)) = (node(&slot).or(before), event.sandbox) {
                self.nodes.insert(sandbox, node);
            }
            things.insert(key.clone(), slot);
            changed.insert((index, key), event.tenant.clone());
        }
    }

    /// The state of one thing, if it is known.
    fn state<A: Aggregate>(&mut self, key: &Key) -> Option<&A> {
        let index = self.registry.kinds().iter().position(|kind| kind.name == A::KIND)?;
        self.things[index].get(key)?.state()
    }

    /// Whether whoever says it may. The transport lets an executor speak for its own node only; which sandboxes are on that
    /// node is in the record.
    fn judge_origin(&mut self, incoming: &Incoming) -> Result<(), DropReason> {
        let Incoming { event, node: Some(speaker), .. } = incoming else { return Ok(()) };
        let named = named_node(&event.data);
        if named.is_some_and(|node| node.as_str() != &**speaker) || !event.data.word().by_executors {
            return Err(DropReason::Foreign);
        }
        let Some(sandbox) = event.sandbox else {
            return if event.data.category() == Category::Node { Ok(()) } else { Err(DropReason::Foreign) };
        };
        let Some(state) = self.state::<SandboxState>(&sandbox.into()) else {
            // It comes again when the request is there.
            return Err(DropReason::Gap);
        };
        if state.tenant != event.tenant {
            return Err(DropReason::Foreign);
        }
        // Until it runs it is its pool's: whoever takes the command may begin, fail or end it.
        let open = matches!(state.phase, SandboxPhase::Requested | SandboxPhase::Starting { .. });
        if open && event.data.category() == Category::Sandbox {
            return Ok(());
        }
        let node = state.node().cloned();
        match node.as_ref().or_else(|| self.nodes.get(&sandbox)) {
            Some(node) if node.as_str() == &**speaker => Ok(()),
            Some(_) | None => Err(DropReason::Foreign),
        }
    }

    /// How many bytes of the body are recorded already (of output; zero of everything else), or why it is dropped.
    fn judge(&mut self, event: &Event) -> Result<usize, DropReason> {
        let mut skip = 0;
        for (kind, things) in self.registry.kinds().iter().zip(&mut self.things) {
            let Some(key) = kind.changed_by(event) else { continue };
            skip = skip.max(match things.get(&key) {
                Some(slot) => slot.judge(event)?,
                None => kind.empty().judge(event)?,
            });
        }
        Ok(skip)
    }
}

/// The node that an event says that it is of.
const fn named_node(data: &EventData) -> Option<&NodeId> {
    if let EventData::Sandbox(SandboxEvent::Starting(starting)) = data {
        Some(&starting.node)
    } else if let EventData::Sandbox(SandboxEvent::Running(running)) = data {
        Some(&running.node)
    } else if let EventData::Node(NodeEvent::Joined(joined)) = data {
        Some(&joined.node)
    } else if let EventData::Node(NodeEvent::Draining(draining)) = data {
        Some(&draining.node)
    } else {
        None
    }
}

/// Takes bytes away from the front of output. It stays the same event, with the same id.
fn cut(incoming: Incoming, skip: usize) -> Result<Incoming, DecodeError> {
    let Incoming { mut event, mut frame, node, offered } = incoming;
    if let EventData::Exec(ExecEvent::Output(output)) = &mut event.data {
        output.offset += skip as u64;
        output.bytes = output.bytes.slice(skip.min(output.bytes.len())..);
        trim_marks(&mut output.marks, skip);
        frame = event.to_frame()?;
    }
    Ok(Incoming { event, frame, node, offered })
}

/// The marks of what is left. The piece that is cut open begins at the time of its own mark, as a mark at 0.
fn trim_marks(marks: &mut Vec<OutputMark>, skip: usize) {
    let skip = u32::try_from(skip).unwrap_or(u32::MAX);
    let begun = marks.iter().rfind(|mark| mark.at <= skip).map(|mark| mark.later_us);
    marks.retain(|mark| mark.at > skip);
    for mark in marks.iter_mut() {
        mark.at -= skip;
    }
    if let Some(later_us) = begun {
        marks.insert(0, OutputMark { at: 0, later_us });
    }
}

fn note_floor(event: &Event, floors: &mut Vec<Floor>) {
    let EventData::Log(LogEvent::Trimmed(trimmed)) = &event.data else { return };
    let LogTrimmed { class, up_to, checkpoint } = *trimmed;
    match floors.iter_mut().find(|floor| floor.class == class) {
        Some(floor) if floor.up_to >= up_to => {}
        Some(floor) => *floor = Floor { class, up_to, checkpoint },
        None => floors.push(Floor { class, up_to, checkpoint }),
    }
}

#[cfg(test)]
#[path = "numberer_tests.rs"]
mod tests;
