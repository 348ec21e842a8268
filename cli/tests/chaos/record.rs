//! What the record must say in the end, and after every few rounds.

use std::collections::{BTreeMap, BTreeSet};

use audit::{PublicKeys, verify_store};
use events::{Event, EventData, ExecEvent, FileEvent, Position};
use record::{EventFilter, EventStore, Record};

use crate::client::Violation;
use crate::deeds::Ledger;
use crate::hold;

/// Events read at once.
const PAGE: u32 = 1_000;

/// The hash chain holds, and positions have no holes.
pub async fn check_chain(store: &Record) -> Result<Position, Violation> {
    let report = verify_store(store, &PublicKeys::default()).await.map_err(|error| error.to_string())?;
    match report.finding {
        None => Ok(report.last),
        Some(finding) => Err(format!("position {}: {}", finding.position, finding.explanation)),
    }
}

/// Everything in the log but output.
pub async fn read_all(store: &dyn EventStore) -> Result<Vec<(Position, Event)>, Violation> {
    let types = EventData::TYPES.iter().filter(|name| **name != "exec.output");
    let filter =
        EventFilter { types: types.map(|name| (*name).to_owned()).collect(), ..EventFilter::default() };
    let (mut all, mut after) = (Vec::new(), Position::ZERO);
    loop {
        let frames = store.read(&filter, after, PAGE).await.map_err(|error| error.to_string())?;
        let Some(last) = frames.last() else { return Ok(all) };
        after = last.position;
        for frame in frames {
            let event = frame.decode().map_err(|error| format!("position {}: {error}", frame.position))?;
            all.push((frame.position, event));
        }
    }
}

/// At most one end each, and none before its beginning; nothing is known twice by one name.
pub fn check_ends(events: &[(Position, Event)]) -> Result<(), Violation> {
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut starts: BTreeMap<String, Position> = BTreeMap::new();
    for (position, event) in events {
        let name = event.data.type_name();
        let exec = event.data.exec().map(|exec| exec.to_string());
        let sandbox = event.sandbox.map(|sandbox| sandbox.to_string());
        let object = exec.or(sandbox).unwrap_or_default();
        if matches!(name, "exec.started" | "sandbox.requested") {
            let twice = starts.insert(object.clone(), *position);
            hold!(twice.is_none(), "{object} begins at {twice:?} and again at {position}");
        }
        if is_end(name) {
            ends.entry(object).or_default().push(format!("{name} at {position}"));
        }
    }
    for (object, ends) in ends {
        hold!(ends.len() == 1, "{object} ends more than once: {ends:?}");
    }
    Ok(())
}

fn is_end(name: &str) -> bool {
    matches!(
        name,
        "exec.exited"
            | "exec.timed_out"
            | "exec.killed"
            | "exec.failed"
            | "exec.outcome_unknown"
            | "sandbox.destroyed"
            | "sandbox.failed"
    )
}

/// What was acknowledged is in the log, and what is in the log was asked for.
pub fn check_ledger(ledger: &Ledger, events: &[(Position, Event)]) -> Result<(), Violation> {
    let mut facts: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    let mut files: BTreeSet<(String, String)> = BTreeSet::new();
    let mut started: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (position, event) in events {
        let name = event.data.type_name();
        let sandbox = event.sandbox.map(|sandbox| sandbox.to_string()).unwrap_or_default();
        if let EventData::File(FileEvent::Written(written)) = &event.data {
            files.insert((sandbox, written.path.clone()));
            continue;
        }
        if let EventData::Exec(ExecEvent::Started(begun)) = &event.data {
            let command = begun.spec.argv.join(" ");
            for exec in ledger.execs.keys().filter(|exec| mentions(&command, exec)) {
                started.entry(exec.clone()).or_default().push(format!("{} at {position}", begun.exec));
            }
        }
        let object = event.data.exec().map_or(sandbox, |exec| exec.to_string());
        facts.entry(name).or_default().insert(object);
    }
    let told = |name: &str, object: &str| facts.get(name).is_some_and(|all| all.contains(object));
    for (name, exec) in &ledger.execs {
        let times = started.get(name).map_or(0, Vec::len);
        hold!(times <= 1, "{name} started {times} times: {:?}", started.get(name));
        if exec.acknowledged {
            let id = exec.id.as_deref().unwrap_or_default();
            hold!(told("exec.exited", id), "{name} ({id}) was acknowledged and its end is not in the log");
            hold!(times == 1, "{name} ({id}) was acknowledged and its start is not in the log");
        }
    }
    for (id, sandbox) in &ledger.sandboxes {
        hold!(told("sandbox.requested", id), "{id} was acknowledged and is not in the log");
        let ended = told("sandbox.destroyed", id) || told("sandbox.failed", id);
        hold!(ended || !sandbox.destroyed, "the end of {id} was acknowledged and is not in the log");
    }
    for file in &ledger.files {
        hold!(files.contains(file), "the writing of {file:?} was acknowledged and is not in the log");
    }
    Ok(())
}

/// Whether a command has this name in it, and not one that only begins with it.
fn mentions(command: &str, name: &str) -> bool {
    command.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').any(|word| word == name)
}

/// The last things that the log says of one object, for a report.
pub fn last_words(events: &[(Position, Event)], object: &str, count: usize) -> Vec<String> {
    let about = |event: &Event| {
        event.sandbox.is_some_and(|sandbox| sandbox.to_string() == object)
            || event.data.exec().is_some_and(|exec| exec.to_string() == object)
    };
    let mut words: Vec<String> = events
        .iter()
        .rev()
        .filter(|(_, event)| about(event))
        .take(count)
        .map(|(position, event)| format!("{position} {} {:?}", event.time.to_rfc3339(), event.data))
        .collect();
    words.reverse();
    words
}
