//! The agent on this node's disk: where it is, and whether it is the one that this program was built with.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::config::Config;

/// How long it may take to say its version: a busy disk is waited for, a program that is no agent is not.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most that is read of what it says, in bytes.
const MOST_SAID: u64 = 512;
const REMEDY: &str = "build it with `make agent`, or name the right one with STACYVM_AGENT";

/// The agent as configured, or beside this binary. One of another build is an error: it would end sandboxes and removals with
/// nothing but an exit code.
pub async fn find(config: &Config) -> anyhow::Result<PathBuf> {
    let path = match &config.agent {
        Some(path) => path.clone(),
        None => {
            std::env::current_exe()?.parent().context("this binary has no directory")?.join("stacyvm-agent")
        }
    };
    let path = path.canonicalize().with_context(|| {
        format!(
            "the agent {} is missing: build it with `make agent`, or name it with STACYVM_AGENT",
            path.display()
        )
    })?;
    check(&path).await?;
    Ok(path)
}

async fn check(path: &Path) -> anyhow::Result<()> {
    let asked = tokio::time::timeout(PATIENCE, printed_version(path)).await;
    let said = match asked {
        Ok(said) => said.with_context(|| format!("the agent {} cannot be run: {REMEDY}", path.display()))?,
        Err(_) => bail!("the agent {} does not say its version: {REMEDY}", path.display()),
    };
    let wanted = executor::agent_version();
    if said.trim_end() == wanted {
        return Ok(());
    }
    // What says nothing of the kind is too old to know the question, or something else altogether.
    let found = match said.lines().next() {
        Some(line) if line.starts_with("stacyvm-agent ") => format!("\"{}\"", line.escape_debug()),
        Some(_) | None => "no version".to_owned(),
    };
    bail!(
        "the agent {} is of another build: it says {found} in place of \"{wanted}\": {REMEDY}",
        path.display()
    );
}

/// What it prints about its version.
async fn printed_version(path: &Path) -> std::io::Result<String> {
    let mut child = Command::new(path)
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MOST_SAID).read_to_end(&mut text).await?;
    }
    child.wait().await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
