//! Where things are in a box, whoever made it.

use super::image::ImageConfig;
use super::run_dir;
use crate::provider::BoxOrder;

/// The agent, read-only.
pub(super) const AGENT: &str = "/.stacyvm/agent";
/// The directory that the box shares with the executor.
pub(super) const RUN_DIR: &str = "/.stacyvm/run";
/// The agent's socket in it, seen from either side.
pub(super) const SOCKET_NAME: &str = "agent.sock";
/// Where work happens, unless the image says otherwise.
pub(super) const WORKSPACE: &str = "/workspace";

/// PID 1 of a box and its arguments. Its environment is the image's. Where users cannot change, the image's is not asked
/// for.
pub(super) fn agent_command(order: &BoxOrder, image: &ImageConfig, users_can_change: bool) -> Vec<String> {
    // Rounded down: the box may end early by a second, never late.
    let seconds = order.time_left.as_secs().max(1);
    let room = run_dir::size(order.spec.memory_mib);
    let mut command = vec![
        AGENT.to_owned(),
        "--socket".to_owned(),
        format!("{RUN_DIR}/{SOCKET_NAME}"),
        "--run-dir".to_owned(),
        RUN_DIR.to_owned(),
        "--workspace".to_owned(),
        image.directory().unwrap_or(WORKSPACE).to_owned(),
        // It is there in any case: clients name it.
        "--give".to_owned(),
        WORKSPACE.to_owned(),
        "--keep-environment".to_owned(),
        "--deadline-seconds".to_owned(),
        seconds.to_string(),
        // One exec leaves something for the others.
        "--spool-file-bytes".to_owned(),
        (room / 2).to_string(),
        "--spool-total-bytes".to_owned(),
        (room / 4 * 3).to_string(),
    ];
    if let Some(user) = image.user().filter(|_| users_can_change) {
        command.extend(["--default-user".to_owned(), user.to_owned()]);
    }
    command
}

/// How large what is kept in memory may become, in bytes. All of it together stays below the memory limit: what fills it
/// gets `ENOSPC`, and nobody is ended for want of memory. Nothing where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InMemory {
    pub(super) workspace: u64,
    pub(super) tmp: u64,
    pub(super) shm: u64,
}

impl InMemory {
    /// Shares out half of the memory limit. `taken` bytes belong to something else that can be written, beside the directory
    /// that is shared with the executor, whose size is not ours to choose; with a limit that is hardly above it an eighth
    /// remains.
    pub(super) fn of(memory_mib: u32, taken: u64) -> Option<Self> {
        /// What processes are left in any case.
        const SPARE: u64 = 32 << 20;
        const LARGEST_SHM: u64 = 64 << 20;
        let limit = u64::from(memory_mib) << 20;
        let taken = taken + run_dir::size(memory_mib);
        let all = (limit / 2).min(limit.saturating_sub(taken + SPARE)).max(limit / 8);
        (limit > 0).then(|| Self { workspace: all / 2, tmp: all / 8 * 3, shm: (all / 8).min(LARGEST_SHM) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_stays_below_the_limit_together() {
        for mib in [1, 16, 64, 112, 113, 128, 200, 512, 4096, u32::MAX] {
            for taken in [0, 64 << 20] {
                let sizes = InMemory::of(mib, taken).unwrap();
                let (sum, limit) = (sizes.workspace + sizes.tmp + sizes.shm, u64::from(mib) << 20);
                assert!(sum <= limit / 2, "{mib} {sizes:?}");
                if mib >= 112 {
                    assert!(sum + taken + run_dir::size(mib) < limit, "{mib} {sizes:?}");
                }
                assert!(sizes.shm >= limit / 64 || sizes.shm == 64 << 20, "{mib} {sizes:?}");
            }
        }
        assert_eq!(InMemory::of(0, 0), None);
        let half = InMemory { workspace: 128 << 20, tmp: 96 << 20, shm: 32 << 20 };
        assert_eq!(InMemory::of(512, 64 << 20), Some(half));
    }
}
