use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use agent::client::{Client, Peer, UnixConnect};
use events::{Network, SandboxId};
use rustix::fs::{FlockOperation, Mode, OFlags};
use tokio::process::Child;
use tokio::sync::watch;

use super::cgroup::Limits;
use super::confine::Outside;
use super::ids::own_range;
use super::images::Image;
use super::record::{BoxDir, Process, Record};
use super::{BubblewrapProvider, launch};
use crate::provider::{
    BoxHandle, BoxOrder, BoxStats, CreateError, DestroyError, ListError, Source, StatsError,
};
use crate::providers::arrival::agent_answers;
use crate::providers::run_dir;
use crate::providers::trash::Trash;

/// Where the boxes are in the data directory.
pub(super) const DIRECTORY: &str = "boxes";
/// Between the two samples of a rate.
const STATS_INTERVAL: Duration = Duration::from_millis(100);
/// How long a killed agent may take to go. It takes milliseconds, unless the disk hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer waits for the files of a box to be gone. It takes milliseconds, unless the work in it left a great many:
/// those go by themselves.
const NOTICEABLE: Duration = Duration::from_secs(1);
/// How much of what bwrap said goes into an error.
const LOG_EXCERPT: u64 = 500;
/// What it does not have, and who has it.
const NO_BRIDGE: &str = "network \"bridge\": docker has one, and with providers.bubblewrap.host_network the host's is given for it";

impl BubblewrapProvider {
    pub(super) async fn create_box(&self, order: &BoxOrder) -> Result<BoxHandle, CreateError> {
        self.check(order)?;
        let deadline = tokio::time::Instant::now() + order.make_within;
        let late = |_| CreateError::DeadlinePassed;
        // Outside the lock of the box: this may take long, and other boxes have the same image.
        let image = self.images.rootfs(&self.config, self.outside.as_ref(), &order.spec.image);
        let image = tokio::time::timeout_at(deadline, image).await.map_err(late)??;
        let failed = |error: io::Error| CreateError::here(error);
        let lock = tokio::time::timeout_at(deadline, self.lock(order.id, true)).await.map_err(late)?;
        let _lock = lock.map_err(failed)?;
        if let Some(handle) = self.existing(order.id).await? {
            return Ok(handle);
        }
        let outcome = tokio::time::timeout_at(deadline, self.bring_up(order, &image)).await.map_err(late);
        let outcome = outcome.and_then(|made| made);
        if outcome.is_err()
            && let Err(error) = self.clear(order.id, Keep::Nothing).await
        {
            tracing::warn!(
                sandbox.id = %order.id,
                error = &error as &dyn std::error::Error,
                "a half-made sandbox could not be removed"
            );
        }
        outcome
    }

    fn check(&self, order: &BoxOrder) -> Result<(), CreateError> {
        if order.time_left.is_zero() {
            return Err(CreateError::DeadlinePassed);
        }
        if let Some(runtime) = &order.spec.runtime {
            return Err(CreateError::Unsupported { what: format!("runtime {runtime:?}") });
        }
        match order.spec.network {
            Network::Bridge if !self.config.host_network => {
                Err(CreateError::Unsupported { what: NO_BRIDGE.to_owned() })
            }
            Network::Bridge | Network::None => Ok(()),
        }
    }

    /// The box that a former call made, if it runs.
    async fn existing(&self, id: SandboxId) -> Result<Option<BoxHandle>, CreateError> {
        let handle = self.handle(id).map_err(CreateError::here)?;
        if !handle.running {
            return Ok(None);
        }
        match Client::with(handle.agent.clone()).ping().await {
            Ok(_) => Ok(Some(handle)),
            Err(error) => Err(CreateError::AgentUnreachable(Box::new(error))),
        }
    }

    async fn bring_up(&self, order: &BoxOrder, image: &Image) -> Result<BoxHandle, CreateError> {
        let _turn = order.turns.launch(&order.tenant).await;
        let failed = |error: io::Error| CreateError::here(error);
        let files = self.files(order.id);
        self.clear(order.id, Keep::Directory).await.map_err(failed)?;
        let mode =
            *self.root_mode.get_or_init(|| launch::root_mode(&self.config, self.outside.as_ref())).await;
        let (mode, outside) = self.users_of(order.id, mode).map_err(failed)?;
        launch::make_upper(&files, outside.as_ref()).map_err(failed)?;
        if mode == launch::RootMode::Copy {
            launch::copy_root(&image.root, &files, outside.as_ref()).await.map_err(failed)?;
        }
        launch::prepare(&files, outside.as_ref(), &self.trash, order.spec.memory_mib).map_err(failed)?;
        let (cgroups, groups) = match &*self.cgroups {
            Ok(cgroups) => {
                let entries = cgroups.create(order.id, Limits::of(&order.spec)).map_err(failed)?;
                (entries, cgroups.shown(order.id))
            }
            Err(_) => (Vec::new(), Vec::new()),
        };
        let cgroups = (cgroups, &*groups);
        let launched = launch::launch(&self.config, outside.as_ref(), mode, image, &files, cgroups, order);
        let child = launched.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                CreateError::Unavailable(Box::new(error))
            } else {
                CreateError::here(with_log(error, &files))
            }
        })?;
        let ended = watch_child(child);
        let look = || std::future::ready(ended.borrow().map(|status| over(status, &files)));
        let way = || UnixConnect::new(run_dir::socket(&files.run())).into();
        agent_answers(way, look).await.map_err(CreateError::AgentUnreachable)?;
        let agent = files.agent().map_err(failed)?;
        run_dir::keep_socket(&files.run()).await.map_err(failed)?;
        if outside.is_some() && order.spec.network == Network::None {
            agent.open_low_ports().map_err(failed)?;
        }
        files.write_record(&Record { agent, spec: order.spec.clone() }).map_err(failed)?;
        self.handle(order.id).map_err(failed)
    }

    /// Users and groups of the box's own, where an image can be shown as theirs and some are free; else those that all
    /// boxes have.
    fn users_of(
        &self,
        id: SandboxId,
        mode: launch::RootMode,
    ) -> io::Result<(launch::RootMode, Option<Outside>)> {
        let shared = self.outside.clone();
        match (mode, &shared) {
            (launch::RootMode::Mapped, Some(outside)) => {
                let directory = self.config.data_dir.join("ids");
                match own_range(&directory, &self.boxes_dir(), self.config.user, id)? {
                    Some(range) => Ok((mode, Some(outside.with_ids(range)?))),
                    None => Ok((launch::RootMode::Overlay, shared)),
                }
            }
            (launch::RootMode::Mapped | launch::RootMode::Overlay | launch::RootMode::Copy, _) => {
                Ok((mode, shared))
            }
        }
    }

    pub(super) async fn destroy_box(&self, id: SandboxId) -> Result<(), DestroyError> {
        let failed = |error: io::Error| DestroyError::Failed(Box::new(error));
        let _lock = match self.lock(id, false).await {
            Ok(lock) => Some(lock),
            // Only a control group may be left then.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        self.clear(id, Keep::Nothing).await.map_err(failed)
    }

    /// Ends whatever runs of the box and removes its files. The caller holds the box's lock.
    async fn clear(&self, id: SandboxId, keep: Keep) -> io::Result<()> {
        let files = self.files(id);
        let agent = files.record()?.map(|record| record.agent).or_else(|| files.agent().ok());
        let (cgroups, trash) = (self.cgroups.clone(), self.trash.clone());
        let work = move || {
            if let Some(agent) = agent {
                end(&agent)?;
            }
            if let Ok(cgroups) = &*cgroups {
                cgroups.destroy(id)?;
            }
            run_dir::release(&files.run())?;
            match keep {
                Keep::Directory => empty(files.path(), &trash).map(|()| None),
                // At once: a box must not show up half removed, and its files may take a while.
                Keep::Nothing => trash.throw(files.path()),
            }
        };
        if let Some(thrown) = tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?? {
            thrown.gone(NOTICEABLE).await;
        }
        Ok(())
    }

    pub(super) fn list_boxes(&self) -> Result<Vec<BoxHandle>, ListError> {
        // What a former process left half removed.
        self.trash.go_on();
        let failed = |error: io::Error| ListError(Box::new(error));
        let mut boxes = Vec::new();
        for entry in std::fs::read_dir(self.boxes_dir()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.parse().ok()) {
                boxes.push(self.handle(id).map_err(failed)?);
            }
        }
        Ok(boxes)
    }

    pub(super) async fn box_stats(&self, id: SandboxId) -> Result<BoxStats, StatsError> {
        let failed = |error: io::Error| StatsError::Failed(Box::new(error));
        let cgroups = (*self.cgroups).as_ref().map_err(|_| StatsError::Unsupported)?;
        if !self.handle(id).map_err(failed)?.running {
            return Err(StatsError::NotRunning);
        }
        let sample = || cgroups.usage(id).map_err(failed)?.ok_or(StatsError::NotRunning);
        let (first, began) = (sample()?, Instant::now());
        tokio::time::sleep(STATS_INTERVAL).await;
        let (second, elapsed) = (sample()?, began.elapsed());
        Ok(BoxStats {
            cpu_pct: second.cpu.saturating_sub(first.cpu).as_secs_f64() / elapsed.as_secs_f64() * 100.0,
            mem_bytes: second.memory_bytes,
            mem_limit_bytes: second.memory_limit_bytes,
        })
    }

    /// What the files of a box say.
    fn handle(&self, id: SandboxId) -> io::Result<BoxHandle> {
        let files = self.files(id);
        let agent = files.record()?.map(|record| record.agent);
        Ok(BoxHandle {
            id,
            provider: self.config.name.clone(),
            running: agent.as_ref().is_some_and(Process::runs),
            runtime_id: agent.as_ref().map(Process::runtime_id).unwrap_or_default(),
            agent: UnixConnect::to(
                run_dir::socket(&files.run()),
                agent.as_ref().map_or(Peer::Anybody, Process::peer),
            )
            .into(),
            // There is no bridge: with `host_network` it has the host's addresses.
            address: None,
        })
    }

    pub(super) fn boxes_dir(&self) -> PathBuf {
        self.config.data_dir.join(DIRECTORY)
    }

    fn files(&self, id: SandboxId) -> BoxDir {
        BoxDir::new(self.boxes_dir().join(id.to_string()))
    }

    /// Keeps other creates and destroys of this box out, those of other processes too. Without `make` it fails with
    /// `NotFound` for a box that is not there.
    async fn lock(&self, id: SandboxId, make: bool) -> io::Result<Lock> {
        let path = self.files(id).path().to_owned();
        loop {
            if make
                && let Err(error) = std::fs::create_dir(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error);
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(directory) => directory,
                Err(rustix::io::Errno::NOENT) if make => continue,
                Err(error) => return Err(error.into()),
            };
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                // It may have been removed, and made anew, since it was opened.
                Ok(()) if same(&directory, &path) => return Ok(Lock(directory)),
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What `clear` leaves.
enum Keep {
    Nothing,
    /// The box's directory, empty: the caller's lock is on it.
    Directory,
}

struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough while a child that was just forked still has a copy.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn same(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(opened), Ok(there)) = (rustix::fs::fstat(directory), std::fs::metadata(path)) else {
        return false;
    };
    (opened.st_dev, opened.st_ino) == (there.dev(), there.ino())
}

fn end(agent: &Process) -> io::Result<()> {
    agent.kill()?;
    let give_up_at = Instant::now() + PATIENCE;
    while agent.runs() {
        if Instant::now() >= give_up_at {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the agent does not go"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn empty(directory: &Path, trash: &Trash) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            trash.throw(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Reaps bwrap whenever it ends, and tells who is still interested.
fn watch_child(mut child: Child) -> watch::Receiver<Option<ExitStatus>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let status = child.wait().await.unwrap_or_default();
        sender.send_replace(Some(status));
    });
    receiver
}

fn over(status: ExitStatus, files: &BoxDir) -> Source {
    with_log(io::Error::other(format!("the box ended at once: {status}")), files)
}

fn with_log(error: io::Error, files: &BoxDir) -> Source {
    let mut log = Vec::new();
    if let Ok(file) = std::fs::File::open(files.log()) {
        // What cannot be read is not said.
        let _ = file.take(LOG_EXCERPT).read_to_end(&mut log);
    }
    let said = String::from_utf8_lossy(&log).into_owned();
    if said.is_empty() { Box::new(error) } else { format!("{error}: {}", said.trim_end()).into() }
}
