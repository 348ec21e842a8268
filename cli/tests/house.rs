//! The rules of the house, as far as a machine can check them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All crates of the workspace: where each is, and on which of the others it may depend. None beneath another depends on it.
const CRATES: [(&str, &str, &[&str]); 25] = [
    // The language.
    ("events", "events", &[]),
    // The log that is written in it.
    ("transport", "log/transport", &["events"]),
    ("record", "log/record", &["events"]),
    ("feed", "log/feed", &["events", "record", "transport"]),
    ("store", "log/store", &["events", "record", "secrets"]),
    ("audit", "log/audit", &["events", "record", "secrets", "transport"]),
    ("recorder", "log/recorder", &["audit", "events", "record", "secrets", "transport"]),
    ("reactor", "log/reactor", &["events", "feed", "record", "transport"]),
    // What some services have between them.
    ("objects", "objects", &["events"]),
    ("calendar", "calendar", &["events"]),
    ("policy", "policy", &["events"]),
    ("secrets", "secrets", &["events"]),
    ("spelling", "spelling", &[]),
    // The program inside a sandbox, and the services: none knows another.
    ("agent", "agent", &[]),
    ("executor", "executor", &["agent", "events", "objects", "policy", "secrets", "transport"]),
    ("reaper", "reaper", &["events", "feed", "reactor", "record", "transport"]),
    ("schedules", "schedules", &["calendar", "events", "feed", "reactor", "record", "secrets", "transport"]),
    ("webhooks", "webhooks", &["events", "feed", "policy", "reactor", "record", "secrets", "transport"]),
    ("jobs", "jobs", &["events", "feed", "reactor", "record", "secrets", "transport"]),
    (
        "api-gateway",
        "api-gateway",
        &[
            "api-types",
            "audit",
            "calendar",
            "events",
            "feed",
            "objects",
            "policy",
            "record",
            "secrets",
            "spelling",
            "transport",
        ],
    ),
    // Other programs link these: nothing of how a server works comes with them.
    ("api-types", "api-types", &[]),
    ("client", "client", &["api-types"]),
    // Puts them together.
    (
        "cli",
        "cli",
        &[
            "api-gateway",
            "audit",
            "client",
            "events",
            "executor",
            "feed",
            "objects",
            "jobs",
            "policy",
            "reaper",
            "record",
            "recorder",
            "schedules",
            "secrets",
            "spelling",
            "store",
            "transport",
            "webhooks",
        ],
    ),
    // Measures everything, and nothing depends on it.
    ("bench", "bench", &["audit", "events", "record", "recorder", "store", "transport"]),
    // Reads whatever any of them reads.
    (
        "fuzz",
        "fuzz",
        &[
            "agent",
            "api-gateway",
            "audit",
            "events",
            "policy",
            "record",
            "recorder",
            "secrets",
            "spelling",
            "transport",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What the crate in this directory depends on outside of its tests.
fn dependencies(path: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[build-dependencies]";
        } else if inside && let Some((key, _)) = line.split_once('=') {
            found.insert(key.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let names: BTreeSet<String> = CRATES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let members: BTreeSet<&str> = members.split('"').skip(1).step_by(2).collect();
    let paths: BTreeSet<&str> = CRATES.iter().map(|(_, path, _)| *path).collect();
    assert_eq!(members, paths, "a crate of the workspace is not listed here");
    for (name, path, allowed) in CRATES {
        let ours: BTreeSet<String> = dependencies(path).intersection(&names).cloned().collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|other| (*other).to_owned()).collect();
        assert_eq!(ours, allowed, "{name} depends on the first, and may (and needs to) on the second");
    }
}

#[test]
fn few_crates_see_http_docker_nats_sql_and_compression() {
    for (library, owners) in [
        ("axum", &["api-gateway"][..]),
        ("bollard", &["executor"][..]),
        ("async-nats", &["transport"][..]),
        ("sqlx", &["store"][..]),
        ("object_store", &["objects"][..]),
        ("zstd", &["audit", "recorder", "store"][..]),
    ] {
        let seeing =
            CRATES.iter().filter(|(name, path, _)| *name != "bench" && dependencies(path).contains(library));
        let seeing: BTreeSet<&str> = seeing.map(|(name, ..)| *name).collect();
        assert_eq!(seeing, owners.iter().copied().collect(), "who may see {library}");
    }
}

/// All that is linked where the crate is: what it depends on, and what that depends on, by the lock file.
fn linked(name: &str) -> BTreeSet<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"');
        let needs = package.lines().filter_map(|line| line.trim().strip_prefix('"'));
        let needs = needs.map(|line| line.split([' ', '"']).next().unwrap());
        of.entry(name).or_default().extend(needs);
    }
    let (mut found, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(next) = open.pop() {
        // The lock file does not tell what only tests of ours need.
        let needs: Vec<String> = match CRATES.iter().find(|(name, ..)| *name == next) {
            Some((_, path, _)) => dependencies(path).into_iter().collect(),
            None => of[next.as_str()].iter().map(|name| (*name).to_owned()).collect(),
        };
        open.extend(needs.into_iter().filter(|name| found.insert(name.clone())));
    }
    found
}

#[test]
fn who_needs_no_database_links_none() {
    assert!(linked("cli").contains("sqlx-core"), "the lock file was misread");
    let others = ["axum", "bollard", "sqlx", "sqlx-core", "zstd"];
    for (name, itself) in [
        ("reaper", ""),
        ("executor", "bollard"),
        ("webhooks", ""),
        ("jobs", ""),
        ("feed", ""),
        ("reactor", ""),
    ] {
        let linked = linked(name);
        assert!(linked.contains("events") && linked.contains("tokio"), "{name}: {linked:?}");
        for library in others.into_iter().filter(|library| *library != itself) {
            assert!(!linked.contains(library), "{name} links {library}");
        }
    }
    for library in ["sqlx", "sqlx-core", "bollard"] {
        assert!(!linked("api-gateway").contains(library), "api-gateway links {library}");
    }
    let language = linked("events");
    for library in ["tokio", "async-nats", "sqlx", "zstd", "aho-corasick", "futures"] {
        assert!(!language.contains(library), "events links {library}");
    }
}

fn graph(arguments: &[&str]) -> String {
    let output = std::process::Command::new(root().join("scripts/graph")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_graph_of_crates_has_no_circle_and_is_drawn_as_it_is() {
    let drawn = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(drawn.contains(&graph(&[])), "ARCHITECTURE.md does not have what scripts/graph prints");
}

/// Those that are left; whoever takes one apart takes it out here.
#[test]
fn modules_of_the_language_and_the_log_have_no_circles() {
    let circles = graph(&["--modules"]);
    let with: BTreeSet<&str> = circles.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(with, BTreeSet::new(), "{circles}");
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.')
                && !name.starts_with("target")
                && name != "dist"
                && name != "node_modules"
            {
                sources(&path, found);
            }
        } else if ["rs", "py", "ts", "sh"].iter().any(|end| name.ends_with(&format!(".{end}"))) {
            found.push(path);
        }
    }
}

#[test]
fn no_source_file_is_over_800_lines() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 100, "only {} sources found", files.len());
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 800, "{} has {lines} lines: split it", file.display());
    }
}

#[test]
fn migrations_of_both_databases_have_the_same_numbers() {
    let names = |database: &str| -> BTreeSet<String> {
        let dir = root().join("migrations").join(database);
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
    assert!(!names("sqlite").is_empty());
}

#[test]
fn no_directory_is_named_for_nothing() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for file in files {
        for part in file.strip_prefix(root()).unwrap().components() {
            let part = part.as_os_str().to_string_lossy();
            let stem = part.strip_suffix(".rs").unwrap_or(&part);
            assert!(
                !["utils", "util", "common", "helpers", "manager", "misc"].contains(&stem),
                "{} says nothing about its job",
                file.display()
            );
        }
    }
}
