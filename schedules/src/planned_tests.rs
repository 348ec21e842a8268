//! A year of schedules, with three processes that all believe to be the one at work, each of them behind in its own way.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use calendar::Calendar;
use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Actor, Aggregate, CatchUp, Clock, Event, EventData, EventId, JobId, ManualClock, Overlap, Schedule,
    ScheduleCreated, ScheduleEvent, ScheduleId, ScheduleMissed, SchedulePaused, ScheduleResumed,
    ScheduleState, ScheduleTicked, ScheduleTriggered, ScheduleUpdated, TenantId, TickOutcome, Timing,
};
use fastrand::Rng;
use reactor::{Next, Turns};

use crate::planned::{JobStands, MOST_CAUGHT_UP, ON_TIME, Planned, Step};

const ID: ScheduleId = ScheduleId::from_bytes([7; 16]);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn by_cron(expression: &str, timezone: &str, overlap: Overlap, catch_up: CatchUp) -> Schedule {
    Schedule {
        id: ID,
        name: "nightly".to_owned(),
        owner: None,
        timing: Timing::Cron(expression.to_owned()),
        timezone: timezone.to_owned(),
        overlap,
        catch_up,
        job: serde_json::json!({}),
        sealed: String::new(),
    }
}

/// What everybody reads.
#[derive(Debug, Clone)]
enum Entry {
    Said(Box<Event>),
    Job(JobId, JobStands),
}

/// The record: it takes what the recorder would take.
struct World {
    clock: ManualClock,
    log: Vec<Entry>,
    state: Option<ScheduleState>,
    jobs: BTreeMap<JobId, JobStands>,
    /// How often something was said that was not taken.
    refused: usize,
}

impl World {
    fn new(schedule: Schedule, now: DateTime<Utc>) -> Self {
        let mut world = Self {
            clock: ManualClock::new(now),
            log: Vec::new(),
            state: None,
            jobs: BTreeMap::new(),
            refused: 0,
        };
        world.say(EventId::new(), ScheduleCreated { schedule });
        world
    }

    fn say(&mut self, id: EventId, data: impl Into<EventData>) {
        let event = Event {
            id,
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: self.clock.now(),
            actor: Actor::Schedules,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        let known = self.log.iter().rev().take(50);
        let is_known =
            known.into_iter().any(|entry| matches!(entry, Entry::Said(said) if said.id == event.id));
        if is_known || ScheduleState::judge(self.state.as_ref(), &event).is_err() {
            self.refused += 1;
            return;
        }
        self.state = ScheduleState::apply(self.state.take(), &event);
        self.log.push(Entry::Said(Box::new(event)));
    }

    fn submit(&mut self, job: JobId) {
        if self.jobs.insert(job, JobStands::Live).is_some() {
            panic!("only who does not know of a job submits it, and it is told apart by its id");
        }
        self.log.push(Entry::Job(job, JobStands::Live));
    }

    fn end(&mut self, job: JobId) {
        if self.jobs.insert(job, JobStands::Ended) == Some(JobStands::Live) {
            self.log.push(Entry::Job(job, JobStands::Ended));
        }
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::Say(id, data) => self.say(*id, (**data).clone()),
            // The same event, with the same id: it is in the log once.
            Step::Submit(job, _) if self.jobs.contains_key(job) => self.refused += 1,
            Step::Submit(job, _) => self.submit(*job),
            Step::Cancel(job) => self.end(*job),
        }
    }

    fn said<T>(&self, of: impl Fn(&ScheduleEvent) -> Option<T>) -> Vec<T> {
        let said = self.log.iter().filter_map(|entry| match entry {
            Entry::Said(event) => Some(&event.data),
            Entry::Job(..) => None,
        });
        said.filter_map(|data| if let EventData::Schedule(said) = data { of(said) } else { None }).collect()
    }

    fn ticks(&self) -> Vec<ScheduleTicked> {
        self.said(|said| if let ScheduleEvent::Ticked(ticked) = said { Some(ticked.clone()) } else { None })
    }

    fn missed(&self) -> Vec<ScheduleMissed> {
        self.said(|said| if let ScheduleEvent::Missed(missed) = said { Some(missed.clone()) } else { None })
    }

    fn live(&self) -> Vec<JobId> {
        let live = self.jobs.iter().filter(|(_, stands)| **stands == JobStands::Live);
        live.map(|(job, _)| *job).collect()
    }
}

/// A process that believes to be the one at work.
struct Driver {
    planned: Option<Planned>,
    turns: Turns,
    read: usize,
}

impl Driver {
    /// One that has just begun: it knows what is recorded.
    fn new(world: &World) -> Self {
        let planned = world.state.clone().map(|state| {
            let known = |job| world.jobs.get(&job).map(|stands| (job, *stands));
            let jobs: HashMap<_, _> = Planned::jobs_of(&state).filter_map(known).collect();
            Planned::new(state, jobs)
        });
        Self { planned, turns: Turns::default(), read: world.log.len() }
    }

    fn read(&mut self, world: &World, most: usize) {
        for entry in world.log[self.read..].iter().take(most) {
            self.read += 1;
            match entry {
                Entry::Said(event) => {
                    self.planned = self.planned.take().and_then(|planned| planned.apply(event));
                }
                Entry::Job(job, stands) => {
                    if let Some(planned) = &mut self.planned {
                        planned.know(*job, *stands);
                    }
                }
            }
        }
    }

    /// Decides once and does it; how long there is nothing to be done, otherwise.
    fn act(&mut self, world: &mut World) -> Option<Duration> {
        let mut turn = self.turns.turn(&world.clock);
        match self.planned.as_mut()?.decide(&mut turn) {
            Next::Act(step) => {
                world.perform(&step);
                let turn = self.turns.turn(&world.clock);
                self.planned.as_mut()?.done(step.done(), &turn);
                Some(Duration::ZERO)
            }
            Next::Wait(length) => Some(length),
            Next::Rest => None,
        }
    }

    /// Does all there is to be done, alone.
    fn settle(&mut self, world: &mut World) -> Option<Duration> {
        loop {
            self.read(world, usize::MAX);
            match self.act(world) {
                Some(Duration::ZERO) => {}
                other => return other,
            }
        }
    }
}

/// Lets a year pass.
fn a_year(schedule: Schedule, seed: u64) -> World {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new(schedule, at("2027-01-01T00:00:00Z"));
    let end = at("2028-01-01T00:00:00Z");
    let mut drivers: Vec<Driver> = (0..3).map(|_| Driver::new(&world)).collect();
    while world.clock.now() < end {
        let mut shortest: Option<Duration> = Some(Duration::from_secs(24 * 3600));
        for driver in &mut drivers {
            if rng.u32(0..100) == 0 {
                *driver = Driver::new(&world);
            }
            // One in two is a little behind.
            let most = if rng.bool() { usize::MAX } else { rng.usize(0..3) };
            driver.read(&world, most);
            let wait = driver.act(&mut world);
            shortest = [shortest, wait].into_iter().flatten().min();
        }
        // A job takes up to a few hours.
        if let Some(job) = world.live().first()
            && rng.u32(0..6) == 0
        {
            let job = *job;
            world.end(job);
        }
        let pass = match shortest {
            Some(Duration::ZERO) | None => TimeDelta::milliseconds(rng.i64(0..300)),
            Some(length) => TimeDelta::from_std(length).unwrap().min(TimeDelta::minutes(rng.i64(1..90))),
        };
        world.clock.advance(pass.max(TimeDelta::milliseconds(1)));
    }
    // What was decided is done.
    for job in world.live() {
        world.end(job);
    }
    let mut last = Driver::new(&world);
    last.settle(&mut world);
    world
}

#[test]
fn each_time_of_a_year_is_decided_once_by_three_who_all_believe_to_be_at_work() {
    let rules =
        [("30 2 * * *", Overlap::Queue), ("0 1-3 * * *", Overlap::Replace), ("0 */2 * * *", Overlap::Skip)];
    let zones = ["Europe/Berlin", "America/New_York"];
    let mut refused = 0;
    for (seed, (zone, (expression, overlap))) in
        (1..).zip(zones.iter().flat_map(|zone| rules.iter().map(move |rule| (zone, rule))))
    {
        let schedule = by_cron(expression, zone, *overlap, CatchUp::None);
        let begin = at("2027-01-01T00:00:00Z");
        let expected = Calendar::of(&schedule).unwrap();
        let world = a_year(schedule, seed);
        let expected: Vec<_> = expected.after(begin).take_while(|at| *at <= world.clock.now()).collect();
        let ticks = world.ticks();
        let found: Vec<_> = ticks.iter().map(|tick| tick.at).collect();
        assert_eq!(found, expected, "{expression} in {zone}");
        assert_eq!(world.missed(), [], "{expression} in {zone}");
        // Every job that was decided upon is there, and no other is.
        let mut decided = BTreeMap::new();
        let mut skipped = 0;
        for tick in &ticks {
            match tick.outcome {
                TickOutcome::Submitted { job }
                | TickOutcome::Queued { job }
                | TickOutcome::Replaced { job, .. } => assert_eq!(decided.insert(job, ()), None),
                TickOutcome::Skipped { .. } | TickOutcome::Full => skipped += 1,
            }
        }
        assert!(decided.keys().eq(world.jobs.keys()), "{expression} in {zone}");
        assert_eq!(skipped > 0, *overlap == Overlap::Skip, "{skipped}: {expression} in {zone}");
        refused += world.refused;
    }
    assert!(refused > 1_000, "{refused}: they were never of two minds");
}

/// One who is at work alone, with nothing recorded but the schedule.
fn alone(schedule: Schedule, now: &str) -> (World, Driver) {
    let world = World::new(schedule, at(now));
    let driver = Driver::new(&world);
    (world, driver)
}

fn outcomes(world: &World) -> Vec<&'static str> {
    let word = |tick: ScheduleTicked| match tick.outcome {
        TickOutcome::Submitted { .. } => "submitted",
        TickOutcome::Queued { .. } => "queued",
        TickOutcome::Replaced { .. } => "replaced",
        TickOutcome::Skipped { .. } => "skipped",
        TickOutcome::Full => "full",
    };
    world.ticks().into_iter().map(word).collect()
}

#[test]
fn what_was_missed_is_made_up_for_as_the_schedule_says() {
    for (catch_up, missed, ticked) in [
        (CatchUp::None, vec![(10, "00:10:00", "01:40:00")], 0),
        (CatchUp::Last, vec![(9, "00:10:00", "01:30:00")], 1),
        (CatchUp::All, vec![], 10),
    ] {
        let schedule = by_cron("*/10 * * * *", "UTC", Overlap::Queue, catch_up);
        let (mut world, mut driver) = alone(schedule, "2027-01-01T00:00:00Z");
        assert_eq!(driver.settle(&mut world), Some(Duration::from_secs(600)));
        // Nobody is there, until somebody is.
        world.clock.advance(TimeDelta::minutes(101) + TimeDelta::seconds(1));
        let mut next = Driver::new(&world);
        next.settle(&mut world);
        let told: Vec<_> = world
            .missed()
            .iter()
            .map(|missed| (missed.count, missed.from.time().to_string(), missed.until.time().to_string()))
            .collect();
        let expected: Vec<_> = missed
            .iter()
            .map(|(count, from, until)| (*count, (*from).to_owned(), (*until).to_owned()))
            .collect();
        assert_eq!(told, expected, "{catch_up:?}");
        assert_eq!(world.ticks().len(), ticked, "{catch_up:?}");
        // What comes then is on time.
        world.clock.advance(TimeDelta::minutes(9));
        next.settle(&mut world);
        assert_eq!(world.ticks().len(), ticked + 1, "{catch_up:?}");
    }
}

#[test]
fn a_long_absence_costs_a_bounded_amount_a_decision_and_nothing_is_left_out() {
    let schedule = by_cron("*/10 * * * * *", "Europe/Berlin", Overlap::Skip, CatchUp::All);
    let (mut world, _) = alone(schedule, "2027-01-01T00:00:00Z");
    world.clock.advance(TimeDelta::days(2));
    let mut driver = Driver::new(&world);
    driver.settle(&mut world);
    let missed = world.missed();
    assert!(missed.len() > 5 && missed.iter().all(|missed| missed.count <= 2_000), "{missed:?}");
    let count = missed.iter().map(|missed| missed.count as usize).sum::<usize>() + world.ticks().len();
    assert_eq!(count, 2 * 24 * 360);
    let on_time = ON_TIME.as_secs() as usize / 10;
    assert!((MOST_CAUGHT_UP..=MOST_CAUGHT_UP + on_time + 1).contains(&world.ticks().len()));
}

#[test]
fn what_overlaps_is_skipped_queued_or_replaced() {
    let run = |overlap| {
        let schedule = by_cron("0 * * * *", "UTC", overlap, CatchUp::None);
        let (mut world, mut driver) = alone(schedule, "2027-01-01T00:30:00Z");
        for _ in 0..3 {
            driver.settle(&mut world);
            world.clock.advance(TimeDelta::minutes(30));
            driver.settle(&mut world);
            world.clock.advance(TimeDelta::minutes(30));
        }
        (world, driver)
    };
    let (mut world, mut driver) = run(Overlap::Skip);
    assert_eq!(outcomes(&world), ["submitted", "skipped", "skipped"]);
    assert_eq!(world.jobs.len(), 1);
    world.end(world.live()[0]);
    driver.settle(&mut world);
    world.clock.advance(TimeDelta::minutes(30));
    driver.settle(&mut world);
    assert_eq!(outcomes(&world)[3..], ["submitted"]);

    let (mut world, mut driver) = run(Overlap::Queue);
    assert_eq!(outcomes(&world), ["submitted", "queued", "queued"]);
    for left in [2, 1, 0] {
        assert_eq!(world.live().len(), 1, "never two at once");
        assert_eq!(world.state.as_ref().unwrap().waiting.len(), left);
        world.end(world.live()[0]);
        driver.settle(&mut world);
    }
    assert_eq!((world.live().len(), world.jobs.len()), (0, 3));

    let (world, _) = run(Overlap::Replace);
    assert_eq!(outcomes(&world), ["submitted", "replaced", "replaced"]);
    assert_eq!((world.live().len(), world.jobs.len()), (1, 3));
}

#[test]
fn so_many_wait_and_no_more() {
    let schedule = by_cron("* * * * *", "UTC", Overlap::Queue, CatchUp::None);
    let (mut world, mut driver) = alone(schedule, "2027-01-01T00:00:00Z");
    for _ in 0..ScheduleState::MOST_WAITING + 10 {
        world.clock.advance(TimeDelta::minutes(1));
        driver.settle(&mut world);
    }
    let full = outcomes(&world).iter().filter(|outcome| **outcome == "full").count();
    assert_eq!((full, world.state.as_ref().unwrap().waiting.len()), (9, ScheduleState::MOST_WAITING));
}

#[test]
fn what_is_paused_does_nothing_by_itself_and_makes_up_for_nothing() {
    let schedule = by_cron("0 * * * *", "UTC", Overlap::Skip, CatchUp::All);
    let (mut world, mut driver) = alone(schedule, "2027-01-01T00:30:00Z");
    world.say(EventId::new(), SchedulePaused { schedule: ID });
    world.clock.advance(TimeDelta::hours(5));
    assert_eq!(driver.settle(&mut world), None);
    assert_eq!((world.ticks().len(), world.missed().len()), (0, 0));
    // By hand it still can be had.
    let job = JobId::new();
    world.say(EventId::new(), ScheduleTriggered { schedule: ID, job });
    driver.settle(&mut world);
    assert_eq!(world.live(), [job]);
    world.end(job);
    world.say(EventId::new(), ScheduleResumed { schedule: ID });
    assert_eq!(driver.settle(&mut world), Some(Duration::from_secs(1800)));
    world.clock.advance(TimeDelta::minutes(31));
    driver.settle(&mut world);
    assert_eq!(world.ticks()[0].at, at("2027-01-01T06:00:00Z"));
    assert_eq!((world.ticks().len(), world.missed().len()), (1, 0));
}

#[test]
fn by_hand_it_waits_for_the_one_before_and_a_tick_does_not_pass_it() {
    let schedule = by_cron("0 * * * *", "UTC", Overlap::Skip, CatchUp::None);
    let (mut world, mut driver) = alone(schedule, "2027-01-01T00:30:00Z");
    world.clock.advance(TimeDelta::minutes(30));
    driver.settle(&mut world);
    let first = world.live()[0];
    let job = JobId::new();
    world.say(EventId::new(), ScheduleTriggered { schedule: ID, job });
    driver.settle(&mut world);
    assert_eq!(world.live(), [first]);
    world.end(first);
    world.clock.advance(TimeDelta::hours(1));
    driver.settle(&mut world);
    assert_eq!((world.live(), outcomes(&world)), (vec![job], vec!["submitted", "skipped"]));
}

#[test]
fn a_decision_from_before_a_change_does_not_count() {
    let hourly = by_cron("0 * * * *", "UTC", Overlap::Skip, CatchUp::None);
    let (mut world, mut behind) = alone(hourly.clone(), "2027-01-01T00:30:00Z");
    let daily = Schedule { timing: Timing::Cron("0 12 * * *".to_owned()), ..hourly };
    world.say(EventId::new(), ScheduleUpdated { schedule: daily });
    world.clock.advance(TimeDelta::minutes(31));
    // It has not heard of the change.
    assert_eq!(behind.act(&mut world), Some(Duration::ZERO));
    assert_eq!((world.ticks().len(), world.refused), (0, 1));
    assert_eq!(behind.settle(&mut world), Some(Duration::from_secs(11 * 3600 - 60)));
    assert_eq!(world.jobs.len(), 0);
}

#[test]
fn a_job_that_is_never_taken_does_not_stop_a_schedule() {
    let schedule = by_cron("0 * * * *", "UTC", Overlap::Skip, CatchUp::None);
    let (mut world, mut driver) = alone(schedule, "2027-01-01T00:59:59Z");
    world.clock.advance(TimeDelta::seconds(1));
    driver.act(&mut world);
    driver.read(&world, usize::MAX);
    // It is submitted, and nothing is heard of it.
    let mut tries = 0;
    for _ in 0..600 {
        let mut turn = driver.turns.turn(&world.clock);
        let planned = driver.planned.as_mut().unwrap();
        if let Next::Act(step) = planned.decide(&mut turn) {
            assert!(matches!(step, Step::Submit(..)), "{step:?}");
            planned.done(step.done(), &turn);
            tries += 1;
        }
        world.clock.advance(TimeDelta::seconds(1));
    }
    assert!((10..40).contains(&tries), "{tries}");
    world.clock.advance(TimeDelta::minutes(51));
    driver.settle(&mut world);
    assert_eq!(outcomes(&world), ["submitted", "submitted"]);
}
