//! What processes did, counted: stable where times are not.

use std::process::Stdio;

use anyhow::{Context, ensure};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep};

/// Context switches of some processes, of all their threads, since these began.
pub struct Switches(u64);

impl Switches {
    /// Until now.
    pub fn of(processes: &[u32]) -> anyhow::Result<Self> {
        let mut sum = 0;
        for process in processes {
            let threads = format!("/proc/{process}/task");
            for thread in std::fs::read_dir(&threads).with_context(|| threads.clone())? {
                // A thread that ended meanwhile took its count with it.
                let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
                sum += status
                    .lines()
                    .filter(|line| line.contains("ctxt_switches"))
                    .filter_map(number)
                    .sum::<u64>();
            }
        }
        Ok(Self(sum))
    }

    /// How many more than before.
    pub const fn since(&self, before: &Self) -> u64 {
        self.0.saturating_sub(before.0)
    }
}

fn number(line: &str) -> Option<u64> {
    line.split_whitespace().last()?.parse().ok()
}

/// Counts how often some processes wait for the disk, with strace.
pub struct Syncs {
    strace: Child,
    counted: NamedTempFile,
}

impl Syncs {
    /// From now on.
    pub async fn count(processes: &[u32]) -> anyhow::Result<Self> {
        let counted = NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(counted.path());
        for process in processes {
            command.args(["-p", &process.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let strace = command.spawn().context("strace is needed to count: run `make setup`")?;
        for process in processes {
            let status = format!("/proc/{process}/status");
            while !std::fs::read_to_string(&status)?.lines().any(is_traced) {
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(Self { strace, counted })
    }

    /// How often until now.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        let pid = self.strace.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw).context("strace ended by itself")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.strace.wait().await?;
        let calls = std::fs::read_to_string(self.counted.path())?;
        let calls = calls.lines().filter(|line| line.contains("sync(")).count();
        ensure!(calls > 0, "strace saw nothing");
        Ok(calls as u64)
    }
}

fn is_traced(line: &str) -> bool {
    line.strip_prefix("TracerPid:").and_then(number).is_some_and(|tracer| tracer != 0)
}
