use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::api::Api;
use super::process::{Process, free_port, stacyvm};
use super::serve::remove_containers;
use super::services::Postgres;

/// The four roles as processes of their own, on a real nats-server and a real Postgres.
pub struct Split {
    pub gateway: Process,
    pub executor: Process,
    pub reaper: Process,
    pub recorder: Process,
    pub nats: Process,
    pub postgres: Postgres,
    pub api: Api,
    pub dir: tempfile::TempDir,
    port: u16,
    nats_port: u16,
    database: String,
    guarded: bool,
}

/// The node of the executor of a guarded deployment: that of `deploy/nats.conf`.
pub const GUARDED_NODE: &str = "executor";

/// The password of each user of a guarded one.
pub fn password_of(user: &str) -> String {
    format!("a-{user}-password")
}

impl Split {
    pub async fn start() -> Self {
        Self::with(false).await
    }

    /// With the configuration of NATS that is shipped: a user for each role.
    pub async fn guarded() -> Self {
        Self::with(true).await
    }

    async fn with(guarded: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, nats_port) = (free_port(), free_port());
        let postgres = Postgres::start();
        let database = postgres.database("stacyvm");
        let nats = nats(dir.path(), nats_port, guarded);
        let role = |name: &str| role(name, dir.path(), port, nats_port, &database, guarded);
        let split = Self {
            recorder: role("recorder"),
            executor: role("executor"),
            gateway: role("gateway"),
            reaper: role("reaper"),
            nats,
            api: Api::new(port),
            port,
            nats_port,
            database: database.clone(),
            postgres,
            dir,
            guarded,
        };
        split.wait_ready().await;
        split
    }

    pub fn restart_executor(&mut self) {
        self.executor.kill();
        self.executor = self.role("executor");
    }

    pub async fn restart_gateway(&mut self) {
        self.gateway.kill();
        self.gateway = self.role("gateway");
        self.wait_ready().await;
    }

    pub fn restart_recorder(&mut self) {
        self.recorder.kill();
        self.recorder = self.role("recorder");
    }

    pub fn restart_nats(&mut self) {
        self.nats.kill();
        self.nats = nats(self.dir.path(), self.nats_port, self.guarded);
    }

    /// Kills nats-server, and starts one that has nothing of what it stored.
    pub fn wipe_nats(&mut self) {
        self.nats.kill();
        std::fs::remove_dir_all(self.dir.path().join("nats")).unwrap();
        self.nats = nats(self.dir.path(), self.nats_port, self.guarded);
    }

    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.nats_port)
    }

    /// Waits only until it answers: it is not ready without an executor.
    pub async fn restart_gateway_alone(&mut self) {
        self.gateway.kill();
        self.gateway = self.role("gateway");
        super::eventually("the gateway answers", Duration::from_secs(60), async || {
            self.api.http.get(self.api.url("/live")).send().await.ok().map(drop)
        })
        .await;
    }

    /// A gateway in the place of the one that there is, with NATS behind another port.
    pub async fn gateway_over(&mut self, nats_port: u16) {
        self.gateway.kill();
        self.gateway = role("gateway", self.dir.path(), self.port, nats_port, &self.database, self.guarded);
        self.wait_ready().await;
    }

    pub fn nats_port(&self) -> u16 {
        self.nats_port
    }

    /// SIGKILL of everything but NATS and Postgres.
    pub fn kill_control_plane(&mut self) {
        for process in [&mut self.gateway, &mut self.executor, &mut self.reaper, &mut self.recorder] {
            process.kill();
        }
    }

    pub async fn wait_ready(&self) {
        let began = Instant::now();
        while !self.api.ready().await {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "not ready:\n{}\n{}\n{}",
                self.gateway.log_text(),
                self.executor.log_text(),
                self.recorder.log_text()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn installation(&self) -> String {
        let path = self.dir.path().join("executor/installation");
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// One more process of a role, with a directory and a log of its own.
    pub fn another(&self, role: &str, name: &str) -> Process {
        start(role, name, self.dir.path(), self.port, self.nats_port, &self.database, self.guarded)
    }

    fn role(&self, name: &str) -> Process {
        role(name, self.dir.path(), self.port, self.nats_port, &self.database, self.guarded)
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        let installation = self.installation();
        self.kill_control_plane();
        remove_containers(&installation);
        super::leavings::remove(self.dir.path());
    }
}

fn role(name: &str, dir: &Path, port: u16, nats_port: u16, database: &str, guarded: bool) -> Process {
    start(name, name, dir, port, nats_port, database, guarded)
}

fn start(
    role: &str,
    name: &str,
    dir: &Path,
    port: u16,
    nats_port: u16,
    database: &str,
    guarded: bool,
) -> Process {
    let mut command = stacyvm();
    command
        .arg(role)
        .args(["--listen", &format!("127.0.0.1:{port}"), "--nats", &format!("nats://127.0.0.1:{nats_port}")])
        .args(["--provider", "docker", "--database", database, "--data-dir"])
        .arg(dir.join(name))
        // What one process seals, another one opens. Receivers of webhooks are on loopback here.
        .env("STACYVM_SECRETS_KEY", "ab".repeat(32))
        .env("STACYVM_WEBHOOKS_ALLOW_HTTP", "true")
        .env("STACYVM_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.0/8");
    if guarded {
        command.env("STACYVM_NATS_USER", role).env("STACYVM_NATS_PASSWORD", password_of(role));
        command.env("STACYVM_NODE", GUARDED_NODE);
    }
    Process::start(command, &dir.join(format!("{name}.log")))
}

fn nats(dir: &Path, port: u16, guarded: bool) -> Process {
    let config = dir.join("nats.conf");
    let store = dir.join("nats");
    let text = if guarded {
        shipped(port, &store)
    } else {
        format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            store.display()
        )
    };
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("nats-server");
    command.arg("--config").arg(&config);
    for user in ["gateway", "recorder", "reaper", "webhooks", "jobs", GUARDED_NODE, "other"] {
        command.env(format!("NATS_{}_PASSWORD", user.to_ascii_uppercase()), password_of(user));
    }
    Process::start(command, &dir.join("nats.log"))
}

/// `deploy/nats.conf` at another place, with a second node, made as it says.
fn shipped(port: u16, store: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    let recipe = text.lines().find_map(|line| line.strip_prefix("#   sed ")).expect("how a node is added");
    let recipe = format!("sed {recipe}").replace("NODE", "other").replace("nats.conf", "\"$1\"");
    let block = Command::new("sh").args(["-c", &recipe, "sh"]).arg(&path).output().unwrap();
    let block = String::from_utf8(block.stdout).unwrap().replace("NATS_EXECUTOR_", "NATS_OTHER_");
    assert!(block.contains("stacyvm.evt.@.other.>") && !block.contains("node-executor"), "{block}");
    let mut text = text.replace("        # end\n", &format!("        # end\n{block}"));
    for (shipped, ours) in [
        ("port: 4222", format!("listen: \"127.0.0.1:{port}\"")),
        ("http: 127.0.0.1:8222", String::new()),
        ("store_dir: /data", format!("store_dir: \"{}\"", store.display())),
    ] {
        assert!(text.contains(shipped), "{shipped}");
        text = text.replace(shipped, &ours);
    }
    text
}
