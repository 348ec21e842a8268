//! The verbs beside the main ones: lists of what ended, waiting, templates, folders, times, and a server behind https.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::serve::Serve;
use support::verbs::{assert_output, client, text, verb};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

async fn sandbox(serve: &Serve, labels: Value) -> String {
    serve
        .api
        .spawn(
            json!({"image": "stacyvm/base:local", "provider": "bubblewrap", "ttl": "5m", "metadata": labels}),
        )
        .await
}

fn lines(output: &std::process::Output) -> Vec<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_ended_is_listed_and_waited_for() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let (first, second) = (sandbox(&serve, json!({})).await, sandbox(&serve, json!({})).await);
    assert_eq!(lines(&verb(&serve, &["list", "-q"])), [first.clone(), second.clone()]);

    let waiting = client(&serve, &["wait", &first]).stdout(Stdio::piped()).spawn().unwrap();
    let following = client(&serve, &["logs", "-f", &first]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(verb(&serve, &["kill", &first]).status.code(), Some(0));
    assert_output(&waiting.wait_with_output().unwrap(), 0, "user\n");
    let followed = following.wait_with_output().unwrap();
    assert_eq!(followed.status.code(), Some(0));
    let log = lines(&followed);
    assert!(
        log[0].contains(" sandbox.requested ") && log.last().unwrap().contains(" sandbox.destroyed user"),
        "{log:?}"
    );
    assert_output(&verb(&serve, &["wait", &first]), 0, "user\n");
    assert_output(&verb(&serve, &["wait", "--timeout", "300ms", &second]), 124, "");
    assert_eq!(verb(&serve, &["wait", "sb-00000000000000000000000000"]).status.code(), Some(125));

    assert_eq!(lines(&verb(&serve, &["list", "-q"])), [second.as_str()]);
    assert_eq!(
        lines(&verb(&serve, &["list", "-a", "-q"])),
        [second.clone(), first.clone()],
        "the newest first"
    );
    assert_eq!(lines(&verb(&serve, &["list", "-a", "-q", "--last", "1"])), [second.as_str()]);
    let table = text(&verb(&serve, &["list", "--all"]).stdout);
    assert!(table.contains("destroyed"), "{table}");
    let (status, page) = serve.api.get(&format!("/sandboxes?all=true&limit=1&before={second}")).await;
    assert_eq!((status, page[0]["id"].as_str()), (200, Some(first.as_str())));
    assert_eq!(serve.api.get("/sandboxes?limit=5").await.0, 400);
    assert_eq!(serve.api.get("/sandboxes?all=true&limit=0").await.0, 400);
}

#[tokio::test]
async fn a_command_needs_no_dashes_and_its_exit_code_is_not_ours() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let id = sandbox(&serve, json!({})).await;
    assert_output(&verb(&serve, &["exec", &id, "true"]), 0, "");
    assert_output(&verb(&serve, &["exec", &id, "echo", "-n", "--", "a"]), 0, "-- a");
    assert_output(&verb(&serve, &["exec", &id, "sh", "-c", "exit 7"]), 7, "");
    assert_output(&verb(&serve, &["run", "stacyvm/base:local", "printf", "%s", "-v"]), 0, "-v");
    assert_output(&verb(&serve, &["exec", "sb-00000000000000000000000000", "true"]), 125, "");
    let refused = verb(&serve, &["exec", "sb-00000000000000000000000000", "true"]);
    assert!(text(&refused.stderr).contains("sb-00000000000000000000000000"), "{}", text(&refused.stderr));
    assert_eq!(verb(&serve, &["exec", "--no-such-flag", &id, "true"]).status.code(), Some(125));

    // Detached, waited for, and its log followed to its end.
    let started = verb(&serve, &["exec", "-d", &id, "sh", "-c", "echo one; sleep 0.5; echo two; exit 9"]);
    let exec = text(&started.stdout).trim().to_owned();
    assert_output(&verb(&serve, &["logs", "-f", &exec]), 0, "one\ntwo\n");
    assert_output(&verb(&serve, &["wait", &exec]), 9, "9\n");
    let cast = tempfile::tempdir().unwrap();
    let version = |form: &[&str]| {
        let path = cast.path().join("it.cast");
        let saved = verb(&serve, &[&["replay", &exec, "--save", path.to_str().unwrap()], form].concat());
        assert_output(&saved, 0, "");
        let file = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<Value>(file.lines().next().unwrap()).unwrap()["version"].clone()
    };
    assert_eq!(version(&[]), 2);
    assert_eq!(version(&["--save-format", "asciicast-v3"]), 3);
}

#[tokio::test]
async fn a_sandbox_is_extended_measured_and_made_from_a_template() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let saved = verb(
        &serve,
        &["template", "save", "py", "stacyvm/base:local", "--memory", "96m", "--label", "team=red"],
    );
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    assert_output(&verb(&serve, &["template", "ls", "-q"]), 0, "py\n");
    let shown: Value =
        serde_json::from_slice(&verb(&serve, &["template", "get", "py", "--output", "json"]).stdout).unwrap();
    assert_eq!((&shown["memory_mb"], &shown["metadata"]["team"]), (&json!(96), &json!("red")));
    let id = text(&verb(&serve, &["spawn", "--template", "py"]).stdout).trim().to_owned();
    let extended = verb(&serve, &["extend", &id, "2h", "--output", "json"]);
    let extended: Value = serde_json::from_slice(&extended.stdout).unwrap();
    assert_eq!((extended["id"].as_str(), &extended["memory_mb"]), (Some(id.as_str()), &json!(96)));
    let stats = text(&verb(&serve, &["stats", &id]).stdout);
    assert!(stats.starts_with("ID ") && stats.contains(&id), "{stats}");
    assert_eq!(verb(&serve, &["stats", "sb-00000000000000000000000000"]).status.code(), Some(125));
    assert_output(&verb(&serve, &["template", "rm", "py"]), 0, "py\n");
    assert_output(&verb(&serve, &["template", "get", "py"]), 125, "");
}

#[tokio::test]
async fn folders_are_copied_with_all_that_is_in_them() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let id = sandbox(&serve, json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let long = "n".repeat(255);
    std::fs::create_dir_all(tree.join("deep/er/empty")).unwrap();
    std::fs::write(tree.join("deep/data"), b"\x00\xff").unwrap();
    std::fs::write(tree.join("deep/er/a b\n'"), "odd").unwrap();
    std::fs::write(tree.join(&long), "long").unwrap();
    std::fs::write(tree.join("tool"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("..", tree.join("deep/round")).unwrap();
    let refused = verb(&serve, &["cp", tree.to_str().unwrap(), &format!("{id}:/tmp/")]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).contains("-r"), "{}", text(&refused.stderr));

    let copied = verb(&serve, &["cp", "-r", tree.to_str().unwrap(), &format!("{id}:/tmp/")]);
    let errors = text(&copied.stderr);
    assert_eq!(copied.status.code(), Some(125), "a link to a folder is left out: {errors}");
    assert!(errors.contains("deep/round is left out"), "{errors}");
    std::fs::remove_file(tree.join("deep/round")).unwrap();
    // Where there is a folder of that name, the copy goes into it; else it becomes that folder.
    assert_output(&verb(&serve, &["cp", "-r", tree.to_str().unwrap(), &format!("{id}:/tmp/other")]), 0, "");
    for (remote, local) in [("/tmp/tree", "back"), ("/tmp/other", "back")] {
        let back = dir.path().join(local);
        assert_output(&verb(&serve, &["cp", "-r", &format!("{id}:{remote}"), back.to_str().unwrap()]), 0, "");
        let same = Command::new("diff").arg("-r").arg(&tree).arg(&back).output().unwrap();
        assert!(same.status.success(), "{}", text(&same.stdout));
        assert!(back.join("deep/er/empty").is_dir());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(back.join("tool")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o111, 0o111);
        std::fs::remove_dir_all(back).unwrap();
    }
}

#[tokio::test]
async fn the_log_is_asked_by_time_user_and_label() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let red = sandbox(&serve, json!({"team": "red"})).await;
    let blue = sandbox(&serve, json!({"team": "blue"})).await;
    let ran = client(&serve, &["exec", &red, "true"]).env("STACYVM_USER_ID", "ada").output().unwrap();
    assert_output(&ran, 0, "");
    assert_output(&verb(&serve, &["--user-id", "bob", "exec", &blue, "true"]), 0, "");

    let tail = |filter: &[&str]| {
        let output = verb(&serve, &[&["audit", "tail", "--output", "json", "-n", "1000"], filter].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let events: Vec<Value> =
            lines(&output).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        events
    };
    let labelled = tail(&["--label", "team=red"]);
    assert!(
        labelled.len() >= 4 && labelled.iter().all(|event| event["sandbox_id"] == red.as_str()),
        "{labelled:?}"
    );
    assert_eq!(tail(&["--label", "team=none"]), Vec::<Value>::new());
    let (by_ada, by_bob) = (tail(&["--user", "ada"]), tail(&["--user", "bob"]));
    assert!(
        !by_ada.is_empty() && by_ada.iter().all(|event| event["actor"].as_str().unwrap().ends_with("/ada"))
    );
    assert!(
        !by_bob.is_empty() && by_bob.iter().all(|event| event["actor"].as_str().unwrap().ends_with("/bob"))
    );
    assert_eq!(tail(&["--to", "1h"]), Vec::<Value>::new());
    let everything = tail(&[]);
    assert_eq!(tail(&["--from", "1h"]).len(), everything.len());
    let middle = everything[everything.len() / 2]["time"].as_str().unwrap().to_owned();
    let late = tail(&["--from", &middle]);
    assert!(
        late.len() < everything.len() && late.iter().all(|event| event["time"].as_str() >= Some(&*middle))
    );

    let events = lines(&verb(&serve, &["events", "--from", "1h", "--type", "sandbox.running"]));
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(lines(&verb(&serve, &["events", "--from", &middle])).len(), late.len());
    assert_eq!(verb(&serve, &["events", "--from", "yesterday"]).status.code(), Some(2));
    let csv =
        verb(&serve, &["audit", "export", "--format", "csv", "--label", "team=blue", "--type", "sandbox.*"]);
    assert_eq!(
        lines(&csv).iter().skip(1).filter(|line| line.contains(&blue)).count(),
        3,
        "{}",
        text(&csv.stdout)
    );
    let refused = verb(&serve, &["audit", "export", "--user", "ada"]);
    assert_eq!(refused.status.code(), Some(125), "what is left of a chain cannot be verified");
}

/// What stands in front of a server on the way from outside: it speaks TLS, the server does not.
async fn tls_proxy(dir: &Path, server: String) -> u16 {
    let (key, certificate) = (dir.join("key.pem"), dir.join("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=stacyvm test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let chain = CertificateDer::pem_file_iter(&certificate).unwrap().map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_https_is_spoken_to() {
    let serve = Serve::with("bubblewrap", &[]).await;
    let id = sandbox(&serve, json!({})).await;
    let dir = tempfile::tempdir().unwrap();
    let address = serve.api.base.trim_start_matches("http://").trim_end_matches("/api/v1").to_owned();
    let port = tls_proxy(dir.path(), address).await;
    let secure = |words: &[&str], trusted: bool| {
        let mut command = client(&serve, words);
        command.env("STACYVM_URL", format!("https://127.0.0.1:{port}")).stdin(Stdio::null());
        if trusted {
            command.env("STACYVM_CA_FILE", dir.path().join("cert.pem"));
        }
        async move { tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap() }
    };
    let ran =
        tokio::time::timeout(Duration::from_secs(30), secure(&["exec", &id, "echo", "safe"], true)).await;
    assert_output(&ran.unwrap(), 0, "safe\n");
    // Over a WebSocket too.
    assert_output(&secure(&["exec", "-i", &id, "echo", "safe"], true).await, 0, "safe\n");
    let untrusted = secure(&["list"], false).await;
    assert_output(&untrusted, 125, "");
    assert!(text(&untrusted.stderr).contains("certificate"), "{}", text(&untrusted.stderr));
}
