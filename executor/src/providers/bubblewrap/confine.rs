//! What happens between fork and exec.
//!
//! As root, a box is put together in a mount namespace of its own, which goes when the box does: a crash leaves no
//! mounts on the host, and the user that the box runs as needs no way to the data directory.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Rlimit;
use rustix::thread::{Gid, LinkNameSpaceType, Uid, UnshareFlags};
use tokio::process::Command;

use super::ids::{Ids, become_user};
use crate::descriptors;
use crate::providers::ulimits;

/// Where a confined process may find what was mounted for it: directories of the file system standard, one of which
/// holds nothing that we need. The process gets its own instance.
const STAGES: [&str; 5] = ["/mnt", "/media", "/srv", "/opt", "/tmp"];

/// Before anything else on a host that runs out of memory; within a box the agent goes last.
const OOM_SCORE_ADJ: &[u8] = b"500";

/// Whom and where boxes are on the host, when this process is root and may choose.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    pub(super) uid: u32,
    pub(super) gid: u32,
    stage: PathBuf,
    /// Or why there is none.
    ids: Result<Arc<Ids>, Arc<io::Error>>,
}

impl Outside {
    /// Nothing when each possible stage holds one of `needed`.
    pub(super) fn new((uid, gid): (u32, u32), needed: &[&Path]) -> Option<Self> {
        let free =
            |stage: &&str| Path::new(stage).is_dir() && !needed.iter().any(|path| path.starts_with(stage));
        let stage = STAGES.iter().find(|stage| free(stage))?;
        let ids = Ids::make(uid, gid).map(Arc::new).map_err(Arc::new);
        Some(Self { uid, gid, stage: stage.into(), ids })
    }

    /// The same for a box whose users and groups are others'.
    pub(super) fn with_ids(&self, (uid, gid): (u32, u32)) -> io::Result<Self> {
        let ids = Ids::make(uid, gid).map(Arc::new)?;
        Ok(Self { uid, gid, stage: self.stage.clone(), ids: Ok(ids) })
    }

    /// The users and groups of boxes.
    pub(super) fn ids(&self) -> io::Result<Arc<Ids>> {
        let missing = |error: &Arc<io::Error>| {
            io::Error::other(format!("cannot make a user namespace with a range of ids: {error}"))
        };
        self.ids.clone().map_err(|error| missing(&error))
    }

    /// Hands a file over to the boxes' user.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }
}

/// What a process is before it is executed.
#[derive(Default)]
pub(super) struct Confinement {
    /// The user to become, and where to mount things. Without, nothing is mounted.
    outside: Option<(Uid, Gid, CString)>,
    stage: PathBuf,
    /// The user namespace to enter then, as its root.
    inside: Option<Arc<Ids>>,
    /// `cgroup.procs` files to enter.
    pub(super) cgroups: Vec<OwnedFd>,
    /// Descriptors that stay open, under their own numbers.
    pub(super) inherit: Vec<OwnedFd>,
    mounts: Vec<Mount>,
}

struct Mount {
    what: What,
    target: CString,
}

enum What {
    Directory(CString),
    File(CString),
    Overlay(CString),
    /// A directory whose files are shown as other users'.
    Shown(CString, Ids),
}

impl Confinement {
    /// A session of its own, as another user if there is one.
    pub(super) fn new(outside: Option<&Outside>) -> io::Result<Self> {
        let Some(Outside { uid, gid, stage, .. }) = outside else {
            return Ok(Self::default());
        };
        Ok(Self {
            outside: Some((Uid::from_raw(*uid), Gid::from_raw(*gid), c_path(stage)?)),
            stage: stage.clone(),
            ..Self::default()
        })
    }

    /// The same, and then root of the boxes' users: for work on files that belong to any of them.
    pub(super) fn inside(outside: Option<&Outside>) -> io::Result<Self> {
        let inside = outside.map(Outside::ids).transpose()?;
        Ok(Self { inside, ..Self::new(outside)? })
    }

    /// Shows a file or directory under a name; the path to use is returned.
    pub(super) fn bind(&mut self, source: &Path, name: &str) -> io::Result<PathBuf> {
        if self.outside.is_none() {
            return Ok(source.to_owned());
        }
        let path = c_path(source)?;
        let what = if source.is_dir() { What::Directory(path) } else { What::File(path) };
        self.mount(what, name)
    }

    /// Shows a directory whose files belong to `stored` as if they belonged to `shown`. Only for a process with a user to
    /// become, on kernels and file systems that can.
    pub(super) fn show_as(
        &mut self,
        directory: &Path,
        stored: (u32, u32),
        shown: (u32, u32),
        name: &str,
    ) -> io::Result<PathBuf> {
        self.mount(What::Shown(c_path(directory)?, Ids::between(stored, shown)?), name)
    }

    /// Shows `lower` with all changes going to `upper`. Only for a process with a user to become.
    pub(super) fn overlay(
        &mut self,
        lower: &Path,
        upper: &Path,
        work: &Path,
        name: &str,
    ) -> io::Result<PathBuf> {
        let mut options = Vec::new();
        for (option, path) in [(&b"lowerdir="[..], lower), (b",upperdir=", upper), (b",workdir=", work)] {
            options.extend_from_slice(option);
            for byte in path.as_os_str().as_bytes() {
                if b"\\:,".contains(byte) {
                    options.push(b'\\');
                }
                options.push(*byte);
            }
        }
        self.mount(What::Overlay(CString::new(options)?), name)
    }

    fn mount(&mut self, what: What, name: &str) -> io::Result<PathBuf> {
        let target = self.stage.join(name);
        self.mounts.push(Mount { what, target: c_path(&target)? });
        Ok(target)
    }

    /// Makes `command` enter this confinement, in a session of its own.
    #[allow(unsafe_code)]
    pub(super) fn apply(self, command: &mut Command) {
        let limit = descriptors::given();
        // SAFETY: `enter` only makes system calls with what was prepared here: no allocation, no locks.
        unsafe { command.pre_exec(move || self.enter(limit)) };
    }

    fn enter(&self, limit: Option<Rlimit>) -> io::Result<()> {
        descriptors::restore(limit).map_err(|error| failed(b"limit open files", error))?;
        ulimits::apply().map_err(|error| failed(b"limit resources", error))?;
        rustix::process::setsid().map_err(|error| failed(b"setsid", error))?;
        for cgroup in &self.cgroups {
            rustix::io::write(cgroup, b"0").map_err(|error| failed(b"enter a control group", error))?;
        }
        for descriptor in &self.inherit {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).map_err(|error| failed(b"fcntl", error))?;
        }
        if let Ok(file) =
            rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            // Not worth failing for.
            let _ = rustix::io::write(file, OOM_SCORE_ADJ);
        }
        if let Some((uid, gid, stage)) = &self.outside {
            self.mount_all(stage).map_err(|error| failed(b"mount", error))?;
            become_user(*uid, *gid).map_err(|error| failed(b"change user", error))?;
        }
        if let Some(ids) = &self.inside {
            let kind = Some(LinkNameSpaceType::User);
            rustix::thread::move_into_link_name_space(ids.namespace.as_fd(), kind)
                .map_err(|error| failed(b"enter the user namespace", error))?;
        }
        Ok(())
    }

    fn mount_all(&self, stage: &CStr) -> rustix::io::Result<()> {
        unshare_mounts()?;
        // Slave, not private: what the host unmounts later must not stay busy because of us.
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", slave)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(c"tmpfs", stage, c"tmpfs", flags, c"mode=0755,size=64k")?;
        for Mount { what, target } in &self.mounts {
            match what {
                What::Directory(source) => {
                    rustix::fs::mkdir(target, Mode::RWXU)?;
                    rustix::mount::mount_bind(source, target)?;
                }
                What::File(source) => {
                    rustix::fs::mknodat(rustix::fs::CWD, target, FileType::RegularFile, Mode::RUSR, 0)?;
                    rustix::mount::mount_bind(source, target)?;
                }
                What::Shown(source, ids) => {
                    rustix::fs::mkdir(target, Mode::RWXU)?;
                    mount_shown(source, ids, target)?;
                }
                What::Overlay(options) => {
                    rustix::fs::mkdir(target, Mode::RWXU)?;
                    let flags = MountFlags::NOSUID | MountFlags::NODEV;
                    rustix::mount::mount(c"overlay", target, c"overlay", flags, Some(options.as_c_str()))?;
                }
            }
        }
        Ok(())
    }
}

fn mount_shown(source: &CStr, ids: &Ids, target: &CStr) -> rustix::io::Result<()> {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, source, flags)?;
    map_ids(&tree, &ids.namespace)?;
    move_mount(&tree, c"", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `MOUNT_ATTR_IDMAP`, which libc does not have.
const MAP_IDS: u64 = 0x0010_0000;

#[allow(unsafe_code)]
fn map_ids(tree: &OwnedFd, namespace: &OwnedFd) -> rustix::io::Result<()> {
    let user_namespace = u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX);
    let attributes = MountAttributes { set: MAP_IDS, clear: 0, propagation: 0, user_namespace };
    // SAFETY: both pointers are valid for reads of what the call is told; it changes no memory.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL))
}

#[allow(unsafe_code)]
fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: this process has just been forked and has one thread; no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
}

/// Says on stderr which step failed: only the number of the error gets back to the parent.
fn failed(step: &[u8], error: rustix::io::Errno) -> io::Error {
    let stderr = own_stderr();
    for text in [&b"cannot "[..], step, b"\n"] {
        let _ = rustix::io::write(stderr, text);
    }
    error.into()
}

#[allow(unsafe_code)]
fn own_stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 was opened by `Command` and nothing here closes it. `std::io::stderr` has a lock that
    // another thread may have held at the fork.
    unsafe { BorrowedFd::borrow_raw(2) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A file in memory that a child can read from its beginning.
pub(super) fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}
