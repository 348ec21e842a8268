//! The nats-server that `serve` starts, watches and stops: on a loopback port, with a random credential.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::installation::secret;

/// How long after it ended it is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const USER: &str = "stacyvm";

/// A child that is kept running until this is dropped or stopped.
pub struct NatsServer {
    pub url: String,
    pub credentials: (String, String),
    stopping: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    keeper: Option<std::thread::JoinHandle<()>>,
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
        Ok(Self { url: format!("nats://127.0.0.1:{port}"), credentials, stopping, pid, keeper: Some(keeper) })
    }

    /// Ends it, and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopping.store(true, Ordering::Release);
        terminate(self.pid.load(Ordering::Acquire));
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
    loop {
        let mut child = match spawn(binary, config, dir) {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(error = %format!("{error:#}"), "nats-server does not start");
                if first.send(Err(error)).is_err() {
                    std::thread::sleep(Duration::from_secs(1));
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
        tracing::error!(?status, "nats-server ended; starting it again");
        std::thread::sleep(RESTART_PAUSE);
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
    // "always": a write is on disk before it is acknowledged. The default loses two minutes with the power.
    write!(
        file,
        "server_name: stacyvm\nlisten: \"127.0.0.1:{port}\"\nmax_payload: 8MB\nmax_pending: 64MB\n\
         write_deadline: \"30s\"\n\
         authorization {{ user: \"{USER}\", password: \"{password}\" }}\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always, max_memory_store: 64MB }}\n",
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
