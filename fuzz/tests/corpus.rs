//! What the fuzzers have found stays found: every input of the corpora goes through its target, without a fuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The most that the corpus of one target may take, in files and in bytes.
const MAX_FILES: usize = 150;
const MAX_BYTES: u64 = 256 << 10;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn no_input_of_the_corpora_breaks_a_promise() {
    for (name, target) in fuzz::TARGETS {
        let inputs = files(&root().join("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("{} breaks {name}", input.display());
            }
        }
    }
}

#[test]
fn every_target_has_its_fuzzer_and_nothing_else_is_there() {
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |dir: &str| -> BTreeSet<String> {
        files(&root().join(dir))
            .iter()
            .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(names("targets"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} is not in Cargo.toml");
    }
}

#[test]
fn corpora_are_small() {
    for (name, _) in fuzz::TARGETS {
        let inputs = files(&root().join("corpus").join(name));
        let bytes: u64 = inputs.iter().map(|input| input.metadata().unwrap().len()).sum();
        assert!(
            inputs.len() <= MAX_FILES && bytes <= MAX_BYTES,
            "{name}: {} files, {bytes} bytes",
            inputs.len()
        );
    }
}
