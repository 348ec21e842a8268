//! The split deployment of compose.yaml, with images built here: a job goes through it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::path::Path;
use std::process::Command;

#[test]
fn a_job_goes_through_the_composed_deployment() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let agent = std::env::var_os("STACYVM_AGENT").map_or_else(|| root.join("dist/stacyvm-agent"), Into::into);
    let output = Command::new(root.join("scripts/compose-local"))
        .arg("test")
        .current_dir(&root)
        .env("STACYVM_BIN", env!("CARGO_BIN_EXE_stacyvm"))
        .env("STACYVM_AGENT", agent)
        .output()
        .expect("scripts/compose-local can be run");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("job done"), "it says nothing of a job:\n{said}");
}
