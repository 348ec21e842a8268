//! The stream of events is read whether or not a consumer of it can be had. On a real nats-server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use events::{Actor, Clock, Event, EventId, NodeDraining, SystemClock, TenantId};
use tokio::time::timeout;
use transport::{EventSource, Log, NatsConfig};

const PATIENCE: Duration = Duration::from_secs(60);

struct Nats {
    server: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Nats {
    fn start(denied: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        configure(dir.path(), port, denied);
        Self { server: launch(dir.path()), port, dir }
    }

    /// What nobody may publish to from now on.
    fn deny(&self, denied: &str) {
        configure(self.dir.path(), self.port, denied);
        let pid = self.server.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    /// A consumer in memory does not come back.
    fn kill_and_restart(&mut self) {
        self.kill();
        self.server = launch(self.dir.path());
    }

    fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    async fn log(&self) -> Log {
        let config = NatsConfig::new(format!("nats://a:b@127.0.0.1:{}", self.port));
        Log::connect(&config).await.unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configure(dir: &Path, port: u16, denied: &str) {
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\n\
         authorization {{ users: [ {{ user: a, password: b, permissions: {{ publish: {{ deny: [\"{denied}\"] }} }} }} ] }}\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
        dir.join("store").display()
    );
    std::fs::write(dir.join("nats.conf"), text).unwrap();
}

fn launch(dir: &Path) -> Child {
    Command::new("nats-server")
        .arg("--config")
        .arg(dir.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed; run scripts/setup")
}

async fn publish(log: &Log) {
    let node = "node-1".parse().unwrap();
    let event = Event {
        id: EventId::new(),
        tenant: TenantId::system(),
        sandbox: None,
        time: SystemClock.now(),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: NodeDraining { node }.into(),
    };
    timeout(PATIENCE, log.publish(&[event])).await.unwrap().unwrap();
}

async fn next(source: &mut EventSource) -> u64 {
    timeout(PATIENCE, source.next()).await.expect("the next event").unwrap().place.unwrap().sequence
}

#[tokio::test]
async fn events_are_read_in_order_with_a_consumer_without_and_with_another() {
    let mut nats = Nats::start("$JS.API.CONSUMER.CREATE.>");
    let log = nats.log().await;
    for _ in 1..=3 {
        publish(&log).await;
    }
    let mut source = log.event_source(0, "").await.unwrap();
    for sequence in 1..=3 {
        assert_eq!(next(&mut source).await, sequence);
        assert!(source.next_ready().is_none(), "only a consumer brings what was not asked for");
    }
    // What comes later is noticed too.
    let (_, sequence) = tokio::join!(publish(&log), next(&mut source));
    assert_eq!(sequence, 4);

    // As soon as there is a consumer it goes on from there: it brings several at once.
    nats.deny("nothing");
    let mut expected = 5;
    let mut at_once = false;
    let began = std::time::Instant::now();
    while !at_once {
        assert!(began.elapsed() < PATIENCE, "no consumer is used");
        tokio::time::sleep(Duration::from_millis(5)).await;
        publish(&log).await;
        publish(&log).await;
        for _ in 0..2 {
            assert_eq!(next(&mut source).await, expected);
            expected += 1;
            if let Some(message) = source.next_ready() {
                assert_eq!(message.unwrap().place.unwrap().sequence, expected);
                expected += 1;
                at_once = true;
                break;
            }
        }
    }

    // The consumer is gone, its messages are not.
    nats.kill_and_restart();
    publish(&log).await;
    let behind = next(&mut source).await;
    assert_eq!(behind, expected);
}

/// A consumer of a stream that took the place of the one that was read would begin at a place that means nothing there.
#[tokio::test]
async fn a_stream_that_was_made_anew_is_not_taken_for_the_one_before_it() {
    let mut nats = Nats::start("nothing");
    let log = nats.log().await;
    for _ in 1..=3 {
        publish(&log).await;
    }
    let mut source = log.event_source(0, "").await.unwrap();
    for sequence in 1..=3 {
        assert_eq!(next(&mut source).await, sequence);
    }
    nats.kill();
    std::fs::remove_dir_all(nats.dir.path().join("store")).unwrap();
    nats.server = launch(nats.dir.path());
    // Made again by whoever publishes, and longer than what was read of the other.
    for _ in 1..=8 {
        publish(&log).await;
    }
    let error = timeout(PATIENCE, source.next()).await.expect("an answer");
    assert!(error.is_err(), "read on in another stream: {error:?}");
    let mut source = log.event_source(3, source.incarnation()).await.unwrap();
    for sequence in 1..=8 {
        assert_eq!(next(&mut source).await, sequence);
    }
}

#[tokio::test]
async fn what_an_executor_offers_is_heard_beside_the_stream_and_nothing_of_it_is_kept() {
    let nats = Nats::start("nothing");
    let log = nats.log().await;
    publish(&log).await;
    let mut source = log.event_source(0, "").await.unwrap();
    assert_eq!(next(&mut source).await, 1);
    let batch = bytes::Bytes::from_static(b"a batch");
    assert!(log.offer_events(&batch).await.is_none(), "nobody would know who says it");
    let node = nats.log().await.on_node(&"node-1".parse().unwrap());
    assert!(
        node.offer_events(&vec![0; 1 << 20].into()).await.is_none(),
        "what is large goes through the stream"
    );
    // Heard as soon as the stream is read through a consumer; what comes before that is nobody's.
    let offer = loop {
        node.offer_events(&batch).await.expect("offered");
        let heard = timeout(Duration::from_millis(200), source.next()).await;
        if let Ok(message) = heard {
            break message.unwrap();
        }
    };
    assert!(offer.place.is_none(), "it has no place in the stream");
    assert_eq!((offer.payload, offer.node.as_deref()), (batch.clone(), Some("node-1")));
    // Whoever offered in vain spares himself the wait for a while.
    node.offered_in_vain();
    assert!(node.offer_events(&batch).await.is_none());
    publish(&log).await;
    let message = loop {
        let message = timeout(PATIENCE, source.next()).await.expect("the next event").unwrap();
        if message.place.is_some() {
            break message;
        }
    };
    assert_eq!(message.place.unwrap().sequence, 2, "the stream holds what was published, and nothing else");
}
