//! Removes a tree that a workload made, for whoever runs this program on the host: `stacyvm-agent --remove DIR`.
//!
//! Whoever made the tree chose its depth, its names and its width. So nothing here recurses, keeps a list, or joins a path: what
//! lies deep is lifted up into the tree's root, one level at a time, and a handful of descriptors is open. What stops half way
//! goes on where it stopped. Symlinks go, not what they lead to, and no other file system is entered.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, Dir, DirEntry, FileType, IFlags, Mode, OFlags, RenameFlags, ResolveFlags, fchmod,
    ioctl_getflags, ioctl_setflags, openat, openat2, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

pub const USAGE: &str = "       stacyvm-agent --remove DIR [--contents] [--seconds N]";

/// How it ended, as an exit code. 0 is gone.
const STAYS: u8 = 4;
const TIME_IS_UP: u8 = 5;

/// More than is ever needed: what is asked of this program grows with nothing that a workload does.
const MEMORY_BYTES: u64 = 256 << 20;
const DESCRIPTORS: u64 = 64;
/// How often the way is cleared for one entry: its directory's permissions, its flags.
const ATTEMPTS: usize = 3;

/// What the command line asks for.
struct Order {
    path: CString,
    /// The directory itself stays.
    contents: bool,
    until: Instant,
}

/// Runs what the arguments after `--remove` ask for.
pub fn run(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let Some(order) = Order::parse(arguments) else {
        eprintln!("usage: {}", USAGE.trim_start());
        return ExitCode::from(2);
    };
    for (resource, most) in
        [(Resource::As, MEMORY_BYTES), (Resource::Nofile, DESCRIPTORS), (Resource::Core, 0)]
    {
        // One that is lower already stays.
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
    // Whoever serves clients goes first.
    let _ = rustix::process::nice(10);
    match remove(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::TimeIsUp) => ExitCode::from(TIME_IS_UP),
        Err(Stop::Stays(why)) => {
            eprintln!("{why}");
            ExitCode::from(STAYS)
        }
    }
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Option<Self> {
        let path = CString::new(arguments.next()?.as_os_str().as_bytes()).ok()?;
        let (mut contents, mut seconds) = (false, 60);
        while let Some(argument) = arguments.next() {
            match argument.to_str()? {
                "--contents" => contents = true,
                "--seconds" => seconds = arguments.next()?.to_str()?.parse().ok()?,
                _ => return None,
            }
        }
        Some(Self { path, contents, until: Instant::now() + Duration::from_secs(seconds) })
    }
}

enum Stop {
    TimeIsUp,
    /// Something cannot be removed: what, briefly, and why.
    Stays(Why),
}

struct Why {
    step: &'static str,
    name: CString,
    error: Errno,
}

impl fmt::Display for Why {
    /// One short line: the name is the workload's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = self.name.to_string_lossy().chars().take(80).collect();
        let reason = io::Error::from(self.error);
        write!(f, "cannot {} {name:?}: {reason}", self.step)
    }
}

fn remove(order: &Order) -> Result<(), Stop> {
    let path = Path::new(std::ffi::OsStr::from_bytes(order.path.to_bytes()));
    let why = |step, error| Stop::Stays(Why { step, name: order.path.clone(), error });
    let root = match open(CWD, &order.path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return unlinkat(CWD, path, AtFlags::empty()).map_err(|error| why("remove", error));
        }
        Err(Errno::ACCESS) => open_up(CWD, &order.path)
            .and_then(|()| open(CWD, &order.path))
            .map_err(|error| why("open", error))?,
        Err(error) => return Err(why("open", error)),
    };
    let mut removal = Removal { root, until: order.until, lifted: 0, cleared: 0, run: random(), stays: None };
    removal.clear_root()?;
    if let Some(stays) = removal.stays {
        return Err(Stop::Stays(stays));
    }
    if order.contents {
        return Ok(());
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(why("remove", error)),
    }
}

struct Removal {
    root: OwnedFd,
    until: Instant,
    /// How many directories were lifted into the root, and how many of those are cleared: those between wait.
    lifted: u64,
    cleared: u64,
    /// Apart from what an earlier run lifted.
    run: u64,
    /// The first thing that could not be removed. All else is removed nevertheless.
    stays: Option<Why>,
}

impl Removal {
    /// Until there is nothing left, or nothing more goes.
    fn clear_root(&mut self) -> Result<(), Stop> {
        loop {
            self.stays = None;
            let root = self.root.try_clone().map_err(|error| self.stopped("open", c".", error))?;
            let removed = self.pass(&root, true)?;
            if self.stays.is_none() && !removed {
                return Ok(());
            }
            if !removed {
                return Ok(());
            }
        }
    }

    fn stopped(&self, step: &'static str, name: &CStr, error: io::Error) -> Stop {
        let error = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Stop::Stays(Why { step, name: name.to_owned(), error })
    }

    /// Looks at each entry once. Whether anything went.
    fn pass(&mut self, directory: &OwnedFd, is_root: bool) -> Result<bool, Stop> {
        let entries = match Dir::read_from(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.keep("list", c".", error);
                return Ok(false);
            }
        };
        let mut removed = false;
        for found in entries {
            if Instant::now() >= self.until {
                return Err(Stop::TimeIsUp);
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.keep("list", c".", error);
                    return Ok(removed);
                }
            };
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            removed |= if is_directory(directory, &found) {
                self.directory(directory, name, is_root)?
            } else {
                self.tried(
                    "remove",
                    name,
                    attempt(directory, name, || unlinkat(directory, name, AtFlags::empty())),
                )
            };
        }
        Ok(removed)
    }

    /// A directory in the root is cleared; one that lies deeper is lifted there, to be cleared next.
    fn directory(&mut self, above: &OwnedFd, name: &CStr, is_root: bool) -> Result<bool, Stop> {
        match attempt(above, name, || unlinkat(above, name, AtFlags::REMOVEDIR)) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            done => return Ok(self.tried("remove", name, done)),
        }
        if !is_root {
            return Ok(self.lift(above, name));
        }
        let mut removed = self.clear(name)?;
        while self.cleared < self.lifted {
            let next = self.name_of(self.cleared);
            self.cleared += 1;
            removed |= self.clear(&next)?;
        }
        Ok(removed)
    }

    /// Empties a directory of the root and removes it.
    fn clear(&mut self, name: &CStr) -> Result<bool, Stop> {
        let root = self.root.try_clone().map_err(|error| self.stopped("open", name, error))?;
        let opened = match open(root.as_fd(), name) {
            Err(Errno::ACCESS) => open_up(root.as_fd(), name).and_then(|()| open(root.as_fd(), name)),
            opened => opened,
        };
        let directory = match opened {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(true),
            Err(error) => {
                self.keep("open", name, error);
                return Ok(false);
            }
        };
        let mut removed = false;
        // Something may still be put there.
        while self.pass(&directory, false)? {
            removed = true;
        }
        let gone = attempt(&root, name, || unlinkat(&root, name, AtFlags::REMOVEDIR));
        Ok(self.tried("remove", name, gone) || removed)
    }

    fn lift(&mut self, above: &OwnedFd, name: &CStr) -> bool {
        let target = self.name_of(self.lifted);
        let lift = || renameat_with(above, name, &self.root, &target, RenameFlags::NOREPLACE);
        let outcome = match attempt(above, name, lift) {
            // To move a directory one must be allowed to write to it: its parent changes.
            Err(Errno::ACCESS) => open_up(above.as_fd(), name).and_then(|()| lift()),
            outcome => outcome,
        };
        if outcome.is_ok() {
            self.lifted += 1;
        }
        self.tried("move", name, outcome)
    }

    fn name_of(&self, number: u64) -> CString {
        // Neither has a NUL.
        CString::new(format!(".lifted-{:016x}-{number}", self.run)).unwrap_or_default()
    }

    fn tried(&mut self, step: &'static str, name: &CStr, outcome: Result<(), Errno>) -> bool {
        match outcome {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(error) => {
                self.keep(step, name, error);
                false
            }
        }
    }

    fn keep(&mut self, step: &'static str, name: &CStr, error: Errno) {
        self.stays.get_or_insert_with(|| Why { step, name: name.to_owned(), error });
    }
}

/// Tries again when the way could be cleared: permissions of the directory, flags of it and of the entry.
fn attempt(directory: &OwnedFd, name: &CStr, work: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let mut outcome = work();
    for _ in 1..ATTEMPTS {
        match outcome {
            Err(Errno::ACCESS) => {
                if fchmod(directory, Mode::RWXU).is_err() {
                    return outcome;
                }
            }
            Err(Errno::PERM) => {
                unlock(directory.as_fd());
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let kind = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map(|stat| FileType::from_raw_mode(stat.st_mode));
                // Of others no flag is known, and opening one may do something.
                if matches!(kind, Ok(FileType::RegularFile | FileType::Directory))
                    && let Ok(entry) = openat(directory, name, flags, Mode::empty())
                {
                    unlock(entry.as_fd());
                }
            }
            _ => return outcome,
        }
        outcome = work();
    }
    outcome
}

/// Takes away what keeps a file from being removed by anybody. Not every file system has it.
fn unlock(file: BorrowedFd<'_>) {
    if let Ok(flags) = ioctl_getflags(file) {
        let locks = IFlags::IMMUTABLE | IFlags::APPEND;
        if flags.intersects(locks) {
            let _ = ioctl_setflags(file, flags - locks);
        }
    }
}

/// Lets its owner into a directory.
fn open_up(above: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = openat(above, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)
}

fn is_directory(above: &OwnedFd, found: &DirEntry) -> bool {
    match found.file_type() {
        FileType::Directory => true,
        // Not every file system tells.
        FileType::Unknown => statat(above, found.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice => false,
    }
}

/// Opens a directory, of this file system only.
fn open(above: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if above.as_raw_fd() == CWD.as_raw_fd() {
        // The place that we were given: how it is reached is not the workload's.
        return openat(above, name, flags, Mode::empty());
    }
    match openat2(above, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS) {
        // An older kernel, or a container that may not.
        Err(Errno::NOSYS | Errno::PERM) => {
            let directory = openat(above, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(&directory)?.st_dev == rustix::fs::fstat(above)?.st_dev;
            if same { Ok(directory) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // Without it names that an earlier run left are met, which is an error that passes with what they name.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}
