use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use events::Network;
use tokio::process::{Child, Command};

use super::confine::{Confinement, Outside, memory_file};
use super::images::Image;
use super::record::BoxDir;
use super::{BubblewrapConfig, ids, kernel, names};
use crate::provider::BoxOrder;
use crate::providers::inside::InMemory;
use crate::providers::remover::{Removed, Remover};
use crate::providers::trash::Trash;
use crate::providers::{inside, privileges, run_dir, seccomp};

/// How a box gets a root file system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootMode {
    /// The same as `Overlay`, where the image's files can be shown as those of the box's own users.
    Mapped,
    /// The image below, the box's changes above: nothing is copied.
    Overlay,
    /// A copy of the image.
    Copy,
}

/// How long removing a handful of files may take.
const TRIAL_REMOVAL: std::time::Duration = std::time::Duration::from_secs(5);

/// Makes the files of a box that bwrap needs. Where the image's root is copied it is there already.
pub(super) fn prepare(
    files: &BoxDir,
    outside: Option<&Outside>,
    trash: &Trash,
    memory_mib: u32,
) -> io::Result<()> {
    let own = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        match outside {
            Some(outside) => outside.give(path),
            None => Ok(()),
        }
    };
    let private = files.upper().join(".stacyvm");
    // Whatever the image has there. Nobody works in the box yet: what was looked at stays what it is.
    match std::fs::symlink_metadata(&private) {
        Ok(found) if found.is_dir() => drop(trash.throw(&private)?),
        Ok(_) => std::fs::remove_file(&private)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for directory in [&private, &private.join("run")] {
        std::fs::create_dir(directory)?;
        own(directory, 0o755)?;
    }
    File::create(private.join("agent"))?;
    own(&private.join("agent"), 0o755)?;
    std::fs::create_dir(files.work())?;
    own(&files.work(), 0o700)?;
    run_dir::make(&files.run(), 0o700, memory_mib, outside.is_some() && run_dir::may_mount())?;
    own(&run_dir::shared(&files.run()), 0o700)
}

/// Makes the directory of what the box changes, which is its root where it cannot be laid over the image.
pub(super) fn make_upper(files: &BoxDir, outside: Option<&Outside>) -> io::Result<()> {
    let upper = files.upper();
    std::fs::create_dir(&upper)?;
    std::fs::set_permissions(&upper, Permissions::from_mode(0o755))?;
    outside.map_or(Ok(()), |outside| outside.give(&upper))
}

/// Copies an image, for a box that cannot lay itself over it.
pub(super) async fn copy_root(rootfs: &Path, files: &BoxDir, outside: Option<&Outside>) -> io::Result<()> {
    let mut confinement = Confinement::inside(outside)?;
    let from = confinement.bind(rootfs, "image")?;
    let to = confinement.bind(&files.upper(), "root")?;
    let mut command = Command::new("cp");
    command
        .args(["--archive", "--reflink=auto", "--no-target-directory"])
        .args([from, to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(files.log())?)
        .kill_on_drop(true);
    confinement.apply(&mut command);
    let status = command.spawn()?.wait().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("cp: {status}"))) }
}

/// Starts the box. The child is bwrap, which ends when the box does.
pub(super) fn launch(
    config: &BubblewrapConfig,
    outside: Option<&Outside>,
    mode: RootMode,
    image: &Image,
    files: &BoxDir,
    (cgroups, groups): (Vec<OwnedFd>, &[(PathBuf, String)]),
    order: &BoxOrder,
) -> io::Result<Child> {
    let mut confinement = Confinement::new(outside)?;
    confinement.cgroups = cgroups;
    let root = match mode {
        RootMode::Mapped => {
            let shown = outside.map_or(config.user, |outside| (outside.uid, outside.gid));
            let lower = confinement.show_as(&image.root, config.user, shown, "image")?;
            confinement.overlay(&lower, &files.upper(), &files.work(), "root")?
        }
        RootMode::Overlay => confinement.overlay(&image.root, &files.upper(), &files.work(), "root")?,
        RootMode::Copy => confinement.bind(&files.upper(), "root")?,
    };
    let run = confinement.bind(&run_dir::shared(&files.run()), "run")?;
    let agent = confinement.bind(&config.agent_path, "agent")?;
    let filter = memory_file("seccomp", &seccomp::filter())?;
    let info = OwnedFd::from(File::create(files.info())?);

    let mut command = Command::new(&config.bwrap);
    // Not --die-with-parent: boxes outlive the process that made them.
    unshare(&mut command, outside, &mut confinement)?;
    command.args(["--cap-drop", "ALL"]);
    // With one user there is nothing to do with them, and nobody to become.
    if outside.is_some() {
        for name in privileges::capabilities(order.spec.capabilities) {
            command.args(["--cap-add", &format!("CAP_{name}")]);
        }
    }
    command.args(["--as-pid-1", "--new-session", "--hostname", &order.id.to_string()]);
    match order.spec.network {
        Network::None => {
            command.arg("--unshare-net");
        }
        Network::Bridge => {}
    }
    command.arg("--bind").arg(root).arg("/").args(["--proc", "/proc", "--dev", "/dev"]);
    kernel::hide(&mut command);
    let sizes = InMemory::of(order.spec.memory_mib, 0);
    // The devices themselves can be written all the same. What lies between them would have no limit.
    tmpfs(&mut command, sizes.map(|sizes| sizes.shm), "1777", "/dev/shm");
    command.args(["--remount-ro", "/dev"]);
    kernel::show(&mut command, groups, &mut confinement)?;
    tmpfs(&mut command, sizes.map(|sizes| sizes.tmp), "1777", "/tmp");
    if order.spec.read_only_root {
        tmpfs(&mut command, sizes.map(|sizes| sizes.workspace), "0755", inside::WORKSPACE);
    }
    let names = names::write(&mut command, &image.root, order)?;
    command.arg("--ro-bind").arg(agent).arg(inside::AGENT);
    command.arg("--bind").arg(run).arg(inside::RUN_DIR);
    if order.spec.network == Network::Bridge {
        command.args(["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]);
    }
    if order.spec.read_only_root {
        command.args(["--remount-ro", "/"]);
    }
    command.args(["--seccomp", &filter.as_raw_fd().to_string(), "--info-fd", &info.as_raw_fd().to_string()]);
    command.arg("--clearenv");
    for (name, value) in image.config.variables() {
        command.args(["--setenv", name, value]);
    }
    command.args(["--chdir", "/", "--"]);
    let users_can_change = outside.is_some() && privileges::users_can_change(order.spec.capabilities);
    command.args(inside::agent_command(order, &image.config, users_can_change));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(files.log())?);
    confinement.inherit.extend([filter, info]);
    confinement.inherit.extend(names);
    confinement.apply(&mut command);
    command.spawn()
}

/// The namespaces of a box, but for its network: the users are those of boxes, or this process's alone.
pub(super) fn unshare(
    command: &mut Command,
    outside: Option<&Outside>,
    confinement: &mut Confinement,
) -> io::Result<()> {
    match outside {
        Some(outside) => {
            let namespace = outside.ids()?.namespace.try_clone()?;
            command.args(["--userns", &namespace.as_raw_fd().to_string()]);
            confinement.inherit.push(namespace);
        }
        None => {
            command.arg("--unshare-user");
        }
    }
    command.args(["--uid", "0", "--gid", "0"]);
    command.args(["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]);
    Ok(())
}

/// What is in it counts as memory of the box.
fn tmpfs(command: &mut Command, size: Option<u64>, mode: &str, target: &str) {
    command.args(["--perms", mode]);
    if let Some(size) = size {
        command.args(["--size", &size.to_string()]);
    }
    command.args(["--tmpfs", target]);
}

/// How far the kernel and the file system let us lay a box over an image. It needs root.
pub(super) async fn root_mode(config: &BubblewrapConfig, outside: Option<&Outside>) -> RootMode {
    let Some(outside) = outside else { return RootMode::Copy };
    for mode in [RootMode::Mapped, RootMode::Overlay] {
        if try_overlay(config, outside, mode).await.unwrap_or(false) {
            return mode;
        }
    }
    RootMode::Copy
}

/// Writes to a file of an image, as a box would.
async fn try_overlay(config: &BubblewrapConfig, outside: &Outside, mode: RootMode) -> io::Result<bool> {
    let own = match mode {
        RootMode::Mapped => {
            let (uid, gid) = (config.user.0.checked_add(ids::COUNT), config.user.1.checked_add(ids::COUNT));
            &outside.with_ids(uid.zip(gid).ok_or(io::ErrorKind::InvalidInput)?)?
        }
        RootMode::Overlay | RootMode::Copy => outside,
    };
    // Where the images are: their file system may be another than that of the boxes.
    let name = format!("trial-{}", uuid::Uuid::now_v7().simple());
    let (image, changes) = (config.image_dir.join(&name), config.data_dir.join(&name));
    let outcome = async {
        for directory in [&image, &changes, &changes.join("upper"), &changes.join("work")] {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let (lower, upper, work) = (image.join("lower"), changes.join("upper"), changes.join("work"));
        std::fs::create_dir(&lower)?;
        File::create(lower.join("file"))?;
        outside.give(&lower)?;
        outside.give(&lower.join("file"))?;
        own.give(&upper)?;
        own.give(&work)?;
        let mut confinement = Confinement::new(Some(own))?;
        let lower = match mode {
            RootMode::Mapped => confinement.show_as(&lower, config.user, (own.uid, own.gid), "image")?,
            RootMode::Overlay | RootMode::Copy => lower,
        };
        let root = confinement.overlay(&lower, &upper, &work, "root")?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo >>\"$0\""]).arg(root.join("file"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        confinement.apply(&mut command);
        Ok(command.status().await?.success())
    };
    let outcome = outcome.await;
    let remover = Remover::new(&config.agent_path);
    for left in [&image, &changes] {
        if let Removed::Stays(error) = remover.remove(left, TRIAL_REMOVAL).await {
            tracing::warn!(path = %left.display(), error = %error, "a trial was not removed");
        }
    }
    outcome
}
