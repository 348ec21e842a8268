//! What a sandbox with a network asks for, and what servers outside say to lead it inside.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::name_server::{PUBLIC, Server};
use crate::outside::Outside;
use crate::siege::{BLUE, RED, client};
use crate::support::api::Api;
use crate::support::process::{Process, free_port, stacyvm};
use crate::support::serve::Serve;
use crate::support::{eventually, keys};

const PATIENCE: Duration = Duration::from_secs(90);
const OPERATOR: &str = "an-operators-key-of-the-attacks-on-names";

/// Python that asks and says a line each: the code of the answer (or `nothing`), whether it was cut short, and its records: kind and data.
const ASK: &str = "
import socket, struct, sys
KINDS = {\"A\": 1, \"PTR\": 12, \"TXT\": 16, \"AAAA\": 28, \"HTTPS\": 65, \"ANY\": 255, \"AXFR\": 252, \"MX\": 15}
def question(name, kind, klass=1):
    labels = b\"\".join(bytes([len(l)]) + l.encode() for l in name.split(\".\") if l)
    return struct.pack(\">HHHHHH\", 4711, 0x100, 1, 0, 0, 0) + labels + b\"\\0\" + struct.pack(\">HH\", KINDS[kind], klass)
def skip(data, at):
    while data[at]:
        if data[at] >= 192: return at + 2
        at += 1 + data[at]
    return at + 1
def read(data):
    ident, flags, questions, answers, above, beside = struct.unpack(\">HHHHHH\", data[:12])
    assert ident == 4711 and flags & 0x8000 and questions == 1, data
    at, found = skip(data, 12) + 4, []
    for _ in range(answers + above + beside):
        at = skip(data, at)
        kind, klass, ttl, length = struct.unpack(\">HHIH\", data[at:at + 10])
        found.append(\"%d:%s\" % (kind, data[at + 10:at + 10 + length].hex()[:48]))
        at += 10 + length
    return \" \".join([str(flags & 15), \"cut\" if flags & 0x200 else \"whole\"] + found)
def ask(server, name, kind, how=\"udp\"):
    # Nobody is to know the one, and the other is asked again; the rest is answered in the end.
    wait = 3 if name in (\"known.test\", \"public.again.test\") else 20
    try:
        if how == \"udp\":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(wait)
            s.sendto(question(name, kind), (server, 53))
            return read(s.recv(65535))
        s = socket.create_connection((server, 53), wait)
        data = question(name, kind)
        s.sendall(struct.pack(\">H\", len(data)) + data)
        f = s.makefile(\"rb\")
        return read(f.read(struct.unpack(\">H\", f.read(2))[0]))
    except (OSError, struct.error):
        return \"nothing\"
";

/// A sandbox of a tenant's.
struct Sandbox {
    api: Api,
    id: String,
    address: Ipv4Addr,
}

impl Sandbox {
    async fn of(serve: &Serve, key: &'static str) -> Self {
        let api = client(serve, key);
        let id = api.spawn(json!({"image": "python:3.12", "network": "bridge"})).await;
        let (_, shown) = api.get(&format!("/sandboxes/{id}")).await;
        Self { address: shown["ip"].as_str().unwrap().parse().unwrap(), api, id }
    }

    fn gateway(&self) -> String {
        Ipv4Addr::from(u32::from(self.address) - 1).to_string()
    }

    async fn python(&self, program: &str) -> String {
        assert!(!program.contains('\''), "it goes through a shell");
        let answer = self.api.exec(&self.id, &format!("python3 -c '{ASK}{program}'")).await;
        assert_eq!(answer["exit_code"], 0, "{answer}");
        answer["stdout"].as_str().unwrap().trim_end().to_owned()
    }

    /// Asks all of this at once: server, name, kind, and how.
    async fn ask(&self, questions: &[(&str, &str, &str, &str)]) -> Vec<String> {
        let list = questions
            .iter()
            .map(|(server, name, kind, how)| format!("({server:?},{name:?},{kind:?},{how:?})"));
        let list = list.collect::<Vec<_>>().join(",");
        let said = self
            .python(&format!(
                "
import threading
questions = [{list}]
said = [None] * len(questions)
def one(i, q): said[i] = ask(*q)
threads = [threading.Thread(target=one, args=q) for q in enumerate(questions)]
[t.start() for t in threads]; [t.join() for t in threads]
print(\"\\n\".join(said))
"
            ))
            .await;
        let said: Vec<_> = said.lines().map(str::to_owned).collect();
        assert_eq!(said.len(), questions.len(), "{said:?}");
        said
    }
}

const REFUSED: &str = "5 whole";
const NO_SUCH: &str = "3 whole";
const FAILED: &str = "2 whole";

fn config(server: &Server, more: &str) -> String {
    let keys = keys::config(&[("red", RED, false), ("blue", BLUE, false), ("default", OPERATOR, true)]);
    format!("{keys}providers:\n  docker:\n    dns_servers: [{}]\n{more}", server.address)
}

#[tokio::test]
async fn a_name_does_not_lead_inside_whatever_servers_say() {
    let server = Server::start().await;
    let more = "    allow_networks: [10.44.0.0/16]\n    allow_names: [open.internal]\n";
    let serve = Serve::with_config("docker", &[], &config(&server, more)).await;
    let one = Sandbox::of(&serve, RED).await;
    let gateway = &*one.gateway();
    let public = format!("0 whole 1:{}", hex(PUBLIC));
    let opened = format!("0 whole 1:{}", hex("10.44.0.5"));
    let table: &[(&str, &str, &str)] = &[
        ("public.test", "A", &public),
        ("PUBLIC.Test", "A", &public),
        ("public6.test", "AAAA", "0 whole 28:26064700470000000000000000001111"),
        ("private.test", "A", NO_SUCH),
        ("some.test", "A", NO_SUCH),
        ("metadata.test", "A", NO_SUCH),
        ("sandbox.test", "A", NO_SUCH),
        ("local6.test", "AAAA", NO_SUCH),
        ("mapped.test", "AAAA", NO_SUCH),
        ("nat64.test", "AAAA", NO_SUCH),
        ("sixtofour.test", "AAAA", NO_SUCH),
        ("alias.test", "A", NO_SUCH),
        ("reverse.test", "PTR", NO_SUCH),
        ("beside.test", "A", NO_SUCH),
        ("hint.test", "HTTPS", "0 whole 65:000100"),
        ("opened.test", "A", &opened),
        ("opened.open.internal", "A", &opened),
        ("forged.test", "A", FAILED),
        ("late.test", "A", &public),
        ("silent.test", "A", FAILED),
        ("broken.test", "A", FAILED),
        ("endless.test", "TXT", FAILED),
        ("large.test", "A", FAILED),
        ("unknown.test", "A", NO_SUCH),
        // Not passed on at all.
        ("public.local", "A", NO_SUCH),
        ("public.internal", "A", NO_SUCH),
        ("public.localhost", "A", NO_SUCH),
        ("public", "A", NO_SUCH),
        ("5.0.0.10.in-addr.arpa", "PTR", NO_SUCH),
        ("0.0.10.in-addr.arpa", "PTR", NO_SUCH),
        ("public.test", "ANY", REFUSED),
        ("public.test", "AXFR", REFUSED),
    ];
    // All datagrams at once; connections a few at a time, without those that take all the time there is.
    let slow = ["forged.test", "silent.test"];
    let quick: Vec<_> = table.iter().filter(|(name, ..)| !slow.contains(name)).copied().collect();
    let rounds = [(table, "udp")].into_iter().chain(quick.chunks(4).map(|some| (some, "tcp")));
    for (some, how) in rounds {
        let questions: Vec<_> = some.iter().map(|(name, kind, _)| (gateway, *name, *kind, how)).collect();
        for (said, (name, kind, expected)) in one.ask(&questions).await.iter().zip(some) {
            assert_eq!(said, expected, "{name} {kind} by {how}");
        }
    }
    let passed_on: Vec<_> = server.asked.lock().unwrap().keys().cloned().collect();
    for closed in ["local.", "localhost.", "public.", "arpa."] {
        assert!(!passed_on.iter().any(|name| name.ends_with(closed)), "{closed}: {passed_on:?}");
    }
    assert!(!passed_on.contains(&"public.internal.".to_owned()), "{passed_on:?}");
    // Remembered nowhere.
    assert!(server.times("public.test.") >= 4);

    // A name that changes its address: what was good once is judged again, each time.
    let first = one.ask(&[(gateway, "rebind.test", "A", "udp")]).await;
    let then = one.ask(&[(gateway, "rebind.test", "A", "udp"); 2]).await;
    assert_eq!((first, then), (vec![public.clone()], vec![NO_SUCH.to_owned(); 2]));
    // What does not fit into a datagram is said to, and comes over a connection.
    let long = one.ask(&[(gateway, "text.test", "TXT", "udp"), (gateway, "text.test", "TXT", "tcp")]).await;
    assert_eq!(long[0], "0 cut");
    assert_eq!(long[1].matches(" 16:").count(), 20, "{long:?}");
}

/// How many questions ended so, as the metrics say.
async fn counted(serve: &Serve, verdict: &str) -> Option<u64> {
    let operator = client(serve, OPERATOR);
    let answer = operator.http.get(operator.url("/metrics/prometheus")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let line = format!("stacyvm_name_queries_total{{verdict=\"{verdict}\"}} ");
    text.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok())
}

/// Asks as fast as it can, what nobody answers and what is no question, by all ways at once, and keeps connections.
const FLOOD: &str = "
import os, threading, time
server = GATEWAY
idle = []
def connections():
    while True:
        try: idle.append(socket.create_connection((server, 53), 2))
        except OSError: time.sleep(0.05)
        if len(idle) > 200: del idle[:100]
def questions():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    n = 0
    while True:
        n += 1
        for data in (question(\"silent.x%d.test\" % n, \"A\"), os.urandom(1 + n % 500), question(\"private.test\", \"A\")[:n % 30]):
            try: s.sendto(data, (server, 53))
            except OSError: pass
        if n % 20 == 0: time.sleep(0.01)
for do in (connections, questions, questions): threading.Thread(target=do, daemon=True).start()
open(\"/tmp/flooding\", \"w\").close()
time.sleep(600)
";

#[tokio::test]
async fn a_sandbox_asks_its_own_server_only_and_a_flood_costs_nobody_else() {
    let (server, mut outside) = (Server::start().await, Outside::new());
    let seen = outside.answers_questions();
    let mut serve = Serve::with_config("docker", &[], &config(&server, "")).await;
    for verdict in ["answered", "refused", "inside", "failed", "malformed", "over_rate"] {
        eventually("it is counted", PATIENCE, async || {
            (counted(&serve, verdict).await == Some(0)).then_some(())
        })
        .await;
    }
    let (one, two) = (Sandbox::of(&serve, RED).await, Sandbox::of(&serve, BLUE).await);
    let (own, others) = (&*one.gateway(), &*two.gateway());

    // Whoever else answers: not to this one. Those outside do answer, to whom may ask them.
    let elsewhere =
        [&outside.address.to_string()].into_iter().chain(&outside.closed).cloned().collect::<Vec<_>>();
    let upstream = server.address.to_string();
    let mut questions = vec![(own, "public.test", "A", "udp"), (own, "public.test", "A", "tcp")];
    for server in elsewhere.iter().map(String::as_str).chain([others, &*upstream]) {
        questions.extend([(server, "known.test", "A", "udp"), (server, "known.test", "A", "tcp")]);
    }
    let said = one.ask(&questions).await;
    let public = format!("0 whole 1:{}", hex(PUBLIC));
    assert_eq!(said[..2], [public.clone(), public.clone()]);
    assert!(said[2..].iter().all(|said| said == "nothing"), "{questions:?}: {said:?}");
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "");

    // By way of the engine's own resolver: what is public, and of other sandboxes neither names nor addresses.
    let names = format!(
        "
for look, what in ((socket.gethostbyname, \"public.test\"), (socket.gethostbyname, \"private.test\"), (socket.gethostbyname, \"{two}\"),
                   (socket.gethostbyname, \"{installation}-{two}\"), (socket.gethostbyaddr, \"{address}\"), (socket.gethostbyaddr, \"{others}\"),
                   (socket.gethostbyaddr, \"10.0.0.5\"), (socket.gethostbyname, \"host.docker.internal\")):
    try: print(look(what))
    except OSError: print(\"none\")
print(open(\"/etc/resolv.conf\").read().split())
",
        two = two.id,
        address = two.address,
        installation = serve.installation(),
    );
    let said = one.python(&names).await;
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some(PUBLIC), "{said}");
    assert!(lines.by_ref().take(7).all(|line| line == "none"), "{said}");
    assert_eq!(
        lines.next(),
        Some("[\"nameserver\", \"127.0.0.11\", \"options\", \"ndots:0\"]".replace('"', "'").as_str())
    );
    assert!(counted(&serve, "inside").await >= Some(1) && counted(&serve, "refused").await >= Some(3));

    // A flood: another tenant's sandbox asks as before, and the one itself afterwards.
    let flood = FLOOD.replace("GATEWAY", &format!("\"{own}\""));
    let flood = format!("python3 -c '{ASK}{flood}' >/dev/null 2>&1 & echo $! >/tmp/flood");
    assert_eq!(one.api.exec(&one.id, &flood).await["exit_code"], 0);
    eventually("the flood is there", PATIENCE, async || {
        (counted(&serve, "malformed").await > Some(0)).then_some(())
    })
    .await;
    for _ in 0..5 {
        let questions = [
            (others, "public.test", "A", "udp"),
            (others, "public.test", "A", "tcp"),
            (others, "private.test", "A", "udp"),
        ];
        assert_eq!(two.ask(&questions).await, [public.clone(), public.clone(), NO_SUCH.to_owned()]);
    }
    eventually("questions are given up", PATIENCE, async || {
        (counted(&serve, "failed").await > Some(0)).then_some(())
    })
    .await;
    one.api.exec(&one.id, "kill $(cat /tmp/flood)").await;
    eventually("it may ask again", PATIENCE, async || {
        (one.ask(&[(own, "public.again.test", "A", "udp"), (own, "public.again.test", "A", "tcp")]).await
            == [public.clone(), public.clone()])
        .then_some(())
    })
    .await;
    let log = serve.process.log_text();
    assert!(!log.contains(".test") && !log.contains("hickory"), "{log}");

    // After a restart it is there again, for networks that are. While somebody else has the place, all are told.
    serve.process.kill();
    let taken = std::net::UdpSocket::bind((own, 53)).expect("the network is there");
    serve.kill_and_restart().await;
    let told = async || {
        let (_, ready) = serve.api.get("/ready").await;
        let all = ready["providers"].as_array().unwrap().clone();
        all.into_iter().find(|provider| provider["name"] == "docker").unwrap()
    };
    eventually("the trouble is told", PATIENCE, async || {
        let ready = told().await;
        (ready["reason"] == "network_names" && ready["healthy"] == false).then_some(())
    })
    .await;
    assert_eq!(one.ask(&[(own, "public.test", "A", "tcp")]).await, ["nothing"]);
    assert_eq!(two.ask(&[(others, "public.test", "A", "udp")]).await, [&*public]);
    drop(taken);
    eventually("nothing is wrong any more", PATIENCE, async || {
        let ready = told().await;
        (ready["healthy"] == true && ready["reason"].is_null()).then_some(())
    })
    .await;
    assert_eq!(one.ask(&[(own, "public.test", "A", "tcp")]).await, [&*public]);
    let log = serve.process.log_text();
    assert_eq!(log.matches("sandboxes with a network hear of no names").count(), 1, "{log}");
}

#[tokio::test]
async fn who_may_not_listen_for_names_says_so_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = stacyvm();
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"])
        .arg(server.get_program());
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
        let log = process.log_text();
        log.contains("sandboxes that ask for a network are refused: names cannot be answered").then_some(())
    })
    .await;
    let capable = async || -> Option<bool> {
        let (_, providers) = api.get("/providers").await;
        let docker: Value =
            providers.as_array()?.iter().find(|provider| provider["name"] == "docker")?.clone();
        let capabilities = docker["capabilities"].as_array()?.clone();
        capabilities.contains(&json!("exec")).then(|| capabilities.contains(&json!("network")))
    };
    assert!(!eventually("the provider is told of", PATIENCE, capable).await);
    let (status, answer) = api.post("/sandboxes", json!({"image": "python:3.12", "network": "bridge"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("no names can be answered"), "{answer}");
    let without = api.spawn(json!({"image": "python:3.12", "network": "none"})).await;
    assert!(api.destroy(&without).await < 300);
}

fn hex(address: &str) -> String {
    let address: Ipv4Addr = address.parse().unwrap();
    format!("{:08x}", u32::from(address))
}
