//! The environment: every key has its variable, and no other variable of ours means anything.

use std::collections::BTreeMap;

use super::foreign;
use super::tree::{Node, Origin, Problem};

const PREFIX: &str = "STACYVM_";

/// Shorter names of some keys, and what they are for.
const ALIASES: &[(&str, &str)] = &[
    // Under what clients send it, which is over this one.
    ("STACYVM_API_KEY", "auth.api_key"),
    ("STACYVM_NODE", "node.id"),
    ("STACYVM_NATS_SERVER", "nats.server_path"),
];

/// Variables of the scripts, images and tests around the server, which it may inherit.
const AROUND: &[&str] = &[
    "STACYVM_BASE",
    "STACYVM_BIN",
    "STACYVM_BUILD_TARGET",
    "STACYVM_CACHE",
    "STACYVM_DOCKERD_LOG",
    "STACYVM_HOST_DIR",
    "STACYVM_IMAGE",
    "STACYVM_NATS_CONF",
    "STACYVM_NATS_IMAGE",
    "STACYVM_POSTGRES_IMAGE",
    "STACYVM_PULL",
];
/// The same, by how they begin. Kubernetes gives `STACYVM_PORT...` and `STACYVM_SERVICE_...` to the pods beside a service of
/// our name.
const AROUND_PREFIXES: &[&str] =
    &["STACYVM_CHAOS_", "STACYVM_TEST_", "STACYVM_SETUP_", "STACYVM_PORT_", "STACYVM_SERVICE_"];

/// The variable of a key: that of `server.port` ends in `SERVER_PORT`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// What the environment says, as a tree over `default`, and what it says that means nothing.
pub(super) fn read(
    default: &Node,
    environment: impl Iterator<Item = (String, String)>,
    program: &clap::Command,
    problems: &mut Vec<Problem>,
) -> Node {
    let clients = clients(program);
    let keys: BTreeMap<String, String> = default
        .keys()
        .into_iter()
        .chain(foreign::keys().map(str::to_owned))
        .map(|key| (variable_of(&key), key))
        .collect();
    let set: BTreeMap<String, String> =
        environment.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect();
    let mut tree = Node { origin: Origin::Default, value: super::tree::Value::Section(Vec::new()) };
    for (alias, key) in ALIASES {
        if let Some(text) = set.get(*alias) {
            let own = variable_of(key);
            if *alias != "STACYVM_API_KEY" && set.get(&own).is_some_and(|other| other != text) {
                problems.push(Problem {
                    origin: Origin::Variable((*alias).to_owned()),
                    key: (*key).to_owned(),
                    what: format!("{own} says something else: set one of the two"),
                });
            }
            tree.set(key, Node::text(Origin::Variable((*alias).to_owned()), text));
        }
    }
    for (name, text) in &set {
        if let Some(key) = keys.get(name) {
            tree.set(key, Node::text(Origin::Variable(name.clone()), text));
        } else if !ALIASES.iter().any(|(alias, _)| alias == name) && !is_around(name, text, &clients) {
            problems.push(unknown(name, &keys, &clients));
        }
    }
    tree
}

fn unknown(name: &str, keys: &BTreeMap<String, String>, clients: &[String]) -> Problem {
    let known = keys
        .keys()
        .map(String::as_str)
        .chain(ALIASES.iter().map(|(alias, _)| *alias))
        .chain(clients.iter().map(String::as_str))
        // What is common to all of them would make all of them alike.
        .filter_map(|name| name.strip_prefix(PREFIX));
    let given = name.strip_prefix(PREFIX).unwrap_or(name);
    let what = match spelling::nearest(given, known) {
        Some(meant) => format!("there is no such variable; did you mean {PREFIX}{meant}?"),
        None => "there is no such variable: docs/configuration.md lists them".to_owned(),
    };
    Problem { origin: Origin::Variable(name.to_owned()), key: String::new(), what }
}

fn is_around(name: &str, text: &str, clients: &[String]) -> bool {
    AROUND.contains(&name)
        || (name == "STACYVM_PORT" && text.starts_with("tcp://"))
        || AROUND_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || clients.iter().any(|known| known == name)
}

/// The variables that client verbs read, from their own declarations.
fn clients(program: &clap::Command) -> Vec<String> {
    fn walk(command: &clap::Command, into: &mut Vec<String>) {
        let names = command.get_arguments().filter_map(|argument| argument.get_env());
        into.extend(names.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|command| walk(command, into));
    }
    let mut names = Vec::new();
    walk(program, &mut names);
    names
}
