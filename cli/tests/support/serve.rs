use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::api::Api;
use super::eventually;
use super::process::{Process, free_port, stacyvm};

/// `stacyvm serve` with a data directory of its own.
pub struct Serve {
    pub process: Process,
    pub api: Api,
    pub dir: tempfile::TempDir,
    port: u16,
    provider: String,
    environment: Vec<(String, String)>,
    /// How many files it may have open, soft and hard. None: as many as the test.
    descriptors: Option<u64>,
}

impl Serve {
    pub async fn start() -> Self {
        Self::with_provider("docker").await
    }

    pub async fn with_provider(provider: &str) -> Self {
        Self::with(provider, &[]).await
    }

    pub async fn with(provider: &str, environment: &[(&str, &str)]) -> Self {
        Self::with_config(provider, environment, "").await
    }

    /// With a configuration file.
    pub async fn with_config(provider: &str, environment: &[(&str, &str)], yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serve.log");
        Self::on(dir, log, provider, environment, yaml).await
    }

    /// In this directory, where disks may be mounted.
    pub async fn on(
        dir: tempfile::TempDir,
        log: PathBuf,
        provider: &str,
        environment: &[(&str, &str)],
        yaml: &str,
    ) -> Self {
        Self::begin((dir, log), provider, environment, yaml, None).await
    }

    /// One that may have no more than so many files open.
    pub async fn with_descriptors(provider: &str, descriptors: u64, yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("serve.log");
        Self::begin((dir, log), provider, &[], yaml, Some(descriptors)).await
    }

    async fn begin(
        (dir, log): (tempfile::TempDir, PathBuf),
        provider: &str,
        environment: &[(&str, &str)],
        yaml: &str,
        descriptors: Option<u64>,
    ) -> Self {
        std::fs::write(dir.path().join("stacyvm.yaml"), yaml).unwrap();
        let port = free_port();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = launch(&dir, &log, port, provider, &environment, descriptors);
        let provider = provider.to_owned();
        let serve = Self { process, api: Api::new(port), dir, port, provider, environment, descriptors };
        serve.wait_ready().await;
        serve
    }

    /// SIGKILL of the whole process, and a new one on the same data and port.
    pub async fn kill_and_restart(&mut self) {
        self.process.kill();
        let log = self.process.log.clone();
        self.process =
            launch(&self.dir, &log, self.port, &self.provider, &self.environment, self.descriptors);
        self.wait_ready().await;
    }

    pub async fn wait_ready(&self) {
        let ready = async || self.api.ready().await.then_some(());
        let began = std::time::Instant::now();
        while ready().await.is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "not ready:\n{}", self.process.log_text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The pid of its nats-server.
    pub fn nats_pid(&self) -> u32 {
        std::fs::read_to_string(self.dir.path().join("nats/pid")).unwrap().trim().parse().unwrap()
    }

    /// Containers of this installation that exist right now, by the name of their sandbox.
    pub fn containers(&self) -> Vec<String> {
        containers(&self.installation())
    }

    pub fn installation(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("installation")).unwrap_or_default().trim().to_owned()
    }

    /// Waits until a sandbox has no container any more.
    pub async fn container_gone(&self, sandbox: &str, patience: Duration) {
        eventually("the container is gone", patience, async || {
            (!self.containers().iter().any(|label| label == sandbox)).then_some(())
        })
        .await;
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let installation = self.installation();
        self.process.kill();
        remove_containers(&installation);
        super::leavings::remove(self.dir.path());
    }
}

fn launch(
    dir: &tempfile::TempDir,
    log: &Path,
    port: u16,
    provider: &str,
    environment: &[(String, String)],
    descriptors: Option<u64>,
) -> Process {
    let mut command = stacyvm();
    if let Some(most) = descriptors {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        // SAFETY: only a system call between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?));
        }
    }
    command
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--provider", provider, "--config"])
        .arg(dir.path().join("stacyvm.yaml"))
        .arg("--data-dir")
        .arg(dir.path())
        .envs(environment.iter().cloned());
    Process::start(command, log)
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("the docker client");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn containers(installation: &str) -> Vec<String> {
    let filter = format!("label=stacyvm.deployment={installation}");
    docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Label \"stacyvm.sandbox\"}}"])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Those in which something runs. One that ended by itself is there until an executor removes it.
pub fn running_containers(installation: &str) -> Vec<String> {
    let filter = format!("label=stacyvm.deployment={installation}");
    docker(&["ps", "--filter", &filter, "--format", "{{.Label \"stacyvm.sandbox\"}}"])
        .lines()
        .map(str::to_owned)
        .collect()
}

pub fn remove_containers(installation: &str) {
    if installation.is_empty() {
        return;
    }
    let filter = format!("label=stacyvm.deployment={installation}");
    let ids = docker(&["ps", "-aq", "--filter", &filter]);
    let parents = ids
        .lines()
        .map(|id| docker(&["inspect", "-f", "{{.HostConfig.CgroupParent}}", id]).trim().to_owned())
        .filter(|parent| parent.starts_with("/stacyvm-"))
        .collect::<std::collections::BTreeSet<_>>();
    for id in ids.lines() {
        docker(&["rm", "-f", id]);
    }
    // The engine leaves the groups of tenants; in the one tree of cgroup v2, or in each of v1.
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|tree| tree.path());
    for tree in trees.chain(["/sys/fs/cgroup".into()]) {
        for parent in &parents {
            let _ = std::fs::remove_dir(tree.join(parent.trim_start_matches('/')));
        }
    }
    // A server that ended in the middle leaves networks and the rules for them.
    for id in docker(&["network", "ls", "-q", "--filter", &filter]).lines() {
        let bridge = "{{index .Options \"com.docker.network.bridge.name\"}}";
        let bridge = docker(&["network", "inspect", id, "--format", bridge]);
        docker(&["network", "rm", id]);
        if let Some(prefix) = bridge.get(..8) {
            let _ =
                Command::new("nft").args(["delete", "table", "inet", &format!("stacyvm_{prefix}")]).output();
        }
    }
}
