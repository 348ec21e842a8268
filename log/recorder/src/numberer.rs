use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use audit::link;
use bytes::Bytes;
use events::{
    Category, ChainHash, ChainPoint, DecodeError, Event, EventData, EventId, ExecEvent, ExecExited, ExecId,
    ExecKilled, ExecOutput, ExecState, ExecTimedOut, Frame, Gone, LogEvent, LogTrimmed, MissingBody,
    NodeEvent, NodeId, OutputMark, OutputStream, Position, SandboxEvent, SandboxId, SandboxPhase,
    SandboxState, StreamMark, TemplateEvent, TenantId, WebhookEvent, WebhookId, WebhookState,
};
use record::{AppendBatch, AppendBody, AppendEvent, Floor, Head, TemplateChange, WebhookChange};

use super::cache::Cache;
use super::encoder::{Encode, EncodeError};

/// Sandboxes and execs (each) that stay in memory between batches; others are read from the store when they are needed.
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
}

impl Incoming {
    /// Reads a frame.
    pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
        Ok(Self { event: frame.decode()?, frame, node: None })
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

/// What must be known before a batch can be drafted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Sandboxes to load.
    pub sandboxes: BTreeSet<SandboxId>,
    /// Execs to load.
    pub execs: BTreeSet<ExecId>,
    /// Webhooks to load.
    pub webhooks: BTreeSet<WebhookId>,
    /// Tenants whose newest link is needed.
    pub tenants: BTreeSet<TenantId>,
}

/// What the store says about [`Missing`] things. What is not in it does not exist.
#[derive(Debug, Default)]
pub struct Known {
    /// Sandboxes.
    pub sandboxes: HashMap<SandboxId, SandboxState>,
    /// Execs.
    pub execs: HashMap<ExecId, ExecState>,
    /// Webhooks.
    pub webhooks: HashMap<WebhookId, WebhookState>,
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
}

/// Decides what is recorded, and numbers it. Pure: it is told everything it must know.
///
/// After a draft it assumes that the batch was appended. If that fails, it is wrong about everything: start a new one
/// from the head of the log.
#[derive(Debug)]
pub struct Numberer {
    head: Position,
    links: HashMap<TenantId, ChainHash>,
    sandboxes: Cache<SandboxId, Option<SandboxState>>,
    execs: Cache<ExecId, Option<ExecState>>,
    webhooks: Cache<WebhookId, Option<WebhookState>>,
    /// Where sandboxes are, or were until their end.
    nodes: Cache<SandboxId, NodeId>,
}

impl Numberer {
    /// One that goes on from a head.
    pub fn new(head: &Head) -> Self {
        Self {
            head: head.position,
            links: HashMap::new(),
            sandboxes: Cache::new(CACHED_STATES),
            execs: Cache::new(CACHED_STATES),
            webhooks: Cache::new(CACHED_STATES),
            nodes: Cache::new(CACHED_STATES),
        }
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
        self.sandboxes.trim();
        self.execs.trim();
        self.webhooks.trim();
        self.nodes.trim();
        let mut missing = Missing::default();
        for Incoming { event, node, .. } in incoming {
            if let (Some(_), Some(sandbox)) = (node, event.sandbox)
                && !self.sandboxes.contains(&sandbox)
            {
                missing.sandboxes.insert(sandbox);
            }
            if !self.links.contains_key(&event.tenant) {
                missing.tenants.insert(event.tenant.clone());
            }
            if let Some(webhook) = changed_webhook(event)
                && !self.webhooks.contains(&webhook)
            {
                missing.webhooks.insert(webhook);
            }
            if let Some(exec) = event.data.exec() {
                if self.execs.contains(&exec) || missing.execs.contains(&exec) {
                    continue;
                }
                if trusting && matches!(event.data, EventData::Exec(ExecEvent::Started(_))) {
                    self.execs.insert(exec, None);
                } else {
                    missing.execs.insert(exec);
                }
            } else if let Some(sandbox) = changed_sandbox(event)
                && !self.sandboxes.contains(&sandbox)
            {
                missing.sandboxes.insert(sandbox);
            }
        }
        missing
    }

    /// Takes in what was missing.
    pub fn learn(&mut self, missing: Missing, mut known: Known) {
        for id in missing.sandboxes {
            self.sandboxes.insert(id, known.sandboxes.remove(&id));
        }
        for id in missing.execs {
            self.execs.insert(id, known.execs.remove(&id));
        }
        for id in missing.webhooks {
            self.webhooks.insert(id, known.webhooks.remove(&id));
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
        };
        let mut ids = HashSet::with_capacity(incoming.len());
        let (mut sandboxes, mut execs) = (BTreeSet::new(), BTreeSet::new());
        let mut tenants: BTreeMap<TenantId, Position> = BTreeMap::new();
        let mut webhooks = BTreeMap::new();
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
                    if reason == DropReason::Foreign {
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
            if let Some(exec) = event.data.exec() {
                let state = self.execs.remove(&exec).flatten();
                self.execs.insert(exec, ExecState::apply(state, &event));
                execs.insert(exec);
            } else if let Some(sandbox) = changed_sandbox(&event) {
                let state = self.sandboxes.remove(&sandbox).flatten();
                // Its end forgets where it was.
                let before = state.as_ref().and_then(SandboxState::node).cloned();
                let state = SandboxState::apply(state, &event);
                if let Some(node) = state.as_ref().and_then(SandboxState::node).cloned().or(before) {
                    self.nodes.insert(sandbox, node);
                }
                self.sandboxes.insert(sandbox, state);
                sandboxes.insert(sandbox);
            }
            if let Some(webhook) = changed_webhook(&event) {
                let state = self.webhooks.remove(&webhook).flatten();
                self.webhooks.insert(webhook, WebhookState::apply(state, &event));
                webhooks.insert(webhook, event.tenant.clone());
            }
            note_template(&event, &mut draft.batch.templates);
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
            draft.batch.events.push(AppendEvent::new(&event, frame, body, hash));
        }
        draft.batch.data_keys = encoder.key_changes();
        let states = sandboxes.iter().filter_map(|id| self.sandboxes.get(id)?.clone());
        draft.batch.sandboxes = states.collect();
        let states = execs.iter().filter_map(|id| self.execs.get(id)?.clone());
        draft.batch.execs = states.collect();
        draft.batch.webhooks = webhooks
            .into_iter()
            .map(|(id, tenant)| {
                let state = self.webhooks.get(&id).cloned().flatten();
                WebhookChange { id, tenant, state }
            })
            .collect();
        draft.batch.chain_heads = tenants
            .into_iter()
            .filter_map(|(tenant, position)| {
                let hash = *self.links.get(&tenant)?;
                Some(ChainPoint { tenant, position, hash })
            })
            .collect();
        Ok(draft)
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
        let Some(state) = self.sandboxes.get(&sandbox).and_then(Option::as_ref) else {
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
        let node = state.node().or_else(|| self.nodes.get(&sandbox));
        match node {
            Some(node) if node.as_str() == &**speaker => Ok(()),
            Some(_) | None => Err(DropReason::Foreign),
        }
    }

    /// How many bytes of the body are recorded already (of output; zero of everything else), or why it is dropped.
    fn judge(&mut self, event: &Event) -> Result<usize, DropReason> {
        if let EventData::Exec(said) = &event.data {
            let state = self.execs.get(&said.exec()).and_then(Option::as_ref);
            return judge_exec(state, event, said);
        }
        let (Some(sandbox), EventData::Sandbox(said)) = (event.sandbox, &event.data) else {
            return Ok(0);
        };
        let state = self.sandboxes.get(&sandbox).and_then(Option::as_ref);
        judge_sandbox(state, event, said).map(|()| 0)
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

fn judge_exec(state: Option<&ExecState>, event: &Event, said: &ExecEvent) -> Result<usize, DropReason> {
    let Some(sandbox) = event.sandbox else {
        return Err(DropReason::Contradiction);
    };
    if let Some(state) = state {
        if state.tenant != event.tenant || state.sandbox != sandbox {
            return Err(DropReason::Contradiction);
        }
        // Viewers come and go also before an exec begins, and long after it has ended.
        if said.word().beside {
            return Ok(0);
        }
        if state.is_over() {
            return Err(DropReason::AfterEnd);
        }
        if state.output_open && !matches!(said, ExecEvent::Output(_) | ExecEvent::OutputClosed(_)) {
            return Err(DropReason::AfterEnd);
        }
    }
    let begun = || state.filter(|state| !state.pending).ok_or(DropReason::Gap);
    match said {
        ExecEvent::Requested(_) if state.is_none() => Ok(0),
        ExecEvent::Started(_) if state.is_none_or(|state| state.pending) => Ok(0),
        ExecEvent::Requested(_) | ExecEvent::Started(_) => Err(DropReason::Duplicate),
        ExecEvent::Failed(_) | ExecEvent::OutcomeUnknown(_) => Ok(0),
        ExecEvent::Output(output) => judge_output(begun()?.recorded(output.stream), output),
        ExecEvent::Exited(ExecExited { ended, .. })
        | ExecEvent::TimedOut(ExecTimedOut { ended, .. })
        | ExecEvent::Killed(ExecKilled { ended, .. }) => {
            follows(begun()?, ended.stdout_bytes, ended.stderr_bytes)
        }
        ExecEvent::OutputClosed(closed) => {
            // It follows an end that says that the output stays open.
            let state = Some(begun()?).filter(|state| state.output_open).ok_or(DropReason::Gap)?;
            follows(state, closed.stdout_bytes, closed.stderr_bytes)
        }
        ExecEvent::Input(_)
        | ExecEvent::Resized(_)
        | ExecEvent::Signaled(_)
        | ExecEvent::Attached(_)
        | ExecEvent::Detached(_) => begun().map(|_| 0),
    }
}

/// Whether all output that is to come before an event is recorded.
fn follows(state: &ExecState, stdout_bytes: u64, stderr_bytes: u64) -> Result<usize, DropReason> {
    let complete = stdout_bytes <= state.recorded(OutputStream::Stdout)
        && stderr_bytes <= state.recorded(OutputStream::Stderr);
    if complete { Ok(0) } else { Err(DropReason::Gap) }
}

fn judge_output(recorded: u64, output: &ExecOutput) -> Result<usize, DropReason> {
    let end = output.offset.checked_add(output.bytes.len() as u64).ok_or(DropReason::Contradiction)?;
    if output.offset > recorded {
        return Err(DropReason::Gap);
    }
    if end <= recorded {
        return Err(DropReason::Duplicate);
    }
    // Less than the length of the bytes, by the check above.
    Ok((recorded - output.offset) as usize)
}

fn judge_sandbox(state: Option<&SandboxState>, event: &Event, said: &SandboxEvent) -> Result<(), DropReason> {
    let Some(state) = state else {
        // Nobody could tell a second end from the first, and what it was asked to be is what its state begins with. It is
        // told again once the request is there.
        return if said.word().begins { Ok(()) } else { Err(DropReason::Gap) };
    };
    if state.tenant != event.tenant {
        return Err(DropReason::Contradiction);
    }
    // A sandbox begins once, on one node, whoever tells it; and its end is asked for once.
    let told = match said {
        SandboxEvent::Requested(_) => return Err(DropReason::Duplicate),
        SandboxEvent::Running(_) => matches!(state.phase, SandboxPhase::Running { .. }),
        SandboxEvent::Starting(starting) => match &state.phase {
            SandboxPhase::Starting { node } => *node == starting.node,
            SandboxPhase::Requested => false,
            SandboxPhase::Running { .. }
            | SandboxPhase::Unhealthy { .. }
            | SandboxPhase::Lost { .. }
            | SandboxPhase::Failed { .. }
            | SandboxPhase::Destroyed { .. } => true,
        },
        SandboxEvent::Destroying(_) => state.ending.is_some(),
        SandboxEvent::Failed(_) | SandboxEvent::Destroyed(_) => false,
        // What is said of one that has ended changes nothing of it, and is part of what happened.
        SandboxEvent::Pulling(_)
        | SandboxEvent::TtlExtended(_)
        | SandboxEvent::Unhealthy(_)
        | SandboxEvent::Lost(_)
        | SandboxEvent::Erased(_) => return Ok(()),
    };
    if state.is_terminal() {
        Err(DropReason::AfterEnd)
    } else if told {
        Err(DropReason::Duplicate)
    } else {
        Ok(())
    }
}

/// The sandbox whose state the event changes.
fn changed_sandbox(event: &Event) -> Option<SandboxId> {
    event.sandbox.filter(|_| event.data.category() == Category::Sandbox)
}

/// The webhook whose state the event changes.
fn changed_webhook(event: &Event) -> Option<WebhookId> {
    let changes = !matches!(
        event.data,
        EventData::Webhook(WebhookEvent::Pinged(_)) | EventData::Webhook(WebhookEvent::PingEnded(_))
    );
    event.data.webhook().filter(|_| changes)
}

/// Takes bytes away from the front of output. It stays the same event, with the same id.
fn cut(incoming: Incoming, skip: usize) -> Result<Incoming, DecodeError> {
    let Incoming { mut event, mut frame, node } = incoming;
    if let EventData::Exec(ExecEvent::Output(output)) = &mut event.data {
        output.offset += skip as u64;
        output.bytes = output.bytes.slice(skip.min(output.bytes.len())..);
        trim_marks(&mut output.marks, skip);
        frame = event.to_frame()?;
    }
    Ok(Incoming { event, frame, node })
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

fn note_template(event: &Event, changes: &mut Vec<TemplateChange>) {
    let (name, template) = if let EventData::Template(TemplateEvent::Saved(saved)) = &event.data {
        (&saved.template.name, Some(saved.template.clone()))
    } else if let EventData::Template(TemplateEvent::Deleted(deleted)) = &event.data {
        (&deleted.name, None)
    } else {
        return;
    };
    changes.retain(|change| change.tenant != event.tenant || change.name != *name);
    changes.push(TemplateChange { tenant: event.tenant.clone(), name: name.clone(), template });
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
