use chrono::{TimeDelta, TimeZone};
use events::{DestroyReason, ManualClock, Network, NodeId, SandboxId, SandboxPhase, SandboxSpec, TenantId};

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_750_000_000 + seconds, 0).single().unwrap()
}

fn running(expires_at: DateTime<Utc>) -> SandboxState {
    SandboxState {
        id: SandboxId::from_bytes([7; 16]),
        tenant: TenantId::default_tenant(),
        spec: SandboxSpec {
            provider: "docker".parse().unwrap(),
            image: "alpine:latest".to_owned(),
            memory_mib: 64,
            cpu_millis: 1000,
            pool: None,
            pids_limit: 64,
            network: Network::None,
            read_only_root: false,
            capabilities: None,
            runtime: None,
            owner: None,
            template: None,
            metadata: Default::default(),
            env_names: Vec::new(),
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
            setup: Vec::new(),
        },
        requested_at: at(0),
        expires_at,
        term: None,
        ending: None,
        lifetime_ends_at: at(3600),
        phase: SandboxPhase::Running { node: "n".parse::<NodeId>().unwrap(), since: at(0) },
        address: None,
    }
}

fn reason(command: &CommandEnvelope) -> DestroyReason {
    let Command::DestroySandbox { reason } = &command.command else { panic!("{command:?}") };
    *reason
}

/// Looks at one sandbox.
fn look(deadlines: &mut Deadlines, state: &SandboxState, clock: &ManualClock) -> Option<CommandEnvelope> {
    let mut commands = deadlines.due(&[Arc::new(state.clone())], clock);
    assert!(commands.len() <= 1);
    commands.pop()
}

/// What somebody who looks for the first time finds due at a moment.
fn due(state: &SandboxState, now: DateTime<Utc>) -> Option<CommandEnvelope> {
    look(&mut Deadlines::default(), state, &ManualClock::new(now))
}

#[test]
fn a_sandbox_is_due_at_its_deadline_and_not_before() {
    let state = running(at(60));
    assert!(due(&state, at(59)).is_none());
    assert_eq!(reason(&due(&state, at(60)).unwrap()), DestroyReason::Ttl);
}

#[test]
fn the_greatest_age_is_a_reason_of_its_own() {
    assert_eq!(reason(&due(&running(at(3600)), at(3600)).unwrap()), DestroyReason::Lifetime);
}

#[test]
fn what_has_ended_is_left_alone() {
    let ended = SandboxPhase::Destroyed { reason: DestroyReason::User, at: at(1) };
    assert!(due(&SandboxState { phase: ended, ..running(at(60)) }, at(600)).is_none());
}

#[test]
fn all_reapers_ask_with_one_id_until_they_ask_again() {
    let state = running(at(60));
    let first = due(&state, at(60)).unwrap();
    assert_eq!(first.id, due(&state, at(60) + TimeDelta::seconds(4)).unwrap().id);
    assert_ne!(first.id, due(&state, at(60) + TimeDelta::seconds(5)).unwrap().id);
    let extended = SandboxState { expires_at: at(90), ..state };
    assert_ne!(first.id, due(&extended, at(90)).unwrap().id);
}

#[test]
fn a_clock_that_is_set_ends_nothing_early_and_keeps_nothing_late() {
    for jump in [TimeDelta::hours(2), TimeDelta::hours(-2)] {
        let clock = ManualClock::new(at(0));
        let mut deadlines = Deadlines::default();
        let state = running(at(1200));
        assert!(look(&mut deadlines, &state, &clock).is_none());
        clock.jump(jump);
        assert!(look(&mut deadlines, &state, &clock).is_none());
        clock.advance(TimeDelta::seconds(1199));
        assert!(look(&mut deadlines, &state, &clock).is_none());
        clock.advance(TimeDelta::seconds(1));
        assert_eq!(reason(&look(&mut deadlines, &state, &clock).unwrap()), DestroyReason::Ttl);
        // What is gone is forgotten.
        assert!(deadlines.due(&[], &clock).is_empty());
        assert!(deadlines.0.is_empty());
    }
}

#[test]
fn an_extension_counts_from_when_it_is_seen() {
    let clock = ManualClock::new(at(0));
    let mut deadlines = Deadlines::default();
    assert!(look(&mut deadlines, &running(at(60)), &clock).is_none());
    clock.advance(TimeDelta::seconds(50));
    let extended = running(at(110));
    assert!(look(&mut deadlines, &extended, &clock).is_none());
    clock.advance(TimeDelta::seconds(59));
    assert!(look(&mut deadlines, &extended, &clock).is_none());
    clock.advance(TimeDelta::seconds(1));
    assert!(look(&mut deadlines, &extended, &clock).is_some());
}

#[test]
fn what_nobody_took_is_told_once_to_have_never_run() {
    let state = SandboxState { phase: SandboxPhase::Requested, ..running(at(60)) };
    assert_eq!(never_ran(&state, at(60)).id, never_ran(&state, at(61)).id);
    let ended = SandboxState::apply(Some(state.clone()), &never_ran(&state, at(60))).unwrap();
    assert!(ended.is_terminal());
}

fn requested() -> SandboxState {
    SandboxState { phase: SandboxPhase::Requested, ..running(at(300)) }
}

#[test]
fn a_request_that_nobody_takes_is_sent_again_once() {
    let clock = ManualClock::new(at(0));
    let mut requests = Requests::default();
    let (state, taken) = (Arc::new(requested()), Arc::new(running(at(300))));
    let waiting = |requests: &mut Requests, state: &Arc<SandboxState>, clock: &ManualClock| {
        requests.waiting(&[Arc::clone(state)], clock).len()
    };
    assert_eq!(waiting(&mut requests, &state, &clock), 0);
    clock.advance(TimeDelta::seconds(4));
    assert_eq!(waiting(&mut requests, &state, &clock), 0);
    clock.advance(TimeDelta::seconds(1));
    // Until it could be sent.
    assert_eq!(waiting(&mut requests, &state, &clock), 1);
    assert_eq!(waiting(&mut requests, &state, &clock), 1);
    requests.sent(state.id);
    clock.advance(TimeDelta::seconds(60));
    assert_eq!(waiting(&mut requests, &state, &clock), 0);
    // Nothing is kept of one that was taken.
    assert_eq!(waiting(&mut requests, &taken, &clock), 0);
    assert!(requests.0.is_empty());
}

#[test]
fn what_the_log_has_not_is_abandoned_only_while_the_first_command_would_be_known() {
    let whole = requested();
    let command = again(&whole, at(5)).unwrap();
    assert_eq!(command.id, CommandId::of_create(whole.id));
    assert!(matches!(&command.command, Command::CreateSandbox { spec, env, .. }
        if *spec == whole.spec && env.0.is_empty()));
    // A second one does no harm, however late.
    assert!(again(&whole, at(250)).is_some());
    let with = |change: fn(&mut SandboxSpec)| {
        let mut state = requested();
        change(&mut state.spec);
        state
    };
    for lacking in [
        with(|spec| spec.env_names.push("A".to_owned())),
        with(|spec| drop(spec.env_hmac.insert("A".to_owned(), "00".to_owned()))),
        with(|spec| spec.secret_names.push("A".to_owned())),
        with(|spec| spec.setup.push("echo ****".to_owned())),
        with(|spec| drop(spec.metadata.insert("a".to_owned(), "****".to_owned()))),
    ] {
        let command = again(&lacking, at(5)).unwrap();
        assert_eq!(command.id, CommandId::of_create(lacking.id));
        assert!(matches!(command.command, Command::AbandonSandbox { .. }), "{:?}", command.command);
        // By then it may be waiting for room, and nobody can tell.
        assert!(again(&lacking, at(91)).is_none() && again(&lacking, at(-91)).is_none());
    }
}
