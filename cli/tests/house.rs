//! The rules of the house, as far as a machine can check them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CRATES: [&str; 11] = [
    "agent",
    "api-gateway",
    "api-types",
    "bench",
    "cli",
    "client",
    "events",
    "executor",
    "fuzz",
    "reaper",
    "webhooks",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What a crate depends on outside of its tests.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
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
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("agent", &[][..]),
        ("events", &[][..]),
        // Other programs link these: nothing of how a server works comes with them.
        ("api-types", &[][..]),
        ("client", &["api-types"][..]),
        ("reaper", &["events"][..]),
        ("webhooks", &["events"][..]),
        ("api-gateway", &["api-types", "events"][..]),
        ("executor", &["agent", "events"][..]),
        ("cli", &["api-gateway", "client", "events", "executor", "reaper", "webhooks"][..]),
        // Measures everything, and nothing depends on it.
        ("bench", &CRATES[..]),
        // Reads whatever any of them reads.
        ("fuzz", &CRATES[..]),
    ]);
    for name in CRATES {
        let ours: BTreeSet<String> =
            dependencies(name).into_iter().filter(|other| CRATES.contains(&other.as_str())).collect();
        let allowed: BTreeSet<String> = allowed[name].iter().map(|other| (*other).to_owned()).collect();
        assert!(ours.is_subset(&allowed), "{name} depends on {ours:?}, but only {allowed:?} is allowed");
    }
}

#[test]
fn one_crate_each_sees_http_docker_nats_and_sql() {
    for (library, owner) in
        [("axum", "api-gateway"), ("bollard", "executor"), ("async-nats", "events"), ("sqlx", "events")]
    {
        for name in CRATES.iter().filter(|name| **name != owner && **name != "bench") {
            assert!(
                !dependencies(name).contains(library),
                "{name} must not see {library}: only {owner} does"
            );
        }
        assert!(
            dependencies(owner).contains(library),
            "{owner} does not use {library} any more: change this rule"
        );
    }
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
