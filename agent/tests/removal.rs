//! What a workload leaves is removed, whatever it made, within bounds: `stacyvm-agent --remove`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, IFlags, Mode, OFlags, mkdirat, openat};

/// A directory to remove, and what lies beside it and must stay.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// On the disk.
    fn new() -> Self {
        Self::below(env!("CARGO_TARGET_TMPDIR"))
    }

    /// In memory: a disk takes milliseconds for each directory that goes.
    fn large() -> Self {
        Self::below("/dev/shm")
    }

    fn below(directory: &str) -> Self {
        let dir = tempfile::tempdir_in(directory).unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::write(dir.path().join("kept"), "kept").unwrap();
        Self { dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn remove(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stacyvm-agent"));
        command.arg("--remove").arg(self.tree()).args(arguments).output().unwrap()
    }

    fn is_removed(&self) {
        let output = self.remove(&[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(fs::symlink_metadata(self.tree()).is_err(), "it is there still");
        assert_eq!(fs::read_to_string(self.dir.path().join("kept")).unwrap(), "kept");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "something else was left");
    }
}

/// Directories within one another, by descriptors: the path of the last is longer than any path may be.
fn nest(at: &Path, name: &str, levels: usize) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut here = openat(CWD, at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&here, name, Mode::RWXU).unwrap();
        here = openat(&here, name, flags, Mode::empty()).unwrap();
    }
    here
}

#[test]
fn nothing_is_too_deep_or_has_too_long_a_name() {
    let place = Place::large();
    nest(&place.tree(), "d", 30_000);
    nest(&place.tree(), &"n".repeat(255), 3000);
    place.is_removed();
    let place = Place::new();
    nest(&place.tree(), &"n".repeat(255), 200);
    place.is_removed();
}

#[test]
fn nothing_is_too_wide() {
    let place = Place::large();
    for number in 0..20_000 {
        // None of them is empty: each has to be entered.
        fs::create_dir_all(place.tree().join(format!("wide/{number}/inner"))).unwrap();
    }
    for number in 0..50_000 {
        File::create(place.tree().join(format!("file-{number}"))).unwrap();
    }
    place.is_removed();
}

#[test]
fn no_kind_of_file_is_in_the_way_and_nothing_outside_is_touched() {
    let place = Place::new();
    let (tree, outside) = (place.tree(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("mine"), "mine").unwrap();
    symlink(outside.path(), tree.join("link")).unwrap();
    symlink(outside.path().join("mine"), tree.join("file-link")).unwrap();
    symlink("/nowhere", tree.join(".lifted-0000000000000000-0")).unwrap();
    std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let status = Command::new("mkfifo").arg(tree.join("fifo")).status().unwrap();
    assert!(status.success());
    fs::create_dir_all(tree.join("closed/closed/closed")).unwrap();
    for path in ["closed/closed/closed", "closed/closed", "closed"] {
        fs::set_permissions(tree.join(path), PermissionsExt::from_mode(0o000)).unwrap();
    }
    // Only root gets this far: it locks what nobody may remove then.
    fs::create_dir_all(tree.join("locked/inner")).unwrap();
    for path in ["locked/inner/file", "locked/appended"] {
        fs::write(tree.join(path), "").unwrap();
    }
    let mut locked = 0;
    for (path, flag) in [
        ("locked/inner/file", IFlags::IMMUTABLE),
        ("locked/appended", IFlags::APPEND),
        ("locked/inner", IFlags::APPEND),
        ("locked", IFlags::IMMUTABLE),
    ] {
        let file = File::open(tree.join(path)).unwrap();
        match rustix::fs::ioctl_setflags(file.as_fd(), flag) {
            Ok(()) => locked += 1,
            // A file system without them has no such attack.
            Err(error) => assert!(
                [rustix::io::Errno::NOTTY, rustix::io::Errno::OPNOTSUPP].contains(&error),
                "{path}: {error}"
            ),
        }
    }
    if locked > 0 {
        assert!(fs::remove_file(tree.join("locked/inner/file")).is_err());
    }
    place.is_removed();
    assert_eq!(fs::read_to_string(outside.path().join("mine")).unwrap(), "mine");
}

#[test]
fn whoever_owns_a_tree_gets_into_closed_directories() {
    use std::os::unix::process::CommandExt;
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (agent, owned) = (place.path().join("agent"), place.path().join("owned"));
    fs::copy(env!("CARGO_BIN_EXE_stacyvm-agent"), &agent).unwrap();
    fs::create_dir(&owned).unwrap();
    std::os::unix::fs::chown(&owned, Some(65_534), Some(65_534)).unwrap();
    let as_nobody = |command: &mut Command| {
        command.uid(65_534).gid(65_534).current_dir("/");
        let output = loop {
            match command.output() {
                // A binary that another test's child has open for writing, until that begins its own, cannot run.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now()
                }
                output => break output.unwrap(),
            }
        };
        assert!(output.status.success(), "{output:?}");
    };
    let tree = owned.join("tree");
    let make = "mkdir -p $0/a/b/c/d/e && touch $0/a/b/x && chmod 0 $0/a/b/c/d $0/a/b/c && chmod 500 $0/a/b $0/a && chmod 0 $0";
    as_nobody(Command::new("sh").args(["-c", make]).arg(&tree));
    as_nobody(Command::new(&agent).arg("--remove").arg(&tree));
    assert!(!tree.exists());
}

#[test]
fn a_file_system_that_is_mounted_inside_is_left_alone_and_named() {
    let place = Place::new();
    let mounted = place.tree().join("a/b/mounted");
    fs::create_dir_all(&mounted).unwrap();
    fs::write(place.tree().join("a/b/file"), "").unwrap();
    let status = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mounted).status().unwrap();
    assert!(status.success());
    fs::write(mounted.join("theirs"), "theirs").unwrap();
    let output = place.remove(&[]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tree = place.tree();
    let at = mounts.split(' ').find(|word| word.starts_with(tree.to_str().unwrap())).map(PathBuf::from);
    let at = at.expect("it is mounted still");
    let theirs = fs::read_to_string(at.join("theirs"));
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("mounted"), "{output:?}");
    assert_eq!(theirs.unwrap(), "theirs");
    place.is_removed();
}

#[test]
fn what_grows_meanwhile_costs_no_more_than_the_time_given() {
    let place = Place::new();
    let stop = Arc::new(AtomicBool::new(false));
    let (tree, stopped) = (place.tree(), Arc::clone(&stop));
    let grower = std::thread::spawn(move || {
        let mut number = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            // It may be gone at this moment.
            let _ = fs::create_dir_all(tree.join(format!("{}/{}", number % 7, number % 11)));
            let _ = fs::write(tree.join(format!("{}/{number}", number % 7)), "x");
        }
    });
    let output = place.remove(&["--seconds", "1"]);
    stop.store(true, Ordering::Relaxed);
    grower.join().unwrap();
    // Out of time, or in a moment in which it was empty; or it was filled again at the very end.
    assert!([Some(5), Some(0), Some(4)].contains(&output.status.code()), "{output:?}");
    place.is_removed();
}

#[test]
fn the_directory_itself_stays_if_that_is_wanted_and_what_is_not_there_is_gone() {
    let place = Place::new();
    nest(&place.tree(), "d", 100);
    let output = place.remove(&["--contents"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_dir(place.tree()).unwrap().count(), 0);
    place.is_removed();
    assert_eq!(place.remove(&[]).status.code(), Some(0));
    fs::write(place.tree(), "a file").unwrap();
    place.is_removed();
    symlink(place.dir.path(), place.tree()).unwrap();
    place.is_removed();
    assert_eq!(place.remove(&["--no-such"]).status.code(), Some(2));
}
