//! Who goes first when memory runs out: the workload, then the agent.

use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};

use super::{Agent, processes};

/// The highest there is.
pub const WORKLOAD: &[u8] = b"1000";
/// How often a workload is reminded.
const PERIOD: Duration = Duration::from_secs(2);

/// Makes the agent the last of its box to go, as far as it may. A host on which the starter has the right to (CAP_SYS_RESOURCE)
/// lets nobody go below the score that the box started with; others let everybody go down to what they began with.
pub fn lower_own() {
    // Where something else is PID 1 it is not a box of its own.
    if rustix::process::getpid().is_init() {
        write("/proc/self/oom_score_adj", b"0");
    }
}

/// What has lowered its score goes first again.
pub async fn keep_up(agent: Rc<Agent>) {
    if !rustix::process::getpid().is_init() {
        return;
    }
    loop {
        tokio::time::sleep(PERIOD).await;
        if agent.ending.is_requested() {
            return;
        }
        for pid in processes::pids().filter(|pid| *pid != 1) {
            let path = format!("/proc/{pid}/oom_score_adj");
            if std::fs::read(&path).is_ok_and(|score| score.trim_ascii() != WORKLOAD) {
                write(&path, WORKLOAD);
            }
        }
    }
}

/// Best effort: `/proc` may be missing or not ours.
fn write(path: &str, score: &[u8]) {
    if let Ok(file) = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, score);
    }
}
