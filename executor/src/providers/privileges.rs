//! What root in a box may do that others may not.

use events::CapabilitySet;

/// The standard set: what everyday work of root needs within the box's own files and processes, and nothing that
/// reaches the kernel, the network or devices beyond. On an engine without user namespaces root in the box is root of
/// the host but for what is missing here.
const STANDARD: [&str; 9] = [
    // Package managers, tar, useradd: files get the owners that they are meant to have.
    "CHOWN",
    // Root reads and writes what belongs to the image's own users.
    "DAC_OVERRIDE",
    // The same for modes, times and sticky directories.
    "FOWNER",
    "FSETID",
    // A supervisor ends a daemon that runs as its own user.
    "KILL",
    // su, setpriv, daemons with a user of their own, apt's sandbox.
    "SETGID",
    "SETUID",
    // The agent takes others away with it, and then itself: nothing that it runs has it.
    "SETPCAP",
    // Servers on ports below 1024.
    "NET_BIND_SERVICE",
];

/// The capabilities that the agent of a box has, without prefix.
pub(super) fn capabilities(set: Option<CapabilitySet>) -> &'static [&'static str] {
    match set.unwrap_or_default() {
        CapabilitySet::Standard => &STANDARD,
        CapabilitySet::Minimal => &[],
    }
}

/// Whether the agent can start execs as another user than its own.
pub(super) fn users_can_change(set: Option<CapabilitySet>) -> bool {
    match set.unwrap_or_default() {
        CapabilitySet::Standard => true,
        CapabilitySet::Minimal => false,
    }
}
