//! What a server process says of a configuration that is wrong, as its user sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::Path;
use std::process::Command;

/// Starts a role that would need NATS, in an empty directory; what it says, and whether it was content.
fn start(dir: &Path, environment: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stacyvm"))
        .arg("reaper")
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir.join("home"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn all_that_is_wrong_is_on_stderr_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stacyvm.yaml"), "server:\n  prot: 1\n  port: abc\n").unwrap();
    let said = start(dir.path(), &[("STACYVM_LISTN", "1"), ("STACYVM_NODE_CAPACITY", "many")]);
    assert_eq!(
        said,
        "error: the configuration is wrong\n\
         \x20 STACYVM_LISTN: there is no such variable; did you mean STACYVM_LISTEN?\n\
         \x20 stacyvm.yaml:2:3: server.prot: there is no such key; did you mean server.port?\n\
         \x20 STACYVM_NODE_CAPACITY: node.capacity: \"many\" is not a whole number from 0 to 4294967295\n\
         \x20 stacyvm.yaml:3:3: server.port: \"abc\" is not a whole number from 0 to 65535\n"
    );
}

#[test]
fn the_file_is_sought_in_the_order_that_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home/.stacyvm");
    std::fs::create_dir_all(&home).unwrap();
    for place in ["home/.stacyvm/stacyvm.yaml", "home/.stacyvm/config.yaml", "stacyvm.yaml"] {
        std::fs::write(dir.path().join(place), "nonsense: 1\n").unwrap();
        let said = start(dir.path(), &[]);
        assert!(said.contains(&format!("{place}:1:1: nonsense: there is no such key")), "{place}: {said}");
    }
}

/// Starts a server whose agent is this program; what it says at the end of its start.
fn serve_with_agent(agent: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stacyvm"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("STACYVM_AGENT", agent)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    said.lines().rfind(|line| line.starts_with("error: ")).unwrap_or(&said).to_owned()
}

#[test]
fn an_agent_of_another_build_is_refused_with_what_to_do() {
    let mismatch =
        format!("is of another build: it says no version in place of \"{}\": ", executor::agent_version());
    // As an agent from before the question: exit code 2, and no word on stdout.
    let said = serve_with_agent("/bin/sh");
    assert!(said.contains(&mismatch), "{said}");
    // It says a version, but not an agent's.
    let said = serve_with_agent("/bin/true");
    assert!(said.contains(&mismatch), "{said}");
    // Nothing that could be run.
    let said = serve_with_agent("/etc/passwd");
    assert!(said.contains("cannot be run: "), "{said}");
    for agent in ["/bin/sh", "/etc/passwd", "/no/such/agent"] {
        let said = serve_with_agent(agent);
        assert!(said.contains("`make agent`") && said.contains("STACYVM_AGENT"), "{agent}: {said}");
    }
}
