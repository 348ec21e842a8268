//! Any event of any word, in any form that the wire lets through: for properties that hold whatever is said.
//!
//! Nothing here knows one word from another. Each begins as the example that the test of the wire form has of it, which fails
//! when a word has none; then values are exchanged for others of the same form, as long as the word still reads what comes of
//! it. Ids, times and tenants come from a few of each, so that events are about the same things.

use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::wire::tests::one_of_each;
use crate::{Category, Event, EventData, EventId, ExecEvent, SandboxId, TenantId};

/// What stands in no example and may stand in an event.
const MORE: [(&str, &str); 6] = [
    ("output_open", "true"),
    ("tty", r#"{"rows":24,"cols":80}"#),
    ("request_digest", r#""ab""#),
    ("truncated_bytes", "7"),
    ("oom", "true"),
    ("pool", r#""fast""#),
];
const NUMBERS: [u64; 12] = [0, 1, 2, 3, 5, 6, 9, 40, 255, u32::MAX as u64, i64::MAX as u64, u64::MAX];
const TEXTS: [&str; 6] = ["", "a", "b/c", "\0", "z\u{fc}\u{1f600}", "node-2"];
/// How many there are of each kind of id, and of instants.
const FEW: u32 = 4;

/// Any events, each with an id of its own; nearly all of these categories.
pub fn any_events(of: &'static [Category], most: usize) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(prop::collection::vec(any::<u32>(), 0..48), 0..most).prop_map(|all| {
        let numbered = (1u8..).zip(all);
        numbered.map(|(number, choices)| event(number, of, &mut choices.into_iter())).collect()
    })
}

type Choices = std::vec::IntoIter<u32>;

/// One of so many. Without choices left it is the first, so that less shrinks to what is plainer.
fn choose(choices: &mut Choices, of: usize) -> usize {
    choices.next().map_or(0, |choice| choice as usize % of)
}

fn event(number: u8, of: &[Category], choices: &mut Choices) -> Event {
    let (mut examples, others): (Vec<_>, Vec<_>) =
        EXAMPLES.iter().partition(|event| of.contains(&event.data.category()));
    if choose(choices, 16) == 15 {
        examples = others;
    }
    let at = choose(choices, examples.len());
    let example = examples.swap_remove(at);
    let has_body = example.data.body().is_some();
    let body = if has_body { Bytes::from(vec![b'x'; choose(choices, 6)]) } else { Bytes::new() };
    let tenant = ["default", "blue"][choose(choices, 8) / 7].parse::<TenantId>().unwrap();
    let sandbox = match choose(choices, 16) {
        15 => None,
        14 => Some(SandboxId::from_bytes([9; 16])),
        _ => example.sandbox,
    };
    let time = example.time + chrono::TimeDelta::seconds(choose(choices, FEW as usize) as i64);
    let data = varied(&example.data, choices);
    // What the examples refer to is the first of all, and what another refers to is one of the first few.
    let id = if number == 1 { [7; 16] } else { u128::from(number).to_be_bytes() };
    let id = EventId::from_bytes(id);
    let event = Event { id, tenant, sandbox, time, data, ..example.clone() };
    let mut frame = event.to_frame().unwrap();
    frame.body = body;
    // Offsets may be past the end of all numbers.
    frame.decode().unwrap_or(Event { data: example.data.clone(), ..event })
}

static EXAMPLES: LazyLock<Vec<Event>> = LazyLock::new(one_of_each);

/// Those that no example has, and every field of an example.
static FIELDS: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
    let all = EXAMPLES.iter().filter_map(|event| json(&event.data).as_object().cloned());
    let more = MORE.map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap()));
    more.into_iter().chain(all.flat_map(Map::into_iter)).collect()
});

fn json(data: &EventData) -> Value {
    let mut json = Vec::new();
    data.data_to_json(&mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The same word with other values.
fn varied(data: &EventData, choices: &mut Choices) -> EventData {
    let read = |value: &Value| EventData::from_json(data.type_name(), &value.to_string());
    let mut value = json(data);
    let few = if choose(choices, 4) == 3 { &FIELDS[..MORE.len()] } else { &FIELDS[..] };
    let (key, added) = &few[choose(choices, few.len())];
    let mut with_more = value.clone();
    with_more[key] = added.clone();
    if read(&with_more).is_ok() {
        value = with_more;
    }
    let mut places = Vec::new();
    all_places(&value, String::new(), &mut places);
    for place in places {
        let choice = choose(choices, 1 << 16);
        // Most stay as they are, or nothing would be about the same thing for long.
        let mut changed = value.clone();
        match (choice % 8, changed.pointer_mut(&place)) {
            (6, Some(at)) => {
                *at = another(at, choice / 8, |at| said_to_be_expected(&value, &place, at, read))
            }
            (7, Some(_)) => remove(&mut changed, &place),
            _ => continue,
        }
        if read(&changed).is_ok() {
            value = changed;
        }
    }
    read(&value).unwrap()
}

fn all_places(value: &Value, place: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            all_places(value, format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), into);
        }),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(index, value)| all_places(value, format!("{place}/{index}"), into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if !place.is_empty() {
        into.push(place);
    }
}

fn remove(value: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(key);
        }
        Some(Value::Array(list)) => {
            list.pop();
        }
        _ => {}
    }
}

/// Another value of the same form.
fn another(value: &Value, choice: usize, expected: impl Fn(&str) -> Vec<String>) -> Value {
    match value {
        Value::Bool(set) => Value::Bool(!set),
        Value::Number(_) => Value::from(NUMBERS[choice % NUMBERS.len()]),
        Value::String(text) => {
            let number = choice as u32 % FEW;
            // An id: a prefix, and what is its number when it is written out.
            let id = text
                .len()
                .checked_sub(26)
                .filter(|at| text.is_char_boundary(*at) && text[..*at].ends_with('-'));
            if let Some(prefix) = id {
                return Value::String(format!("{}{:026}", &text[..prefix], number + 1));
            }
            if let Ok(at) = text.parse::<chrono::DateTime<chrono::Utc>>() {
                return serde_json::to_value(at + chrono::TimeDelta::seconds(i64::from(number) - 1)).unwrap();
            }
            let words = expected("\u{1}");
            let words = words
                .iter()
                .map(String::as_str)
                .chain(words.is_empty().then_some(TEXTS).into_iter().flatten());
            Value::from(words.clone().nth(choice % words.count()).unwrap())
        }
        Value::Array(list) => Value::Array(list.iter().chain(list).cloned().collect()),
        Value::Null | Value::Object(_) => value.clone(),
    }
}

/// The words that may stand at a place, where only a few may: the error that names them says so.
fn said_to_be_expected<T, E: std::fmt::Display>(
    value: &Value,
    place: &str,
    none_of_them: &str,
    read: impl Fn(&Value) -> Result<T, E>,
) -> Vec<String> {
    let mut wrong = value.clone();
    if let Some(at) = wrong.pointer_mut(place) {
        *at = none_of_them.into();
    }
    let Err(error) = read(&wrong) else { return Vec::new() };
    let error = error.to_string();
    let Some((_, expected)) = error.split_once("unknown variant, expected ") else { return Vec::new() };
    expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_event_survives_the_wire(events in any_events(&[Category::Exec, Category::Sandbox], 20)) {
        for event in events {
            prop_assert_eq!(event.to_frame().unwrap().decode().unwrap(), event);
        }
    }
}

/// A strategy that says nothing shows nothing.
#[test]
fn events_differ_where_it_matters() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = any_events(&[Category::Exec], 40);
    let events: Vec<Event> =
        (0..150).flat_map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let of = |found: &dyn Fn(&ExecEvent) -> bool| {
        events.iter().filter(|event| matches!(&event.data, EventData::Exec(said) if found(said))).count()
    };
    for word in Category::Exec.words() {
        assert!(of(&|said| said.word() == word) > 10, "{}", word.name);
    }
    assert!(of(&|said| said.ended().is_some_and(|ended| ended.output_open)) > 2);
    assert!(of(&|said| said.exec() != one_exec()) > 10);
    let reasons: std::collections::HashSet<_> = events
        .iter()
        .filter_map(|event| {
            let EventData::Exec(ExecEvent::OutputClosed(closed)) = &event.data else { return None };
            Some(closed.reason)
        })
        .collect();
    assert!(reasons.len() >= 3, "{reasons:?}");
}

fn one_exec() -> crate::ExecId {
    EXAMPLES.iter().find_map(|event| event.data.exec()).unwrap()
}
