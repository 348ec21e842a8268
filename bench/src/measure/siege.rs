use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::join_all;
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::floor::{Twin, Twins};
use crate::report::{Row, Target, ms, progress};
use crate::rig::Rig;
use crate::serve::Serve;
use crate::stats::Samples;

/// A name and a shell line each; the test of the same name attacks with them too.
const LINES: &str = include_str!("../../../cli/tests/attacks/siege.txt");
/// Sandboxes of the tenant that attacks, at any time.
const ATTACKERS: usize = 5;
/// How long one request of it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the machine is left alone before it is measured at rest.
const REST: Duration = Duration::from_secs(3);
const RED: &str = "key-of-the-tenant-that-attacks";
const BLUE: &str = "key-of-the-tenant-that-works";
/// SHA-256 of both, as the configuration has keys.
const KEYS: &str = "auth:
  keys:
    - { id: red-key, tenant: red, sha256: 8362db7c2a1797553c16c9cc7150902d2f05a7253935e041ee5c1c8a0a2c420c }
    - { id: blue-key, tenant: blue, sha256: 33f7985a4173ee2996c18db6a5ca6edf64c8220147b2794ea5e12bcac5730531 }
";

/// Execs of one tenant at rest, and while another one attacks from five sandboxes with one line after another, each in a
/// loop of spawn, attack, twenty calls to what it left, destroy. Beside it an engine exec at the same moments, which says what the
/// attack takes from the whole machine.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.start_with_config(KEYS).await?.with_client(client(BLUE)?);
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    let rounds = rig.size(80, 5);
    work(&serve, &sandbox, &twin, 5).await?;
    let mut rows = Vec::new();
    for line in LINES.lines() {
        let (name, line) = line.split_once(": ").context("a line of the siege without a name")?;
        tokio::time::sleep(rig.size(REST, Duration::from_millis(100))).await;
        let rest = work(&serve, &sandbox, &twin, rounds).await?;
        let attackers = Attackers::begin(rig, &serve, line)?;
        attackers.struck(ATTACKERS).await?;
        let siege = work(&serve, &sandbox, &twin, rounds).await?;
        let strikes = attackers.end().await;
        let p95 = |samples: &Samples| (samples.p95(), ms(samples.p95()));
        let note = format!(
            "{rounds} execs each; p50 {} and {}; the engine's exec: p95 {} and {}; {strikes} attacks meanwhile",
            ms(siege.ours.p50()),
            ms(rest.ours.p50()),
            ms(siege.engine.p95()),
            ms(rest.engine.p95())
        );
        progress(&format!("siege: {name}: {} after {}: {note}", ms(siege.ours.p95()), ms(rest.ours.p95())));
        let what = format!("exec under `{name}`, at rest, p95");
        rows.push(Row::compared(&what, Target::AtMost(2.0), p95(&siege.ours), p95(&rest.ours)).note(note));
    }
    twin.remove().await?;
    Ok(rows)
}

fn client(key: &'static str) -> anyhow::Result<Client> {
    let headers = HeaderMap::from_iter([("x-api-key".parse()?, HeaderValue::from_static(key))]);
    Ok(Client::builder().no_proxy().tcp_nodelay(true).default_headers(headers).build()?)
}

struct Worked {
    ours: Samples,
    engine: Samples,
}

/// One exec of ours, one of the engine, and a moment for both to end.
async fn work(serve: &Serve, sandbox: &str, twin: &Twin, rounds: usize) -> anyhow::Result<Worked> {
    let mut worked = Worked { ours: Samples::default(), engine: Samples::default() };
    for _ in 0..rounds {
        let began = Instant::now();
        serve.exec(sandbox, &["true"]).await?;
        worked.ours.push_time(began.elapsed());
        tokio::time::sleep(Duration::from_millis(60)).await;
        let began = Instant::now();
        twin.exec(&["true"]).await?;
        worked.engine.push_time(began.elapsed());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    Ok(worked)
}

/// Those who attack, until they are told to end.
struct Attackers {
    over: Arc<AtomicBool>,
    strikes: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Attackers {
    fn begin(rig: &Rig, serve: &Serve, line: &'static str) -> anyhow::Result<Self> {
        let (over, strikes) = (Arc::default(), Arc::default());
        let attacker = Attacker {
            http: client(RED)?,
            sandboxes: serve.url("/sandboxes"),
            image: rig.image.clone(),
            line,
            over: Arc::clone(&over),
            strikes: Arc::clone(&strikes),
        };
        let tasks = (0..ATTACKERS).map(|_| tokio::spawn(attacker.clone().run())).collect();
        Ok(Self { over, strikes, tasks })
    }

    /// Waits until so many attacks are under way or done.
    async fn struck(&self, times: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.strikes.load(Ordering::Acquire) < times {
            ensure!(began.elapsed() < Duration::from_secs(60), "the attackers do not come to attack");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn end(self) -> usize {
        self.over.store(true, Ordering::Release);
        join_all(self.tasks).await;
        self.strikes.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Attacker {
    http: Client,
    sandboxes: String,
    image: String,
    line: &'static str,
    over: Arc<AtomicBool>,
    strikes: Arc<AtomicUsize>,
}

impl Attacker {
    async fn run(self) {
        while !self.over.load(Ordering::Acquire) {
            let Some(sandbox) = self.spawn().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let at = format!("{}/{sandbox}", self.sandboxes);
            self.strikes.fetch_add(1, Ordering::AcqRel);
            self.exec(&at, self.line, "10s", PATIENCE).await;
            // What comes after the blow has to cope with what it left.
            let after = (0..20).map(|_| async {
                self.exec(&at, "cat /etc/passwd", "2s", PATIENCE).await;
                let read = self.http.get(format!("{at}/files?path=/etc/passwd"));
                let _ = read.timeout(Duration::from_secs(2)).send().await;
            });
            join_all(after).await;
            let _ = self.http.delete(&at).timeout(PATIENCE).send().await;
        }
    }

    async fn spawn(&self) -> Option<String> {
        let asked = self.http.post(&self.sandboxes).json(&json!({"image": self.image, "ttl": "30s"}));
        let answer: Value = asked.timeout(PATIENCE).send().await.ok()?.json().await.ok()?;
        answer["id"].as_str().map(str::to_owned)
    }

    /// Whatever is answered is right.
    async fn exec(&self, at: &str, line: &str, timeout: &str, patience: Duration) {
        let asked = self.http.post(format!("{at}/exec")).json(&json!({"command": line, "timeout": timeout}));
        let _ = asked.timeout(patience).send().await;
    }
}
