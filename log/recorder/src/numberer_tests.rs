use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{TimeZone, Utc};
use proptest::prelude::*;

use super::*;
use crate::Encoder;
use events::*;

const STDOUT: OutputStream = OutputStream::Stdout;
const STDERR: OutputStream = OutputStream::Stderr;

fn event(data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([1; 16])),
        time: Utc.timestamp_opt(1_750_000_000, 0).single().unwrap(),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

fn exec_id(n: u8) -> ExecId {
    ExecId::from_bytes([n; 16])
}

fn started(n: u8) -> Event {
    let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
    event(ExecStarted { exec: exec_id(n), spec, env_names: vec![], pid: 7 })
}

fn output(n: u8, stream: OutputStream, offset: u64, bytes: &[u8]) -> Event {
    event(ExecOutput::new(exec_id(n), stream, offset, Bytes::copy_from_slice(bytes)))
}

fn exited(n: u8, stdout_bytes: u64, stderr_bytes: u64) -> Event {
    let ended =
        ExecEnded { stdout_bytes, stderr_bytes, truncated_bytes: 0, duration_us: 1, ..ExecEnded::default() };
    event(ExecExited { exec: exec_id(n), code: 0, signal: None, asked: None, ended })
}

fn requested() -> Event {
    let spec = serde_json::json!({
        "provider": "docker", "image": "a", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1
    });
    let at = Utc.timestamp_opt(1_750_000_060, 0).single().unwrap();
    event(SandboxRequested {
        spec: serde_json::from_value(spec).unwrap(),
        expires_at: at,
        lifetime_ends_at: at,
        term: None,
    })
}

fn destroyed(reason: DestroyReason) -> Event {
    event(SandboxDestroyed { reason })
}

/// A numberer with a store that is a map.
struct Record {
    numberer: Numberer,
    frames: Vec<Frame>,
    events: Vec<Event>,
    rows: HashMap<(&'static str, Key), Row>,
    links: HashMap<TenantId, ChainHash>,
}

impl Record {
    fn new() -> Self {
        Self {
            numberer: Numberer::new(&Head::default()),
            frames: vec![],
            events: vec![],
            rows: HashMap::new(),
            links: HashMap::new(),
        }
    }

    /// Forgets all that is not in the store.
    fn restart(&mut self) {
        self.numberer =
            Numberer::new(&Head { position: Position(self.frames.len() as u64), ..Head::default() });
    }

    /// Drafts, and appends unless the append is to fail.
    fn take(&mut self, events: Vec<Event>, fails: bool) -> Vec<DropReason> {
        self.take_of(None, events, fails)
    }

    /// What the executor of this node says, or somebody who may speak of all.
    fn take_of(&mut self, node: Option<&str>, events: Vec<Event>, fails: bool) -> Vec<DropReason> {
        let node: Option<Arc<str>> = node.map(Arc::from);
        let decoded = |event: Event| Incoming::decode(event.to_frame().unwrap()).unwrap();
        let incoming: Vec<Incoming> =
            events.into_iter().map(|event| Incoming { node: node.clone(), ..decoded(event) }).collect();
        let missing = self.numberer.missing(&incoming, false);
        let kinds = Registry::default();
        let slot = |row: &Row| {
            let kind = kinds.kinds().iter().find(|kind| kind.name == row.kind).unwrap();
            Some(((row.kind, row.key.clone()), kind.read(row.state.as_ref()?).unwrap()))
        };
        let known =
            Known { things: self.rows.values().filter_map(slot).collect(), links: self.links.clone() };
        self.numberer.learn(missing, known);
        let checked: HashSet<EventId> = Numberer::ids_to_check(&incoming).into_iter().collect();
        let recorded = self.events.iter().map(|event| event.id).filter(|id| checked.contains(id)).collect();
        let mut encoder = Encoder::new().unwrap();
        let draft = self.numberer.draft(incoming, &recorded, StreamMark::default(), &mut encoder).unwrap();
        if fails {
            self.restart();
            return vec![];
        }
        let batch = draft.batch;
        assert_eq!(batch.after.0, self.frames.len() as u64);
        for event in batch.events {
            self.events.push(event.frame.decode().unwrap());
            let previous = self.links.get(&event.tenant).copied().unwrap_or(ChainHash::GENESIS);
            let body_hash = event.body.as_ref().map(|body| &body.hash);
            let frame = &event.frame;
            assert_eq!(event.hash, link(&previous, frame.position, &frame.header, body_hash));
            self.links.insert(event.tenant, event.hash);
            self.frames.push(event.frame);
        }
        for point in batch.chain_heads {
            assert_eq!(self.links[&point.tenant], point.hash);
        }
        self.rows.extend(batch.rows.into_iter().map(|row| ((row.kind, row.key.clone()), row)));
        draft.dropped.into_iter().map(|(_, reason)| reason).collect()
    }

    fn exec(&self, id: ExecId) -> Option<ExecState> {
        let row = self.rows.get(&(ExecState::KIND, id.into()))?;
        Some(serde_json::from_str(row.state.as_ref()?).unwrap())
    }

    fn sandbox(&self) -> SandboxState {
        let row = self.rows.values().find(|row| row.kind == SandboxState::KIND).unwrap();
        serde_json::from_str(row.state.as_ref().unwrap()).unwrap()
    }

    fn output(&self, exec: ExecId, stream: OutputStream) -> Vec<u8> {
        let mut bytes = vec![];
        for event in &self.events {
            if let EventData::Exec(ExecEvent::Output(output)) = &event.data
                && output.exec == exec
                && output.stream == stream
            {
                assert_eq!(output.offset, bytes.len() as u64, "a gap or an overlap in the record");
                assert!(!output.bytes.is_empty());
                bytes.extend_from_slice(&output.bytes);
            }
        }
        bytes
    }

    /// What must hold of any record.
    fn check(&self) {
        for (index, frame) in self.frames.iter().enumerate() {
            assert_eq!(frame.position.0, index as u64 + 1);
        }
        let mut ids: Vec<EventId> = self.events.iter().map(|event| event.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), self.events.len(), "an id twice");
        let mut execs: BTreeMap<ExecId, Option<ExecState>> = BTreeMap::new();
        for event in &self.events {
            if let Some(exec) = event.data.exec() {
                let state = execs.entry(exec).or_default();
                assert!(state.as_ref().is_none_or(|state| !state.is_over()), "an event after the end");
                *state = ExecState::apply(state.take(), event);
            }
        }
        for (id, state) in execs {
            let state = state.unwrap();
            assert_eq!(Some(&state), self.exec(id).as_ref(), "the read model is not the fold");
            if let Some(ended) = state.end.as_ref().and_then(ExecEnd::ended) {
                assert!(state.stdout_bytes >= ended.stdout_bytes && state.stderr_bytes >= ended.stderr_bytes);
            }
        }
    }
}

#[test]
fn a_short_exec_is_recorded_whole() {
    let mut record = Record::new();
    let dropped = record.take(vec![started(1), output(1, STDOUT, 0, b"hi"), exited(1, 2, 0)], false);
    assert_eq!(dropped, []);
    assert_eq!(record.frames.len(), 3);
    record.check();
}

#[test]
fn overlap_is_cut_to_what_is_new() {
    let mut record = Record::new();
    record.take(vec![started(1), output(1, STDOUT, 0, b"hello")], false);
    let again = output(1, STDOUT, 3, b"lo world");
    assert_eq!(record.take(vec![again.clone()], false), []);
    let last = record.events.last().unwrap();
    assert_eq!(last.id, again.id);
    let EventData::Exec(ExecEvent::Output(cut)) = &last.data else { panic!("not output") };
    assert_eq!((cut.offset, &cut.bytes[..]), (5, &b" world"[..]));
    assert_eq!(record.output(exec_id(1), STDOUT), b"hello world");
    record.check();
}

#[test]
fn a_cut_keeps_the_times_of_what_is_left() {
    let mark = |at, later_us| OutputMark { at, later_us };
    for (skip, left) in [
        (1, vec![mark(1, 10), mark(3, 20)]),
        (2, vec![mark(0, 10), mark(2, 20)]),
        (3, vec![mark(0, 10), mark(1, 20)]),
        (5, vec![mark(0, 20)]),
    ] {
        let mut marks = vec![mark(2, 10), mark(4, 20)];
        trim_marks(&mut marks, skip);
        assert_eq!(marks, left, "{skip}");
    }
}

#[test]
fn a_detached_exec_begins_after_it_was_asked_for() {
    let mut record = Record::new();
    let spec: ExecSpec = serde_json::from_str(r#"{"argv":["true"]}"#).unwrap();
    let asked = event(ExecRequested { exec: exec_id(1), spec, env_names: vec![] });
    assert_eq!(record.take(vec![asked.clone()], false), []);
    assert_eq!(record.take(vec![asked], false), [DropReason::Duplicate]);
    assert_eq!(record.take(vec![output(1, STDOUT, 0, b"a")], false), [DropReason::Gap]);
    assert_eq!(record.take(vec![started(1), output(1, STDOUT, 0, b"a"), exited(1, 1, 0)], false), []);
    assert_eq!(record.take(vec![started(1)], false), [DropReason::AfterEnd]);
    record.check();
}

#[test]
fn a_gap_is_dropped_until_it_is_filled() {
    let mut record = Record::new();
    let (second, end) = (output(1, STDOUT, 5, b" world"), exited(1, 11, 0));
    let dropped = record.take(vec![started(1), second.clone(), end.clone()], false);
    assert_eq!(dropped, [DropReason::Gap, DropReason::Gap]);
    record.take(vec![output(1, STDOUT, 0, b"hello"), second, end], false);
    assert_eq!(record.output(exec_id(1), STDOUT), b"hello world");
    assert!(record.exec(exec_id(1)).unwrap().end.is_some());
    record.check();
}

fn exited_open(n: u8, stdout_bytes: u64) -> Event {
    let ended = ExecEnded { stdout_bytes, output_open: true, ..ExecEnded::default() };
    event(ExecExited { exec: exec_id(n), code: 0, signal: None, asked: None, ended })
}

fn closed(n: u8, stdout_bytes: u64) -> Event {
    let reason = OutputCloseReason::Eof;
    event(ExecOutputClosed { exec: exec_id(n), reason, stdout_bytes, stderr_bytes: 0, truncated_bytes: 0 })
}

#[test]
fn output_goes_on_after_an_end_that_left_it_open_until_it_is_closed() {
    let mut record = Record::new();
    let early = vec![started(1), output(1, STDOUT, 0, b"a"), closed(1, 1)];
    assert_eq!(record.take(early, false), [DropReason::Gap], "a close without an end");
    let open = vec![exited_open(1, 1), output(1, STDOUT, 1, b"b"), exited(1, 2, 0), started(1)];
    assert_eq!(record.take(open, false), [DropReason::AfterEnd; 2]);
    // Told again after a takeover: neither the end nor a byte is there twice.
    let again =
        vec![exited_open(1, 1), output(1, STDOUT, 0, b"abc"), output(1, STDOUT, 4, b"e"), closed(1, 4)];
    let dropped = [DropReason::AfterEnd, DropReason::Gap, DropReason::Gap];
    assert_eq!(record.take(again, false), dropped);
    assert_eq!(record.take(vec![output(1, STDOUT, 3, b"d"), closed(1, 4)], false), []);
    assert_eq!(record.take(vec![output(1, STDOUT, 4, b"e"), closed(1, 4)], false), [DropReason::AfterEnd; 2]);
    assert_eq!(record.output(exec_id(1), STDOUT), b"abcd");
    assert!(record.exec(exec_id(1)).unwrap().is_over());
    record.check();
}

#[test]
fn an_end_waits_for_both_streams() {
    let mut record = Record::new();
    let dropped = record.take(vec![started(1), output(1, STDOUT, 0, b"a"), exited(1, 1, 1)], false);
    assert_eq!(dropped, [DropReason::Gap]);
    assert_eq!(record.take(vec![output(1, STDERR, 0, b"b"), exited(1, 1, 1)], false), []);
    record.check();
}

#[test]
fn nothing_of_an_unknown_exec_is_recorded_before_its_start() {
    let mut record = Record::new();
    let dropped = record.take(vec![output(1, STDOUT, 0, b"a"), exited(1, 0, 0)], false);
    assert_eq!(dropped, [DropReason::Gap, DropReason::Gap]);
    let failed = event(ExecFailed {
        exec: exec_id(1),
        code: FailureCode::SandboxGone,
        message: "gone".to_owned(),
        request_digest: None,
    });
    assert_eq!(record.take(vec![failed, started(1)], false), [DropReason::AfterEnd]);
    record.check();
}

#[test]
fn the_first_end_wins_and_nothing_follows_it() {
    let mut record = Record::new();
    record.take(vec![started(1), exited(1, 0, 0)], false);
    let unknown = event(ExecOutcomeUnknown { exec: exec_id(1), message: "gone".to_owned() });
    let late = vec![exited(1, 0, 0), unknown, output(1, STDOUT, 0, b"late"), started(1)];
    assert_eq!(record.take(late, false), [DropReason::AfterEnd; 4]);
    record.take(vec![requested(), destroyed(DestroyReason::User)], false);
    record.restart();
    assert_eq!(record.take(vec![destroyed(DestroyReason::Ttl)], false), [DropReason::AfterEnd]);
    record.check();
}

#[test]
fn an_event_that_comes_again_is_a_duplicate() {
    let mut record = Record::new();
    let extended =
        event(SandboxTtlExtended { expires_at: Utc.timestamp_opt(1_750_000_000, 0).single().unwrap() });
    let read = event(FileRead { path: "/a".to_owned(), size: 1, range: None });
    let all = vec![requested(), extended, read, started(1), output(1, STDOUT, 0, b"a")];
    let twice = [all.clone(), all.clone()].concat();
    assert_eq!(record.take(twice, false), [DropReason::Duplicate; 5]);
    record.restart();
    assert_eq!(record.take(all, false), [DropReason::Duplicate; 5]);
    assert_eq!(record.take(vec![requested(), started(1)], false), [DropReason::Duplicate; 2]);
    record.check();
}

fn running(node: &str) -> Event {
    event(SandboxRunning {
        node: node.parse().unwrap(),
        runtime_id: "r".to_owned(),
        took_us: 1,
        expires_at: None,
        lifetime_ends_at: None,
        address: None,
    })
}

#[test]
fn a_sandbox_begins_to_run_once_whoever_tells_it() {
    let mut record = Record::new();
    let starting = |node: &str| event(SandboxStarting { node: node.parse().unwrap() });
    record.take(vec![requested(), starting("node-1")], false);
    // Delivered again to the same executor, and to another one: only the second is news.
    assert_eq!(record.take(vec![starting("node-1"), starting("node-2")], false), [DropReason::Duplicate]);
    record.take(vec![running("node-2")], false);
    // Told by reconciliation, by a command that came again, and by a node that was too late.
    let again = record.take(vec![running("node-2"), running("node-1"), starting("node-1")], false);
    assert_eq!(again, [DropReason::Duplicate; 3]);
    record.restart();
    assert_eq!(record.take(vec![running("node-2")], false), [DropReason::Duplicate]);
    let node = record.sandbox().node().unwrap().clone();
    assert_eq!(node.as_str(), "node-2");
}

#[test]
fn a_sandbox_is_asked_to_go_once_and_begins_nothing_after_its_end() {
    let mut record = Record::new();
    let asked = |reason| event(SandboxDestroying { reason });
    record.take(vec![requested(), running("node-1"), asked(DestroyReason::User)], false);
    assert_eq!(record.take(vec![asked(DestroyReason::Ttl)], false), [DropReason::Duplicate]);
    record.take(vec![destroyed(DestroyReason::Vanished)], false);
    let late = record.take(vec![running("node-1"), asked(DestroyReason::Ttl)], false);
    assert_eq!(late, [DropReason::AfterEnd; 2]);
    assert_eq!(record.frames.len(), 4);
}

#[test]
fn viewers_come_and_go_after_the_end_of_an_exec_too() {
    let mut record = Record::new();
    let attached = event(ExecAttached {
        exec: exec_id(1),
        attachment: "at-1".parse().unwrap(),
        writes: false,
        source: None,
        stdout_offset: 0,
        stderr_offset: 0,
        untold: 0,
    });
    assert_eq!(record.take(vec![attached.clone()], false), [DropReason::Gap], "of an exec that nobody knows");
    record.take(vec![requested(), started(1), exited(1, 0, 0)], false);
    let end = record.exec(exec_id(1));
    assert!(record.take(vec![attached.clone()], false).is_empty());
    assert_eq!(record.take(vec![attached], false), [DropReason::Duplicate]);
    assert_eq!(record.exec(exec_id(1)), end);
}

#[test]
fn what_contradicts_the_record_is_dropped() {
    let mut record = Record::new();
    record.take(vec![requested(), started(1)], false);
    let mut elsewhere = output(1, STDOUT, 0, b"a");
    elsewhere.sandbox = Some(SandboxId::from_bytes([9; 16]));
    let mut nowhere = output(1, STDOUT, 0, b"a");
    nowhere.sandbox = None;
    let mut theirs = output(1, STDOUT, 0, b"a");
    theirs.tenant = "other".parse().unwrap();
    let mut their_end = destroyed(DestroyReason::User);
    their_end.tenant = "other".parse().unwrap();
    let all = vec![elsewhere, nowhere, theirs, their_end];
    assert_eq!(record.take(all, false), [DropReason::Contradiction; 4]);
    // What ends past all numbers is no event at all.
    let endless = output(1, STDOUT, u64::MAX, b"a");
    assert!(Incoming::decode(endless.to_frame().unwrap()).is_err());
    assert_eq!(record.take(vec![destroyed(DestroyReason::User)], false), []);
    record.check();
}

#[test]
fn an_executor_speaks_of_its_own_sandboxes_only() {
    let mut record = Record::new();
    let starting = |node: &str| event(SandboxStarting { node: node.parse().unwrap() });
    let (one, two) = (Some("node-1"), Some("node-2"));
    let foreign = [DropReason::Foreign];
    // What the gateway says, and what looks like it.
    assert_eq!(record.take_of(one, vec![requested()], false), foreign);
    assert_eq!(record.take_of(one, vec![starting("node-1")], false), [DropReason::Gap]);
    assert_eq!(record.take(vec![requested()], false), []);
    // It is the pool's until it runs; but nobody begins it for another.
    assert_eq!(record.take_of(two, vec![starting("node-1")], false), foreign);
    assert_eq!(record.take_of(two, vec![started(9)], false), foreign);
    assert_eq!(record.take_of(two, vec![starting("node-2")], false), []);
    assert_eq!(record.take_of(one, vec![starting("node-1"), running("node-1")], false), []);
    for restarted in [false, true] {
        if restarted {
            record.restart();
        }
        for said in [running("node-2"), started(8), destroyed(DestroyReason::User), starting("node-2")] {
            assert_eq!(record.take_of(two, vec![said], false), foreign);
        }
    }
    assert_eq!(record.take_of(one, vec![started(1), output(1, STDOUT, 0, b"a")], false), []);
    assert_eq!(record.take_of(two, vec![output(1, STDOUT, 1, b"forged")], false), foreign);
    let erased = event(SandboxErased {});
    assert_eq!(record.take_of(one, vec![erased], false), foreign);
    let mut other = output(1, STDOUT, 1, b"b");
    other.tenant = "red".parse().unwrap();
    assert_eq!(record.take_of(one, vec![other], false), foreign);
    // Nothing of no sandbox, but that a node is there, and no other.
    let mut joined = event(NodeDraining { node: "node-1".parse().unwrap() });
    joined.sandbox = None;
    assert_eq!(record.take_of(two, vec![joined.clone()], false), foreign);
    assert_eq!(record.take_of(one, vec![joined], false), []);
    // What comes after the end is still known to be of the right node, or of another one.
    assert_eq!(record.take_of(one, vec![destroyed(DestroyReason::User)], false), []);
    assert_eq!(record.take_of(two, vec![exited(1, 1, 0)], false), foreign);
    assert_eq!(record.take_of(one, vec![exited(1, 1, 0)], false), []);
    // Of one from long ago nobody can tell.
    record.restart();
    assert_eq!(record.take_of(one, vec![started(7)], false), foreign);
    // Others, and executors from before there was such a thing, are believed.
    let before = record.frames.len();
    assert_eq!(record.take(vec![event(FileDeleted { path: "/a".into(), recursive: false })], false), []);
    assert_eq!(record.frames.len(), before + 1);
}

#[test]
fn chains_of_tenants_are_apart() {
    let mut record = Record::new();
    let mut theirs = requested();
    theirs.tenant = "other".parse().unwrap();
    theirs.sandbox = Some(SandboxId::from_bytes([2; 16]));
    record.take(vec![requested(), theirs, started(1)], false);
    record.restart();
    record.take(vec![exited(1, 0, 0)], false);
    assert_eq!(record.links.len(), 2);
    record.check();
}

/// What one exec really printed and how it was cut into events by one executor that attached at some offset.
#[derive(Debug, Clone)]
struct Attempt {
    exec: u8,
    /// The offsets that it attaches at, as parts of the whole.
    from: (u8, u8),
    /// Lengths of the pieces, and which stream each is of.
    cuts: Vec<(bool, u8)>,
    starts: bool,
    ends: bool,
}

fn truth(exec: u8, stream: OutputStream) -> Vec<u8> {
    let len = match stream {
        OutputStream::Stdout => 40 + usize::from(exec) * 7,
        OutputStream::Stderr => usize::from(exec) * 5,
    };
    (0..len).map(|n| (n * 7 + usize::from(exec)) as u8).collect()
}

impl Attempt {
    fn events(&self) -> Vec<Event> {
        let whole = [truth(self.exec, STDOUT), truth(self.exec, STDERR)];
        let mut at = [
            usize::from(self.from.0) * whole[0].len() / 255,
            usize::from(self.from.1) * whole[1].len() / 255,
        ];
        let mut events = vec![];
        if self.starts {
            events.push(started(self.exec));
        }
        for (is_stderr, len) in &self.cuts {
            let stream = usize::from(*is_stderr);
            let end = (at[stream] + usize::from(*len)).min(whole[stream].len());
            let name = if *is_stderr { STDERR } else { STDOUT };
            events.push(output(self.exec, name, at[stream] as u64, &whole[stream][at[stream]..end]));
            at[stream] = end;
        }
        if self.ends {
            events.push(exited(self.exec, whole[0].len() as u64, whole[1].len() as u64));
        }
        events
    }

    /// An executor that does everything right, from the start.
    fn whole(exec: u8) -> Self {
        Self { exec, from: (0, 0), cuts: [(false, 11), (true, 7)].repeat(20), starts: true, ends: true }
    }
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let cuts = proptest::collection::vec((any::<bool>(), 0u8..30), 0..12);
    (0u8..3, any::<(u8, u8)>(), cuts, any::<bool>(), any::<bool>())
        .prop_map(|(exec, from, cuts, starts, ends)| Attempt { exec, from, cuts, starts, ends })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Executors that die, come back, live on as zombies and cut output anywhere; messages that are lost, doubled and
    /// mixed; appends that fail and recorders that restart: the record holds each byte once, in order, and one end.
    #[test]
    fn the_record_holds_each_byte_once(
        attempts in proptest::collection::vec(attempt(), 0..12),
        shuffle in proptest::collection::vec((any::<u16>(), 0u8..10), 0..200),
        batch_lens in proptest::collection::vec((1usize..9, 0u8..10), 1..50),
    ) {
        // Each attempt keeps its own order, but attempts interleave, and single events are lost or come twice.
        let mut queues: Vec<Vec<Event>> = attempts
            .iter()
            .map(|attempt| attempt.events().into_iter().rev().collect())
            .collect();
        let mut stream = vec![];
        for (pick, fate) in shuffle {
            queues.retain(|queue| !queue.is_empty());
            let Some(index) = usize::from(pick).checked_rem(queues.len()) else { break };
            let Some(event) = queues[index].pop() else { break };
            if fate > 0 {
                stream.push(event.clone());
            }
            if fate > 7 {
                stream.push(event);
            }
        }
        // Whatever happened, in the end somebody sends everything in order, and everything comes again.
        for exec in 0..3 {
            stream.extend(Attempt::whole(exec).events());
        }
        let again = stream.clone();
        let mut record = Record::new();
        let mut lens = batch_lens.iter().cycle();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (len, fate) = lens.next().copied().unwrap_or((1, 9));
            let (batch, after) = rest.split_at(len.min(rest.len()));
            if fate == 0 {
                record.take(batch.to_vec(), true);
            }
            record.take(batch.to_vec(), false);
            if fate == 1 {
                record.restart();
            }
            rest = after;
        }
        for exec in 0..3 {
            let id = exec_id(exec);
            prop_assert_eq!(record.output(id, STDOUT), truth(exec, STDOUT));
            prop_assert_eq!(record.output(id, STDERR), truth(exec, STDERR));
            prop_assert!(record.exec(id).unwrap().end.is_some());
        }
        record.check();
        let len = record.frames.len();
        record.restart();
        record.take(again, false);
        prop_assert_eq!(record.frames.len(), len, "what comes again is recorded again");
    }
}
