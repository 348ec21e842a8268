//! The rules of networks: somebody takes them away, an operator makes exceptions, names are asked for.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::network::answers;
use crate::outside::{Outside, run};
use crate::support::api::Api;
use crate::support::eventually;
use crate::support::process::{Process, free_port, stacyvm};
use crate::support::serve::Serve;

const PATIENCE: Duration = Duration::from_secs(90);

async fn spawn(serve: &Serve) -> String {
    serve.api.spawn(json!({"image": "python:3.12", "network": "bridge"})).await
}

/// The table of the rules that a sandbox is held to.
fn table(serve: &Serve, sandbox: &str) -> String {
    let network = format!("stacyvm-{}-{sandbox}", serve.installation());
    let bridge = "{{index .Options \"com.docker.network.bridge.name\"}}";
    let bridge = run("docker", &["network", "inspect", &network, "--format", bridge]).expect("its network");
    format!("stacyvm_{}", &bridge[..8])
}

fn shown(table: &str) -> Option<String> {
    run("nft", &["--stateless", "--terse", "list", "table", "inet", table])
}

async fn ip(serve: &Serve, sandbox: &str) -> String {
    serve.api.get(&format!("/sandboxes/{sandbox}")).await.1["ip"].as_str().unwrap().to_owned()
}

async fn reaches(serve: &Serve, sandbox: &str, address: &str, port: u16) -> bool {
    answers(serve, sandbox, &[(address.to_owned(), port)]).await == ["open"]
}

/// Whether what is public is reached and what is not is not.
async fn rules_hold(serve: &Serve, sandbox: &str, outside: &Outside) {
    eventually("what is public is reached", PATIENCE, async || {
        reaches(serve, sandbox, &outside.address.to_string(), outside.port).await.then_some(())
    })
    .await;
    let targets = outside.closed.clone().map(|address| (address, outside.port));
    for (target, said) in targets.iter().zip(answers(serve, sandbox, &targets).await) {
        assert_ne!(said, "open", "{target:?}");
    }
}

#[tokio::test]
async fn rules_that_somebody_takes_away_are_put_back_also_after_a_restart() {
    let outside = Outside::new();
    let mut serve = Serve::start().await;
    let sandbox = spawn(&serve).await;
    rules_hold(&serve, &sandbox, &outside).await;
    let table = table(&serve, &sandbox);
    let whole = shown(&table).expect("the rules are there");
    let back = async |what: &str| {
        eventually(what, PATIENCE, async || (shown(&table).as_ref() == Some(&whole)).then_some(())).await;
    };

    // All of them, those of one chain, and one that somebody put before them: each is mended, and told in one line.
    let lines = || serve.process.log_text().matches("they are back in place").count();
    for (mended, damage) in [
        vec!["delete", "table", "inet", &table],
        vec!["flush", "chain", "inet", &table, "box"],
        vec!["insert", "rule", "inet", &table, "box", "accept"],
    ]
    .into_iter()
    .enumerate()
    {
        run("nft", &damage).unwrap_or_else(|| panic!("{damage:?}"));
        eventually("it is told", PATIENCE, async || (lines() > mended).then_some(())).await;
        back(&format!("{damage:?} is mended")).await;
        assert_eq!(lines(), mended + 1, "{}", serve.process.log_text());
    }
    rules_hold(&serve, &sandbox, &outside).await;

    // While nobody looks: the rules go, and networks are there whose sandboxes are not. Those of others are left alone.
    serve.process.kill();
    run("nft", &["delete", "table", "inet", &table]).expect("the rules are there");
    let ours = format!("stacyvm.deployment={}", serve.installation());
    let node = run(
        "docker",
        &["ps", "-a", "--filter", &format!("label={ours}"), "--format", "{{.Label \"stacyvm.node\"}}"],
    );
    let node = format!("stacyvm.node={}", node.unwrap().trim());
    let left = Network::make(&[&ours, &node]);
    let others = Network::make(&["stacyvm.deployment=svm-of-somebody-else", &node]);
    serve.kill_and_restart().await;
    back("rules are back after a restart").await;
    rules_hold(&serve, &sandbox, &outside).await;
    eventually("what a former process left is gone", PATIENCE, async || (!left.exists()).then_some(())).await;
    assert!(others.exists(), "another installation's network");

    // A sandbox that vanishes while nobody looks takes its network along, and the last network the rules.
    serve.process.kill();
    let container = format!("{}-{sandbox}", serve.installation());
    run("docker", &["rm", "-f", &container]).expect("its container");
    serve.kill_and_restart().await;
    eventually("rules go with the last network", PATIENCE, async || shown(&table).is_none().then_some(()))
        .await;
    let networks = run("docker", &["network", "ls", "-q", "--filter", &format!("label={ours}")]).unwrap();
    assert_eq!(networks, "");
}

/// A network of the engine's that is gone when this is dropped.
struct Network(String);

impl Network {
    fn make(labels: &[&str]) -> Self {
        let name = format!("svt-left-{}", uuid());
        let mut arguments = vec!["network", "create"];
        for label in labels {
            arguments.extend(["--label", label]);
        }
        arguments.push(&name);
        run("docker", &arguments).unwrap_or_else(|| panic!("{arguments:?}"));
        Self(name)
    }

    fn exists(&self) -> bool {
        run("docker", &["network", "inspect", &self.0]).is_some()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run("docker", &["network", "rm", &self.0]);
    }
}

fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

#[tokio::test]
async fn rules_that_cannot_be_put_back_are_a_reason_that_all_are_told() {
    let serve = Serve::start().await;
    let sandbox = spawn(&serve).await;
    let table = table(&serve, &sandbox);
    let told = async || {
        let (_, ready) = serve.api.get("/ready").await;
        let (_, diagnostics) = serve.api.get("/diagnostics").await;
        let provider = |answer: &Value| {
            let all = answer["providers"].as_array().unwrap();
            all.iter().find(|provider| provider["name"] == "docker").unwrap().clone()
        };
        (provider(&ready), provider(&diagnostics))
    };
    // A table that another program owns is nobody else's to change.
    let mut owner =
        Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = owner.stdin.take().unwrap();
    let taken = format!("delete table inet {table}; add table inet {table} {{ flags owner; }}\n");
    let began = Instant::now();
    while !shown(&table).is_some_and(|shown| shown.contains("owner")) {
        assert!(began.elapsed() < PATIENCE, "the table is taken");
        stdin.write_all(taken.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    eventually("the trouble is told", PATIENCE, async || {
        let (ready, diagnostics) = told().await;
        let reason = diagnostics["error"].as_str().unwrap_or_default();
        (ready["reason"] == "network_rules"
            && ready["healthy"] == false
            && reason.starts_with("network_rules: "))
        .then_some(())
    })
    .await;
    let (status, answer) =
        serve.api.post("/sandboxes", json!({"image": "python:3.12", "network": "bridge"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("rules cannot be kept"), "{answer}");
    drop(stdin);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("nothing is wrong any more", PATIENCE, async || {
        let (ready, diagnostics) = told().await;
        (ready["healthy"] == true && ready["reason"].is_null() && diagnostics["error"].is_null())
            .then_some(())
    })
    .await;
    assert!(shown(&table).unwrap().contains("chain box"), "the rules are back");
    let log = serve.process.log_text();
    assert_eq!(log.matches("the rules of networks cannot be kept").count(), 1, "{log}");
}

#[tokio::test]
async fn exceptions_open_what_they_name_and_names_are_asked_within_bounds() {
    let mut outside = Outside::new();
    let (port, other_port) = (outside.port, free_port());
    outside.listens_on(other_port);
    // Within a broad exception, and not named by its address.
    outside.has_too("100.100.100.200");
    let seen = outside.answers_questions();
    let [link_local, private, shared] = outside.closed.clone();
    let yaml = format!(
        "providers:\n  docker:\n    dns_servers: [{0}]\n    allow_networks:\n      - {private}:{port}\n      - 100.64.0.0/10\n      - 10.0.0.0/8:8000-8001\n      - {0}:53\n",
        outside.address
    );
    let serve = Serve::with_config("docker", &[], &yaml).await;
    let (one, two) = (spawn(&serve).await, spawn(&serve).await);
    eventually("what is opened is reached", PATIENCE, async || {
        reaches(&serve, &one, &private, port).await.then_some(())
    })
    .await;
    let targets = [(shared.clone(), port), (shared.clone(), other_port)];
    assert_eq!(answers(&serve, &one, &targets).await, ["open", "open"]);

    // Another port, what is link-local, metadata in a broad exception, and other sandboxes in one: all stay closed.
    let other = ip(&serve, &two).await;
    serve.api.exec(&two, "python3 -m http.server 8000 >/dev/null 2>&1 &").await;
    eventually("the other sandbox listens", PATIENCE, async || {
        reaches(&serve, &two, &other, 8000).await.then_some(())
    })
    .await;
    let gateway =
        other.rsplit_once('.').map(|(net, last)| format!("{net}.{}", last.parse::<u8>().unwrap() - 1));
    let closed = [
        (private.clone(), other_port),
        (link_local.clone(), port),
        ("100.100.100.200".to_owned(), port),
        (other.clone(), 8000),
        (gateway.unwrap(), 8000),
    ];
    for (target, said) in closed.iter().zip(answers(&serve, &one, &closed).await) {
        assert_ne!(said, "open", "{target:?}");
    }

    // Names come from the server that was named; another sandbox's address has none, in no way that one may ask.
    let ask = |what: &str| format!("python3 -c 'import socket; print(socket.{what})'");
    let known = serve.api.exec(&one, &ask("gethostbyname(\"known.test\")")).await;
    assert_eq!(known["stdout"], "93.184.215.14\n", "{known}");
    for what in [
        format!("gethostbyaddr(\"{other}\")"),
        format!("gethostbyname(\"{two}\")"),
        format!("gethostbyname(\"{}-{two}\")", serve.installation()),
    ] {
        let answer = serve.api.exec(&one, &ask(&what)).await;
        assert!(answer["exit_code"] != 0 && answer["stdout"] == "", "{what}: {answer}");
    }

    // Straight to the server, which an exception names with the port: as fast as it can, what is longer than a name can be; and to servers
    // that no exception names so.
    let began = Instant::now();
    let flood = |address: &str, bytes: usize, count: usize| {
        format!(
            "python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range({count}): s.sendto(b\"x\" * {bytes}, (\"{address}\", 53))'"
        )
    };
    let server = outside.address.to_string();
    // Another sandbox's questions have a share of their own; its last one comes after all the others.
    for (sandbox, address, bytes, count) in [
        (&one, &server, 33, 5_000),
        (&two, &server, 700, 20),
        (&two, &shared, 34, 20),
        (&two, &link_local, 35, 20),
        (&two, &server, 36, 1),
    ] {
        assert_eq!(serve.api.exec(sandbox, &flood(address, bytes, count)).await["exit_code"], 0);
    }
    eventually("another's question arrives", PATIENCE, async || {
        (arrived(&seen, &server, 36) == 1).then_some(())
    })
    .await;
    let most = 200 + 50 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
    let came = arrived(&seen, &server, 33);
    assert!(came > 0 && came <= most, "{came} of 5,000, {most} at most");
    for (address, bytes) in [(&server, 700), (&shared, 34), (&link_local, 35)] {
        assert_eq!(arrived(&seen, address, bytes), 0, "{bytes} bytes to {address}");
    }
}

/// How many datagrams of this size came to this address.
fn arrived(seen: &Path, address: &str, bytes: usize) -> usize {
    let line = format!("{address} {bytes} ");
    std::fs::read_to_string(seen).unwrap().lines().filter(|seen| seen.starts_with(&line)).count()
}

#[tokio::test]
async fn bubblewrap_gives_no_network_of_the_host_that_nobody_allowed() {
    let serve = Serve::with_config("bubblewrap", &[], "defaults:\n  network: bridge\n").await;
    for asked in [json!({"image": "python:3.12", "network": "bridge"}), json!({"image": "python:3.12"})] {
        let (status, answer) = serve.api.post("/sandboxes", asked).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains("network"), "{answer}");
    }
    serve.api.spawn(json!({"image": "python:3.12", "network": "none"})).await;
    assert!(!capabilities(&serve.api, "bubblewrap").await.contains(&json!("network")));
}

/// What a provider can do, once a node has told of it.
async fn capabilities(api: &Api, name: &str) -> Vec<Value> {
    eventually("the provider is told of", PATIENCE, async || {
        let (_, providers) = api.get("/providers").await;
        let found = providers.as_array()?.iter().find(|provider| provider["name"] == name)?.clone();
        let capabilities = found["capabilities"].as_array()?.clone();
        (found["healthy"] == true && capabilities.contains(&json!("exec"))).then_some(capabilities)
    })
    .await
}

#[tokio::test]
async fn who_may_not_keep_rules_says_so_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = stacyvm();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(server.get_program());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(server.get_args());
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--provider", "docker", "--data-dir"]);
    command.arg(dir.path());
    let process = Process::start(command, &dir.path().join("serve.log"));
    let api = Api::new(port);
    eventually("it is ready", PATIENCE, async || api.ready().await.then_some(())).await;
    eventually("its log says so", PATIENCE, async || {
        process.log_text().contains("sandboxes that ask for a network are refused: ").then_some(())
    })
    .await;
    assert!(!capabilities(&api, "docker").await.contains(&json!("network")));
    let (status, answer) = api.post("/sandboxes", json!({"image": "python:3.12", "network": "bridge"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("rules cannot be kept"), "{answer}");
    let without = api.spawn(json!({"image": "python:3.12", "network": "none"})).await;
    assert!(api.destroy(&without).await < 300);
}
