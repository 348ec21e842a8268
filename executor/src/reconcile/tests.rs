//! What is decided about boxes and agents, whatever is known and however time passes. What is done about it is shown with real boxes.

use std::time::Duration;

use events::{
    Actor, DestroyReason, Event, EventData, EventId, FailureCode, NodeId, SandboxDestroyed, SandboxFailed,
    SandboxPhase, SandboxRequested, SandboxRunning, SandboxStarting, SystemClock, TenantId,
};
use fastrand::Rng;

use super::agents::{Heard, LONGEST_ABSENCE, LONGEST_SILENCE, Verdict as Reached};
use super::strays::{STRAY_GRACE, Stray, UNHEARD_GRACE, Verdict};
use super::*;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn told(data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([1; 16])),
        time: events::Clock::now(&SystemClock),
        actor: Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

/// One of each phase; those with a node are on this one.
fn of_each_phase(on: &str) -> Vec<SandboxState> {
    let spec = serde_json::from_value(serde_json::json!({
        "provider": "docker", "image": "a", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1
    }));
    let at = events::Clock::now(&SystemClock);
    let requested =
        SandboxRequested { spec: spec.unwrap(), expires_at: at, lifetime_ends_at: at, term: None };
    let running = SandboxRunning {
        node: node(on),
        runtime_id: "r".to_owned(),
        took_us: 1,
        expires_at: None,
        lifetime_ends_at: None,
        address: None,
    };
    let begun = SandboxState::apply(None, &told(requested));
    let then = |data: EventData| SandboxState::apply(begun.clone(), &told(data)).unwrap();
    vec![
        begun.clone().unwrap(),
        then(SandboxStarting { node: node(on) }.into()),
        then(running.into()),
        then(SandboxFailed { code: FailureCode::Internal, message: "no".to_owned() }.into()),
        then(SandboxDestroyed { reason: DestroyReason::User }.into()),
    ]
}

#[test]
fn a_box_is_removed_only_when_nobody_can_want_it_any_more() {
    let here = node("node-1");
    let known = ["node-1", "node-2"].into_iter().flat_map(of_each_phase).map(Some);
    for record in known.chain([None]) {
        for ours in [false, true] {
            for seconds in [0, 59, 60, 299, 300, 86_400] {
                let unknown_for = Duration::from_secs(seconds);
                let verdict = Stray { record: record.as_ref(), ours, here: &here, unknown_for }.judge();
                let context = format!("{record:?}, ours: {ours}, for {seconds} s");
                let phase = record.as_ref().map(|state| &state.phase);
                let elsewhere =
                    record.as_ref().and_then(SandboxState::node).is_some_and(|node| *node != here);
                let expected = match phase {
                    // Its end is in the log, or it is another node's.
                    Some(_) if elsewhere => Verdict::Remove,
                    Some(SandboxPhase::Failed { .. } | SandboxPhase::Destroyed { .. }) => Verdict::Remove,
                    Some(SandboxPhase::Requested) if ours => Verdict::TellThatItRuns,
                    // Somebody works with it.
                    Some(SandboxPhase::Starting { .. } | SandboxPhase::Running { .. }) if ours => {
                        Verdict::Leave
                    }
                    // Its command, or the news of it, may be on its way for so long.
                    Some(_) | None => {
                        let grace = if ours { UNHEARD_GRACE } else { STRAY_GRACE };
                        if unknown_for >= grace { Verdict::Remove } else { Verdict::Leave }
                    }
                };
                assert_eq!(verdict, expected, "{context}");
            }
        }
    }
}

#[test]
fn a_box_that_was_live_in_between_is_a_stray_from_the_beginning_again() {
    let waiting = Waiting::default();
    let state = of_each_phase("node-1").swap_remove(2);
    let id = state.id;
    hold(&waiting.strays).insert(id, Instant::now());
    let handle = BoxHandle {
        id,
        runtime_id: "r".to_owned(),
        provider: "docker".parse().unwrap(),
        agent: agent::client::UnixConnect::new("/nowhere").into(),
        address: None,
        running: true,
    };
    let boxes = HashMap::from([(id, (crate::hosted::idle_provider(), handle))]);
    waiting.forget(&[], &boxes);
    assert!(hold(&waiting.strays).contains_key(&id));
    waiting.forget(&[SandboxRecord { sandbox: state, live_execs: Vec::new() }], &boxes);
    assert!(hold(&waiting.strays).is_empty());
}

/// What was heard, and when: for how long without a break, seen from the last of it.
fn lasts(
    heard: &[(Instant, Heard)],
    counts: impl Fn(Heard) -> bool,
    ends: impl Fn(Heard) -> bool,
) -> Duration {
    let Some((last, _)) = heard.last() else { return Duration::ZERO };
    let run = heard.iter().rev().take_while(|(_, heard)| !ends(*heard));
    run.filter(|(_, heard)| counts(*heard)).last().map_or(Duration::ZERO, |(first, _)| *last - *first)
}

#[test]
fn an_agent_is_lost_when_it_was_silent_or_away_for_too_long_without_a_break() {
    let begin = Instant::now();
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let (mut now, mut state, mut heard) = (begin, None, Vec::new());
        let answers = rng.u8(1..20);
        for _ in 0..60 {
            now += Duration::from_millis(rng.u64(100..12_000));
            let next = match rng.u8(..20) {
                chance if chance < answers / 4 => Heard::Answer,
                chance if chance % 7 == 6 => Heard::NotAsked,
                chance if chance < 14 - answers / 3 => Heard::Nothing,
                _ => Heard::Nobody,
            };
            heard.push((now, next));
            let (after, verdict) = Silence::after(state, next, now);
            state = after;
            let silent = lasts(&heard, |heard| heard != Heard::NotAsked, |heard| heard == Heard::Answer);
            let is_present = |heard| matches!(heard, Heard::Answer | Heard::Nothing);
            let absent = lasts(&heard, |heard| heard == Heard::Nobody, is_present);
            let expected = match next {
                Heard::Answer => Reached::Reachable,
                Heard::NotAsked => Reached::Wait,
                Heard::Nothing if silent >= LONGEST_SILENCE => Reached::Lost,
                Heard::Nobody if silent >= LONGEST_SILENCE || absent >= LONGEST_ABSENCE => Reached::Lost,
                Heard::Nothing | Heard::Nobody => Reached::Wait,
            };
            assert_eq!(verdict, expected, "the seed is {seed}: {heard:?}");
        }
    }
}
