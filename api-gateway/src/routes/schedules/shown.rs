//! A schedule as its tenant sees it.

use std::time::Duration;

use api_types::{
    MissedTicks, Schedule, ScheduleCatchUp, ScheduleOverlap, ScheduleState as Word, ScheduleTick,
    TickOutcome as Outcome,
};
use calendar::{Calendar, Zone};
use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use events::{CatchUp, LastTick, Overlap, ScheduleState, TickOutcome, Timing};
use spelling::format_go_duration;

/// How many of the next times are shown.
const NEXT: usize = 5;

/// A schedule as its tenant sees it.
pub(super) fn shown(state: ScheduleState, now: DateTime<Utc>) -> Schedule {
    let ScheduleState { schedule, .. } = state;
    let calendar = Calendar::of(&schedule).ok();
    // What has come and is not dealt with yet is still the next.
    let from = state.cursor.max(now - Duration::from_secs(60));
    let is_over = calendar.as_ref().is_some_and(|calendar| calendar.next(state.cursor).is_none());
    let next = calendar.filter(|_| state.paused_at.is_none());
    let zone = Zone::new(&schedule.timezone).unwrap_or_else(|_| Zone::utc());
    let next = next.map(|calendar| calendar.after(from).take(NEXT).map(|at| local(at, &zone)).collect());
    let (mut cron, mut every, mut at) = (None, None, None);
    match schedule.timing {
        Timing::Cron(expression) => cron = Some(expression),
        Timing::Every { seconds, .. } => every = Some(format_go_duration(Duration::from_secs(seconds))),
        Timing::At(instant) => at = Some(local(instant, &zone)),
    }
    Schedule {
        id: schedule.id.to_string(),
        name: schedule.name,
        state: match (state.paused_at, is_over) {
            (_, true) => Word::Done,
            (Some(_), false) => Word::Paused,
            (None, false) => Word::Active,
        }
        .into(),
        cron,
        every,
        at,
        timezone: schedule.timezone,
        overlap: match schedule.overlap {
            Overlap::Skip => ScheduleOverlap::Skip,
            Overlap::Queue => ScheduleOverlap::Queue,
            Overlap::Replace => ScheduleOverlap::Replace,
        }
        .into(),
        catch_up: match schedule.catch_up {
            CatchUp::None => ScheduleCatchUp::None,
            CatchUp::Last => ScheduleCatchUp::Last,
            CatchUp::All => ScheduleCatchUp::All,
        }
        .into(),
        job: schedule.job,
        next: next.unwrap_or_default(),
        owner: schedule.owner,
        created_at: time(state.created_at),
        updated_at: time(state.changed_at),
        paused_at: state.paused_at.map(time),
        last_tick: state.last_tick.map(tick),
        last_missed: state.last_missed.map(|missed| MissedTicks {
            from: time(missed.from),
            until: time(missed.until),
            count: missed.count,
        }),
        last_job: state.latest.map(|latest| latest.job.to_string()),
        waiting: u32::try_from(state.waiting.len()).unwrap_or(u32::MAX),
    }
}

fn tick(tick: LastTick) -> ScheduleTick {
    let (outcome, job, other) = match tick.outcome {
        TickOutcome::Submitted { job } => (Outcome::Submitted, Some(job), None),
        TickOutcome::Queued { job } => (Outcome::Queued, Some(job), None),
        TickOutcome::Replaced { job, cancelled } => (Outcome::Replaced, Some(job), Some(cancelled)),
        TickOutcome::Skipped { running } => (Outcome::Skipped, None, Some(running)),
        TickOutcome::Full => (Outcome::Full, None, None),
    };
    ScheduleTick {
        at: time(tick.at),
        outcome: outcome.into(),
        job: job.map(|job| job.to_string()),
        other: other.map(|job| job.to_string()),
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// With the zone's offset from UTC.
fn local(at: DateTime<Utc>, zone: &Zone) -> String {
    let offset = (zone.wall(at) - at.naive_utc()).num_seconds();
    let offset = i32::try_from(offset).ok().and_then(FixedOffset::east_opt);
    offset.map_or_else(
        || time(at),
        |offset| at.with_timezone(&offset).to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

#[cfg(test)]
mod tests {
    use events::{Aggregate as _, Event, EventId, ScheduleCreated, ScheduleId};
    use serde_json::json;

    use super::*;

    fn state(timing: Timing) -> ScheduleState {
        let schedule = events::Schedule {
            id: ScheduleId::from_bytes([1; 16]),
            name: "nightly".to_owned(),
            owner: None,
            timing,
            timezone: "Europe/Berlin".to_owned(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::None,
            job: json!({}),
            sealed: String::new(),
        };
        let event = Event {
            id: EventId::new(),
            tenant: events::TenantId::default_tenant(),
            sandbox: None,
            time: "2027-03-26T12:00:00Z".parse().unwrap(),
            actor: events::Actor::Schedules,
            cause: None,
            request_id: None,
            traceparent: None,
            data: ScheduleCreated { schedule }.into(),
        };
        ScheduleState::apply(None, &event).unwrap()
    }

    #[test]
    fn the_next_times_are_shown_as_the_clock_on_the_wall_shows_them() {
        let now = "2027-03-26T12:00:00Z".parse().unwrap();
        let nightly = state(Timing::Cron("30 2 * * *".to_owned()));
        let shown = shown(nightly.clone(), now);
        assert_eq!(
            shown.next,
            [
                "2027-03-27T02:30:00+01:00",
                "2027-03-28T03:00:00+02:00",
                "2027-03-29T02:30:00+02:00",
                "2027-03-30T02:30:00+02:00",
                "2027-03-31T02:30:00+02:00"
            ]
        );
        assert_eq!((shown.state, shown.cron.as_deref()), (Word::Active.into(), Some("30 2 * * *")));
        let paused = ScheduleState { paused_at: Some(now), ..nightly };
        let shown = super::shown(paused, now);
        assert_eq!((shown.state, shown.next.len()), (Word::Paused.into(), 0));
    }

    #[test]
    fn what_is_for_once_is_done_when_it_was() {
        let at: DateTime<Utc> = "2027-06-01T10:00:00Z".parse().unwrap();
        let once = state(Timing::At(at));
        let before = shown(once.clone(), at);
        assert_eq!((before.state, before.next.len()), (Word::Active.into(), 1));
        assert_eq!(before.at.as_deref(), Some("2027-06-01T12:00:00+02:00"));
        let after = shown(ScheduleState { cursor: at, ..once }, at);
        assert_eq!((after.state, after.next.len()), (Word::Done.into(), 0));
    }
}
