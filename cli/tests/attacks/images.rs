//! What a tenant tries with the name of an image, or with what the engine makes a box of.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::support::dockerd::Dockerd;
use crate::support::serve::Serve;

/// A service inside, which counts who comes.
struct Inside {
    port: u16,
    visits: Arc<AtomicUsize>,
}

impl Inside {
    async fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let visits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&visits);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn names_that_lead_inside_reach_nothing() {
    let inside = Inside::listen().await;
    let port = inside.port;
    let serve = Serve::start().await;
    let bridge = output(Command::new("docker").args([
        "network",
        "inspect",
        "bridge",
        "--format",
        "{{(index .IPAM.Config 0).Gateway}}",
    ]));
    let host = output(&mut Command::new("hostname"));
    // The address of the host on the bridge is one that the engine could reach, and is not its loopback.
    let names = [
        format!("127.0.0.1:{port}/x:1"),
        format!("127.0.0.1:{port}/x@sha256:{}", "0".repeat(64)),
        format!("127.9.9.9:{port}/x"),
        format!("0.0.0.0:{port}/x"),
        format!("localhost:{port}/x"),
        format!("LOCALHOST:{port}/x"),
        format!("a.localhost:{port}/x"),
        format!("{bridge}:{port}/x"),
        format!("{host}:{port}/x"),
        format!("ip6-localhost:{port}/x"),
        format!("[::1]:{port}/x"),
        format!("[::ffff:127.0.0.1]:{port}/x"),
        // What some resolvers take for addresses, and others do not.
        format!("127.1:{port}/x"),
        format!("2130706433:{port}/x"),
        format!("0x7f.1:{port}/x"),
        format!("0177.0.0.1:{port}/x"),
        format!("localhost.:{port}/x"),
        // No name of an image at all.
        format!("http://127.0.0.1:{port}/x.tar"),
        format!("user@127.0.0.1:{port}/x"),
        format!("example.com\\@127.0.0.1:{port}/x"),
        format!("x?fromSrc=http://127.0.0.1:{port}/x.tar"),
        format!("x&fromSrc=http://127.0.0.1:{port}/x.tar"),
        "169.254.169.254/latest/meta-data".to_owned(),
        "../../../containers/json".to_owned(),
        "x/../../info".to_owned(),
        "x%2f..%2finfo".to_owned(),
    ];
    for name in &names {
        let (status, answer) = serve.api.post("/sandboxes", json!({"image": name})).await;
        assert_eq!(status, 400, "{name}: {answer}");
        let (status, answer) = serve.api.post("/templates", json!({"name": "t", "image": name})).await;
        if status < 300 {
            let (status, answer) = serve.api.post("/sandboxes", json!({"template": "t"})).await;
            assert_eq!(status, 400, "{name}: {answer}");
        } else {
            assert_eq!(status, 400, "{name}: {answer}");
        }
    }
    assert_eq!(inside.visits(), 0, "somebody was let in");
    // The listener does count: without it, the above would show nothing.
    drop(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
    let patience = Duration::from_secs(30);
    crate::support::eventually("the visit is counted", patience, async || {
        (inside.visits() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ids_of_images_are_refused_and_lists_of_tenants_hold() {
    let key = |key: &str| hex::encode(Sha256::digest(key));
    let yaml = format!(
        "auth:\n  keys:\n    - {{id: red, tenant: red, sha256: {}}}\n    - {{id: blue, tenant: blue, sha256: {}}}\n\
         images:\n  tenants:\n    - tenant: red\n      allow: [\"127.0.0.1:1/red/\", \"stacyvm/base:local\"]\n      others: refused\n",
        key("red-key"),
        key("blue-key"),
    );
    let private = "127.0.0.1:1/red/tool:1";
    output(Command::new("docker").args(["tag", "stacyvm/base:local", private]));
    let id = output(Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", private]));
    let serve = Serve::with_config("docker", &[], &yaml).await;
    let spawn = async |key: &str, image: &str| {
        let url = serve.api.url("/sandboxes");
        let answer = serve.api.http.post(url).header("X-API-Key", key).json(&json!({"image": image}));
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let hex = id.strip_prefix("sha256:").unwrap();
    for name in [id.as_str(), hex, &hex[..12], &hex[..6], &id[..19], &id.to_uppercase()] {
        for key in ["red-key", "blue-key"] {
            let (status, answer) = spawn(key, name).await;
            assert_eq!(status, 400, "{name}: {answer}");
            assert!(
                answer.contains("ids are not taken") || answer.contains("not a valid"),
                "{name}: {answer}"
            );
        }
    }
    // It is on the node: for red, and for nobody else, however it is spelt.
    let (status, answer) = spawn("red-key", private).await;
    assert_eq!(status, 201, "{answer}");
    for name in [private, "127.0.0.1:01/red/tool:1", "127.000.0.1:1/red/tool:1"] {
        let (status, answer) = spawn("blue-key", name).await;
        assert_eq!(status, 400, "{name}: {answer}");
    }
    // Red has its list and nothing beside it, blue what is public.
    let (status, answer) = spawn("red-key", "python:3.12").await;
    assert!(status == 400 && answer.contains("not one of the images"), "{status}: {answer}");
    let (status, answer) = spawn("blue-key", "stacyvm/base:local").await;
    assert_eq!(status, 201, "{answer}");
    output(Command::new("docker").args(["rmi", "--no-prune", private]));
}

#[tokio::test]
async fn the_runtime_that_the_engine_guards_boxes_with_cannot_be_left() {
    // The same program under another name: what counts is who chooses.
    let engine = Dockerd::start_with(&["--add-runtime=guarded=/usr/bin/runc", "--default-runtime=guarded"]);
    let socket = engine.socket().display().to_string();
    let serve = Serve::with("docker", &[("STACYVM_PROVIDERS_DOCKER_SOCKET", socket.as_str())]).await;
    for runtime in ["runc", "io.containerd.runc.v2", "RUNC", "guarded "] {
        let body = json!({"image": "stacyvm/base:local", "runtime": runtime});
        let (status, answer) = serve.api.post("/sandboxes", body).await;
        assert_eq!(status, 400, "{runtime}: {answer}");
    }
    for body in [json!({}), json!({"runtime": ""}), json!({"runtime": "guarded"})] {
        let mut body = body;
        body["image"] = json!("stacyvm/base:local");
        serve.api.spawn(body).await;
    }
    assert_eq!(engine.runtimes(), ["guarded", "guarded", "guarded"]);
}
