use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub const SIGSTOP: i32 = 19;
pub const SIGCONT: i32 = 18;

/// A child process that is gone when this is dropped.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal(15);
        self.child.wait().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// With which code it has ended by itself, if it has.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many files it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The static agent: STACYVM_AGENT, or what `make agent` leaves in dist/.
pub fn agent() -> PathBuf {
    let path = std::env::var_os("STACYVM_AGENT")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/stacyvm-agent"));
    path.canonicalize()
        .unwrap_or_else(|error| panic!("no agent at {}: {error}; run `make agent`", path.display()))
}

/// Names that clients use by default, and the image that `scripts/setup` makes: no registry is asked in a test, and no image
/// of this machine's engine carries a name that is not its own.
const STAND_INS: &str = "alpine:latest=stacyvm/base:local,python:3.12=stacyvm/base:local";

/// The server binary with a clean environment.
pub fn stacyvm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stacyvm"));
    for (name, _) in std::env::vars() {
        if name.starts_with("STACYVM_") {
            command.env_remove(name);
        }
    }
    command.env("STACYVM_AGENT", agent());
    command.env("STACYVM_PROVIDERS_DOCKER_IMAGE_ALIASES", STAND_INS);
    if let Some(rules) = std::env::var_os("STACYVM_TEST_LOG") {
        command.env("RUST_LOG", rules);
    }
    command
}

/// SIGKILL to a process that is not a child of ours, and waits until it is gone.
pub fn kill(pid: u32) {
    signal(pid, 9);
    while std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A signal to a process that is not a child of ours.
pub fn signal(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
}
