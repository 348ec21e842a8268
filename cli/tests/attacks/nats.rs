//! What a process of ours that was taken over tries with its user of NATS, and what is said to one that is not let in.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use events::{Actor, DestroyReason, Event, EventId, ExecId, SandboxDestroyed, SandboxId, TenantId};
use serde_json::json;
use transport::{Log, NatsAccess, NatsConfig};

use crate::support::eventually;
use crate::support::process::{Process, free_port, stacyvm};
use crate::support::split::{GUARDED_NODE, Split, password_of};

/// A connection of a user, in the protocol of NATS.
struct Raw {
    reader: BufReader<TcpStream>,
}

impl Raw {
    fn connect(split: &Split, user: &str) -> Self {
        let address = split.nats_url().replace("nats://", "");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut raw = Self { reader: BufReader::new(stream) };
        let options = json!({"user": user, "pass": password_of(user), "verbose": false, "headers": true});
        assert_eq!(raw.say(&format!("CONNECT {options}\r\n")), Vec::<String>::new());
        raw
    }

    /// Says it, and gives back what the server complains of.
    fn say(&mut self, text: &str) -> Vec<String> {
        self.reader.get_mut().write_all(format!("{text}PING\r\n").as_bytes()).unwrap();
        let mut complaints = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.reader.read_line(&mut line).unwrap(), 0, "closed after {text:?}: {complaints:?}");
            match line.trim_end() {
                "PONG" => return complaints,
                line if line.starts_with("-ERR") => complaints.push(line.to_owned()),
                _ => {}
            }
        }
    }

    fn may_publish(&mut self, subject: &str) -> bool {
        self.say(&format!("PUB {subject} 0\r\n\r\n")).is_empty()
    }

    fn may_subscribe(&mut self, subject: &str) -> bool {
        self.say(&format!("SUB {subject} 1\r\nUNSUB 1\r\n")).is_empty()
    }
}

fn event(sandbox: SandboxId, actor: Actor, data: impl Into<events::EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(sandbox),
        time: chrono::DateTime::UNIX_EPOCH,
        actor,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_does_its_work_and_nothing_else() {
    let split = Split::guarded().await;
    // The whole round: commands, events, the link, the feed, queries, one-time tickets.
    let sandbox = split.api.spawn(json!({"image": "stacyvm/base:local", "ttl": "10m"})).await;
    assert_eq!(split.api.exec(&sandbox, "echo hello").await["stdout"], "hello\n");
    let path = format!("/sandboxes/{sandbox}/files?path=/tmp/x");
    let put = split.api.http.put(split.api.url(&path)).body("content").send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    let got = split.api.http.get(split.api.url(&path)).send().await.unwrap().text().await.unwrap();
    assert_eq!(got, "content");
    let (status, answer) =
        split.api.post(&format!("/sandboxes/{sandbox}/extend"), json!({"ttl": "20m"})).await;
    assert!(status < 300, "{status}: {answer}");
    let deliverer = split.another("webhooks", "webhooks");
    eventually("webhooks are ready", Duration::from_secs(60), async || {
        deliverer.log_text().contains("webhooks ready").then_some(())
    })
    .await;
    let driver = split.another("jobs", "jobs");
    eventually("the driver of jobs is ready", Duration::from_secs(60), async || {
        driver.log_text().contains("jobs ready").then_some(())
    })
    .await;
    let complaints = || {
        let log = std::fs::read_to_string(split.dir.path().join("nats.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("Permissions Violation"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(complaints(), Vec::<String>::new());

    // An executor of another node, taken over.
    let mut other = Raw::connect(&split, "other");
    for subject in [
        "stacyvm.evt.default._.exec",
        "stacyvm.evt.@.executor.default._.exec",
        "stacyvm.evt.@.others.default._.exec",
        "stacyvm.cmd.spawn.docker",
        "stacyvm.cmd.node.executor.destroy",
        "stacyvm.cmd.node.other.exec",
        "stacyvm.feed",
        "stacyvm.recorded",
        "stacyvm.progress",
        "stacyvm.link.executor",
        "stacyvm.beat.executor",
        "stacyvm.spent.x",
        "stacyvm.sealed.x",
        "$JS.API.STREAM.MSG.GET.STACYVM-SEALED",
        "$JS.API.DIRECT.GET.STACYVM-SEALED.stacyvm.sealed.x",
        "$JS.API.STREAM.PURGE.STACYVM-SEALED",
        "stacyvm.lease.x",
        "_INBOX.recorder.x",
        "_INBOX.node.executor.x",
        "$JS.API.CONSUMER.CREATE.STACYVM-COMMANDS.node-executor.stacyvm.cmd.node.executor.>",
        "$JS.API.CONSUMER.CREATE.STACYVM-COMMANDS.mine",
        "$JS.API.CONSUMER.CREATE.STACYVM-COMMANDS",
        "$JS.API.CONSUMER.DURABLE.CREATE.STACYVM-COMMANDS.mine",
        "$JS.API.CONSUMER.CREATE.STACYVM-EVENTS.mine",
        "$JS.API.CONSUMER.MSG.NEXT.STACYVM-COMMANDS.node-executor",
        "$JS.API.CONSUMER.DELETE.STACYVM-COMMANDS.node-executor",
        "$JS.API.STREAM.MSG.GET.STACYVM-COMMANDS",
        "$JS.API.STREAM.MSG.GET.STACYVM-EVENTS",
        "$JS.API.DIRECT.GET.STACYVM-EVENTS",
        "$JS.API.STREAM.PURGE.STACYVM-EVENTS",
        "$JS.API.STREAM.DELETE.STACYVM-EVENTS",
        "$JS.API.STREAM.UPDATE.STACYVM-EVENTS",
        "$JS.API.STREAM.CREATE.STACYVM-EVENTS",
        "$JS.ACK.STACYVM-COMMANDS.node-executor.1.1.1.1.0",
        "$SYS.REQ.SERVER.PING",
    ] {
        assert!(!other.may_publish(subject), "an executor may publish on {subject}");
    }
    for subject in [
        ">",
        "*",
        "_INBOX.>",
        "_INBOX.gateway.>",
        "_INBOX.node.executor.>",
        "stacyvm.>",
        "stacyvm.cmd.>",
        "stacyvm.evt.>",
        "stacyvm.feed",
        "stacyvm.query",
        "stacyvm.link.executor",
        "stacyvm.link.*",
        "stacyvm.beat.*",
        "$SYS.>",
    ] {
        assert!(!other.may_subscribe(subject), "an executor may subscribe to {subject}");
    }
    // That the above is no refusal of everything.
    assert!(other.may_publish("stacyvm.beat.other") && other.may_subscribe("stacyvm.link.other"));
    for (user, publish, subscribe) in [
        ("gateway", "stacyvm.feed", "stacyvm.link.*"),
        ("gateway", "stacyvm.evt.@.executor.default._.exec", "stacyvm.cmd.>"),
        ("gateway", "$JS.API.STREAM.PURGE.STACYVM-EVENTS", "_INBOX.node.>"),
        ("reaper", "stacyvm.feed", "stacyvm.cmd.>"),
        ("reaper", "$JS.API.STREAM.CREATE.STACYVM-EVENTS", "_INBOX.gateway.>"),
        ("webhooks", "stacyvm.cmd.spawn.docker", "stacyvm.evt.>"),
        ("webhooks", "stacyvm.link.executor", "_INBOX.>"),
        ("jobs", "stacyvm.evt.@.executor.default._.exec", "stacyvm.cmd.>"),
        ("jobs", "$JS.API.STREAM.CREATE.STACYVM-EVENTS", "_INBOX.gateway.>"),
        ("recorder", "stacyvm.cmd.spawn.docker", "stacyvm.cmd.>"),
        ("recorder", "$JS.API.STREAM.DELETE.STACYVM-EVENTS", "_INBOX.gateway.>"),
    ] {
        let mut raw = Raw::connect(&split, user);
        assert!(!raw.may_publish(publish), "{user} may publish on {publish}");
        assert!(!raw.may_subscribe(subscribe), "{user} may subscribe to {subscribe}");
    }

    // What the server lets it say of its own node is recorded only of sandboxes that are there.
    let config = NatsConfig {
        credentials: Some(("other".to_owned(), password_of("other"))),
        access: NatsAccess { role: Some("node.other".to_owned()), ..NatsAccess::default() },
        ..NatsConfig::new(split.nats_url())
    };
    let node = "other".parse().unwrap();
    let log = Log::connect(&config).await.unwrap().on_node(&node);
    let id: SandboxId = sandbox.parse().unwrap();
    let actor = Actor::Executor(GUARDED_NODE.parse().unwrap());
    let forged = event(id, actor.clone(), SandboxDestroyed { reason: DestroyReason::Vanished });
    log.publish(std::slice::from_ref(&forged)).await.unwrap();
    let spec = serde_json::from_value(json!({"argv": ["forged"]})).unwrap();
    let started = events::ExecStarted { exec: ExecId::new(), spec, env_names: vec![], pid: 1 };
    log.publish(&[event(id, actor, started)]).await.unwrap();
    eventually("it is put aside", Duration::from_secs(30), async || {
        split.recorder.log_text().contains("not its own").then_some(())
    })
    .await;
    // Later than what was forged, and so recorded after it.
    assert_eq!(split.api.exec(&sandbox, "echo still here").await["stdout"], "still here\n");
    let url = split.api.url(&format!("/events?sandbox={sandbox}&after=0&follow=false&format=ndjson"));
    let told = split.api.http.get(url).send().await.unwrap().text().await.unwrap();
    assert!(told.contains("sandbox.running") && !told.contains("forged"), "{told}");
    assert!(!told.contains("sandbox.destroyed") && !told.contains(&forged.id.to_string()), "{told}");
    assert_eq!(split.api.destroy(&sandbox).await / 100, 2);
}

/// Starts a recorder, and gives back what it says when it ends by itself.
async fn refused(dir: &std::path::Path, environment: &[(&str, &str)]) -> String {
    let mut command = stacyvm();
    command.args(["recorder", "--database", "sqlite::memory:", "--data-dir"]).arg(dir.join("data"));
    command.envs(environment.iter().copied());
    let mut process = Process::start(command, &dir.join("recorder.log"));
    let began = std::time::Instant::now();
    let status = loop {
        if let Some(status) = process.exit_code() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it goes on: {}", process.log_text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status, 1, "{}", process.log_text());
    process.log_text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_ends_at_once_and_says_why() {
    // A key that NATS's own documentation shows.
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let openssl = r#"
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
for name in server client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
    printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >extensions
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out $name.pem
done
"#;
    let made = Command::new("sh").args(["-c", openssl]).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(file("seed"), format!("{SEED}\n")).unwrap();
    std::fs::write(file("password"), "a-right-one\n").unwrap();
    let port = free_port();
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
         tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n\
         authorization {{ users: [ {{nkey: {PUBLIC}}}, {{user: recorder, password: a-right-one}} ] }}\n\
         jetstream {{ store_dir: {:?} }}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
        file("nats"),
    );
    std::fs::write(file("nats.conf"), text).unwrap();
    let mut command = Command::new("nats-server");
    command.arg("--config").arg(file("nats.conf"));
    let _nats = Process::start(command, &dir.path().join("nats.log"));
    eventually("it listens", Duration::from_secs(30), async || {
        TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
    })
    .await;
    let url = format!("tls://127.0.0.1:{port}");
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let (seed, password, absent) = (file("seed"), file("password"), file("absent"));
    let tls = [
        ("STACYVM_NATS_URL", url.as_str()),
        ("STACYVM_NATS_CA_FILE", ca.as_str()),
        ("STACYVM_NATS_CERTIFICATE_FILE", certificate.as_str()),
        ("STACYVM_NATS_CERTIFICATE_KEY_FILE", key.as_str()),
    ];
    let with = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        tls.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    let run = async |environment: Vec<(&'static str, String)>| {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        refused(dir.path(), &environment).await
    };
    let user = ("STACYVM_NATS_USER", "recorder");
    for (more, said) in [
        (vec![user, ("STACYVM_NATS_PASSWORD", "a-wrong-one")], "refuses the user, the password or the key"),
        (vec![], "refuses the user, the password or the key"),
        (vec![user, ("STACYVM_NATS_PASSWORD_FILE", absent.as_str())], "nats.password_file"),
        (vec![("STACYVM_NATS_PASSWORD", "a-right-one")], "nats.user"),
        (vec![("STACYVM_NATS_NKEY_FILE", absent.as_str())], absent.as_str()),
        (vec![("STACYVM_NATS_NKEY_FILE", password.as_str())], "no seed of a user's key"),
        (vec![("STACYVM_NATS_CREDENTIALS_FILE", absent.as_str())], absent.as_str()),
        (vec![("STACYVM_NATS_CREDENTIALS_FILE", seed.as_str())], seed.as_str()),
        (vec![user, ("STACYVM_NATS_NKEY_FILE", seed.as_str())], "three ways to say the same"),
        (vec![("STACYVM_NATS_CA_FILE", absent.as_str())], absent.as_str()),
        (vec![("STACYVM_NATS_CERTIFICATE_KEY_FILE", ca.as_str())], "no PEM of that kind"),
    ] {
        let log = run(with(&more)).await;
        assert!(log.contains(said), "{more:?}: {log}");
    }
    // Without the authority that signed the server's certificate nobody is trusted.
    let log = run(vec![("STACYVM_NATS_URL", url.clone())]).await;
    assert!(log.contains("no secure connection (TLS)"), "{log}");
    // The right ones are let in, of each kind.
    for (name, more) in [
        ("key", vec![("STACYVM_NATS_NKEY_FILE", seed.as_str())]),
        ("file", vec![user, ("STACYVM_NATS_PASSWORD_FILE", password.as_str())]),
    ] {
        let mut command = stacyvm();
        command.args([
            "recorder",
            "--database",
            &format!("sqlite:{}", file(&format!("{name}.db"))),
            "--data-dir",
        ]);
        command.arg(dir.path().join(name)).envs(with(&more));
        let process = Process::start(command, &dir.path().join(format!("{name}.log")));
        eventually("the recorder is ready", Duration::from_secs(60), async || {
            process.log_text().contains("recorder ready").then_some(())
        })
        .await;
    }
}
