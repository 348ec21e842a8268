//! Looks for files below a directory, without following a single symlink, and reads what was found in the same way.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use agent::patterns::Patterns;
use agent::protocol::{
    FileErrorKind, FileRefusal, FoundFile, MAX_PATH, PassedOver, PassedOverReason, Search, Searched,
};
use rustix::fs::{Mode, OFlags, openat, statfs};

use super::{not_regular, path};

/// Paths looked at before giving up.
const MOST_VISITED: usize = 1_000_000;
/// Bytes of paths that wait to be looked at.
const MOST_WAITING: usize = 64 << 20;
/// After how many paths the time is looked at.
const BETWEEN_LOOKS: usize = 256;
/// File systems of the kernel's own: proc, sysfs, both kinds of cgroup, debugfs, tracefs. Nobody's work is in them.
const OF_THE_KERNEL: [i64; 6] = [0x9fa0, 0x6265_6572, 0x27_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163];

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub files: Vec<FoundFile>,
    pub end: Searched,
}

pub fn search(directory: &Path, search: &Search) -> Result<Found, FileRefusal> {
    let asked = Patterns::parse(&search.patterns).map_err(|wrong| FileRefusal {
        kind: FileErrorKind::InvalidPath,
        message: wrong.to_string(),
        path: wrong.pattern,
    })?;
    let shown = &search.directory;
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(path::refusal(shown, &io::ErrorKind::NotADirectory.into())),
        Err(error) => return Err(path::refusal(shown, &error)),
    }
    let mut walk = Walk {
        directory,
        asked,
        search,
        began: Instant::now(),
        seen: 0,
        waiting: 0,
        device: None,
        found: Found::default(),
    };
    walk.visit()?;
    let mut found = walk.found;
    found.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

struct Walk<'a> {
    directory: &'a Path,
    asked: Patterns,
    search: &'a Search,
    began: Instant,
    seen: usize,
    waiting: usize,
    /// Of the directory that was looked at last, where it is one to be looked into.
    device: Option<u64>,
    found: Found,
}

impl Walk<'_> {
    fn visit(&mut self) -> Result<(), FileRefusal> {
        // The path below the directory, and whether all below is taken.
        let mut open: Vec<(PathBuf, bool)> = Vec::new();
        for base in self.asked.bases().to_vec() {
            if let Some(base) = self.reached(&base) {
                open.push(base);
            }
        }
        self.waiting = open.iter().map(|(path, _)| path.as_os_str().len()).sum();
        while let Some((below, taken)) = open.pop() {
            self.waiting = self.waiting.saturating_sub(below.as_os_str().len());
            let full = self.directory.join(&below);
            let Ok(metadata) = fs::symlink_metadata(&full) else { continue };
            if !metadata.is_dir() {
                if taken || self.asked.take_file(&below) {
                    self.add(&below, &metadata)?;
                }
                continue;
            }
            let taken = taken || self.asked.take_whole(&below);
            let depth = below.components().count();
            if !taken && self.asked.depth().is_some_and(|most| depth >= most) {
                continue;
            }
            if depth >= self.search.most_depth as usize {
                return Err(
                    self.too_many(&format!("directories are more than {} deep", self.search.most_depth))
                );
            }
            if !self.is_looked_into(&full, &metadata) {
                continue;
            }
            // What vanishes meanwhile, or may not be looked at, is left out.
            for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
                self.count()?;
                let next = below.join(entry.file_name());
                self.waiting += next.as_os_str().len();
                if self.waiting > MOST_WAITING {
                    return Err(self.too_many("the patterns lead past too many paths"));
                }
                open.push((next, taken));
            }
        }
        Ok(())
    }

    /// Where a base leads without a symlink, and whether it is below a directory that is taken whole.
    fn reached(&mut self, base: &Path) -> Option<(PathBuf, bool)> {
        let (mut at, mut taken) = (PathBuf::new(), false);
        for part in base.components() {
            at.push(part);
            let metadata = fs::symlink_metadata(self.directory.join(&at)).ok()?;
            if metadata.is_symlink() {
                self.pass_over(&at, PassedOverReason::Symlink);
                return None;
            }
            taken |= metadata.is_dir() && self.asked.take_whole(&at);
        }
        Some((at, taken))
    }

    fn is_looked_into(&mut self, full: &Path, metadata: &Metadata) -> bool {
        if self.device == Some(metadata.dev()) {
            return true;
        }
        let of_the_kernel = statfs(full).is_ok_and(|found| OF_THE_KERNEL.contains(&found.f_type));
        self.device = (!of_the_kernel).then_some(metadata.dev());
        !of_the_kernel
    }

    fn count(&mut self) -> Result<(), FileRefusal> {
        self.seen += 1;
        if self.seen > MOST_VISITED {
            return Err(self.too_many(&format!("the patterns lead past more than {MOST_VISITED} paths")));
        }
        if self.seen.is_multiple_of(BETWEEN_LOOKS) && self.began.elapsed() > self.search.within {
            let seconds = self.search.within.as_secs();
            return Err(self.too_many(&format!("looking for files took more than {seconds} s")));
        }
        Ok(())
    }

    fn add(&mut self, below: &Path, metadata: &Metadata) -> Result<(), FileRefusal> {
        if metadata.is_symlink() {
            self.pass_over(below, PassedOverReason::Symlink);
        } else if !metadata.is_file() {
            self.pass_over(below, PassedOverReason::Special);
        } else if let Some(path) = below.to_str().filter(|path| path.len() <= MAX_PATH) {
            if self.found.files.len() == self.search.most_files as usize {
                return Err(self.too_many(&format!("more than {} files match", self.search.most_files)));
            }
            let (size, mode) = (metadata.len(), metadata.mode() & 0o7777);
            self.found.files.push(FoundFile { path: path.to_owned(), size, mode });
        } else {
            self.pass_over(below, PassedOverReason::Name);
        }
        Ok(())
    }

    fn pass_over(&mut self, below: &Path, reason: PassedOverReason) {
        let end = &mut self.found.end;
        end.passed_over += 1;
        if end.first.len() < Searched::MOST_NAMED {
            let path = below.to_string_lossy();
            let path = path[..path.floor_char_boundary(MAX_PATH)].to_owned();
            end.first.push(PassedOver { path, reason });
        }
    }

    fn too_many(&self, message: &str) -> FileRefusal {
        let path = self.search.directory.clone();
        FileRefusal { kind: FileErrorKind::TooMany, path, message: message.to_owned() }
    }
}

/// Opens a regular file below a directory. No symlink is followed below it, not even one that was not there a moment ago.
pub fn open_beneath(directory: &Path, below: &str) -> io::Result<(File, Metadata)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top =
        fs::File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory)?;
    let mut at = OwnedFd::from(top);
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in Path::new(below).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    let Some((name, above)) = parts.split_last() else { return Err(io::ErrorKind::IsADirectory.into()) };
    for part in above {
        at = openat(&at, *part, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    let place =
        File::from(openat(&at, *name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    let metadata = place.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(not_regular());
    }
    // What was looked at, and nothing that has taken its name since.
    let same = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    Ok((File::options().read(true).custom_flags(flags).open(same)?, metadata))
}
