use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use events::{
    Actor, Command, CommandEnvelope, CommandId, DestroyReason, Event, EventData, EventId, ManualClock,
    Network, NodeId, SandboxDestroyed, SandboxId, SandboxPhase, SandboxSpec, SandboxState,
    SandboxTtlExtended, TenantId,
};
use reactor::{Next, Turns};

use crate::asking::{again, never_ran};
use crate::watched::{Ask, Done, Watched};

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
            job: None,
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

/// A sandbox that is watched under a clock that stands still until it is told otherwise.
struct Watching {
    watched: Option<Watched>,
    turns: Turns,
    clock: ManualClock,
}

impl Watching {
    fn from(state: SandboxState, now: DateTime<Utc>) -> Self {
        let watched = (!state.is_terminal()).then(|| Watched::new(state));
        Self { watched, turns: Turns::default(), clock: ManualClock::new(now) }
    }

    fn decide(&mut self) -> Next<Ask> {
        let mut turn = self.turns.turn(&self.clock);
        self.watched.as_mut().map_or(Next::Rest, |watched| watched.decide(&mut turn))
    }

    /// What is asked for now; `None`: nothing.
    fn ask(&mut self) -> Option<Ask> {
        match self.decide() {
            Next::Act(ask) => Some(ask),
            Next::Wait(_) | Next::Rest => None,
        }
    }

    fn command(&mut self) -> Option<CommandEnvelope> {
        match self.ask()? {
            Ask::End(command, ..) | Ask::Again(command, _) => Some(*command),
            Ask::NeverRan(..) => panic!("it is said of a running one that it never ran"),
        }
    }

    /// Asks, and notes that it did.
    fn do_it(&mut self) -> Ask {
        let ask = self.ask().unwrap();
        let done = match &ask {
            Ask::End(_, _, asked) | Ask::NeverRan(_, asked) => Done::End(*asked),
            Ask::Again(..) => Done::Again,
        };
        self.watched.as_mut().unwrap().done(done);
        ask
    }

    fn apply(&mut self, data: impl Into<EventData>) {
        let watched = self.watched.take().unwrap();
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: Some(watched.state().id),
            time: at(0),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        self.watched = watched.apply(&event);
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }
}

/// What somebody who looks for the first time finds due at a moment.
fn due(state: &SandboxState, now: DateTime<Utc>) -> Option<CommandEnvelope> {
    Watching::from(state.clone(), now).command()
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
fn what_was_asked_for_is_asked_for_again_only_after_a_while() {
    let mut watching = Watching::from(running(at(60)), at(60));
    let Ask::End(first, ..) = watching.do_it() else { panic!("it is to be ended") };
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(5)));
    watching.advance(3);
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(2)));
    watching.advance(2);
    let Ask::End(second, ..) = watching.do_it() else { panic!("it is still there") };
    assert_ne!(first.id, second.id);
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(5)));
    watching.apply(SandboxDestroyed { reason: DestroyReason::Ttl });
    assert_eq!(watching.decide(), Next::Rest, "what is gone is forgotten");
}

#[test]
fn a_clock_that_is_set_ends_nothing_early_and_keeps_nothing_late() {
    for jump in [TimeDelta::hours(2), TimeDelta::hours(-2)] {
        let mut watching = Watching::from(running(at(1200)), at(0));
        assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(1200)));
        watching.clock.jump(jump);
        assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(1200)));
        watching.advance(1199);
        assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(1)));
        watching.advance(1);
        assert_eq!(reason(&watching.command().unwrap()), DestroyReason::Ttl);
    }
}

#[test]
fn an_extension_counts_from_when_it_is_seen() {
    let mut watching = Watching::from(running(at(60)), at(0));
    assert!(watching.ask().is_none());
    watching.advance(50);
    watching.apply(SandboxTtlExtended { expires_at: at(110) });
    assert!(watching.ask().is_none());
    watching.advance(59);
    assert!(watching.ask().is_none());
    watching.advance(1);
    assert!(watching.ask().is_some());
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
    let mut watching = Watching::from(requested(), at(0));
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(5)));
    watching.advance(4);
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(1)));
    watching.advance(1);
    // Until it could be sent.
    assert!(matches!(watching.ask(), Some(Ask::Again(..))));
    assert!(matches!(watching.do_it(), Ask::Again(..)));
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(295)));
    watching.advance(294);
    assert!(watching.ask().is_none());
    watching.advance(1);
    assert!(matches!(watching.do_it(), Ask::NeverRan(..)), "nobody could be asked to end it");
    // What is on its way to its end is not asked for again.
    let Ask::End(..) = Watching::from(running(at(5)), at(5)).do_it() else { panic!("somebody has it") };
}

#[test]
fn a_request_that_cannot_be_sent_again_waits_for_its_deadline() {
    let mut state = requested();
    state.spec.env_names.push("A".to_owned());
    let mut watching = Watching::from(state, at(100));
    assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(5)));
    watching.advance(5);
    for _ in 0..2 {
        assert_eq!(watching.decide(), Next::Wait(Duration::from_secs(195)), "nobody knows whether it waits");
    }
    watching.advance(195);
    assert!(matches!(watching.ask(), Some(Ask::NeverRan(..))));
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
