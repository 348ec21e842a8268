use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, free_port};

/// A nats-server that is not `serve`'s own.
pub struct Nats {
    pub process: Process,
    dir: PathBuf,
    port: u16,
}

impl Nats {
    /// With its store in `dir/store`.
    pub fn start(dir: &Path) -> Self {
        let port = free_port();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 1TB }}\n",
            dir.join("store").display()
        );
        std::fs::write(dir.join("nats.conf"), text).unwrap();
        Self { process: launch(dir), dir: dir.to_owned(), port }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.dir);
    }
}

fn launch(dir: &Path) -> Process {
    let mut command = Command::new("nats-server");
    command.arg("--config").arg(dir.join("nats.conf"));
    Process::start(command, &dir.join("nats.log"))
}

/// Three nats-servers that hold copies of each other's streams.
pub struct NatsCluster {
    pub nodes: Vec<Node>,
    _dir: tempfile::TempDir,
}

pub struct Node {
    pub name: String,
    pub process: Process,
    pub port: u16,
    monitor: u16,
}

impl NatsCluster {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<[u16; 3]> = (0..3).map(|_| [free_port(), free_port(), free_port()]).collect();
        let routes: Vec<String> =
            ports.iter().map(|[_, route, _]| format!("nats://127.0.0.1:{route}")).collect();
        let nodes = ports.iter().enumerate().map(|(number, [port, route, monitor])| {
            let name = format!("n{number}");
            let home = dir.path().join(&name);
            std::fs::create_dir(&home).unwrap();
            // As deploy/nats-cluster.conf has it.
            let text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
                 max_payload: 8MB\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{}], \
                 ping_interval: \"1s\", ping_max: 2 }}\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 8GB }}\n",
                routes.join(", "),
                home.join("store").display()
            );
            std::fs::write(home.join("nats.conf"), text).unwrap();
            Node { name, process: launch(&home), port: *port, monitor: *monitor }
        });
        Self { nodes: nodes.collect(), _dir: dir }
    }

    pub fn url(&self) -> String {
        let urls: Vec<String> =
            self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port)).collect();
        urls.join(",")
    }

    /// Who leads a stream.
    pub async fn leader(&self, stream: &str) -> Option<String> {
        for node in &self.nodes {
            let url = format!("http://127.0.0.1:{}/jsz?accounts=true&streams=true", node.monitor);
            let Ok(answer) = reqwest::get(url).await else { continue };
            let Ok(found) = answer.json::<serde_json::Value>().await else { continue };
            let streams = found.pointer("/account_details/0/stream_detail").and_then(|all| all.as_array());
            let leader = streams.into_iter().flatten().find(|one| one["name"] == stream);
            if let Some(leader) = leader.and_then(|one| one.pointer("/cluster/leader")?.as_str()) {
                return Some(leader.to_owned());
            }
        }
        None
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }
}
