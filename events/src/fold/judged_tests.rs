//! What belongs in the record and what does not, given what is recorded; and that no mix of pieces loses or doubles a byte.

use proptest::prelude::*;

use super::tests::{
    EXEC, at, client, closed, destroyed, executor, exited, left_open, output, requested, running, started,
    told,
};
use crate::*;

/// What is recorded.
struct Given<A>(Option<A>);

fn given<A: Aggregate>(events: &[Event]) -> Given<A> {
    let mut state = None;
    for event in events {
        let judged = A::judge(state.as_ref(), event);
        assert!(judged.is_ok(), "{judged:?}: {event:?}");
        state = A::apply(state, event);
    }
    Given(state)
}

impl<A: Aggregate> Given<A> {
    /// What the recorder says to an event. What it does not take changes nothing either, once there is something.
    fn when(&self, event: &Event) -> Result<usize, DropReason> {
        A::judge(self.0.as_ref(), event)
    }
}

fn starting(node: &str) -> Event {
    told(1, executor(), SandboxStarting { node: node.parse().unwrap() })
}

fn destroying(reason: DestroyReason) -> Event {
    told(60, client(), SandboxDestroying { reason })
}

fn sandbox_failed() -> Event {
    told(5, executor(), SandboxFailed { code: FailureCode::Internal, message: "no".to_owned() })
}

fn extended() -> Event {
    told(30, client(), SandboxTtlExtended { expires_at: at(300) })
}

fn pulling() -> Event {
    told(2, executor(), SandboxPulling { image: "a".to_owned(), fetched_bytes: 1, total_bytes: 2 })
}

#[test]
fn a_sandbox_takes_what_fits_what_it_is() {
    use DropReason::{AfterEnd, Duplicate, Gap};
    type Told = (&'static str, Event);
    let user = DestroyReason::User;
    let all: [Told; 9] = [
        ("requested", requested(None)),
        ("starting", starting("node-1")),
        ("starting elsewhere", starting("node-2")),
        ("running", running(3, None)),
        ("failed", sandbox_failed()),
        ("destroying", destroying(user)),
        ("destroyed", destroyed(70, user)),
        ("extended", extended()),
        ("pulling", pulling()),
    ];
    let (begun, taken, runs) = (requested(None), starting("node-1"), running(3, None));
    let (ok, gap, twice, after) = (Ok(0), Err(Gap), Err(Duplicate), Err(AfterEnd));
    let table = [
        ("nothing", vec![], [ok, gap, gap, gap, gap, gap, gap, gap, gap]),
        ("a request", vec![begun.clone()], [twice, ok, ok, ok, ok, ok, ok, ok, ok]),
        ("a start", vec![begun.clone(), taken.clone()], [twice, twice, ok, ok, ok, ok, ok, ok, ok]),
        (
            "one that runs",
            vec![begun.clone(), taken.clone(), runs.clone()],
            [twice, twice, twice, twice, ok, ok, ok, ok, ok],
        ),
        (
            "one that is to go",
            vec![begun.clone(), runs.clone(), destroying(user)],
            [twice, twice, twice, twice, ok, twice, ok, ok, ok],
        ),
        (
            "one that failed",
            vec![begun.clone(), sandbox_failed()],
            [twice, after, after, after, after, after, after, ok, ok],
        ),
        (
            "one that has gone",
            vec![begun, taken, runs, destroyed(70, user)],
            [twice, after, after, after, after, after, after, ok, ok],
        ),
    ];
    for (what, events, expected) in table {
        let given = given::<SandboxState>(&events);
        for ((name, event), expected) in all.iter().zip(expected) {
            assert_eq!(given.when(event), expected, "given {what}, when {name}");
        }
    }
}

fn of_exec(data: impl Into<EventData>) -> Event {
    told(5, client(), data)
}

fn exec_requested() -> Event {
    let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
    of_exec(ExecRequested { exec: EXEC, spec, env_names: Vec::new() })
}

fn attached() -> Event {
    of_exec(ExecAttached {
        exec: EXEC,
        attachment: "at-1".parse().unwrap(),
        writes: false,
        source: None,
        stdout_offset: 0,
        stderr_offset: 0,
        untold: 0,
    })
}

#[test]
fn an_exec_takes_what_fits_what_it_is() {
    use DropReason::{AfterEnd, Duplicate, Gap};
    let failed = of_exec(ExecFailed {
        exec: EXEC,
        code: FailureCode::Invalid,
        message: "no".to_owned(),
        request_digest: None,
    });
    let unknown = of_exec(ExecOutcomeUnknown { exec: EXEC, message: "gone".to_owned() });
    let all = [
        ("requested", exec_requested()),
        ("started", started()),
        ("its first bytes", output(0, b"ab")),
        ("bytes 1 to 4", output(1, b"bcd")),
        ("bytes past a gap", output(9, b"x")),
        ("input", of_exec(ExecInput::new(EXEC, &b"i"[..]))),
        ("attached", attached()),
        ("exited without output", exited(0, None)),
        ("exited after two bytes", left_open()),
        ("closed after five bytes", closed()),
        ("failed", failed.clone()),
        ("unknown", unknown),
    ];
    let (ok, gap, twice, after) = (Ok(0), Err(Gap), Err(Duplicate), Err(AfterEnd));
    let written = vec![started(), output(0, b"ab")];
    let open = [&written[..], &[left_open()]].concat();
    let open_and_more = [&open[..], &[output(2, b"cde")]].concat();
    let over = [&open_and_more[..], &[closed()]].concat();
    let table = [
        ("nothing", vec![], [ok, ok, gap, gap, gap, gap, gap, gap, gap, gap, ok, ok]),
        ("a request", vec![exec_requested()], [twice, ok, gap, gap, gap, gap, ok, gap, gap, gap, ok, ok]),
        ("a start", vec![started()], [twice, twice, ok, gap, gap, ok, ok, ok, gap, gap, ok, ok]),
        ("two bytes", written, [twice, twice, twice, Ok(1), gap, ok, ok, ok, ok, gap, ok, ok]),
        ("an open end", open, [after, after, twice, Ok(1), gap, after, ok, after, after, gap, after, after]),
        (
            "an open end and more",
            open_and_more,
            [after, after, twice, twice, gap, after, ok, after, after, ok, after, after],
        ),
        (
            "a closed end",
            over,
            [after, after, after, after, after, after, ok, after, after, after, after, after],
        ),
        (
            "a failure",
            vec![failed],
            [after, after, after, after, after, after, ok, after, after, after, after, after],
        ),
    ];
    for (what, events, expected) in table {
        let given = given::<ExecState>(&events);
        for ((name, event), expected) in all.iter().zip(expected) {
            assert_eq!(given.when(event), expected, "given {what}, when {name}");
        }
    }
}

#[test]
fn nothing_of_an_exec_comes_from_another_tenant_or_sandbox() {
    let given = given::<ExecState>(&[started()]);
    for event in [output(0, b"ab"), exited(0, None), attached()] {
        let foreign = Event { tenant: "blue".parse().unwrap(), ..event.clone() };
        let elsewhere = Event { sandbox: Some(SandboxId::from_bytes([8; 16])), ..event.clone() };
        let nowhere = Event { sandbox: None, ..event };
        for event in [foreign, elsewhere, nowhere] {
            assert_eq!(given.when(&event), Err(DropReason::Contradiction));
        }
    }
}

/// The byte at a place of a stream: whatever is out of its place shows.
fn byte(stream: OutputStream, at: u64) -> u8 {
    let salt = if stream == OutputStream::Stdout { 0 } else { 0x80 };
    salt | (at.wrapping_mul(37) % 127) as u8
}

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// What somebody says of an exec that writes so much to each stream before its end, and so much more after it.
#[derive(Debug, Clone)]
enum Said {
    Started,
    Output { stderr: bool, offset: u8, length: u8 },
    Ended,
    Closed,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Lengths {
    at_end: [u64; 2],
    in_all: [u64; 2],
}

impl Said {
    fn event(&self, lengths: &Lengths) -> Event {
        let open = lengths.in_all != lengths.at_end;
        match self {
            Self::Started => started(),
            Self::Output { stderr, offset, length } => {
                let stream = STREAMS[usize::from(*stderr)];
                let whole = lengths.in_all[usize::from(*stderr)];
                let offset = u64::from(*offset).min(whole);
                let end = (offset + u64::from(*length)).min(whole);
                let bytes: Vec<u8> = (offset..end).map(|at| byte(stream, at)).collect();
                of_exec(ExecOutput::new(EXEC, stream, offset, bytes))
            }
            Self::Ended => {
                let [stdout_bytes, stderr_bytes] = lengths.at_end;
                let ended =
                    ExecEnded { stdout_bytes, stderr_bytes, output_open: open, ..ExecEnded::default() };
                of_exec(ExecExited { exec: EXEC, code: 0, signal: None, asked: None, ended })
            }
            Self::Closed => {
                let [stdout_bytes, stderr_bytes] = lengths.in_all;
                let reason = OutputCloseReason::Eof;
                of_exec(ExecOutputClosed {
                    exec: EXEC,
                    reason,
                    stdout_bytes,
                    stderr_bytes,
                    truncated_bytes: 0,
                })
            }
            Self::Unknown => of_exec(ExecOutcomeUnknown { exec: EXEC, message: "gone".to_owned() }),
        }
    }

    /// Everything, in order: what the agent tells to whoever attaches.
    fn everything(lengths: &Lengths) -> Vec<Self> {
        let output = |stderr, from: [u64; 2], to: [u64; 2]| {
            let index = usize::from(stderr);
            let (offset, length) = (from[index], to[index] - from[index]);
            Self::Output { stderr, offset: offset as u8, length: length as u8 }
        };
        let (none, Lengths { at_end, in_all }) = ([0, 0], *lengths);
        vec![
            Self::Started,
            output(false, none, at_end),
            output(true, none, at_end),
            Self::Ended,
            output(true, at_end, in_all),
            output(false, at_end, in_all),
            Self::Closed,
        ]
    }
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        2 => Just(Said::Started),
        20 => (any::<bool>(), 0..40u8, 0..12u8)
            .prop_map(|(stderr, offset, length)| Said::Output { stderr, offset, length }),
        2 => Just(Said::Ended),
        2 => Just(Said::Closed),
        1 => Just(Said::Unknown),
    ]
}

fn lengths() -> impl Strategy<Value = Lengths> {
    ((0..30u64, 0..30u64), (0..10u64, 0..10u64)).prop_map(|((out, err), (more_out, more_err))| Lengths {
        at_end: [out, err],
        in_all: [out + more_out, err + more_err],
    })
}

/// The record: the bytes that were taken, and the state that they made.
#[derive(Default)]
struct Record {
    state: Option<ExecState>,
    bytes: [Vec<u8>; 2],
    taken: Vec<Event>,
    ends: u32,
    closed: u32,
}

impl Record {
    fn hear(&mut self, event: &Event, lengths: &Lengths) -> Result<(), TestCaseError> {
        let before = self.state.clone();
        let Ok(skip) = ExecState::judge(self.state.as_ref(), event) else { return Ok(()) };
        let mut event = event.clone();
        if let EventData::Exec(ExecEvent::Output(output)) = &mut event.data {
            let kept = output.bytes.slice(skip..);
            let index = usize::from(output.stream == OutputStream::Stderr);
            output.offset += skip as u64;
            prop_assert_eq!(output.offset, self.bytes[index].len() as u64, "a gap or an overlap");
            prop_assert!(!kept.is_empty(), "an event that says nothing");
            self.bytes[index].extend_from_slice(&kept);
            output.bytes = kept;
        }
        self.state = ExecState::apply(self.state.take(), &event);
        let state = self.state.as_ref().unwrap();
        for (stream, bytes) in STREAMS.into_iter().zip(&self.bytes) {
            prop_assert_eq!(state.recorded(stream), bytes.len() as u64);
            prop_assert!(bytes.iter().enumerate().all(|(at, found)| *found == byte(stream, at as u64)));
        }
        let has = |lengths: [u64; 2]| (0..2).all(|index| self.bytes[index].len() as u64 >= lengths[index]);
        if event.data.ends_exec() {
            prop_assert!(before.as_ref().is_none_or(|before| before.end.is_none()), "a second end");
            let unknown = matches!(state.end, Some(ExecEnd::OutcomeUnknown { .. }));
            prop_assert!(unknown || has(lengths.at_end), "an end before its output");
            self.ends += 1;
        } else if matches!(event.data, EventData::Exec(ExecEvent::OutputClosed(_))) {
            self.closed += 1;
            prop_assert!(has(lengths.in_all) && state.is_over(), "closed before its output");
        }
        self.taken.push(event);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Pieces that are missing, late, twice or overlap, and whoever takes over and says everything again.
    #[test]
    fn no_mix_of_what_is_said_loses_or_doubles_a_byte(
        lengths in lengths(),
        noise in prop::collection::vec(said(), 0..60),
    ) {
        let mut record = Record::default();
        for said in &noise {
            record.hear(&said.event(&lengths), &lengths)?;
        }
        for said in Said::everything(&lengths) {
            record.hear(&said.event(&lengths), &lengths)?;
        }
        prop_assert_eq!(record.ends, 1);
        let state = record.state.unwrap();
        for from in 0..record.taken.len() {
            // Whoever hears a part of it again is at no time behind.
            let mut again = Some(state.clone());
            for event in &record.taken[from..] {
                again = ExecState::apply(again, event);
                prop_assert_eq!(again.as_ref(), Some(&state));
            }
        }
        prop_assert!(state.is_over(), "{:?}", state);
        let unknown = matches!(state.end, Some(ExecEnd::OutcomeUnknown { .. }));
        // An end that nobody expected takes what was not said yet with it; any other leaves nothing out.
        prop_assert!(unknown || record.bytes.iter().map(|bytes| bytes.len() as u64).eq(lengths.in_all));
        let open = lengths.in_all != lengths.at_end;
        prop_assert_eq!(record.closed, u32::from(open && !unknown));
    }
}
