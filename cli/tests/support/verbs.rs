//! The client verbs as a shell runs them.

use std::process::{Command, Output, Stdio};

use super::process::stacyvm;
use super::serve::Serve;

pub fn client(serve: &Serve, words: &[&str]) -> Command {
    let mut command = stacyvm();
    command.env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1")).args(words);
    command
}

/// Runs a verb to its end.
pub fn verb(serve: &Serve, words: &[&str]) -> Output {
    client(serve, words).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
pub fn assert_output(output: &Output, code: i32, stdout: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(code), stdout),
        "stderr: {errors}"
    );
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
