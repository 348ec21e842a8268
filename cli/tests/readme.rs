//! What the README says to type, typed in its order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::serve::Serve;

/// The blocks of a language, in order.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let parts = document.split(&opening).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blocks_run_when_they_are_pasted_in_order() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let use_it = readme.split("## Use it").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = blocks(use_it, "sh");
    // The first one installs, builds and starts the server, which is what this test has.
    let (first, rest) = blocks.split_first().unwrap();
    assert!(
        first.contains("make build") && first.trim_end().lines().last().unwrap().contains("serve"),
        "{first}"
    );

    let serve = Serve::start().await;
    let url = serve.api.base.trim_end_matches("/api/v1").to_owned();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("dist")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stacyvm"), dir.path().join("dist/stacyvm")).unwrap();
    let pasted = rest.concat().replace("http://127.0.0.1:7423", &url);
    assert!(pasted.contains("stacyvm shell $id") && pasted.contains("curl "), "{pasted}");
    // From a file: what reads its own stdin must not read the lines that come after it.
    let script = dir.path().join("pasted.sh");
    std::fs::write(&script, format!("set -Eeuo pipefail\n{pasted}")).unwrap();
    let mut command = Command::new("bash");
    command.arg(&script).env("STACYVM_URL", &url).current_dir(dir.path()).stdin(Stdio::null());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("STACYVM_") && name != "STACYVM_URL")
    {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert_eq!(said.matches("\n42\n").count() + usize::from(said.starts_with("42\n")), 2, "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("answer")).unwrap(), "42\n");
    for wanted in ["exec.exited", "3\nend\n", "sandbox.destroyed", "verif"] {
        assert!(said.contains(wanted), "no {wanted:?}:\n{said}");
    }
}
