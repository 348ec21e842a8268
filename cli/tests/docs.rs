//! What the documentation promises to be complete about is complete, and its links lead somewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use client::{ProviderCapability, Word as _};
use executor::provider::Capability;
use executor::providers::registry::Configured;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The only snapshot of a directory, without its head.
fn snapshot(dir: &str) -> String {
    let mut files = std::fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let text = std::fs::read_to_string(files.next().unwrap()).unwrap();
    assert!(files.next().is_none(), "{dir} has a second snapshot: which one is meant?");
    text.splitn(3, "---\n").last().unwrap().to_owned()
}

/// Fails with all that is missing, not with the first.
fn assert_all<T: std::fmt::Display>(document: &str, what: &str, missing: impl IntoIterator<Item = T>) {
    let missing: Vec<String> = missing.into_iter().map(|it| it.to_string()).collect();
    assert!(missing.is_empty(), "{document} {what}: {}", missing.join(", "));
}

/// The words of a text that are made of `allowed` characters and begin with `prefix`.
fn words(text: &str, prefix: &str, allowed: fn(char) -> bool) -> BTreeSet<String> {
    text.split(|letter| !allowed(letter))
        .filter(|word| word.starts_with(prefix) && word.len() > prefix.len())
        .map(str::to_owned)
        .collect()
}

fn variables(text: &str) -> BTreeSet<String> {
    words(text, "STACYVM_", |letter| letter.is_ascii_uppercase() || letter == '_')
}

/// Every key of the configuration, from the types that it is read into.
fn keys() -> BTreeSet<String> {
    let files = ["schema", "limits", "artifacts"];
    let schema: String = files.map(|name| read(&format!("cli/src/config/{name}.rs"))).concat();
    let mut structs: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut current = None;
    for line in schema.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.split_whitespace().next().map(str::to_owned);
        } else if line == "}" {
            current = None;
        } else if let Some(name) = &current
            && let Some((field, kind)) =
                line.trim().strip_prefix("pub ").and_then(|field| field.split_once(": "))
        {
            let field = (field.to_owned(), kind.trim_end_matches(',').to_owned());
            structs.entry(name.clone()).or_default().push(field);
        }
    }
    fn walk(
        structs: &BTreeMap<String, Vec<(String, String)>>,
        name: &str,
        prefix: &str,
        into: &mut BTreeSet<String>,
    ) {
        for (field, kind) in &structs[name] {
            if kind == "Configured" {
                // The providers know their keys themselves.
                let providers = serde_json::to_value(Configured::default()).unwrap();
                for (provider, section) in providers.as_object().unwrap() {
                    let settings = section.as_object().into_iter().flat_map(|settings| settings.keys());
                    into.extend(settings.map(|key| format!("{prefix}{field}.{provider}.{key}")));
                    if !section.is_object() {
                        into.insert(format!("{prefix}{field}.{provider}"));
                    }
                }
            } else if structs.contains_key(kind) {
                walk(structs, kind, &format!("{prefix}{field}."), into);
            } else {
                into.insert(format!("{prefix}{field}"));
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(&structs, "Config", "", &mut all);
    assert!(
        all.len() > 40 && all.contains("providers.docker.socket") && all.contains("providers.default"),
        "the schema was misread: {all:?}"
    );
    all
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let document = read("docs/configuration.md");
    let missing = keys().into_iter().filter(|key| !document.contains(&format!("| `{key}` |")));
    assert_all("docs/configuration.md", "has no row for the keys", missing);
}

#[test]
fn every_capability_of_a_provider_is_documented_and_a_word_of_the_api() {
    let names: Vec<&str> = Capability::ALL.iter().map(|capability| capability.name()).collect();
    let words: Vec<&str> = ProviderCapability::ALL.iter().map(|word| word.as_str()).collect();
    assert_eq!(words, names);
    let documented = read("docs/providers.md");
    let missing = names.into_iter().filter(|name| !documented.contains(&format!("`{name}`")));
    assert_all("docs/providers.md", "capabilities", missing);
}

#[test]
fn every_environment_variable_is_documented_and_no_other() {
    let document = read("docs/configuration.md");
    let declarations = read("cli/src/config/environment.rs");
    let aliases = variables(declarations.split_once("const AROUND").unwrap().0);
    assert!(aliases.len() >= 3, "the declarations were misread: {aliases:?}");
    let rows = |name: &&String| !document.contains(&format!("| `{name}` |"));
    assert_all("docs/configuration.md", "has no row for the variables", aliases.iter().filter(rows));
    // Each key has one by a rule, which a test of the configuration holds.
    let of_key = |key: &String| format!("STACYVM_{}", key.replace('.', "_").to_ascii_uppercase());
    let mut known: BTreeSet<String> = keys().iter().map(of_key).collect();
    known.extend(aliases);
    known.extend(variables(&help(&["--help"])));
    known.extend(variables(&help(&["attach", "--help"])));
    // Named as what the Go server and Kubernetes set.
    known.extend(
        ["STACYVM_POOL_ENABLED", "STACYVM_SERVICE_", "STACYVM_PORT_", "STACYVM_LISTN"].map(str::to_owned),
    );
    let invented = variables(&document).into_iter().filter(|name| !known.contains(name));
    assert_all("docs/configuration.md", "names variables that nothing reads", invented);
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stacyvm"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_flag_of_the_server_processes_is_documented() {
    let document = read("docs/configuration.md");
    for role in ["serve", "gateway", "executor", "reaper", "recorder", "webhooks", "jobs"] {
        let flags =
            words(&help(&[role, "--help"]), "--", |letter| letter.is_ascii_lowercase() || letter == '-');
        assert!(flags.len() > 8, "the help of {role} was misread: {flags:?}");
        let missing = flags
            .into_iter()
            .filter(|flag| !["--help", "--version"].contains(&flag.as_str()))
            .filter(|flag| !document.contains(&format!("`{flag} ")));
        assert_all("docs/configuration.md", &format!("does not name the flags of {role}"), missing);
    }
}

/// `GET /path` and so on, in the headings of a document.
fn routes_of(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with("### "));
    headings
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| code.contains(" /"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_route_is_documented_and_no_other() {
    let openapi: Value = serde_json::from_str(&snapshot("api-gateway/src/snapshots")).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.strip_prefix("/api/v1").unwrap();
            routes.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let documented = routes_of(&read("docs/api.md"));
    assert_all("docs/api.md", "has no heading for", routes.difference(&documented));
    assert_all("docs/api.md", "describes what is not there:", documented.difference(&routes));
}

/// The names of all fields, but of those that clients choose.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else { return };
    for (name, value) in object {
        into.insert(name.clone());
        match name.as_str() {
            "metadata" | "env_hmac" => {}
            "variables" => value.as_object().into_iter().flatten().for_each(|(_, value)| fields(value, into)),
            _ => fields(value, into),
        }
    }
}

#[test]
fn every_event_type_is_documented_with_its_fields() {
    let document = read("docs/log.md");
    let mut types = BTreeSet::new();
    let mut missing = BTreeSet::new();
    for line in snapshot("events/src/snapshots").lines() {
        let header: Value = serde_json::from_str(line).unwrap();
        let kind = header["type"].as_str().unwrap();
        types.insert(kind.to_owned());
        if !document.contains(&format!("| `{kind}` |")) {
            missing.insert(kind.to_owned());
        }
        let mut names = BTreeSet::new();
        fields(&header, &mut names);
        names.retain(|name| !document.contains(&format!("`{name}`")));
        missing.extend(names.into_iter().map(|name| format!("field {name} of {kind}")));
    }
    assert!(types.len() > 20, "the snapshot was misread: {types:?}");
    assert_all("docs/log.md", "says nothing of", missing);
}

/// All sources below a directory.
fn sources(dir: &str) -> String {
    let mut text = String::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let sources = ["api-gateway/src", "cli/src", "executor/src", "log", "webhooks/src"].map(sources).concat();
    let metric = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let (declared, document) = (words(&sources, "stacyvm_", metric), read("docs/operations.md"));
    let documented = words(&document, "stacyvm_", metric);
    assert!(!declared.is_empty());
    assert_all("docs/operations.md", "does not name the metrics", declared.difference(&documented));
    assert_all("docs/operations.md", "names metrics that nothing writes", documented.difference(&declared));
}

/// All of the documents whose links are checked, relative to the root.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchors that a document has, as they are made of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = |letter: &char| letter.is_alphanumeric() || "-_ ".contains(*letter);
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title.chars().filter(kept).collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = std::fs::read_to_string(root().join(&document)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(&document),
                path => root().join(document.parent().unwrap()).join(path),
            };
            let has_anchor =
                || std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
            if !target.exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_all("documents", "have links to nowhere", broken);
}
