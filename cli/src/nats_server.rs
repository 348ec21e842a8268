//! The nats-server that `serve` starts, watches and stops: on a loopback port, with a random credential.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use tokio_util::sync::CancellationToken;
use transport::{Log, TransportTrouble};

use crate::installation::secret;

/// How long after it ended it is started again; longer when it ends as soon as it is started.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const FAILING_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long it may be silent, or take no writes though it could, before it is ended and started again.
const SILENCE: Duration = Duration::from_millis(2_500);
/// How long it may take to read its store again after a start before silence means anything.
const STARTING: Duration = Duration::from_secs(20);
/// Between two ends: what a new start has not mended the next one may.
const BETWEEN: Duration = Duration::from_secs(4);
/// What must fit into its directory before it is started again for want of room.
const TRIAL_BYTES: usize = 256 << 10;
/// How long it may take to end when it is asked to. One that is frozen never does.
const STOPPING: Duration = Duration::from_secs(5);
const USER: &str = "stacyvm";

/// A child that is kept running until this is dropped or stopped.
pub struct NatsServer {
    pub url: String,
    pub credentials: (String, String),
    stopping: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    dir: PathBuf,
    keeper: Option<std::thread::JoinHandle<()>>,
}

/// Ends the child when it does not do its work any more though it runs: its keeper starts it again.
pub struct Guard {
    pid: Arc<AtomicU32>,
    dir: PathBuf,
}

impl Guard {
    /// Watches until `stop`.
    pub async fn run(self, log: Log, stop: CancellationToken) {
        let mut watched = Watched { pid: 0, since: Instant::now(), answered: false };
        let mut troubled: Option<(TransportTrouble, Instant)> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let pid = self.pid.load(Ordering::Acquire);
            if pid != watched.pid {
                watched = Watched { pid, since: Instant::now(), answered: false };
            }
            watched.answered |= log.is_connected();
            let Some(trouble) = log.trouble() else {
                troubled = None;
                continue;
            };
            let since = match troubled {
                Some((known, since)) if known == trouble => since,
                _ => Instant::now(),
            };
            troubled = Some((trouble, since));
            let patience = match trouble {
                TransportTrouble::Stuck => LOOK,
                TransportTrouble::Unreachable if watched.answered => SILENCE,
                // One that reads a large store answers late.
                TransportTrouble::Unreachable | TransportTrouble::Off | TransportTrouble::Leaderless => {
                    STARTING
                }
            };
            if pid == 0 || since.elapsed() < patience || watched.since.elapsed() < BETWEEN.max(patience) {
                continue;
            }
            // Without room it would be as stuck as before.
            if !self.can_write().await {
                continue;
            }
            // A disk that only paused has let go of both meanwhile.
            if log.trouble() != Some(trouble) || log.proven_at().into_std() > since {
                continue;
            }
            tracing::error!(
                reason = trouble.code(),
                "nats-server does not do its work: ending it, to start it again"
            );
            kill(pid);
            troubled = None;
        }
    }

    /// Whether something can be written where its store is: that is known by trying only.
    async fn can_write(&self) -> bool {
        let dir = self.dir.join("store");
        let tried = tokio::task::spawn_blocking(move || {
            let path = dir.join(".trial");
            let written = std::fs::File::create(&path).and_then(|mut file| {
                file.write_all(&vec![0x5a; TRIAL_BYTES])?;
                file.sync_all()
            });
            let _ = std::fs::remove_file(&path);
            written.is_ok()
        });
        tried.await.unwrap_or(false)
    }
}

/// The child as it was last seen.
struct Watched {
    pid: u32,
    since: Instant,
    /// Whether it has answered since it was started.
    answered: bool,
}

impl NatsServer {
    /// Starts it with its store in `dir`.
    pub fn start(dir: &Path, binary: Option<&Path>) -> anyhow::Result<Self> {
        let binary = find(binary)?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        end_leftover(dir);
        // Asked of the kernel and given back: nats-server itself cannot say which port it took. It keeps the port when
        // it is started again, so that connections find it.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr())?.port();
        let password = secret()?;
        let config = write_config(dir, port, &password)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let pid = Arc::new(AtomicU32::new(0));
        let (first, started) = mpsc::channel();
        let keeper = {
            let (stopping, pid, dir) = (Arc::clone(&stopping), Arc::clone(&pid), dir.to_owned());
            // A thread of its own, because the kernel ties a child's parent-death signal to the thread that made it.
            std::thread::Builder::new().name("nats-server".to_owned()).spawn(move || {
                keep(&binary, &config, &dir, &stopping, &pid, &first);
            })?
        };
        started.recv().context("the nats-server thread ended")??;
        let credentials = (USER.to_owned(), password);
        let url = format!("nats://127.0.0.1:{port}");
        Ok(Self { url, credentials, stopping, pid, dir: dir.to_owned(), keeper: Some(keeper) })
    }

    /// What watches that it does its work.
    pub fn guard(&self) -> Guard {
        Guard { pid: Arc::clone(&self.pid), dir: self.dir.clone() }
    }

    /// Ends it, and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopping.store(true, Ordering::Release);
        let asked = Instant::now();
        terminate(self.pid.load(Ordering::Acquire));
        while self.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            if asked.elapsed() > STOPPING {
                kill(self.pid.load(Ordering::Acquire));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn keep(
    binary: &Path,
    config: &Path,
    dir: &Path,
    stopping: &AtomicBool,
    pid: &AtomicU32,
    first: &mpsc::Sender<anyhow::Result<()>>,
) {
    let mut said: Option<String> = None;
    let mut failing = false;
    loop {
        let began = Instant::now();
        let mut child = match spawn(binary, config, dir) {
            Ok(child) => child,
            Err(error) => {
                let text = format!("{error:#}");
                if said.as_ref() != Some(&text) {
                    tracing::error!(error = %text, "nats-server does not start; trying again");
                }
                said = Some(text);
                if first.send(Err(error)).is_err() {
                    std::thread::sleep(FAILING_PAUSE);
                }
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                continue;
            }
        };
        pid.store(child.id(), Ordering::Release);
        let _ = std::fs::write(dir.join("pid"), child.id().to_string());
        let _ = first.send(Ok(()));
        if stopping.load(Ordering::Acquire) {
            terminate(child.id());
        }
        let status = child.wait();
        pid.store(0, Ordering::Release);
        if stopping.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(dir.join("pid"));
            return;
        }
        // One that cannot begin for want of room says so in its own log, again and again.
        let fails = began.elapsed() < FAILING_PAUSE;
        if !(fails && failing) {
            tracing::error!(?status, "nats-server ended; starting it again");
        }
        failing = fails;
        std::thread::sleep(if fails { FAILING_PAUSE } else { RESTART_PAUSE });
    }
}

#[allow(unsafe_code, reason = "pre_exec is the only way to ask for a signal when the parent dies")]
fn spawn(binary: &Path, config: &Path, dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("nats-server.log"))?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: prctl is async-signal-safe, and nothing is allocated or locked between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Its writes are on disk before they are acknowledged, so it may end the hard way; what it must not do is
            // outlive us and share its store with the next one.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // Ctrl-C goes to the whole group; it is ours to end it, after the last event.
            rustix::process::setpgid(None, None)?;
            Ok(())
        });
    }
    command.spawn().with_context(|| format!("cannot run {}", binary.display()))
}

/// The hard way: one that is frozen hears nothing else, and its writes are on disk before they are acknowledged.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// One that outlived its parent all the same would share the store with ours.
fn end_leftover(dir: &Path) {
    let Ok(pid) = std::fs::read_to_string(dir.join("pid")) else {
        return;
    };
    let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    let ours = dir.join("nats.conf");
    let is_it = |pid: rustix::process::Pid| {
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*ours.to_string_lossy()))
    };
    for attempt in 0..100 {
        if !is_it(pid) {
            return;
        }
        if attempt == 0 {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn write_config(dir: &Path, port: u16, password: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join("nats.conf");
    let store = dir.join("store");
    let _ = std::fs::remove_file(&path);
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
    // The limits of the streams are what counts, and the floor of free room. Without one of its own the server would take
    // three quarters of what is free when it starts, and after a full disk its streams would not fit any more.
    // "always": a write is on disk before it is acknowledged. The default loses two minutes with the power.
    write!(
        file,
        "server_name: stacyvm\nlisten: \"127.0.0.1:{port}\"\nmax_payload: 8MB\nmax_pending: 64MB\n\
         write_deadline: \"30s\"\n\
         authorization {{ user: \"{USER}\", password: \"{password}\" }}\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always, max_memory_store: 64MB, \
         max_file_store: 1TB }}\n",
        store.display()
    )?;
    Ok(path)
}

fn find(configured: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = configured {
        return Ok(path.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("nats-server")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = beside
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join("nats-server")))
        .find(|candidate| candidate.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "nats-server is not installed: run scripts/setup, put it into PATH, set nats.server_path, or name a running \
             one with --nats"
        ),
    }
}
