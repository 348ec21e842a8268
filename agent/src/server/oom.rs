//! What the kernel ended for want of memory.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Where a box sees its own control group, as a container engine has it: version 2, then version 1.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Counts the processes of the box that were ended because its memory was used up.
pub struct OomKills {
    file: Option<File>,
    /// How many have been put down to an exec: of two that end with SIGKILL one may have been killed by hand.
    told: Cell<u64>,
}

impl OomKills {
    /// Where the agent is not PID 1 the control group may be the whole machine's: then nothing is counted.
    pub fn find() -> Self {
        let counts = |file: &File| count(file).is_some();
        let mut files = FILES.iter().filter_map(|path| File::open(path).ok());
        let file = if rustix::process::getpid().is_init() { files.find(counts) } else { None };
        Self { file, told: Cell::new(0) }
    }

    pub fn now(&self) -> u64 {
        self.file.as_ref().and_then(count).unwrap_or(0)
    }

    /// Whether there were any after there had been `before`. They are told once.
    pub fn any_since(&self, before: u64) -> bool {
        let now = self.now();
        let any = now > before.max(self.told.get());
        if any {
            self.told.set(now);
        }
        any
    }
}

/// The field `oom_kill`; the kernel raises it before it sends the signal.
fn count(file: &File) -> Option<u64> {
    let mut buffer = [0; 512];
    let length = file.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"oom 9\noom_kill 3\noom_group_kill 0\n").unwrap();
        assert_eq!(count(&file), Some(3));
        let kills = OomKills { file: Some(file), told: Cell::new(0) };
        assert!(!kills.any_since(3));
        assert!(kills.any_since(2));
        assert!(!kills.any_since(2));
    }
}
