use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::Process;

/// A Docker engine of our own, beside that of the machine: its death is nobody else's business.
pub struct Dockerd {
    process: Process,
    dir: tempfile::TempDir,
    more: Vec<String>,
}

impl Dockerd {
    /// Starts one that has the base image of `scripts/setup`.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that is started with these arguments too.
    pub fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("dockerd-").tempdir_in("/tmp").unwrap();
        let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
        let engine = Self { process: launch(dir.path(), &more), dir, more };
        engine.wait();
        let mut saved = Command::new("docker")
            .args(["save", "stacyvm/base:local"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let loaded = engine.docker().arg("load").stdin(saved.stdout.take().unwrap()).output().unwrap();
        assert!(saved.wait().unwrap().success(), "docker save failed");
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The names of all that it has, in order.
    pub fn images(&self) -> Vec<String> {
        let listed =
            self.docker().args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).output().unwrap().stdout;
        let mut names: Vec<_> = String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The runtimes of all its containers.
    pub fn runtimes(&self) -> Vec<String> {
        let listed = self.docker().args(["ps", "--all", "--quiet"]).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        let inspected = self
            .docker()
            .args(["inspect", "--format", "{{.HostConfig.Runtime}}"])
            .args(listed.lines())
            .output()
            .unwrap();
        String::from_utf8(inspected.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    pub fn kill(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_file(self.dir.path().join("pid"));
    }

    pub fn restart(&mut self) {
        self.process = launch(self.dir.path(), &self.more);
        self.wait();
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command
    }

    fn wait(&self) {
        let began = Instant::now();
        while !self.docker().arg("info").output().unwrap().status.success() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "dockerd does not answer:\n{}",
                self.process.log_text()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Asked nicely, it ends its containers and its containerd; killed, it would leave both behind.
        self.process.terminate();
        // An engine mounts its data root onto itself; one that was killed left that behind.
        let data = self.dir.path().join("data");
        while Command::new("umount")
            .arg(&data)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
        {}
    }
}

fn launch(dir: &Path, more: &[String]) -> Process {
    let mut command = Command::new("dockerd");
    let under = |name: &str| dir.join(name);
    command
        .arg("--data-root")
        .arg(under("data"))
        .arg("--exec-root")
        .arg(under("exec"))
        .arg("--pidfile")
        .arg(under("pid"))
        .arg("--host")
        .arg(format!("unix://{}", under("socket").display()))
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
        .args(more)
        .process_group(0);
    Process::start(command, &under("log"))
}
