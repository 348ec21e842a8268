//! What the kernel counts for each user, or not at all, and a box could use up for others: limits on each process of a box.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The resource, its name for an engine, and the limit. Where users of boxes are users of the host too, what all boxes use of
/// the second pair counts together with what the host's own user uses, whose limit is higher: it always has some left.
pub(super) const ULIMITS: [(Resource, &str, u64); 4] = [
    (Resource::Core, "core", 0),
    // Each terminal, inotify instance, queue and timer takes one.
    (Resource::Nofile, "nofile", 16_384),
    (Resource::Sigpending, "sigpending", 4096),
    // Bytes. Half of what the kernel gives a user.
    (Resource::Msgqueue, "msgqueue", 409_600),
];

/// Lowers the limits of this process to these. Only system calls are made, so this may be called between fork and exec.
pub(super) fn apply() -> rustix::io::Result<()> {
    for (resource, _, most) in ULIMITS {
        let given = getrlimit(resource);
        let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
        setrlimit(resource, Rlimit { current: lower(given.current), maximum: lower(given.maximum) })?;
    }
    Ok(())
}
