//! Batches of events as executors publish them: read, numbered, folded, shown.

use std::collections::HashSet;

use bytes::Bytes;
use events::{
    Event, ExecState, SandboxState, StreamMark, WebhookState, decode_batch, encode_batch,
    encode_recorded_batch,
};
use record::Head;
use recorder::{Encoder, Incoming, Known, Numberer};

/// The first byte says whether the batch was recorded, the rest is the batch.
pub fn event_frames(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let recorded = kind % 2 == 1;
    let Ok(frames) = decode_batch(Bytes::copy_from_slice(bytes), recorded) else { return };
    let again = if recorded { encode_recorded_batch(&frames) } else { encode_batch(&frames) };
    assert_eq!(again, bytes, "a batch changed on its way");
    let lines = api_gateway::fuzzing::event_lines(&frames);
    assert!(lines.lines().count() <= frames.len() || bytes.contains(&b'\n'));
    let events: Vec<Event> = frames.iter().filter_map(|frame| frame.decode().ok()).collect();
    fold(&events);
    let cast = api_gateway::fuzzing::recording(&events, kind % 4 < 2);
    for line in cast.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(
            serde_json::from_slice::<serde_json::Value>(line).is_ok(),
            "a line of a recording is no JSON"
        );
    }
    number(frames.into_iter().filter_map(|frame| Incoming::decode(frame).ok()).collect());
}

/// Folds take whatever the log holds, in any order.
fn fold(events: &[Event]) {
    let (mut sandbox, mut exec, mut webhook) = (None, None, None);
    for event in events {
        sandbox = SandboxState::apply(sandbox.take(), event);
        exec = ExecState::apply(exec.take(), event);
        webhook = WebhookState::apply(webhook.take(), event);
        if let Some(state) = &sandbox {
            assert_eq!(state.is_expired(event.time), state.deadline() <= event.time);
            let _ = state.expiry_reason();
        }
        // What is published by us can be published again.
        assert!(event.to_frame().is_ok(), "an event that was read cannot be written");
    }
}

/// What is recorded is dense, whatever comes.
fn number(incoming: Vec<Incoming>) {
    let count = incoming.len();
    let mut numberer = Numberer::new(&Head::default());
    let Ok(mut encoder) = Encoder::new() else { return };
    for _ in 0..2 {
        let missing = numberer.missing(&incoming, false);
        numberer.learn(missing, Known::default());
        let before = numberer.head();
        let mark = StreamMark { sequence: 1, incarnation: String::new() };
        let Ok(draft) = numberer.draft(incoming.clone(), &HashSet::new(), mark, &mut encoder) else { return };
        assert!(
            draft.batch.events.len() + draft.dropped.len() <= count.max(1) * 2,
            "more came out than went in"
        );
        let ends = before.0 + draft.batch.events.len() as u64;
        assert_eq!(numberer.head().0, ends, "positions are not dense");
    }
}
