//! What a box sees of the kernel beside its processes: `/sys`, and what of `/proc` it does not see. As engines have it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::confine::Confinement;

/// What programs ask for: processors and memory nodes, and how memory comes. No devices, no networks of the host.
const SHOWN: [&str; 2] = ["/sys/devices/system", "/sys/kernel/mm/transparent_hugepage"];

/// Of the whole machine, and nobody's business in a box.
const HIDDEN_FILES: [&str; 6] =
    ["kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"];
const HIDDEN_DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];

/// Covers parts of `/proc`. The kernel is the host's, so what it does not have there need not be covered.
pub(super) fn hide(command: &mut Command) {
    for path in HIDDEN_FILES.map(|name| format!("/proc/{name}")) {
        if Path::new(&path).exists() {
            command.args(["--ro-bind", "/dev/null", &path]);
        }
    }
    for path in HIDDEN_DIRECTORIES.map(|name| format!("/proc/{name}")) {
        if Path::new(&path).exists() {
            command.args(["--tmpfs", &path, "--remount-ro", &path]);
        }
    }
}

/// A read-only `/sys` with the box's own control groups where an engine has them.
pub(super) fn show(
    command: &mut Command,
    groups: &[(PathBuf, String)],
    confinement: &mut Confinement,
) -> io::Result<()> {
    command.args(["--tmpfs", "/sys"]);
    for path in SHOWN {
        command.args(["--ro-bind-try", path, path]);
    }
    for (number, (group, shown)) in groups.iter().enumerate() {
        let group = confinement.bind(group, &format!("cgroup-{number}"))?;
        command.arg("--ro-bind").arg(group).arg(shown);
    }
    command.args(["--remount-ro", "/sys"]);
    Ok(())
}
