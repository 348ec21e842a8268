use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small disk of its own, unmounted when this is dropped.
pub struct Tmpfs {
    at: PathBuf,
}

impl Tmpfs {
    /// Mounts one of so many MiB. Needs root.
    pub fn mount(at: &Path, size_mib: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size_mib}m,mode=0700"), "tmpfs"], at);
        Self { at: at.to_owned() }
    }

    /// Takes what is free, but for so many bytes.
    pub fn fill(&self, leave: u64) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        loop {
            let free = self.free().saturating_sub(leave);
            if free == 0 {
                return;
            }
            let piece = vec![0x5a; usize::try_from(free.min(1 << 20)).unwrap()];
            // Somebody else may be faster: that is full too.
            if file.write_all(&piece).is_err() {
                return;
            }
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.at).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Waits until nobody has a file open for writing.
    pub fn remount_read_only(&self) {
        let began = Instant::now();
        while !Command::new("mount").args(["-o", "remount,ro"]).arg(&self.at).status().unwrap().success() {
            assert!(began.elapsed() < Duration::from_secs(10), "{} is busy", self.at.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn remount_writable(&self) {
        run("mount", &["-o", "remount,rw"], &self.at);
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that has just been killed may hold it for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) {
    let status = Command::new(program).args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "{program} {arguments:?} {}: {status}", at.display());
}
