//! What a viewer is told, by a script of what the reader of an exec gives: no server, no clock.

use std::collections::VecDeque;

use bytes::Bytes;
use chrono::DateTime;
use events::{ExecEnd, SandboxId};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Gives what it was told to, as far as it is recorded at once and the rest when it is waited for.
#[derive(Default)]
struct Script {
    state: Option<ExecState>,
    recorded: VecDeque<OutputItem>,
    live: VecDeque<OutputItem>,
}

impl Source for Script {
    fn state(&self) -> Option<&ExecState> {
        self.state.as_ref()
    }

    fn offset(&self, _: OutputStream) -> u64 {
        0
    }

    async fn next(&mut self) -> Result<Option<OutputItem>, FeedError> {
        Ok(self.recorded.pop_front().or_else(|| self.live.pop_front()))
    }

    async fn next_recorded(&mut self) -> Result<Option<OutputItem>, FeedError> {
        Ok(self.recorded.pop_front())
    }
}

fn exec() -> ExecId {
    ExecId::from_bytes([7; 16])
}

/// The state of an exec that has written so much, on stdout and on stderr.
fn wrote(stdout_bytes: u64, stderr_bytes: u64) -> ExecState {
    let state = serde_json::json!({
        "id": exec(), "tenant": "red", "sandbox": SandboxId::from_bytes([1; 16]), "started_at": "2026-01-01T00:00:00Z",
        "stdout_bytes": stdout_bytes, "stderr_bytes": stderr_bytes,
    });
    serde_json::from_value(state).unwrap()
}

fn piece(stream: OutputStream, offset: u64, bytes: &[u8]) -> OutputItem {
    let bytes = Bytes::copy_from_slice(bytes);
    OutputItem::Output { stream, offset, bytes, time: DateTime::UNIX_EPOCH }
}

fn ended() -> OutputItem {
    let message = "its sandbox is gone".to_owned();
    OutputItem::Ended { end: ExecEnd::OutcomeUnknown { message, at: DateTime::UNIX_EPOCH }, open: false }
}

/// A frame, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
enum Frame {
    Control(Value),
    Bytes(OutputStream, u64, Vec<u8>),
}

impl Frame {
    fn kind(&self) -> &str {
        match self {
            Self::Control(control) => control["type"].as_str().unwrap(),
            Self::Bytes(OutputStream::Stdout, ..) => "stdout",
            Self::Bytes(OutputStream::Stderr, ..) => "stderr",
        }
    }
}

fn read(message: Message) -> Frame {
    let frame = message.into_data();
    if frame[0] == 3 {
        return Frame::Control(serde_json::from_slice(&frame[1..]).unwrap());
    }
    let stream = if frame[0] == 1 { OutputStream::Stdout } else { OutputStream::Stderr };
    Frame::Bytes(stream, u64::from_be_bytes(frame[1..9].try_into().unwrap()), frame[9..].to_vec())
}

/// All that is said, up to the end or up to where nothing more comes, and the cursor that a client is left with.
async fn said(script: Script) -> (Vec<Frame>, String) {
    let (started, _kept) = watch::channel(false);
    let mut output = Output::new(exec(), Rights { writes: true }, script, started);
    let mut said = Vec::new();
    loop {
        match output.next().await {
            Word::Say(message) => said.push(read(message)),
            Word::Done | Word::Broken => return (said, output.cursor()),
            Word::Stopping => panic!("nobody stops"),
        }
    }
}

fn kinds(said: &[Frame]) -> Vec<&str> {
    said.iter().map(Frame::kind).collect()
}

const STDOUT: OutputStream = OutputStream::Stdout;
const STDERR: OutputStream = OutputStream::Stderr;

#[tokio::test]
async fn scrollback_ends_where_the_client_came_and_no_frame_has_bytes_of_both_sides() {
    let script = Script {
        state: Some(wrote(3, 0)),
        recorded: [piece(STDOUT, 0, b"abcdef")].into(),
        live: [piece(STDOUT, 6, b"gh"), ended()].into(),
    };
    let (said, cursor) = said(script).await;
    assert_eq!(kinds(&said), ["attached", "stdout", "live", "stdout", "exit"]);
    assert_eq!(said[1], Frame::Bytes(STDOUT, 0, b"abc".to_vec()));
    // What had come by then goes with what follows.
    assert_eq!(said[3], Frame::Bytes(STDOUT, 3, b"defgh".to_vec()));
    assert_eq!(cursor, r#"{"stdout_offset":8,"stderr_offset":0}"#);
}

#[tokio::test]
async fn what_is_there_already_is_gathered_by_stream_up_to_the_size_of_a_frame() {
    let whole = vec![b'x'; GATHER_BYTES + 1];
    let recorded =
        [piece(STDOUT, 0, b"a"), piece(STDOUT, 1, b"b"), piece(STDERR, 0, b"c"), piece(STDERR, 1, &whole)];
    let (said, _) = said(Script { recorded: recorded.into(), ..Script::default() }).await;
    let bytes: Vec<(OutputStream, u64, usize)> = said
        .iter()
        .filter_map(|frame| match frame {
            Frame::Bytes(stream, offset, bytes) => Some((*stream, *offset, bytes.len())),
            Frame::Control(_) => None,
        })
        .collect();
    assert_eq!(bytes, [(STDOUT, 0, 2), (STDERR, 0, 1), (STDERR, 1, GATHER_BYTES), (STDERR, 65_537, 1)]);
}

#[tokio::test]
async fn what_is_missing_is_told_before_what_follows_it() {
    let gone = OutputItem::Gone { stream: STDERR, offset: 0, next_offset: 9, why: Gone::Expired };
    let script = Script {
        state: Some(wrote(7, 9)),
        recorded: [piece(STDOUT, 4, b"efg"), gone].into(),
        live: [ended()].into(),
    };
    let (said, cursor) = said(script).await;
    assert_eq!(kinds(&said), ["attached", "gone", "stdout", "gone", "live", "exit"]);
    let told = |frame: &Frame| match frame {
        Frame::Control(control) => {
            (control["from"].as_u64(), control["to"].as_u64(), control["why"].as_str().map(str::to_owned))
        }
        Frame::Bytes(..) => panic!("{frame:?}"),
    };
    assert_eq!(told(&said[1]), (Some(0), Some(4), None), "nobody can say why");
    assert_eq!(told(&said[3]), (Some(0), Some(9), Some("expired".to_owned())));
    assert_eq!(cursor, r#"{"stdout_offset":7,"stderr_offset":9}"#);
}

#[tokio::test]
async fn a_start_is_told_once_and_an_end_is_the_last_word() {
    let live = [OutputItem::Started, OutputItem::Started, ended(), piece(STDOUT, 0, b"late")];
    let (said, _) = said(Script { live: live.into(), ..Script::default() }).await;
    // Nothing is known of it yet, so nobody is greeted; and there is no scrollback.
    assert_eq!(kinds(&said), ["live", "started", "exit"]);
}

#[tokio::test]
async fn an_exec_that_wrote_nothing_is_live_before_its_end() {
    let script = Script { state: Some(wrote(0, 0)), live: [ended()].into(), ..Script::default() };
    assert_eq!(kinds(&said(script).await.0), ["attached", "live", "exit"]);
}

#[tokio::test]
async fn a_reader_that_ends_without_an_end_breaks_the_attachment() {
    let (started, _kept) = watch::channel(false);
    let mut output = Output::new(exec(), Rights { writes: false }, Script::default(), started);
    assert!(matches!(output.next().await, Word::Say(_)), "what follows is live");
    assert!(matches!(output.next().await, Word::Broken));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However output is cut into pieces, recorded or live, and wherever the client came: each byte is told once and in order, no
    /// frame is too large, and `live` comes once, when all that had been written before is told.
    #[test]
    fn every_byte_is_told_once_and_live_begins_where_scrollback_ends(
        pieces in prop::collection::vec((any::<bool>(), 1usize..150_000), 0..6),
        recorded in 0usize..6,
        came in 0usize..6,
    ) {
        let mut next = [0u64; 2];
        let mut before = [0u64; 2];
        let mut script = Script::default();
        for (at, (is_stdout, length)) in pieces.into_iter().enumerate() {
            let stream = if is_stdout { STDOUT } else { STDERR };
            let offset = next[index(stream)];
            let bytes: Vec<u8> = (offset..).take(length).map(|n| (n % 251) as u8).collect();
            let queue = if at < recorded { &mut script.recorded } else { &mut script.live };
            queue.push_back(piece(stream, offset, &bytes));
            next[index(stream)] += length as u64;
            if at < came {
                before = next;
            }
        }
        script.live.push_back(ended());
        script.state = Some(wrote(before[0], before[1]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (said, cursor) = runtime.block_on(said(script));
        let mut told = [0u64; 2];
        let mut live = 0;
        for frame in &said {
            match frame {
                Frame::Bytes(stream, offset, bytes) => {
                    prop_assert_eq!(*offset, told[index(*stream)]);
                    prop_assert!(bytes.len() <= GATHER_BYTES);
                    let right = bytes.iter().zip(*offset..).all(|(byte, n)| u64::from(*byte) == n % 251);
                    prop_assert!(right, "other bytes at {}", offset);
                    told[index(*stream)] += bytes.len() as u64;
                }
                Frame::Control(control) if control["type"] == "live" => {
                    live += 1;
                    prop_assert!(told[0] >= before[0] && told[1] >= before[1], "{:?} {:?}", told, before);
                }
                Frame::Control(_) => {}
            }
        }
        prop_assert_eq!(live, 1);
        prop_assert_eq!(told, next);
        prop_assert_eq!(said.last().unwrap().kind(), "exit");
        prop_assert_eq!(cursor, format!("{{\"stdout_offset\":{},\"stderr_offset\":{}}}", next[0], next[1]));
    }
}
