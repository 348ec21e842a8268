use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use events::Network;
use tokio::process::{Child, Command};

use super::BubblewrapConfig;
use super::confine::{Confinement, Outside, memory_file};
use super::record::BoxDir;
use crate::provider::BoxOrder;
use crate::providers::{inside, seccomp};

/// How a box gets a root file system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootMode {
    /// The image below, the box's changes above: nothing is copied.
    Overlay,
    /// A copy of the image.
    Copy,
}

/// Makes the files of a box that bwrap needs. The image's root goes in later.
pub(super) fn prepare(files: &BoxDir, outside: Option<&Outside>) -> io::Result<()> {
    let own = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        match outside {
            Some(outside) => outside.give(path),
            None => Ok(()),
        }
    };
    let upper = files.upper();
    let private = upper.join(".stacyvm");
    for directory in [&upper, &private, &private.join("run"), &upper.join("workspace")] {
        std::fs::create_dir(directory)?;
        own(directory, 0o755)?;
    }
    File::create(private.join("agent"))?;
    own(&private.join("agent"), 0o755)?;
    std::fs::create_dir(files.work())?;
    own(&files.work(), 0o700)?;
    std::fs::create_dir(files.run())?;
    own(&files.run(), 0o700)
}

/// Copies an image, for a box that cannot lay itself over it.
pub(super) async fn copy_root(rootfs: &Path, files: &BoxDir, outside: Option<&Outside>) -> io::Result<()> {
    let mut confinement = Confinement::new(outside)?;
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
    rootfs: &Path,
    files: &BoxDir,
    cgroups: Vec<OwnedFd>,
    order: &BoxOrder,
) -> io::Result<Child> {
    let mut confinement = Confinement::new(outside)?;
    confinement.cgroups = cgroups;
    let root = match mode {
        RootMode::Overlay => confinement.overlay(rootfs, &files.upper(), &files.work(), "root")?,
        RootMode::Copy => confinement.bind(&files.upper(), "root")?,
    };
    let run = confinement.bind(&files.run(), "run")?;
    let agent = confinement.bind(&config.agent_path, "agent")?;
    let filter = memory_file("seccomp", &seccomp::filter())?;
    let info = OwnedFd::from(File::create(files.info())?);

    let mut command = Command::new(&config.bwrap);
    // Not --die-with-parent: boxes outlive the process that made them.
    command.args(["--unshare-user", "--unshare-all", "--uid", "0", "--gid", "0", "--cap-drop", "ALL"]);
    command.args(["--as-pid-1", "--new-session", "--hostname", &order.id.to_string()]);
    if order.spec.network == Network::Bridge {
        command.arg("--share-net");
    }
    command.arg("--bind").arg(root).arg("/").args(["--proc", "/proc", "--dev", "/dev"]);
    tmpfs(&mut command, order, "1777", "/tmp");
    if order.spec.read_only_root {
        tmpfs(&mut command, order, "0755", inside::WORKSPACE);
    }
    command.arg("--ro-bind").arg(agent).arg(inside::AGENT);
    command.arg("--bind").arg(run).arg(inside::RUN_DIR);
    if order.spec.network == Network::Bridge {
        command.args(["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]);
    }
    if order.spec.read_only_root {
        command.args(["--remount-ro", "/"]);
    }
    command.args(["--seccomp", &filter.as_raw_fd().to_string(), "--info-fd", &info.as_raw_fd().to_string()]);
    command.args([
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]);
    command.args(["--setenv", "HOME", "/root", "--setenv", "LANG", "C.UTF-8", "--chdir", "/", "--"]);
    command.args(inside::agent_command(order.time_left));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(files.log())?);
    confinement.inherit.extend([filter, info]);
    confinement.apply(&mut command);
    command.spawn()
}

/// What is in it counts as memory of the box.
fn tmpfs(command: &mut Command, order: &BoxOrder, mode: &str, target: &str) {
    command.args(["--perms", mode]);
    if order.spec.memory_mib > 0 {
        command.args(["--size", &(u64::from(order.spec.memory_mib) << 20).to_string()]);
    }
    command.args(["--tmpfs", target]);
}

/// Whether the kernel lets us lay a box over an image: it needs root, and a file system that does it.
pub(super) async fn root_mode(data_dir: &Path, outside: Option<&Outside>) -> RootMode {
    match try_overlay(data_dir, outside).await {
        Ok(true) => RootMode::Overlay,
        Ok(false) | Err(_) => RootMode::Copy,
    }
}

async fn try_overlay(data_dir: &Path, outside: Option<&Outside>) -> io::Result<bool> {
    if outside.is_none() {
        return Ok(false);
    }
    let trial = data_dir.join(format!("trial-{}", uuid::Uuid::now_v7().simple()));
    let outcome = async {
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(trial.join(name))?;
        }
        let mut confinement = Confinement::new(outside)?;
        confinement.overlay(&trial.join("lower"), &trial.join("upper"), &trial.join("work"), "root")?;
        let mut command = Command::new("true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        confinement.apply(&mut command);
        Ok(command.status().await?.success())
    };
    let outcome = outcome.await;
    let _ = std::fs::remove_dir_all(&trial);
    outcome
}
