//! What the program says of itself, so that whoever starts it finds out that it is another one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::process::Command;

#[test]
fn it_says_the_version_and_edition_of_its_library() {
    let output = Command::new(env!("CARGO_BIN_EXE_stacyvm-agent")).arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", agent::version()));
    assert!(output.stderr.is_empty());
}

/// An option that only one side knows ends sandboxes with an exit code: with an option that is new, this text and the edition change
/// together.
#[test]
fn options_belong_to_an_edition() {
    let output = Command::new(env!("CARGO_BIN_EXE_stacyvm-agent")).arg("--help-me").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let usage = "stacyvm-agent: unknown option \"--help-me\"\n\
        usage: stacyvm-agent --socket PATH --run-dir DIR [--deadline-seconds N] [--workspace DIR]\n\
        \x20                    [--default-user USER] [--give DIR] [--keep-environment]\n\
        \x20                    [--spool-memory-bytes N] [--spool-file-bytes N] [--spool-total-bytes N]\n\
        \x20                    [--any-peer]\n\
        \x20      stacyvm-agent --remove DIR [--contents] [--seconds N]\n\
        \x20      stacyvm-agent --version\n";
    assert_eq!((agent::EDITION, String::from_utf8(output.stderr).unwrap()), (4, usage.to_owned()));
}
