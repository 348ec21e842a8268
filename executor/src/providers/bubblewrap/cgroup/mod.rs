//! Control groups of boxes: limits, usage, and a list of processes that cannot be escaped from.

mod v1;
mod v2;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use events::{SandboxId, SandboxSpec};
use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to go. They take milliseconds, unless the disk hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The control groups of one installation.
#[derive(Debug)]
pub(super) enum Cgroups {
    /// One tree for each controller.
    V1(v1::Trees),
    /// One tree for all.
    V2(v2::Tree),
}

/// What a box may use; 0 means no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) memory_bytes: u64,
    pub(super) cpu_millis: u64,
    pub(super) processes: u64,
}

/// What a box uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
    pub(super) memory_limit_bytes: u64,
}

const SHOWN: &str = "/sys/fs/cgroup";

/// The period that CPU limits are counted in, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

impl Limits {
    pub(super) fn of(spec: &SandboxSpec) -> Self {
        Self {
            memory_bytes: u64::from(spec.memory_mib) << 20,
            cpu_millis: spec.cpu_millis.into(),
            // One more, for bwrap itself, which waits outside.
            processes: if spec.pids_limit == 0 { 0 } else { u64::from(spec.pids_limit) + 1 },
        }
    }

    /// CPU time per period, in microseconds. The kernel takes no less than one millisecond.
    fn cpu_quota_us(self) -> u64 {
        (self.cpu_millis * CPU_PERIOD_US / 1000).max(1000)
    }
}

impl Cgroups {
    /// Finds the control groups of this machine and makes the one that all boxes of `parent` are in. The error says
    /// why boxes will have no limits.
    pub(super) fn find(parent: &str) -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let found = v2::Tree::find(&mounts, parent).map(Self::V2);
        found.or_else(|missing| {
            v1::Trees::find(&mounts, parent)
                .map(Self::V1)
                .map_err(|also| format!("v2: {missing}; v1: {also}"))
        })
    }

    /// Makes the box's group with its limits. What is returned takes "0" from whoever enters.
    pub(super) fn create(&self, id: SandboxId, limits: Limits) -> io::Result<Vec<OwnedFd>> {
        match self {
            Self::V1(trees) => trees.create(id, limits)?,
            Self::V2(tree) => tree.create(id, limits)?,
        }
        self.directories(id)
            .map(|directory| Ok(File::options().write(true).open(directory.join("cgroup.procs"))?.into()))
            .collect()
    }

    /// The box's groups, and where engines show a box its own.
    pub(super) fn shown(&self, id: SandboxId) -> Vec<(PathBuf, String)> {
        let id = id.to_string();
        match self {
            Self::V1(trees) => {
                let named = trees.named().into_iter();
                named.map(|(name, tree)| (tree.join(&id), format!("{SHOWN}/{name}"))).collect()
            }
            Self::V2(tree) => vec![(tree.directory().join(&id), SHOWN.to_owned())],
        }
    }

    /// What the box has used so far, or nothing if it has no group.
    pub(super) fn usage(&self, id: SandboxId) -> io::Result<Option<Usage>> {
        let usage = match self {
            Self::V1(trees) => trees.usage(id),
            Self::V2(tree) => tree.usage(id),
        };
        match usage {
            Ok(usage) => Ok(Some(usage)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Kills everything in the box and removes its group. Blocks until it is done.
    pub(super) fn destroy(&self, id: SandboxId) -> io::Result<()> {
        let give_up_at = Instant::now() + PATIENCE;
        // No new ones meanwhile, so that killing comes to an end.
        for directory in self.directories(id) {
            let _ = std::fs::write(directory.join("pids.max"), "0");
        }
        for directory in self.directories(id) {
            loop {
                let left = processes(&directory)?;
                for process in &left {
                    // Gone already is as good.
                    let _ = kill_process(*process, Signal::KILL);
                }
                match remove_directory(&directory) {
                    Ok(()) => break,
                    Err(error) if Instant::now() >= give_up_at => return Err(error),
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            }
        }
        Ok(())
    }

    fn directories(&self, id: SandboxId) -> impl Iterator<Item = PathBuf> {
        let parents: Vec<_> = match self {
            Self::V1(trees) => trees.directories().map(Path::to_owned).collect(),
            Self::V2(tree) => vec![tree.directory().to_owned()],
        };
        parents.into_iter().map(move |parent| parent.join(id.to_string()))
    }
}

fn processes(directory: &Path) -> io::Result<Vec<Pid>> {
    match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()),
        // ENODEV: the group went while we read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn remove_directory(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The number after `key` in a file of lines "key number"; 0 when there is none.
fn read_field(path: &Path, key: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
    Ok(value.unwrap_or_default())
}

/// The mount point of a line of mountinfo, its file system type and its own options.
fn mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?.replace("\\040", " ");
    let mut right = right.split(' ');
    let kind = right.next()?;
    Some((point.into(), kind, right.nth(1).unwrap_or_default()))
}
