//! What is sealed for a job, on a real nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use events::JobId;
use transport::{Log, NatsConfig};

struct Nats {
    server: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Nats {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { server: serve(dir.path(), port), port, dir }
    }

    fn restart(&mut self) {
        self.kill();
        self.server = serve(self.dir.path(), self.port);
    }

    fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    async fn log(&self) -> Log {
        Log::connect(&NatsConfig::new(format!("nats://127.0.0.1:{}", self.port))).await.unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(dir: &std::path::Path, port: u16) -> Child {
    let config = dir.join("nats.conf");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 1TB }}\n",
        dir.join("store").display()
    );
    std::fs::write(&config, text).unwrap();
    Command::new("nats-server")
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed; run scripts/setup")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_is_kept_as_it_was_first_until_it_is_destroyed() {
    let mut nats = Nats::start();
    let (job, other) = (JobId::new(), JobId::new());
    {
        let log = nats.log().await;
        assert_eq!(log.sealed(job).await.unwrap(), None);
        log.destroy_sealed(job).await.unwrap();
        assert!(log.put_sealed(job, Bytes::from_static(b"first")).await.unwrap());
        assert!(!log.put_sealed(job, Bytes::from_static(b"second")).await.unwrap());
        assert!(log.put_sealed(other, Bytes::from_static(b"other")).await.unwrap());
    }
    // A server that is killed has it on its disk.
    nats.restart();
    let log = nats.log().await;
    assert_eq!(log.sealed(job).await.unwrap().as_deref(), Some(&b"first"[..]));
    log.destroy_sealed(job).await.unwrap();
    assert_eq!(log.sealed(job).await.unwrap(), None);
    assert_eq!(
        log.sealed(other).await.unwrap().as_deref(),
        Some(&b"other"[..]),
        "only its own are destroyed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_seal_for_one_job_one_is_believed() {
    let nats = Nats::start();
    let (log, job) = (nats.log().await, JobId::new());
    let mut attempts = tokio::task::JoinSet::new();
    for n in 0..16u8 {
        let log = log.clone();
        attempts.spawn(async move { (n, log.put_sealed(job, Bytes::from(vec![n])).await.unwrap()) });
    }
    let first: Vec<u8> =
        attempts.join_all().await.into_iter().filter_map(|(n, kept)| kept.then_some(n)).collect();
    assert_eq!(log.sealed(job).await.unwrap().as_deref(), Some(&first[..]));
    assert_eq!(first.len(), 1);
}
