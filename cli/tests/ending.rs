//! A server ends when it is told to, whoever waits for it and whoever does not read what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::api::Api;
use support::eventually;
use support::process::{free_port, stacyvm};
use support::serve::Serve;

/// How long an end may take that nobody waits for; generous, because machines are slow.
const END: Duration = Duration::from_secs(30);

/// `stacyvm serve` that says what it has to say into a pipe. Killed when dropped.
struct Piped {
    child: Child,
    stderr: Option<ChildStderr>,
    api: Api,
    _dir: tempfile::TempDir,
}

impl Piped {
    fn start(environment: &[(&str, &str)], arrange: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stacyvm.yaml"), "").unwrap();
        let port = free_port();
        let mut command = stacyvm();
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--provider", "bubblewrap", "--config"])
            .arg(dir.path().join("stacyvm.yaml"))
            .arg("--data-dir")
            .arg(dir.path())
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        arrange(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take();
        Self { child, stderr, api: Api::new(port), _dir: dir }
    }

    async fn ready(&mut self) {
        let began = Instant::now();
        while !self.api.ready().await {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended");
            assert!(began.elapsed() < Duration::from_secs(60), "not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child).await
    }
}

async fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > END {
            let _ = child.kill();
            panic!("it does not end");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests that are worth a line each.
async fn talk(api: &Api) {
    for _ in 0..20 {
        let answer = api.http.get(api.url("/sandboxes/sb-none")).timeout(Duration::from_secs(10)).send();
        assert!(answer.await.unwrap().status().is_client_error());
    }
}

#[tokio::test]
async fn a_server_whose_log_nobody_reads_any_more_serves_and_stops() {
    let mut serve = Piped::start(&[("RUST_LOG", "debug")], |_| {});
    let mut reader = BufReader::new(serve.stderr.take().unwrap());
    for _ in 0..4 {
        assert!(reader.read_line(&mut String::new()).unwrap() > 0);
    }
    drop(reader);
    serve.ready().await;
    talk(&serve.api).await;
    serve.signal("-TERM");
    let status = serve.ended().await;
    assert!(status.success(), "{status:?}");
}

#[tokio::test]
async fn a_server_whose_log_is_a_full_pipe_serves_and_stops() {
    // More than a pipe holds while nobody reads.
    let mut serve = Piped::start(&[("RUST_LOG", "trace")], |_| {});
    serve.ready().await;
    talk(&serve.api).await;
    let lost = eventually("the pipe is full", Duration::from_secs(60), async || {
        talk(&serve.api).await;
        let metrics = serve.api.http.get(serve.api.url("/metrics/prometheus")).send().await.unwrap();
        let text = metrics.text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix("stacyvm_log_lines_lost_total "))?;
        value.parse::<f64>().ok().filter(|lost| *lost > 0.0)
    });
    lost.await;
    serve.signal("-TERM");
    let status = serve.ended().await;
    assert!(status.success(), "{status:?}");
    // What the pipe held is still there to be read.
    let mut text = Vec::new();
    serve.stderr.take().unwrap().read_to_end(&mut text).unwrap();
    assert!(text.len() >= 32 << 10, "{}", text.len());
}

/// Every role, and what it says before it gives up.
#[tokio::test]
async fn a_last_word_that_nobody_hears_is_no_panic() {
    for arguments in [
        &["gateway"][..],
        &["executor", "--config", "/nowhere/stacyvm.yaml"],
        &["reaper"],
        &["recorder"],
        &["--url", "http://127.0.0.1:1", "list"],
    ] {
        let mut command = stacyvm();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().unwrap();
        let status = ended(&mut child).await;
        // 101 is a panic.
        assert!(matches!(status.code(), Some(1 | 2 | 125)), "{arguments:?}: {status:?}");
    }
}

#[tokio::test]
async fn whoever_waits_for_an_exec_is_answered_before_the_server_ends() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let api = serve.api.clone();
    let waiting = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { api.exec(&sandbox, "echo begun; touch /tmp/begun; sleep 3; echo done; exit 7").await }
    });
    eventually("it runs", Duration::from_secs(30), async || {
        let probe = serve.api.exec(&sandbox, "test -e /tmp/begun").await;
        (probe["exit_code"] == 0).then_some(())
    })
    .await;
    let status = serve.process.terminate();
    let answer = waiting.await.unwrap();
    assert_eq!((&answer["exit_code"], &answer["stdout"]), (&json!(7), &json!("begun\ndone\n")), "{answer}");
    assert!(status.success(), "{status:?}\n{}", serve.process.log_text());
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once_and_without_a_core() {
    let mut serve = Piped::start(&[], |command| {
        command.process_group(0);
    });
    serve.ready().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let api = serve.api.clone();
    let id = sandbox.clone();
    let waiting = tokio::spawn(async move {
        api.post(&format!("/sandboxes/{id}/exec"), json!({"command": "touch /tmp/begun; sleep 100"})).await
    });
    eventually("it runs", Duration::from_secs(30), async || {
        let probe = serve.api.exec(&sandbox, "test -e /tmp/begun").await;
        (probe["exit_code"] == 0).then_some(())
    })
    .await;
    serve.signal("-TERM");
    // Signals of one kind become one while they wait.
    eventually("it takes nothing new", END, async || {
        let refused = serve.api.http.get(serve.api.url("/health")).send().await.is_err();
        refused.then_some(())
    })
    .await;
    assert!(serve.child.try_wait().unwrap().is_none());
    serve.signal("-TERM");
    let status = serve.ended().await;
    assert_eq!(status.code(), Some(143), "{status:?}");
    waiting.abort();
}

/// `name` of `/proc/PID/limits`: soft and hard.
fn open_files(pid: u32) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[3].to_owned(), words[4].to_owned())
}

#[tokio::test]
async fn a_server_raises_its_own_limit_of_open_files_and_not_that_of_sandboxes() {
    let mut serve = Piped::start(&[], |command| {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = Rlimit { current: Some(1024), maximum: Some(16_384) };
        // SAFETY: only a system call between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::Nofile, limit)?));
        }
    });
    serve.ready().await;
    assert_eq!(open_files(serve.child.id()), ("16384".to_owned(), "16384".to_owned()));
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let answer = serve.api.exec(&sandbox, "ulimit -Sn").await;
    assert_eq!(answer["stdout"], "1024\n", "{answer}");
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}

/// Sets the soft limit of a process that runs.
fn limit_open_files(pid: u32, soft: usize) {
    let limit = format!("--nofile={soft}:");
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_server_that_is_out_of_descriptors_blames_nobody_and_recovers() {
    let mut serve = Piped::start(&[], |_| {});
    serve.ready().await;
    let pid = serve.child.id();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let usual: usize = open_files(pid).0.parse().unwrap();
    // On the connection that is there already: no other can be made.
    for _ in 0..3 {
        limit_open_files(pid, open());
        let (status, answer) = serve.api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
        assert_eq!((status, &answer["code"]), (503, &json!("UNAVAILABLE")), "{answer}");
        limit_open_files(pid, usual);
    }
    let sandbox = eventually("a sandbox is made again", Duration::from_secs(30), async || {
        let (status, answer) = serve.api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
        assert!(matches!(status, 201 | 503), "{status}: {answer}");
        (status == 201).then(|| answer["id"].as_str().unwrap().to_owned())
    })
    .await;
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}
