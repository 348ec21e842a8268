//! Clients and agents that want all of the server's descriptors.
//!
//! The server may have 512 files open, and cannot have more: what is left to it beside connections has to do for all its work.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::in_both;
use crate::support::api::Api;
use crate::support::serve::Serve;
use crate::support::{eventually, keys};

const DESCRIPTORS: u64 = 512;
const SILENT: usize = 600;
const EXECS: usize = 1100;
const PATIENCE: Duration = Duration::from_secs(60);
const RED: &str = "key-of-the-tenant-that-attacks";
const BLUE: &str = "key-of-the-tenant-that-works";
const OPERATOR: &str = "key-of-the-operator";

fn keys() -> String {
    keys::config(&[("red", RED, false), ("blue", BLUE, false), ("operator", OPERATOR, true)])
}

/// A client from an address of the loopback network, with a connection for each request: one that is kept is silent, and may be
/// closed in favour of another at any time.
fn client(serve: &Serve, key: &'static str, from: [u8; 4]) -> Api {
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .local_address(std::net::IpAddr::from(from))
        .default_headers(keys::headers(key))
        .timeout(PATIENCE)
        .build()
        .unwrap();
    Api { base: serve.api.base.clone(), http }
}

/// The test needs some for its own ends of connections.
fn raise_own_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

async fn connect(to: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    // From three addresses: the limit for one is not all that there is.
    let from = [127, 0, 1, u8::try_from(1 + number % 3).unwrap()];
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let mut stream = socket.connect(to).await.ok()?;
    if number.is_multiple_of(2) {
        // As good as nothing: no request has begun.
        stream.write_all(b"GET /ready HTT").await.ok()?;
    }
    Some(stream)
}

/// Holds as many connections as it can, and makes new ones in the place of those that are closed, until it is dropped.
async fn hold_silent(to: SocketAddr, held: tokio::sync::watch::Sender<usize>) {
    let mut all: Vec<Option<TcpStream>> = (0..SILENT).map(|_| None).collect();
    loop {
        for (number, place) in all.iter_mut().enumerate() {
            let closed = place.as_ref().is_none_or(|stream| {
                let mut byte = [0];
                !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            });
            if closed {
                *place = connect(to, number).await;
            }
        }
        held.send_modify(|rounds| *rounds += 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn works(serve: &Serve, api: &Api, sandbox: &str) {
    let (status, answer) =
        api.post(&format!("/sandboxes/{sandbox}/exec"), json!({"command": "echo works"})).await;
    assert_eq!(
        (status, &answer["stdout"]),
        (200, &json!("works\n")),
        "{answer}\n{}",
        serve.process.log_text()
    );
}

async fn spawns(serve: &Serve, api: &Api) -> String {
    let (status, answer) = api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!(status, 201, "{answer}\n{}", serve.process.log_text());
    answer["id"].as_str().unwrap().to_owned()
}

async fn is_ready(serve: &Serve, api: &Api) {
    let (status, answer) = api.get("/ready").await;
    let works = answer["providers"].as_array().is_none_or(|all| all.iter().all(|one| one["healthy"] == true));
    assert!(status == 200 && works, "{status} {answer}\n{}", serve.process.log_text());
}

/// Its tenant has as many requests under way as it may: the end of one of its sandboxes waits for its turn.
async fn destroy(api: &Api, sandbox: &str) -> u16 {
    eventually("a sandbox is destroyed", PATIENCE, async || {
        let gone = api.http.delete(api.url(&format!("/sandboxes/{sandbox}"))).send().await.ok()?;
        let status = gone.status().as_u16();
        (status != 429).then_some(status)
    })
    .await
}

/// Operators are told what the host counts for all, once in the log and whenever they ask; tenants are not.
async fn told_of_what_is_shared(serve: &Serve, (operator, tenant): (&Api, &Api)) {
    let ptys: u64 = std::fs::read_to_string("/proc/sys/kernel/pty/max").unwrap().trim().parse().unwrap();
    let said = format!("one sandbox can open all {ptys} of them");
    let is_shared = ptys < 16_384;
    let (_, whole) = operator.get("/diagnostics").await;
    let warnings = whole["providers"].as_array().unwrap().iter().flat_map(|it| it["warnings"].as_array());
    let warnings: Vec<_> = warnings.flatten().filter_map(Value::as_str).collect();
    assert_eq!(warnings.iter().any(|it| it.contains(&said)), is_shared, "{warnings:?}");
    let log = serve.process.log_text();
    assert_eq!(log.matches(&said).count(), usize::from(is_shared), "{log}");
    let (_, own) = tenant.get("/diagnostics").await;
    assert!(!own.to_string().contains("warnings"), "{own}");
}

async fn few_descriptors(provider: &str) {
    raise_own_limit();
    let serve = Serve::with_descriptors(provider, DESCRIPTORS, &keys()).await;
    let red = client(&serve, RED, [127, 0, 1, 1]);
    let blue = client(&serve, BLUE, [127, 0, 0, 1]);
    let operator = client(&serve, OPERATOR, [127, 0, 0, 1]);
    let sandbox = spawns(&serve, &blue).await;
    let victim = spawns(&serve, &red).await;
    works(&serve, &blue, &sandbox).await;
    let idle = serve.process.descriptors();

    // Silent connections, more than there are descriptors.
    let address = serve.api.base.strip_prefix("http://").unwrap().split('/').next().unwrap().parse().unwrap();
    let (held, mut rounds) = tokio::sync::watch::channel(0);
    let holding = tokio::spawn(hold_silent(address, held));
    rounds.wait_for(|rounds| *rounds > 0).await.unwrap();
    for _ in 0..3 {
        let before = *rounds.borrow();
        is_ready(&serve, &operator).await;
        assert_eq!(operator.get("/diagnostics").await.0, 200);
        works(&serve, &blue, &sandbox).await;
        let made = spawns(&serve, &blue).await;
        works(&serve, &blue, &made).await;
        assert_eq!(blue.destroy(&made).await, 200);
        let open = serve.process.descriptors();
        assert!(open < DESCRIPTORS as usize - 64, "{open} descriptors");
        rounds.wait_for(|rounds| *rounds > before).await.unwrap();
    }
    told_of_what_is_shared(&serve, (&operator, &blue)).await;
    holding.abort();
    let _ = holding.await;
    is_ready(&serve, &operator).await;
    spawns(&serve, &blue).await;
    eventually("descriptors are given back", PATIENCE, async || {
        (serve.process.descriptors() <= idle + 30).then_some(())
    })
    .await;

    // Execs at an agent that connections can be made to, and that says nothing.
    let agent = crate::agents::agent_of(&victim);
    crate::agents::signal(agent, "-STOP");
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..EXECS {
        let (red, path) = (red.clone(), format!("/sandboxes/{victim}/exec"));
        let body = json!({"command": "true", "timeout": "5s"});
        asked.spawn(async move {
            let answer = red.http.post(red.url(&path)).json(&body).send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, answer.json::<Value>().await.unwrap_or_default()))
        });
    }
    let mut most = 0;
    let mut answers = Vec::new();
    for _ in 0..3 {
        is_ready(&serve, &operator).await;
        works(&serve, &blue, &sandbox).await;
        let made = spawns(&serve, &blue).await;
        assert_eq!(blue.destroy(&made).await, 200);
        most = most.max(serve.process.descriptors());
    }
    // What is asked of it ends with it.
    assert!(matches!(destroy(&red, &victim).await, 200 | 202));
    while let Some(answer) = asked.join_next().await {
        answers.push(answer.unwrap());
        most = most.max(serve.process.descriptors());
    }
    let refused = answers.iter().flatten().filter(|(status, _)| *status == 429).count();
    let cut = answers.iter().filter(|answer| answer.is_none()).count();
    eprintln!(
        "{provider}: {refused} of {EXECS} refused, {cut} cut, {most} descriptors at most, {idle} at rest"
    );
    for (status, answer) in answers.iter().flatten() {
        assert!(*status >= 400 && answer["code"].is_string(), "{status} {answer}");
    }
    assert!(refused > 0, "nobody is told why");
    assert!(most < DESCRIPTORS as usize - 64, "{most} descriptors");
    works(&serve, &blue, &sandbox).await;
    eventually("descriptors are given back", PATIENCE, async || {
        (serve.process.descriptors() <= idle + 30).then_some(())
    })
    .await;
}

in_both!(few_descriptors);

/// What is written about a sandbox whose agent cannot be reached: bounded, whatever is asked of it.
const MOST_LOG_BYTES: usize = 256 << 10;

/// The kernel's time of the server, in ticks.
fn ticks(serve: &Serve) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", serve.process.pid())).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// The socket of an agent is gone, its process lives: what was begun, and what is asked for, is given up with a reason.
#[tokio::test]
async fn execs_of_an_agent_without_a_socket_are_given_up() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let other = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let path = format!("/sandboxes/{sandbox}/exec");
    let begun: Vec<_> =
        (0..60).map(|_| serve.api.post(&path, json!({"command": "sleep 600", "detach": true}))).collect();
    for (status, answer) in futures::future::join_all(begun).await {
        assert!(status < 300, "{status} {answer}");
    }
    let run = serve.dir.path().join("bubblewrap/boxes").join(&sandbox).join("run");
    std::fs::remove_file(run.join("agent.sock")).unwrap();
    serve.kill_and_restart().await;
    let (before, ticks_before) = (serve.process.log_text(), ticks(&serve));
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..500 {
        let (api, path) = (serve.api.clone(), path.clone());
        let body = json!({"command": "true", "timeout": "20s", "stream": number % 2 == 0});
        asked.spawn(async move {
            let answer = api.http.post(api.url(&path)).json(&body).timeout(PATIENCE).send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, answer.text().await.ok()?))
        });
    }
    eventually("the sandbox ends", PATIENCE * 2, async || {
        let (_, state) = serve.api.get(&format!("/sandboxes/{sandbox}")).await;
        (state["state"] == "destroyed" || state["code"] == "NOT_FOUND").then_some(())
    })
    .await;
    let events = serve.api.url(&format!("/events?sandbox={sandbox}&after=0&follow=false&format=ndjson"));
    let events = serve.api.http.get(events).send().await.unwrap().text().await.unwrap();
    assert!(events.contains("agent_lost"), "{events}");
    // Some wait for as long as any exec that does not begin.
    while let Some(answer) = asked.try_join_next() {
        let Some((status, text)) = answer.unwrap() else { continue };
        // A stream has begun before it is known that nothing will come.
        assert!(status >= 400 || !text.contains("\"exit_code\":0"), "{status} {text}");
    }
    asked.shutdown().await;
    assert_eq!(serve.api.exec(&other, "echo works").await["stdout"], "works\n");
    // A few seconds more: nobody goes on trying.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = serve.process.log_text();
    let written = &after[before.len()..];
    let lines = written.lines().count();
    eprintln!("{} bytes and {lines} lines of log, {} ticks", written.len(), ticks(&serve) - ticks_before);
    assert!(written.len() < MOST_LOG_BYTES, "{} bytes:\n{}", written.len(), &written[..4096]);
    assert_eq!(written.matches("an agent is lost: its sandbox ends").count(), 1, "{written}");
}
