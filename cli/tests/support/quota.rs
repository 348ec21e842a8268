use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk with room, of which only so much may be used: writes are refused with `EDQUOT`, also to root, and no look at the disk
/// tells beforehand. Unmounted when this is dropped.
pub struct Quota {
    at: PathBuf,
}

impl Quota {
    /// Mounts one with so many MiB, of a disk of 256 MiB in this file. Needs root and btrfs.
    pub fn mount(at: &Path, image: &Path, size_mib: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        File::create(image).unwrap().set_len(256 << 20).unwrap();
        run(Command::new("mkfs.btrfs").arg("-q").arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        let quota = Self { at: at.to_owned() };
        run(Command::new("btrfs").args(["quota", "enable"]).arg(at));
        run(Command::new("btrfs").args(["qgroup", "limit", &format!("{size_mib}M")]).arg(at));
        quota
    }

    /// Takes what may be used.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[0x5a; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded, "{error}");
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
        // What is free is counted when it is written down.
        run(Command::new("btrfs").args(["filesystem", "sync"]).arg(&self.at));
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
