//! How the processes of an exec are told apart, whatever they do.
//!
//! Sessions, parents and environments change; limits are handed on to every child and can only be lowered. One of them
//! limits nothing: the number of file locks, which Linux has not counted since 2.4.25. Its value is the name of the exec
//! that a process belongs to, and `/proc/PID/limits` shows it to whoever asks.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::spool::random;

/// Names an exec to its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    pub fn new() -> Self {
        // Neither so low that somebody may mean it as a limit, nor "unlimited".
        Self(1 << 62 | random() >> 2)
    }

    /// Between fork and exec: a system call, no more. A kernel that refuses leaves sessions and parents to go by.
    pub fn wear(self) {
        let _ = setrlimit(Resource::Locks, Rlimit { current: Some(self.0), maximum: Some(self.0) });
    }

    /// Whether a process wears it.
    pub fn is_worn_by(self, pid: i32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/limits")).is_ok_and(|limits| worn(&limits) == Some(self.0))
    }
}

fn worn(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_where_the_kernel_shows_it() {
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        assert!(own.contains("Max file locks"), "{own}");
        let shown = "Max nice priority         0                    0                    \n\
                     Max file locks            4611686018427387999  4611686018427388000  locks     \n";
        assert_eq!(worn(shown), Some(4_611_686_018_427_388_000));
        assert_eq!(
            worn("Max file locks            unlimited            unlimited            locks     "),
            None
        );
    }
}
