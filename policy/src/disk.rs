//! How much room the disks have that must never be full.

use std::fmt;
use std::path::{Path, PathBuf};

/// What has to stay free where state is kept. Below it no new work is taken, so that what is under way can still be written
/// down, and what is not wanted any more can be removed.
#[derive(Debug, Clone, Default)]
pub struct DiskFloor {
    /// Directories on the disks in question; several may be on one.
    pub directories: Vec<PathBuf>,
    /// Bytes that have to be free on each. 0: nobody looks.
    pub min_free_bytes: u64,
}

/// A disk with too little room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowDisk {
    /// Which one, by a directory on it.
    pub directory: PathBuf,
    /// What is left.
    pub free_bytes: u64,
    /// What has to be left.
    pub min_free_bytes: u64,
}

impl DiskFloor {
    /// A disk that has too little room, if there is one. A directory that cannot be looked at counts as having enough: what
    /// is wrong there shows when it is used.
    pub fn low(&self) -> Option<LowDisk> {
        self.low_of(&self.directories)
    }

    /// The same of other directories.
    pub fn low_of(&self, directories: &[PathBuf]) -> Option<LowDisk> {
        if self.min_free_bytes == 0 {
            return None;
        }
        directories.iter().find_map(|directory| {
            let free_bytes = free_bytes(directory)?;
            (free_bytes < self.min_free_bytes).then(|| LowDisk {
                directory: directory.clone(),
                free_bytes,
                min_free_bytes: self.min_free_bytes,
            })
        })
    }
}

fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

impl fmt::Display for LowDisk {
    /// Without the path: clients of all tenants may see it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server's disk has {} MB free where {} are needed",
            self.free_bytes >> 20,
            self.min_free_bytes >> 20
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_its_floor_only() {
        let directories = vec![PathBuf::from("/nowhere/at/all"), std::env::temp_dir()];
        assert_eq!(DiskFloor { directories: directories.clone(), min_free_bytes: 1 }.low(), None);
        assert_eq!(DiskFloor { directories: directories.clone(), min_free_bytes: 0 }.low(), None);
        let low = DiskFloor { directories, min_free_bytes: u64::MAX }.low().unwrap();
        assert_eq!(low.directory, std::env::temp_dir());
        assert!(!low.to_string().contains("/tmp"), "{low}");
    }
}
