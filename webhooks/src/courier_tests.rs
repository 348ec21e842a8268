//! A courier under a clock that stands still until it is told otherwise.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use events::{
    Actor, Event, EventData, EventId, Frame, ManualClock, Position, TemplateDeleted, TenantId, Webhook,
    WebhookEvent, WebhookFailure, WebhookId, WebhookPhase, WebhookState,
};
use proptest::prelude::*;
use reactor::{Next, Turns};

use crate::courier::{Courier, Errand, PAGE, Report};
use crate::sender::Refusal;

const ID: WebhookId = WebhookId::from_bytes([1; 16]);

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_750_000_000 + seconds, 0).single().unwrap()
}

fn state(cursor: u64, phase: WebhookPhase) -> WebhookState {
    WebhookState {
        webhook: Webhook {
            id: ID,
            url: "https://ci.example/hook".to_owned(),
            types: vec!["template.*".to_owned()],
            sandbox: None,
            sealed_secret: String::new(),
            description: String::new(),
        },
        tenant: TenantId::default_tenant(),
        created_at: at(0),
        epoch: EventId::from_bytes([9; 16]),
        cursor: Position(cursor),
        delivered_at: None,
        phase,
    }
}

fn event() -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: None,
        time: at(0),
        actor: Actor::Recorder,
        cause: None,
        request_id: None,
        traceparent: None,
        data: TemplateDeleted { name: "t".to_owned() }.into(),
    }
}

fn frame(position: u64) -> Frame {
    Frame { position: Position(position), header: Bytes::new(), body: Bytes::new(), missing: None }
}

fn refused(status: u16) -> Report {
    Report::Refused(Refusal {
        message: format!("answered {status}"),
        status: Some(status),
        retry_after: None,
    })
}

struct Working {
    courier: Courier,
    turns: Turns,
    clock: ManualClock,
}

impl Working {
    fn from(state: &WebhookState) -> Self {
        Self::with(state, Duration::from_secs(24 * 3600))
    }

    fn with(state: &WebhookState, give_up_after: Duration) -> Self {
        let secret = format!("whsec_{}", "A".repeat(44)).parse().unwrap();
        let courier = Courier::new(state, secret, give_up_after).unwrap();
        Self { courier, turns: Turns::default(), clock: ManualClock::new(at(0)) }
    }

    fn decide(&mut self) -> Next<Errand> {
        self.courier.decide(&mut self.turns.turn(&self.clock))
    }

    fn settle(&mut self, report: Report) {
        self.courier.settle(Some(report), &mut self.turns.turn(&self.clock));
    }

    fn act(&mut self) -> Errand {
        match self.decide() {
            Next::Act(errand) => errand,
            other @ (Next::Wait(_) | Next::Rest) => panic!("it does nothing: {other:?}"),
        }
    }

    fn wait(&mut self) -> Duration {
        match self.decide() {
            Next::Wait(length) => length,
            other @ (Next::Act(_) | Next::Rest) => panic!("it does not wait: {other:?}"),
        }
    }

    /// It reads after this position, and finds these; the head was there before.
    fn reads(&mut self, after: u64, found: &[u64], head: u64) {
        let Errand::Read(_, from) = self.act() else { panic!("it does not read") };
        assert_eq!(from, Position(after));
        let frames = found.iter().map(|position| frame(*position)).collect();
        self.settle(Report::Read { frames, head: Position(head) });
    }

    /// It sends what is here, which is answered so.
    fn sends(&mut self, position: u64, report: Report) {
        let Errand::Deliver(_, frame) = self.act() else { panic!("it does not send") };
        assert_eq!(frame.position, Position(position));
        self.settle(report);
    }

    fn says(&mut self, is_durable: bool) -> WebhookEvent {
        let (Errand::Say(data) | Errand::SaySurely(data)) = self.act() else { panic!("it says nothing") };
        self.settle(Report::Said(is_durable));
        let EventData::Webhook(said) = data else { panic!("{data:?}") };
        said
    }

    /// It says that it is so far.
    fn says_how_far(&mut self, cursor: u64, delivered: u64) {
        let WebhookEvent::Advanced(advanced) = self.says(true) else { panic!("it says something else") };
        assert_eq!((advanced.cursor, advanced.delivered), (Position(cursor), delivered));
    }

    fn advance(&self, milliseconds: i64) {
        self.clock.advance(TimeDelta::milliseconds(milliseconds));
    }
}

#[test]
fn events_are_sent_in_order_and_it_is_said_once_a_second_how_far_it_is() {
    let mut working = Working::from(&state(5, WebhookPhase::Active));
    working.reads(5, &[7, 9], 20);
    working.sends(7, Report::Delivered);
    working.advance(400);
    working.sends(9, Report::Delivered);
    assert_eq!(working.wait(), Duration::from_millis(600));
    working.advance(600);
    working.says_how_far(20, 2);
    assert_eq!(working.wait(), Duration::from_secs(59), "it looks all the same, a minute after it did");
    assert!(working.courier.last_words().is_none());
    assert!(working.courier.is_news(&event()) && !working.courier.is_news(&event()));
    working.reads(20, &[21], 21);
    working.sends(21, Report::Delivered);
    let last = working.courier.last_words().unwrap();
    assert_eq!((last.cursor, last.delivered), (Position(21), 1));
}

#[test]
fn what_is_recorded_while_it_reads_is_read_next() {
    let mut working = Working::from(&state(0, WebhookPhase::Active));
    let Errand::Read(..) = working.act() else { panic!("it does not read") };
    assert!(working.courier.is_news(&event()));
    working.settle(Report::Read { frames: Vec::new(), head: Position(3) });
    working.reads(3, &[4], 4);
    working.sends(4, Report::Delivered);
    // A full page is followed by another one.
    working.advance(60_000);
    working.says_how_far(4, 1);
    let page: Vec<u64> = (10..10 + u64::from(PAGE)).collect();
    working.reads(4, &page, 99);
    for position in &page {
        working.sends(*position, Report::Delivered);
    }
    working.reads(*page.last().unwrap(), &[], 99);
    // What failed to be read is read again.
    working.advance(60_000);
    working.says_how_far(99, page.len() as u64);
    let Errand::Read(..) = working.act() else { panic!("it does not read") };
    working.courier.settle(None, &mut working.turns.turn(&working.clock));
    working.reads(99, &[], 99);
}

#[test]
fn a_refusal_is_said_and_tried_again_and_its_end_is_said_at_once() {
    let mut working = Working::from(&state(0, WebhookPhase::Active));
    working.reads(0, &[1, 2], 2);
    let mut pauses = Vec::new();
    for attempts in 1..=4 {
        working.sends(1, refused(500));
        // Whether it can be said or not.
        let WebhookEvent::Failed(failed) = working.says(attempts % 2 == 0) else { panic!("not said") };
        assert_eq!((failed.position, failed.attempts), (Position(1), attempts));
        assert_eq!(failed.message, "answered 500");
        let pause = working.wait();
        assert_eq!(failed.retry_at, chrono_now(&working) + TimeDelta::from_std(pause).unwrap());
        pauses.push(pause.as_secs_f64());
        // A clock that is set makes it no sooner.
        working.clock.jump(TimeDelta::hours(1));
        assert_eq!(working.wait(), pause);
        working.clock.jump(TimeDelta::hours(-1));
        working.advance(i64::try_from(pause.as_millis()).unwrap() + 1);
    }
    for (pause, most) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0]) {
        assert!(*pause <= most && *pause >= most / 2.0, "{pauses:?}");
    }
    working.sends(1, Report::Delivered);
    working.says_how_far(1, 1);
    working.sends(2, Report::Delivered);
}

fn chrono_now(working: &Working) -> DateTime<Utc> {
    events::Clock::now(&working.clock)
}

#[test]
fn one_that_failed_before_a_restart_waits_out_its_pause_but_no_longer_than_an_hour() {
    let failure = WebhookFailure { position: Position(1), attempts: 3, message: String::new() };
    let failing =
        |seconds| WebhookPhase::Failing { since: at(-100), failure: failure.clone(), retry_at: at(seconds) };
    let mut working = Working::from(&state(0, failing(50)));
    assert_eq!(working.wait(), Duration::from_secs(50));
    working.clock.jump(TimeDelta::hours(-5));
    assert_eq!(working.wait(), Duration::from_secs(50));
    working.advance(50_000);
    working.reads(0, &[1], 1);
    working.sends(1, refused(503));
    let WebhookEvent::Failed(failed) = working.says(true) else { panic!("not said") };
    assert_eq!(failed.attempts, 4, "it counts on");
    assert_eq!(Working::from(&state(0, failing(-50))).decide_kind(), "read");
    assert_eq!(Working::from(&state(0, failing(10 * 3600))).wait(), Duration::from_secs(3600));
}

impl Working {
    fn decide_kind(&mut self) -> &'static str {
        match self.decide() {
            Next::Act(Errand::Read(..)) => "read",
            Next::Act(Errand::Deliver(..)) => "deliver",
            Next::Act(Errand::Say(_) | Errand::SaySurely(_)) => "say",
            Next::Wait(_) => "wait",
            Next::Rest => "rest",
        }
    }
}

#[test]
fn one_that_fails_for_too_long_or_wants_nothing_more_is_suspended_surely() {
    for (status, hours) in [(500, 25), (410, 0)] {
        let mut working = Working::from(&state(0, WebhookPhase::Active));
        working.reads(0, &[1, 2], 2);
        working.sends(1, Report::Delivered);
        working.sends(2, refused(if hours > 0 { 500 } else { status }));
        if hours > 0 {
            assert!(matches!(working.says(true), WebhookEvent::Failed(_)));
            working.advance(hours * 3_600_000);
            working.says_how_far(1, 1);
            working.sends(2, refused(status));
        } else {
            working.says_how_far(1, 1);
        }
        for _ in 0..3 {
            // Until it is durable: the runtime tries it again after a pause.
            let Errand::SaySurely(EventData::Webhook(WebhookEvent::Suspended(suspended))) = working.act()
            else {
                panic!("it is not suspended");
            };
            assert_eq!(suspended.position, Position(2));
            working.courier.settle(None, &mut working.turns.turn(&working.clock));
        }
        working.settle(Report::SaidSurely);
        assert_eq!(working.decide_kind(), "rest");
    }
    let failure = WebhookFailure { position: Position(1), attempts: 3, message: String::new() };
    let suspended = state(0, WebhookPhase::Suspended { since: at(0), failure });
    let secret = format!("whsec_{}", "A".repeat(44)).parse().unwrap();
    assert!(Courier::new(&suspended, secret, Duration::from_secs(1)).is_none());
}

#[test]
fn what_is_not_kept_any_more_is_passed_and_what_cannot_be_sent_too() {
    let mut working = Working::from(&state(5, WebhookPhase::Active));
    let Errand::Read(..) = working.act() else { panic!("it does not read") };
    working.settle(Report::Trimmed { floor: Position(50) });
    working.reads(50, &[60, 61], 61);
    working.sends(60, Report::Unsendable);
    working.sends(61, Report::Delivered);
    working.advance(1_000);
    working.says_how_far(61, 1);
}

#[test]
fn one_that_nothing_is_for_says_so_only_when_it_is_far_behind() {
    let mut working = Working::from(&state(0, WebhookPhase::Active));
    working.reads(0, &[], 9_999);
    assert_eq!(working.decide_kind(), "wait");
    working.advance(60_000);
    working.reads(9_999, &[], 10_000);
    working.says_how_far(10_000, 0);
    assert_eq!(working.decide_kind(), "wait");
}

proptest! {
    /// However its receiver, the store and the log behave: each event is sent until it is taken, in order, none is left out,
    /// and what is said of its cursor never passes what is not done.
    #[test]
    fn nothing_is_left_out_whatever_happens(
        answers in prop::collection::vec(0..6u8, 0..300),
        wanted in prop::collection::btree_set(1..200u64, 0..60),
    ) {
        let mut working = Working::with(&state(0, WebhookPhase::Active), Duration::from_secs(u32::MAX.into()));
        let mut taken: Vec<u64> = Vec::new();
        let mut answers = answers.into_iter();
        let last = wanted.last().copied().unwrap_or_default();
        for _ in 0..2_000 {
            // In the end all goes well.
            let answer = answers.next().unwrap_or(5);
            match working.decide() {
                Next::Act(Errand::Read(_, after)) if answer == 0 => {
                    let _ = after;
                    working.courier.settle(None, &mut working.turns.turn(&working.clock));
                }
                Next::Act(Errand::Read(_, after)) => {
                    let page = wanted.range(after.0 + 1..).take(PAGE as usize);
                    let frames = page.map(|position| frame(*position)).collect();
                    working.settle(Report::Read { frames, head: Position(last) });
                }
                Next::Act(Errand::Deliver(_, frame)) => {
                    let report = if answer < 3 { refused(500) } else { Report::Delivered };
                    if answer >= 3 {
                        taken.push(frame.position.0);
                    }
                    working.settle(report);
                }
                Next::Act(Errand::Say(EventData::Webhook(WebhookEvent::Advanced(advanced)))) => {
                    let done = taken.last().copied().unwrap_or_default();
                    let next = wanted.range(done + 1..).next();
                    prop_assert!(next.is_none_or(|next| advanced.cursor.0 < *next), "{advanced:?} after {done}");
                    working.settle(Report::Said(answer > 1));
                }
                Next::Act(Errand::Say(_)) => working.settle(Report::Said(answer > 1)),
                Next::Act(Errand::SaySurely(data)) => prop_assert!(false, "{data:?}"),
                Next::Wait(length) => {
                    prop_assert!(length <= Duration::from_secs(3600));
                    working.clock.advance(TimeDelta::from_std(length).unwrap());
                    if taken.len() == wanted.len() && working.courier.last_words().is_none() {
                        break;
                    }
                }
                Next::Rest => prop_assert!(false, "it rests"),
            }
        }
        prop_assert_eq!(taken, wanted.into_iter().collect::<Vec<u64>>());
    }
}
