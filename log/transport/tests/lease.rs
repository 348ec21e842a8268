//! What only one may have: the lease, and what may be used once. On a real nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use events::EventId;
use tokio::time::timeout;
use transport::{Log, NatsConfig};

const LIFETIME: Duration = Duration::from_secs(1);

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

    /// The memory of a server that is killed is gone.
    fn kill_and_restart(&mut self) {
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
    let store = dir.join("store");
    let text = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n", store.display());
    std::fs::write(&config, text).unwrap();
    Command::new("nats-server")
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed; run scripts/setup")
}

#[tokio::test]
async fn one_holds_it_as_long_as_it_renews_it() {
    let nats = Nats::start();
    let (first, second) = (nats.log().await, nats.log().await);
    let mut held = first.take_lease("work", LIFETIME).await;
    let taken = timeout(LIFETIME * 4, async {
        tokio::select! {
            () = held.hold() => panic!("it was lost"),
            _ = second.take_lease("work", LIFETIME) => {}
        }
    });
    assert!(taken.await.is_err(), "two hold it");
    // Another name is another lease.
    timeout(LIFETIME / 2, second.take_lease("other work", LIFETIME)).await.unwrap_err();
    timeout(LIFETIME, second.take_lease("other-work", LIFETIME)).await.unwrap();
}

#[tokio::test]
async fn what_is_given_back_is_taken_at_once_and_what_is_not_renewed_after_its_lifetime() {
    let nats = Nats::start();
    let (first, second) = (nats.log().await, nats.log().await);
    first.take_lease("work", LIFETIME).await.release().await;
    timeout(LIFETIME / 2, second.take_lease("work", LIFETIME)).await.expect("it was given back");

    // Nobody holds what was just taken: its task is gone, as after a crash.
    let began = Instant::now();
    let mut held =
        timeout(LIFETIME * 3, first.take_lease("work", LIFETIME)).await.expect("its holder is gone");
    assert!(began.elapsed() >= LIFETIME, "it was taken from somebody who may live: {:?}", began.elapsed());
    assert!(timeout(LIFETIME * 2, held.hold()).await.is_err(), "it is held");
}

#[tokio::test]
async fn who_was_replaced_learns_it() {
    let nats = Nats::start();
    let (first, second) = (nats.log().await, nats.log().await);
    let mut stopped = first.take_lease("work", LIFETIME).await;
    let mut held = second.take_lease("work", LIFETIME).await;
    timeout(LIFETIME, stopped.hold()).await.expect("it was replaced");
    assert!(timeout(LIFETIME * 2, held.hold()).await.is_err(), "the one who replaced it holds it");
}

#[tokio::test]
async fn after_the_loss_of_the_server_one_holds_it_again() {
    let mut nats = Nats::start();
    let log = nats.log().await;
    let mut held = log.take_lease("work", LIFETIME).await;
    nats.kill_and_restart();
    timeout(LIFETIME * 3, held.hold()).await.expect("it is lost with the server's memory");
    timeout(LIFETIME * 10, log.take_lease("work", LIFETIME)).await.expect("it can be taken again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_is_used_once_and_what_is_forgotten_never() {
    let mut nats = Nats::start();
    let logs = [nats.log().await, nats.log().await];
    let id = EventId::new();
    assert!(!logs[0].spend(id).await.unwrap(), "it was never offered");
    logs[0].offer(id).await.unwrap();
    let mut attempts = tokio::task::JoinSet::new();
    for n in 0..16 {
        let log = logs[n % 2].clone();
        attempts.spawn(async move { log.spend(id).await.unwrap() });
    }
    assert_eq!(attempts.join_all().await.into_iter().filter(|first| *first).count(), 1);
    assert!(!logs[1].spend(id).await.unwrap());

    // A server that lost its memory lets nobody in, whether it was used before or not.
    let unused = EventId::new();
    logs[0].offer(unused).await.unwrap();
    nats.kill_and_restart();
    let began = Instant::now();
    for id in [id, unused] {
        loop {
            match logs[1].spend(id).await {
                Ok(spent) => {
                    assert!(!spent);
                    break;
                }
                Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // It can be offered again.
    let fresh = EventId::new();
    while let Err(error) = logs[0].offer(fresh).await {
        assert!(began.elapsed() < Duration::from_secs(60), "{error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(logs[1].spend(fresh).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_says_what_time_it_is() {
    let nats = Nats::start();
    let apart = nats.log().await.clock().await.unwrap() - events::Clock::now(&events::SystemClock);
    assert!(apart.num_seconds().abs() < 60, "{apart}");
}
