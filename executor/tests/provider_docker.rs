//! What only boxes of a Docker engine have: image pulls, a bridge, and neighbours on the same engine.
//!
//! Needs what the conformance suite needs, and Debian's `docker-registry`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code)]
#[path = "provider_conformance/rig.rs"]
mod rig;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use events::{FailureCode, Network, SandboxId};
use executor::provider::{BoxOrder, CreateError, NoProgress, Provider, Pull, PullProgress};
use executor::providers::docker::{DockerConfig, DockerProvider, PullPolicy};
use rig::{Rig, agent_path, node, python, shell};

/// Remembers what it hears.
#[derive(Default)]
struct Heard(Mutex<Vec<Pull>>);

impl PullProgress for Heard {
    fn pulling(&self, pull: &Pull) {
        self.0.lock().unwrap().push(pull.clone());
    }
}

/// A registry on a port of its own.
struct Registry {
    process: Child,
    host: String,
    port: u16,
    data: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        Self::with("")
    }

    /// One that lets nobody in who does not log in.
    fn with_password() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: test\n    path: PASSWORDS\n")
    }

    fn with(more: &str) -> Self {
        Self::at("127.0.0.1", more, |_| String::new())
    }

    /// One that speaks TLS, with a certificate that nobody knows.
    fn with_certificate(host: &str) -> Self {
        Self::at(host, "", |data| {
            let (key, certificate) = (data.join("key.pem"), data.join("certificate.pem"));
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
            openssl.args(["-subj", "/CN=registry", "-days", "2"]);
            docker_ok(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
            format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display())
        })
    }

    fn at(host: &str, more: &str, http: impl Fn(&std::path::Path) -> String) -> Self {
        let data = tempfile::tempdir().unwrap();
        let passwords = data.path().join("passwords");
        // In its form a hash; nobody knows of what.
        std::fs::write(&passwords, format!("somebody:$2y$05${}\n", "a".repeat(53))).unwrap();
        let more = more.replace("PASSWORDS", &passwords.display().to_string());
        let port = free_port();
        let config = data.path().join("config.yml");
        let root = data.path().join("images");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}:{port}\n{}{more}",
            root.display(),
            http(data.path()),
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (apt-get install docker-registry)");
        let registry = Self { process, host: host.to_owned(), port, data };
        let began = Instant::now();
        while std::net::TcpStream::connect((host, port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn image(&self, name: &str) -> String {
        format!("{}:{}/{name}", self.host, self.port)
    }

    /// Makes an image that no engine has seen, pushes it, and forgets it here.
    fn publish(&self, name: &str) -> String {
        let image = self.image(name);
        let root = self.data.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        let random = std::fs::File::open("/dev/urandom").unwrap();
        let mut blob = std::fs::File::create(root.join("blob")).unwrap();
        std::io::copy(&mut std::io::Read::take(random, 8 << 20), &mut blob).unwrap();
        docker_ok(Command::new("sh").args(["-c", "cp \"$(command -v busybox)\" \"$1/bin/sh\" && tar -C \"$1\" -c . | docker import - \"$2\"", "sh"]).arg(&root).arg(&image));
        docker_ok(Command::new("docker").args(["push", &image]));
        docker_ok(Command::new("docker").args(["rmi", &image]));
        image
    }
}

impl Registry {
    /// Runs curl against it. Its last argument is a path.
    fn curl(&self, arguments: &[&str], path: &str) -> String {
        let url = format!("http://{}:{}/v2/{path}", self.host, self.port);
        let output =
            Command::new("curl").args(["-sS", "--fail", "--noproxy", "*"]).args(arguments).arg(url).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The manifest of an image, and its digest.
    fn manifest(&self, name: &str, tag: &str) -> (String, String) {
        let accept = ["-H", "Accept: application/vnd.docker.distribution.manifest.v2+json"];
        let path = format!("{name}/manifests/{tag}");
        let text = self.curl(&accept, &path);
        let head = self.curl(&[accept.as_slice(), &["-I"]].concat(), &path).to_ascii_lowercase();
        let digest = head.lines().find_map(|line| line.strip_prefix("docker-content-digest: ")).unwrap();
        (text, digest.trim().to_owned())
    }

    /// Where it keeps what has this digest.
    fn blob(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.data.path().join("images/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    fn layer(&self, name: &str, tag: &str) -> std::path::PathBuf {
        let manifest: serde_json::Value = serde_json::from_str(&self.manifest(name, tag).0).unwrap();
        self.blob(manifest["layers"][0]["digest"].as_str().unwrap())
    }
}

/// Answers whatever is asked of it, once that is told in HTTP, with this.
fn always(answer: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = format!("{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            // A greeting of TLS is left unanswered: the engine tries without, on loopback.
            if stream.read(&mut asked).is_ok_and(|count| count > 0 && asked[0] != 0x16) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    place
}

/// An address of this host that is not its loopback, so that the engine insists on TLS. Nothing is sent there.
fn address_outside() -> String {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).expect("this host has an address");
    socket.local_addr().unwrap().ip().to_string()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn docker_ok(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// One that pulls, also from these, which are inside.
fn pulling(registries: &[String]) -> Rig {
    let allow = registries.iter().map(|registry| registry.parse().unwrap()).collect();
    Rig::docker_with(|config| {
        config.pull = PullPolicy::Missing;
        config.images.deployment.allow = allow;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_may_stand_in_for_another() {
    let name = "registry.example/no/such/tool:1".to_owned();
    let aliased = name.clone();
    Rig::docker_with(move |config| {
        config.image_aliases.insert(aliased, "stacyvm/base:local".to_owned());
    })
    .run(|rig| async move {
        let mut spec = rig.spec();
        spec.image = name;
        let made = rig.create(&rig.order(spec.clone())).await;
        assert_eq!(python(&made, "print(6 * 7)").await.stdout, "42\n");
        spec.image = "registry.example/no/such/tool:2".to_owned();
        let refused = rig.provider.create(&rig.order(spec), &NoProgress).await;
        assert!(matches!(refused, Err(CreateError::ImageNotFound { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_once_for_all_who_wait() {
    let registry = Registry::start();
    let image = registry.publish("tool:1");
    let kept = image.clone();
    pulling(&[registry.image("")])
        .run(|rig| async move {
            let mut spec = rig.spec();
            spec.image = kept;
            let orders: Vec<_> = (0..3).map(|_| rig.order(spec.clone())).collect();
            let heard: Vec<_> = orders.iter().map(|_| Heard::default()).collect();
            let creates = orders.iter().zip(&heard).map(|(order, heard)| rig.provider.create(order, heard));
            for made in futures::future::join_all(creates).await {
                let ran = shell(&made.expect("create a box"), "echo it runs").await;
                assert_eq!(ran.stdout, "it runs\n");
            }
            for heard in heard {
                let heard = heard.0.into_inner().unwrap();
                let first = heard.first().expect("a pull is announced");
                assert_eq!((first.image.as_str(), first.fetched_bytes), (spec.image.as_str(), 0));
                let sums: Vec<_> = heard.iter().map(|pull| pull.fetched_bytes).collect();
                assert!(
                    sums.is_sorted() && heard.iter().all(|pull| pull.fetched_bytes <= pull.total_bytes),
                    "{sums:?}"
                );
                assert!(heard.last().is_some_and(|pull| pull.total_bytes > 8 << 20), "{heard:?}");
            }
            let quiet = Heard::default();
            rig.provider.create(&rig.order(spec), &quiet).await.expect("create a box");
            assert_eq!(quiet.0.into_inner().unwrap(), [], "the image is here now");
        })
        .await;
    docker_ok(Command::new("docker").args(["rmi", &image]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_hangs_delays_nobody_else_and_ends_at_the_deadline() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    pulling(&[format!("127.0.0.1:{port}/")])
        .run(|rig| async move {
            let mut spec = rig.spec();
            spec.image = format!("127.0.0.1:{port}/slow:1");
            let mut slow = rig.order(spec);
            slow.make_within = Duration::from_secs(8);
            let quick = async {
                // The pull is under way by then.
                tokio::time::sleep(Duration::from_millis(500)).await;
                rig.any_box().await
            };
            let hanging = rig.provider.create(&slow, &NoProgress);
            tokio::pin!(hanging);
            tokio::select! {
                made = quick => assert_eq!(shell(&made, "echo quick").await.stdout, "quick\n"),
                outcome = &mut hanging => panic!("the pull ended: {outcome:?}"),
            }
            let outcome = hanging.await;
            assert!(matches!(outcome, Err(CreateError::DeadlinePassed)), "{outcome:?}");
            assert_eq!(rig.listed(slow.id).await, None);
        })
        .await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_that_cannot_be_had_are_told_apart() {
    let registry = Registry::start();
    let unknown = registry.image("no-such-thing:1");
    let unreachable = format!("127.0.0.1:{}/thing:1", free_port());
    registry.publish("present:1");
    let absent_tag = registry.image("present:2");
    let private = Registry::with_password();
    let closed = private.image("thing:1");
    let nowhere = unreachable.replace("thing:1", "");
    pulling(&[registry.image(""), private.image(""), nowhere])
        .run(|rig| async move {
            for (image, code, cause) in [
                (unknown.as_str(), FailureCode::ImageNotFound, "the registry has no such "),
                (absent_tag.as_str(), FailureCode::ImageNotFound, "the registry has no such tag"),
                (closed.as_str(), FailureCode::ImagePullFailed, "the registry wants a login"),
                (unreachable.as_str(), FailureCode::ImagePullFailed, "the registry refuses connections"),
                (
                    "registry.invalid/thing:1",
                    FailureCode::ImagePullFailed,
                    "the name of the registry cannot be resolved",
                ),
                ("NOT A NAME", FailureCode::Invalid, ""),
            ] {
                let mut spec = rig.spec();
                spec.image = image.to_owned();
                let error =
                    rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("no such image");
                assert_eq!(error.code(), code, "{error:?}");
                let said = error.to_string();
                assert!(said.contains(cause) && said.contains(image), "{said}: {error:?}");
            }
            assert_eq!(rig.provider.list().await.unwrap(), []);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_not_well_is_told_from_others() {
    let outside = address_outside();
    let secret = Registry::with_certificate(&outside);
    let plain = Registry::at(&outside, "", |_| String::new());
    let silent = TcpListener::bind((outside.as_str(), 0)).unwrap();
    let busy = always(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: 61\r\n\r\n{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slow down\"}]}",
    );
    let rubbish = always("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nrubbish");
    let registry = Registry::start();
    registry.publish("changed:1");
    let layer = registry.layer("changed", "1");
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    registry.publish("short:1");
    let layer = registry.layer("short", "1");
    let bytes = std::fs::read(&layer).unwrap();
    std::fs::write(&layer, &bytes[..bytes.len() / 2]).unwrap();
    registry.publish("other:1");
    let (manifest, digest) = registry.manifest("other", "1");
    let list = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [{
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "size": manifest.len(),
            "digest": digest,
            "platform": {"architecture": "s390x", "os": "linux"},
        }],
    });
    let kind = "Content-Type: application/vnd.docker.distribution.manifest.list.v2+json";
    registry.curl(&["-X", "PUT", "-H", kind, "--data", &list.to_string()], "other/manifests/2");
    // Another manifest than its digest says.
    registry.publish("forged:1");
    let (manifest, digest) = registry.manifest("forged", "1");
    std::fs::write(registry.blob(&digest), format!("{manifest} ")).unwrap();
    let quiet = silent.local_addr().unwrap();
    let allowed = [
        secret.image(""),
        plain.image(""),
        registry.image(""),
        busy.clone(),
        rubbish.clone(),
        format!("{quiet}/"),
    ];
    pulling(&allowed)
        .run(|rig| async move {
            let cases = [
                (secret.image("x:1"), "there is no secure connection to the registry"),
                (plain.image("x:1"), "there is no secure connection to the registry"),
                (format!("{quiet}/x:1"), "the registry does not answer in time"),
                (format!("{busy}x:1"), "(rate limit)"),
                (registry.image("other:2"), "the image is not there for machines of this kind"),
                (registry.image("changed:1"), "what the registry sends is broken"),
                (registry.image("short:1"), "what the registry sends is broken"),
                (registry.image(&format!("forged@{digest}")), "what the registry sends is broken"),
                (format!("{rubbish}x:1"), "what the registry sends is broken"),
            ];
            let rig = &rig;
            let failures = cases.map(|(image, cause)| async move {
                let mut spec = rig.spec();
                spec.image.clone_from(&image);
                let error =
                    rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("it is broken");
                let said = error.to_string();
                assert_eq!(error.code(), FailureCode::ImagePullFailed, "{image}: {error:?}");
                assert!(said.contains(cause) && said.contains(&image), "{said}: {error:?}");
            });
            futures::future::join_all(failures).await;
            assert_eq!(rig.provider.list().await.unwrap(), []);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_leads_neither_to_the_host_nor_to_other_boxes() {
    let network = format!("stacyvm-test-{}", SandboxId::new());
    let name = network.clone();
    Rig::docker_with(|config| config.bridge_network = name)
        .run(|rig| async move {
            let mut spec = rig.spec();
            spec.network = Network::Bridge;
            let (one, two) = (rig.create(&rig.order(spec.clone())).await, rig.create(&rig.order(spec)).await);
            let address = "import socket\nip = socket.gethostbyname(socket.gethostname())\nprint(ip)";
            let target = python(&one, address).await.stdout.trim().to_owned();
            rig::leave_running(&one, "exec python3 -m http.server 8000").await;
            let knock = |ip: &str, port: u16| {
                format!("import socket\ntry:\n socket.create_connection((\"{ip}\", {port}), 2)\n print(\"open\")\nexcept ConnectionRefusedError:\n print(\"refused\")\nexcept OSError as error:\n print(error)")
            };
            let mut own = String::new();
            for _ in 0..50 {
                own = python(&one, &knock(&target, 8000)).await.stdout;
                if own == "open\n" {
                    break;
                }
            }
            assert_eq!(own, "open\n");
            let other = python(&two, &knock(&target, 8000)).await.stdout;
            assert_eq!(other.trim(), "timed out");
            let gateway = target.rsplit_once('.').map(|(subnet, last)| {
                format!("{subnet}.{}", last.parse::<u8>().unwrap() - 1)
            });
            assert_eq!(python(&two, &knock(&gateway.unwrap(), 1)).await.stdout, "timed out\n");
        })
        .await;
    let filter = format!("name={network}");
    let left = Command::new("docker").args(["network", "ls", "-q", "--filter", &filter]).output().unwrap();
    assert!(left.status.success() && left.stdout.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_of_other_deployments_and_nodes_are_left_alone() {
    let mut deployment = String::new();
    let rig = Rig::docker_with(|config| deployment.clone_from(&config.deployment));
    let data = tempfile::tempdir().unwrap();
    let mut config = DockerConfig::new(data.path(), agent_path(), "other-node".parse().unwrap()).unwrap();
    config.deployment = deployment;
    let same_deployment = DockerProvider::new(config).unwrap();
    rig.run(|rig| async move {
        let handle = rig.any_box().await;
        Rig::docker()
            .run(|other| async move {
                other.any_box().await;
                assert_eq!(other.provider.list().await.unwrap().len(), 1);
            })
            .await;
        assert_eq!(same_deployment.list().await.unwrap(), []);
        assert_eq!(rig.provider.list().await.unwrap(), [handle]);
    })
    .await;
}

#[tokio::test]
async fn without_an_engine_errors_say_so() {
    let data = tempfile::tempdir().unwrap();
    let mut config = DockerConfig::new(data.path(), agent_path(), node()).unwrap();
    config.socket = data.path().join("no.sock");
    let provider = DockerProvider::new(config).unwrap();
    let spec = serde_json::from_value(serde_json::json!({
        "provider": "docker", "image": "stacyvm/base:local", "memory_mib": 64, "cpu_millis": 1000, "pids_limit": 10,
    }));
    let order = executor::provider::BoxOrder {
        id: SandboxId::new(),
        tenant: events::TenantId::default_tenant(),
        spec: spec.unwrap(),
        time_left: Duration::from_secs(10),
        make_within: Duration::from_secs(10),
        turns: Default::default(),
    };
    let error = provider.create(&order, &NoProgress).await.expect_err("there is no engine");
    assert!(error.code() == FailureCode::ProviderUnavailable && error.is_retryable(), "{error:?}");
    provider.health().await.expect_err("there is no engine");
    provider.list().await.expect_err("there is no engine");
    provider.destroy(order.id).await.expect_err("there is no engine");
}

#[test]
fn wrong_configuration_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let good = DockerConfig::new(data.path(), agent_path(), node()).unwrap();
    for deployment in ["", "a b", "-a", "ä", "a/b"] {
        let config = DockerConfig { deployment: deployment.to_owned(), ..good.clone() };
        assert!(DockerProvider::new(config).is_err(), "{deployment:?}");
    }
    let config = DockerConfig { agent_path: data.path().join("none"), ..good.clone() };
    assert!(DockerProvider::new(config).is_err());
    let config = DockerConfig { data_dir: "relative".into(), ..good };
    assert!(DockerProvider::new(config).is_err());
}

/// The control group that the kernel counts the CPU time of a box in, and whether it is there.
fn cpu_group(container: &str) -> PathBuf {
    let pid = Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", container]).output().unwrap();
    let pid = String::from_utf8(pid.stdout).unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let v1 = groups.lines().find_map(|line| line.split_once(":cpu,cpuacct:").or(line.split_once(":cpu:")));
    match v1.or_else(|| groups.lines().find_map(|line| line.split_once("0::"))) {
        Some((_, path)) if v1.is_some() => Path::new("/sys/fs/cgroup/cpu").join(path.trim_start_matches('/')),
        Some((_, path)) => Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')),
        None => panic!("no control group for CPU time in {groups}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_have_control_groups_beside_each_other_which_go_with_their_last_box() {
    let driver = Command::new("docker").args(["info", "-f", "{{.CgroupDriver}}"]).output().unwrap();
    let engine_makes_them = driver.stdout == b"cgroupfs\n";
    Rig::docker()
        .run(|rig| async move {
            let order = |tenant: &str| BoxOrder { tenant: tenant.parse().unwrap(), ..rig.order(rig.spec()) };
            let mut parents = Vec::new();
            let mut boxes = Vec::new();
            for tenant in ["red", "red", "blue"] {
                let handle = rig.create(&order(tenant)).await;
                parents.push(cpu_group(&handle.runtime_id).parent().unwrap().to_owned());
                boxes.push(handle);
            }
            assert_eq!(parents[0], parents[1]);
            if !engine_makes_them {
                // They are where systemd puts them.
                assert_eq!(parents[0], parents[2]);
                return;
            }
            assert_ne!(parents[0], parents[2]);
            assert_eq!(parents[0].parent(), parents[2].parent());
            let gone = async |parent: &Path| {
                for _ in 0..200 {
                    if !parent.exists() {
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                false
            };
            rig.provider.destroy(boxes[2].id).await.unwrap();
            assert!(gone(&parents[2]).await);
            rig.provider.destroy(boxes[0].id).await.unwrap();
            assert!(parents[0].exists());
            rig.provider.destroy(boxes[1].id).await.unwrap();
            assert!(gone(&parents[0]).await);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_groups_that_a_killed_executor_left_go_when_another_starts() {
    let driver = Command::new("docker").args(["info", "-f", "{{.CgroupDriver}}"]).output().unwrap();
    let engine_makes_them = driver.stdout == b"cgroupfs\n";
    Rig::docker()
        .run(|rig| async move {
            let handle = rig.create(&rig.order(rig.spec())).await;
            let parent = cpu_group(&handle.runtime_id).parent().unwrap().to_owned();
            // Nobody of ours hears of its end.
            let removed = Command::new("docker").args(["rm", "-f", &handle.runtime_id]).output().unwrap();
            assert!(removed.status.success());
            if !engine_makes_them {
                return;
            }
            assert!(parent.exists(), "the engine removes them itself: {}", parent.display());
            rig.provider.upkeep().await;
            for _ in 0..200 {
                if !parent.exists() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{} is still there", parent.display());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_says_on_which_disk_its_boxes_write_and_what_they_share() {
    let rig = pulling(&[]);
    let asked = |what: &str| {
        let said = Command::new("docker").args(["info", "--format", what]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    let root = asked("{{.DockerRootDir}}");
    assert!(root.starts_with('/'), "{root}");
    let directories = rig.provider.directories().await;
    assert!(directories.iter().any(|directory| *directory == std::path::Path::new(&root)), "{directories:?}");
    let apart = asked("{{.SecurityOptions}}");
    let apart = apart.contains("name=userns") || apart.contains("name=rootless");
    let warnings = rig.provider.health().await.unwrap().warnings;
    let told = warnings.iter().any(|warning| warning.starts_with("userns-remap is not on"));
    assert_eq!(told, !apart, "{warnings:?}");
}
