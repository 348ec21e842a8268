//! A deployment whose processes can be killed, stopped and brought back one by one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use record::Record;
use sha2::{Digest, Sha256};

use crate::plan::{Fault, Role, Shape, TENANTS};
use crate::support::api::Api;
use crate::support::process::{Process, free_port, stacyvm};
use crate::support::services::Postgres;

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
const SIGKILL: i32 = 9;

pub struct Deployment {
    shape: Shape,
    processes: BTreeMap<Role, Process>,
    postgres: Option<Postgres>,
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    ports: Vec<u16>,
    nats_port: u16,
    database: String,
}

impl Deployment {
    pub async fn start(shape: Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("chaos-").tempdir().unwrap();
        let path = dir.path().to_owned();
        std::fs::write(path.join("stacyvm.yaml"), configuration()).unwrap();
        let postgres = (shape == Shape::Split).then(Postgres::start);
        let database = match &postgres {
            Some(postgres) => postgres.database("stacyvm"),
            None => format!("sqlite:{}", path.join("serve/events.db").display()),
        };
        let gateways = if shape == Shape::Split { 2 } else { 1 };
        let mut deployment = Self {
            shape,
            processes: BTreeMap::new(),
            postgres,
            dir: Some(dir),
            path,
            ports: (0..gateways).map(|_| free_port()).collect(),
            nats_port: free_port(),
            database,
        };
        deployment.start_missing();
        deployment.wait_ready().await;
        deployment
    }

    /// The roots of its gateways' routes.
    pub fn gateways(&self) -> Vec<String> {
        self.ports.iter().map(|port| Api::new(*port).base).collect()
    }

    pub fn dir(&self) -> &Path {
        &self.path
    }

    pub async fn store(&self) -> Record {
        store::open_store(&self.database).await.unwrap()
    }

    /// Resident memory of the gateways (or of the process that is one among other things), in KiB.
    pub fn gateways_rss_kib(&self) -> u64 {
        let gateways = [Role::GatewayA, Role::GatewayB, Role::Serve];
        gateways.iter().filter_map(|role| self.processes.get(role)).map(Process::rss_kib).max().unwrap_or(0)
    }

    pub async fn wait_ready(&self) {
        for port in &self.ports {
            let api = Api::new(*port);
            let began = Instant::now();
            while !api.ready().await {
                assert!(began.elapsed() < Duration::from_secs(90), "not ready, see {}", self.path.display());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Does it, and undoes it after `outage`.
    pub async fn inject(&mut self, fault: Fault, outage: Duration) {
        match fault {
            Fault::Kill(role) => {
                self.kill(role);
                tokio::time::sleep(outage).await;
            }
            Fault::Pause(role) => {
                self.signal(role, SIGSTOP);
                tokio::time::sleep(outage + Duration::from_millis(50)).await;
                self.signal(role, SIGCONT);
            }
            Fault::KillAll => {
                self.processes.retain(|role, _| *role == Role::Nats);
                tokio::time::sleep(outage).await;
            }
            Fault::WipeNats => {
                // Its keeper must not bring it back before the store is gone.
                self.signal(Role::Serve, SIGSTOP);
                self.kill(Role::Nats);
                remove_all(&self.nats_store());
                self.signal(Role::Serve, SIGCONT);
                tokio::time::sleep(outage).await;
            }
            Fault::CrashDatabase => {
                if let Some(postgres) = &mut self.postgres {
                    tokio::task::block_in_place(|| postgres.crash_and_restart());
                }
            }
        }
        self.start_missing();
    }

    /// The boxes that run right now, of those that are asked about.
    pub fn running_boxes(sandboxes: &[String]) -> Vec<String> {
        let mut running = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let host = words.iter().position(|word| *word == b"--hostname").and_then(|at| words.get(at + 1));
            let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) else { continue };
            if sandboxes.iter().any(|sandbox| sandbox == host) {
                running.push(host.to_owned());
            }
        }
        running
    }

    /// All boxes that there are files of.
    pub fn boxes(&self) -> Vec<String> {
        let owner = if self.shape == Shape::Split { "executor" } else { "serve" };
        let Ok(entries) = std::fs::read_dir(self.path.join(owner).join("bubblewrap/boxes")) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        // What is being removed is no box any more.
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// Leaves all files where they are.
    pub fn keep_files(&mut self) {
        if let Some(dir) = self.dir.take() {
            let _ = dir.keep();
        }
    }

    fn nats_store(&self) -> PathBuf {
        match self.shape {
            Shape::Split => self.path.join("nats"),
            Shape::Serve => self.path.join("serve/nats/store"),
        }
    }

    fn kill(&mut self, role: Role) {
        match self.processes.remove(&role) {
            Some(mut process) => process.kill(),
            None => self.signal(role, SIGKILL),
        }
    }

    fn signal(&self, role: Role, signal: i32) {
        if let Some(process) = self.processes.get(&role) {
            process.signal(signal);
        } else if role == Role::Nats
            && let Ok(pid) = std::fs::read_to_string(self.path.join("serve/nats/pid"))
            && let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
            && is_nats(pid)
        {
            let _ =
                rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap());
            if signal == SIGKILL {
                while is_nats(pid) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    fn start_missing(&mut self) {
        let wanted: &[Role] = match self.shape {
            Shape::Split => {
                &[Role::Nats, Role::Recorder, Role::Executor, Role::GatewayA, Role::GatewayB, Role::Reaper]
            }
            Shape::Serve => &[Role::Serve],
        };
        for role in wanted {
            if !self.processes.contains_key(role) {
                let process = self.launch(*role);
                self.processes.insert(*role, process);
            }
        }
    }

    fn launch(&self, role: Role) -> Process {
        let (verb, name, port) = match role {
            Role::GatewayA => ("gateway", "gateway-a", self.ports[0]),
            Role::GatewayB => ("gateway", "gateway-b", self.ports[1]),
            Role::Executor => ("executor", "executor", self.ports[0]),
            Role::Recorder => ("recorder", "recorder", self.ports[0]),
            Role::Reaper => ("reaper", "reaper", self.ports[0]),
            Role::Serve => ("serve", "serve", self.ports[0]),
            Role::Nats => return self.launch_nats(),
        };
        let mut command = stacyvm();
        command
            .arg(verb)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--provider", "bubblewrap", "--config"])
            .arg(self.path.join("stacyvm.yaml"))
            .arg("--data-dir")
            .arg(self.path.join(name));
        if role != Role::Serve {
            command.args(["--nats", &format!("nats://127.0.0.1:{}", self.nats_port)]);
            command.args(["--database", &self.database]);
        }
        Process::start(command, &self.path.join(format!("{name}.log")))
    }

    fn launch_nats(&self) -> Process {
        let config = self.path.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nmax_payload: 8MB\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            self.nats_port,
            self.nats_store().display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("--config").arg(&config);
        Process::start(command, &self.path.join("nats.log"))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            // A stopped one would not hear that it shall go.
            process.signal(SIGCONT);
            process.kill();
        }
        for owner in ["executor", "serve"] {
            crate::support::leavings::remove(&self.path.join(owner));
        }
        if std::thread::panicking() {
            self.keep_files();
        }
    }
}

fn is_nats(pid: rustix::process::Pid) -> bool {
    std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| {
        line.starts_with(b"nats-server") || String::from_utf8_lossy(&line).contains("/nats-server")
    })
}

/// The key of a tenant.
pub fn key_of(tenant: usize) -> String {
    format!("key-of-{}", TENANTS[tenant])
}

fn configuration() -> String {
    let keys: String = (0..TENANTS.len())
        .map(|tenant| {
            let hash = hex::encode(Sha256::digest(key_of(tenant)));
            let name = TENANTS[tenant];
            format!("    - {{ id: {name}-key, tenant: {name}, sha256: \"{hash}\" }}\n")
        })
        .collect();
    let secret = "5a".repeat(32);
    format!(
        "auth:\n  keys:\n{keys}secrets:\n  key: \"{secret}\"\nproviders:\n  docker:\n    enabled: false\n"
    )
}

/// A server that was killed this very moment may still have been deleting files itself, and one that was killed before it
/// made its store has none.
fn remove_all(dir: &Path) {
    let began = Instant::now();
    while let Err(error) = std::fs::remove_dir_all(dir) {
        if error.kind() == std::io::ErrorKind::NotFound && !dir.exists() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{}: {error}", dir.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}
