//! What every kind of thing owes, of every kind that is registered, whatever events come in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ScheduleState;
use crate::any_event::any_events;

/// The states of one kind, by their keys.
type Things = BTreeMap<Key, Slot>;

fn copy(kind: &Kind, slot: &Slot) -> Slot {
    slot.write().unwrap().map_or_else(|| kind.empty(), |state| kind.read(&state).unwrap())
}

fn written(slot: &Slot) -> Option<String> {
    slot.write().unwrap()
}

/// What never changes of a thing while there is one.
fn fixed(slot: &Slot) -> Option<(Key, crate::TenantId, Option<Key>, i64)> {
    let Fields { tenant, parent, sort_us, .. } = slot.fields()?;
    Some((slot.key()?, tenant, parent, sort_us))
}

/// Applies an event to what it changes and to what it does not, and says what no event may do.
fn apply(kind: &Kind, things: &mut Things, event: &Event) -> Result<(), TestCaseError> {
    let changed = kind.changed_by(event);
    let others = things.iter_mut().filter(|(key, slot)| Some(*key) != changed.as_ref() && !slot.is_empty());
    for (key, slot) in others {
        let before = written(slot);
        slot.apply(event);
        prop_assert_eq!(
            &before,
            &written(slot),
            "{} {:?} is changed by what it is not about: {:?}",
            kind.name,
            key,
            event
        );
    }
    let Some(key) = changed else {
        let mut none = kind.empty();
        none.apply(event);
        prop_assert!(none.is_empty(), "{} is begun by what changes none: {:?}", kind.name, event);
        return Ok(());
    };
    let slot = things.entry(key.clone()).or_insert_with(|| kind.empty());
    let (before, fixed_before) = (copy(kind, slot), fixed(slot));
    let mut again = copy(kind, slot);
    slot.apply(event);
    again.apply(event);
    prop_assert_eq!(
        written(slot),
        written(&again),
        "{} is not the same after the same: {:?}",
        kind.name,
        event
    );
    if let Some(fixed_now) = fixed(slot) {
        prop_assert_eq!(&fixed_now.0, &key, "{} has another key than its events: {:?}", kind.name, event);
        if let Some(fixed_before) = fixed_before {
            prop_assert_eq!(fixed_before, fixed_now, "{} changes what must not: {:?}", kind.name, event);
        }
    }
    if before.fields().is_some_and(|fields| fields.ended) {
        prop_assert_eq!(written(&before), written(slot), "{} changes after its end: {:?}", kind.name, event);
    }
    if let Some(state) = written(slot) {
        prop_assert!(
            kind.read(&state).unwrap().is_written_as(&state),
            "{} is read as another: {}",
            kind.name,
            state
        );
    }
    Ok(())
}

/// What the recorder takes of the events, as it takes it: those that are judged to belong in the record, each id once.
fn record(kind: &Kind, events: &[Event]) -> Result<Vec<Event>, TestCaseError> {
    let mut things = Things::new();
    let mut recorded: Vec<Event> = Vec::new();
    for event in events {
        let Some(key) = kind.changed_by(event) else { continue };
        let slot = things.entry(key).or_insert_with(|| kind.empty());
        if slot.judge(event).is_err() {
            continue;
        }
        let was_there = !slot.is_empty();
        slot.apply(event);
        if !was_there && slot.is_empty() {
            // Nobody speaks of what there is not.
            continue;
        }
        if kind.begins_once(event) {
            prop_assert!(slot.judge(event).is_err(), "{} begins twice: {:?}", kind.name, event);
        }
        recorded.push(event.clone());
    }
    for event in recorded.iter().filter(|event| event.data.word().told_by_state) {
        let slot = kind.changed_by(event).and_then(|key| things.get(&key));
        let judged = slot.map(|slot| slot.judge(event));
        prop_assert!(matches!(judged, Some(Err(_))), "the state does not tell that {:?} is recorded", event);
    }
    Ok(recorded)
}

fn fold(kind: &Kind, mut things: Things, events: &[Event]) -> Things {
    for event in events {
        if let Some(key) = kind.changed_by(event) {
            things.entry(key).or_insert_with(|| kind.empty()).apply(event);
        }
    }
    things
}

fn all_written(things: &Things) -> BTreeMap<&Key, String> {
    things.iter().filter_map(|(key, slot)| Some((key, written(slot)?))).collect()
}

/// Runs a property with any events of each kind that is registered.
fn of_each_kind(most: usize, property: impl Fn(&Kind, Vec<Event>) -> Result<(), TestCaseError>) {
    for kind in Registry::default().kinds() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) };
        // The same events each time: whoever adds a kind sees at once whether it holds, and nobody else does later.
        let rng =
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&any_events(kind.takes, most), |events| property(kind, events));
        if let Err(error) = outcome {
            panic!("{}: {error}", kind.name);
        }
    }
}

#[test]
fn any_events_fold_and_change_only_what_they_may() {
    of_each_kind(40, |kind, events| {
        let mut things = Things::new();
        events.iter().try_for_each(|event| apply(kind, &mut things, event))
    });
}

#[test]
fn whatever_is_known_any_event_is_judged() {
    of_each_kind(40, |kind, events| {
        let things = fold(kind, Things::new(), &events);
        for (slot, event) in things.values().flat_map(|slot| events.iter().map(move |event| (slot, event))) {
            if let Ok(skip) = slot.judge(event) {
                let length = event.data.body().map_or(0, bytes::Bytes::len);
                prop_assert!(skip == 0 || skip < length, "{} cuts away all of {:?}", kind.name, event);
            }
        }
        Ok(())
    });
}

#[test]
fn what_the_recorder_takes_can_be_told_from_what_it_has() {
    of_each_kind(40, |kind, events| {
        let twice: Vec<Event> = events.iter().chain(&events).cloned().collect();
        record(kind, &twice).map(|_| ())
    });
}

#[test]
fn any_part_of_the_log_may_be_applied_again_from_some_event_on() {
    of_each_kind(24, |kind, events| {
        // Each job of a schedule is told of once and let go of after that, which events that are made up at random do not keep to.
        if kind.name == ScheduleState::KIND {
            return Ok(());
        }
        let recorded = record(kind, &events)?;
        let whole = fold(kind, Things::new(), &recorded);
        for from in 0..recorded.len() {
            let copies = whole.iter().map(|(key, slot)| (key.clone(), copy(kind, slot))).collect();
            let again = fold(kind, copies, &recorded[from..]);
            prop_assert_eq!(
                all_written(&whole),
                all_written(&again),
                "{} differs after its log was applied again from {:?}",
                kind.name,
                &recorded[from]
            );
        }
        Ok(())
    });
}

#[test]
fn a_state_that_was_written_down_goes_on_as_the_one_in_memory() {
    of_each_kind(24, |kind, events| {
        let whole = fold(kind, Things::new(), &events);
        for at in 0..events.len() {
            let half = fold(kind, Things::new(), &events[..at]);
            let read = half.iter().map(|(key, slot)| (key.clone(), copy(kind, slot))).collect();
            let rest = fold(kind, read, &events[at..]);
            prop_assert_eq!(
                all_written(&whole),
                all_written(&rest),
                "{} was written down after {}",
                kind.name,
                at
            );
        }
        Ok(())
    });
}
