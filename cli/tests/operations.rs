//! What an operator finds: metrics from the first scrape on, units that systemd takes, programs with their debug information apart.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::serve::Serve;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

#[tokio::test]
async fn every_documented_metric_is_there_at_the_first_scrape_and_says_what_it_is() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let scrape = || async {
        let answer = serve.api.http.get(serve.api.url("/metrics/prometheus")).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let first = scrape().await;
    let document = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `stacyvm_")).collect();
    assert!(rows.len() > 8, "{rows:?}");
    for row in rows {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let name = cells.next().unwrap().trim_matches('`');
        let (kind, labels) = (cells.next().unwrap(), cells.next().unwrap());
        // Those with labels have no value before something has one. The wait for readiness was such a thing.
        assert!(first.contains(&format!("# HELP {name} ")), "{name} has no help:\n{first}");
        assert!(first.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}:\n{first}");
        if labels.is_empty() {
            assert!(
                first.lines().any(|line| line.starts_with(&format!("{name} "))),
                "{name} has no value:\n{first}"
            );
        }
    }
    let names = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next().map(str::to_owned))
            .collect()
    };
    let typed: BTreeSet<String> = first
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(names(&first), typed, "some metrics do not say what they are");
}

#[test]
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    for unit in ["stacyvm.service", "stacyvm-executor.service", "stacyvm@.service"] {
        let text = std::fs::read_to_string(root().join("deploy/systemd").join(unit)).unwrap();
        // Where the program is installed is not where this test has it, and a file of settings is an operator's to write.
        let text = text.replace("/usr/local/bin/stacyvm", env!("CARGO_BIN_EXE_stacyvm"));
        std::fs::write(dir.path().join(unit), text).unwrap();
    }
    for unit in ["stacyvm.service", "stacyvm-executor.service", "stacyvm@gateway.service"] {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(dir.path().join(unit))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("stacyvm")).collect();
        assert!(output.status.success() && ours.is_empty(), "{unit}: {said}");
    }
}

#[test]
fn debug_information_lies_beside_a_program_that_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("stacyvm");
    let whole = Path::new(env!("CARGO_BIN_EXE_stacyvm"));
    let split = Command::new(root().join("scripts/split-debug")).arg(whole).arg(&target).output().unwrap();
    assert!(split.status.success(), "{}", String::from_utf8_lossy(&split.stderr));
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&target) * 2 < size(whole), "{} of {} bytes are left", size(&target), size(whole));
    assert!(size(&dir.path().join("stacyvm.debug")) > 0);
    assert!(Command::new(&target).arg("--version").output().unwrap().status.success());
    let sections = Command::new("readelf").args(["--sections", "--wide"]).arg(&target).output().unwrap();
    let sections = String::from_utf8_lossy(&sections.stdout).into_owned();
    assert!(sections.contains(".gnu_debuglink") && !sections.contains(".debug_line"), "{sections}");
}
