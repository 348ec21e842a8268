//! Removes trees that a workload made: in a process of its own with limits, for so long and no longer. What may be in such a
//! tree is not this process's to bear.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long the process may take beyond its time: what is asked of a disk cannot be taken back.
const GRACE: Duration = Duration::from_secs(5);
/// The most that is read of what it says, in bytes.
const MOST_SAID: u64 = 512;
/// Its exit codes.
const STAYS: i32 = 4;
const TIME_IS_UP: i32 = 5;

/// How far a removal came.
#[derive(Debug)]
pub(super) enum Removed {
    Gone,
    /// Its time is up. It goes on where it stopped.
    NotYet,
    /// Something of it cannot be removed now.
    Stays(io::Error),
}

/// The program that removes.
#[derive(Debug, Clone)]
pub(super) struct Remover {
    agent: PathBuf,
}

impl Remover {
    pub(super) fn new(agent: impl Into<PathBuf>) -> Self {
        Self { agent: agent.into() }
    }

    /// Removes a directory with all that is in it.
    pub(super) async fn remove(&self, path: &Path, within: Duration) -> Removed {
        self.run(path, &[], within).await
    }

    /// Removes all that is in a directory.
    pub(super) async fn empty(&self, path: &Path, within: Duration) -> Removed {
        self.run(path, &["--contents"], within).await
    }

    async fn run(&self, path: &Path, options: &[&str], within: Duration) -> Removed {
        let mut command = Command::new(&self.agent);
        command
            .arg("--remove")
            .arg(path)
            .args(options)
            .args(["--seconds", &within.as_secs().max(1).to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Removed::Stays(error),
        };
        let stderr = child.stderr.take();
        let said = async move {
            let mut text = Vec::new();
            if let Some(stderr) = stderr {
                // What cannot be read is not said.
                let _ = stderr.take(MOST_SAID).read_to_end(&mut text).await;
            }
            String::from_utf8_lossy(&text).trim_end().to_owned()
        };
        let ended = tokio::time::timeout(within + GRACE, async { tokio::join!(child.wait(), said) }).await;
        match ended {
            Err(_) => {
                // A disk that hangs holds it: no second one is started meanwhile.
                let _ = child.start_kill();
                let _ = child.wait().await;
                Removed::NotYet
            }
            Ok((Err(error), _)) => Removed::Stays(error),
            Ok((Ok(status), said)) => match status.code() {
                Some(0) => Removed::Gone,
                Some(TIME_IS_UP) => Removed::NotYet,
                Some(STAYS) => Removed::Stays(io::Error::other(said)),
                _ => Removed::Stays(io::Error::other(format!("{status}: {said}"))),
            },
        }
    }
}
