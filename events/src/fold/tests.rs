//! What a sandbox and an exec are after what was told of them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::*;

pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
}

pub(super) fn client() -> Actor {
    Actor::Client { key: Some("k1".parse().unwrap()), user: None }
}

pub(super) fn told(seconds: i64, actor: Actor, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([1; 16])),
        time: at(seconds),
        actor,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

pub(super) fn executor() -> Actor {
    Actor::Executor("node-1".parse().unwrap())
}

/// May wait for a minute, and then live for two of at most ten.
fn term() -> Term {
    Term { ttl_ms: 120_000, lifetime_ms: 600_000, start_by: at(60) }
}

pub(super) fn requested(term: Option<Term>) -> Event {
    let spec = serde_json::from_value(serde_json::json!({
        "provider": "docker", "image": "a", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1
    }));
    let (expires_at, lifetime_ends_at) = match term {
        Some(term) => term.ends(term.start_by),
        None => (at(120), at(600)),
    };
    told(0, client(), SandboxRequested { spec: spec.unwrap(), expires_at, lifetime_ends_at, term })
}

pub(super) fn running(seconds: i64, term: Option<Term>) -> Event {
    let ends = term.map(|term| term.ends(at(seconds)));
    let running = SandboxRunning {
        node: "node-1".parse().unwrap(),
        runtime_id: "r".to_owned(),
        took_us: 1,
        expires_at: ends.map(|ends| ends.0),
        lifetime_ends_at: ends.map(|ends| ends.1),
        address: None,
    };
    told(seconds, executor(), running)
}

fn sandbox(events: &[Event]) -> SandboxState {
    events.iter().fold(None, SandboxState::apply).unwrap()
}

pub(super) fn destroyed(seconds: i64, reason: DestroyReason) -> Event {
    told(seconds, executor(), SandboxDestroyed { reason })
}

fn reason_of(events: &[Event]) -> DestroyReason {
    let SandboxPhase::Destroyed { reason, .. } = sandbox(events).phase else { panic!("not destroyed") };
    reason
}

#[test]
fn a_time_to_live_counts_from_when_it_runs() {
    let term = Some(term());
    let waiting = sandbox(&[requested(term)]);
    assert_eq!(waiting.expires_at, at(180), "the latest that it can be");
    assert!(!waiting.is_expired(at(59)) && waiting.is_expired(at(60)), "it may wait for so long");
    let runs = sandbox(&[requested(term), running(50, term)]);
    assert_eq!((runs.expires_at, runs.lifetime_ends_at), (at(170), at(650)));
    assert!(!runs.is_expired(at(169)) && runs.is_expired(at(170)));
}

#[test]
fn no_time_to_live_is_longer_than_the_greatest_lifetime() {
    let term = Term { ttl_ms: 900_000, ..term() };
    assert_eq!(term.ends(at(0)), (at(600), at(600)));
    let endless = Term { ttl_ms: u64::MAX, lifetime_ms: u64::MAX, start_by: at(0) };
    assert_eq!(endless.ends(at(0)).0, DateTime::<Utc>::MAX_UTC);
}

#[test]
fn a_request_without_a_term_lives_from_when_it_was_made() {
    let runs = sandbox(&[requested(None), running(50, None)]);
    assert_eq!((runs.expires_at, runs.lifetime_ends_at), (at(120), at(600)));
    assert!(sandbox(&[requested(None)]).is_expired(at(120)));
}

#[test]
fn what_was_asked_to_go_has_not_vanished() {
    let asked = |reason| told(60, client(), SandboxDestroying { reason });
    let found_gone = destroyed(70, DestroyReason::Vanished);
    let begun = [requested(None), running(1, None)];
    let after = |more: &[Event]| reason_of(&[&begun[..], more].concat());
    assert_eq!(after(&[asked(DestroyReason::User), found_gone.clone()]), DestroyReason::User);
    assert_eq!(after(std::slice::from_ref(&found_gone)), DestroyReason::Vanished);
    assert_eq!(after(&[asked(DestroyReason::User), destroyed(70, DestroyReason::Ttl)]), DestroyReason::Ttl);
    let twice = sandbox(&[&begun[..], &[asked(DestroyReason::User), asked(DestroyReason::Ttl)]].concat());
    let ending = twice.ending.unwrap();
    assert_eq!((ending.reason, ending.by, ending.since), (DestroyReason::User, client(), at(60)));
}

pub(super) const EXEC: ExecId = ExecId::from_bytes([2; 16]);

pub(super) fn started() -> Event {
    let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
    told(0, client(), ExecStarted { exec: EXEC, spec, env_names: Vec::new(), pid: 7 })
}

fn exec(events: &[Event]) -> ExecState {
    events.iter().fold(None, ExecState::apply).unwrap()
}

fn asked(cause: EndCause, by: Option<Actor>) -> Option<Asked> {
    Some(Asked { cause, by, signal: 15 })
}

pub(super) fn exited(code: i32, asked: Option<Asked>) -> Event {
    told(9, client(), ExecExited { exec: EXEC, code, signal: None, asked, ended: ExecEnded::default() })
}

#[test]
fn one_that_left_by_itself_after_it_was_asked_to_has_its_own_exit_code() {
    let state = exec(&[started(), exited(9, asked(EndCause::Request, Some(client())))]);
    let end = state.end.unwrap();
    assert_eq!(end.exit_code(), Some(9));
    assert!(matches!(end, ExecEnd::Exited { code: 9, signal: None, .. }), "{end:?}");
    assert_eq!(state.asked, asked(EndCause::Request, Some(client())));
}

pub(super) fn output(offset: u64, bytes: &'static [u8]) -> Event {
    told(10, client(), ExecOutput::new(EXEC, OutputStream::Stdout, offset, bytes))
}

pub(super) fn left_open() -> Event {
    let ended = ExecEnded { stdout_bytes: 2, output_open: true, ..ExecEnded::default() };
    told(9, client(), ExecExited { exec: EXEC, code: 3, signal: None, asked: None, ended })
}

pub(super) fn closed() -> Event {
    let reason = OutputCloseReason::Sandbox;
    let closed =
        ExecOutputClosed { exec: EXEC, reason, stdout_bytes: 5, stderr_bytes: 0, truncated_bytes: 7 };
    told(20, client(), closed)
}

#[test]
fn what_an_exec_left_running_writes_until_its_output_is_closed() {
    let open = exec(&[started(), output(0, b"ab"), left_open(), output(2, b"cde"), exited(1, None)]);
    assert_eq!((open.stdout_bytes, open.output_open, open.is_over()), (5, true, false));
    assert_eq!(open.end.as_ref().and_then(ExecEnd::exit_code), Some(3));
    assert_eq!(open.end.as_ref().and_then(ExecEnd::ended).map(|ended| ended.stdout_bytes), Some(2));
    let over = [closed(), output(5, b"f")].iter().fold(Some(open), ExecState::apply).unwrap();
    let how = OutputClosed { reason: OutputCloseReason::Sandbox, at: at(20), truncated_bytes: 7 };
    assert_eq!((over.stdout_bytes, over.output_open, over.is_over()), (5, false, true));
    assert_eq!(over.output_closed, Some(how));
}

#[test]
fn an_end_that_says_nothing_of_its_output_closes_it() {
    let state = exec(&[started(), output(0, b"ab"), exited(0, None), output(2, b"cde"), closed()]);
    assert_eq!((state.stdout_bytes, state.is_over(), state.output_closed), (2, true, None));
}

#[test]
fn an_exit_code_above_128_is_no_signal() {
    let state = exec(&[started(), exited(137, None)]);
    assert_eq!((state.end.as_ref().and_then(ExecEnd::exit_code), state.asked), (Some(137), None));
    assert!(matches!(state.end, Some(ExecEnd::Exited { signal: None, .. })));
}

#[test]
fn who_asked_is_known_though_the_executor_that_was_asked_is_gone() {
    let kill = told(5, client(), ExecSignaled { exec: EXEC, signal: 15, kill: true });
    let state = exec(&[started(), kill, exited(9, asked(EndCause::Request, None))]);
    assert_eq!(state.asked, asked(EndCause::Request, Some(client())));
    // A signal that a client sends is no wish for the end.
    let signal = told(5, client(), ExecSignaled { exec: EXEC, signal: 15, kill: false });
    assert_eq!(exec(&[started(), signal, exited(9, None)]).asked, None);
}

#[test]
fn the_sandbox_takes_an_exec_along_whoever_asked_before() {
    let kill = told(5, client(), ExecSignaled { exec: EXEC, signal: 15, kill: true });
    let ended = ExecEnded::default();
    let by_sandbox = asked(EndCause::Sandbox, Some(Actor::Reaper));
    let killed = ExecKilled { exec: EXEC, signal: 9, asked: by_sandbox.clone(), ended };
    let state = exec(&[started(), kill, told(9, client(), killed)]);
    assert_eq!((state.end.unwrap().exit_code(), state.asked), (Some(137), by_sandbox));
}

#[test]
fn the_digest_of_one_that_never_began_is_kept() {
    let failed = ExecFailed {
        exec: EXEC,
        code: FailureCode::Invalid,
        message: "no such directory".to_owned(),
        request_digest: Some("00ff".to_owned()),
    };
    assert_eq!(exec(&[told(1, client(), failed)]).request_digest(), Some("00ff"));
}

#[test]
fn the_reason_of_an_expiry_is_the_limit_that_was_met() {
    let mut state = sandbox(&[requested(None)]);
    assert_eq!(state.expiry_reason(), DestroyReason::Ttl);
    state.expires_at = state.lifetime_ends_at;
    assert_eq!(state.expiry_reason(), DestroyReason::Lifetime);
    assert!(state.is_expired(at(600) + TimeDelta::seconds(1)));
}
