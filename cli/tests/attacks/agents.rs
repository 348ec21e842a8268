//! What a workload does to the agent of its sandbox: what the agent reads, where it listens, what it starts, and what becomes
//! of everybody else when it has been stopped for good.

use std::time::{Duration, Instant};

use crate::in_both;
use crate::support::eventually;
use crate::support::serve::Serve;
use serde_json::{Value, json};

/// What no test here may ever need; what hung before did so for ever.
const PATIENCE: Duration = Duration::from_secs(30);

async fn exec(serve: &Serve, sandbox: &str, command: &str) -> Value {
    tokio::time::timeout(PATIENCE, serve.api.exec(sandbox, command)).await.unwrap_or_else(|_| {
        panic!("{command}: no answer:\n{}", serve.process.log_text());
    })
}

/// The agent of a sandbox, as a process of the host.
pub fn agent_of(sandbox: &str) -> i32 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{pid}/root/etc/hostname")).unwrap_or_default();
        command.starts_with(b"/.stacyvm/agent\0") && name.trim() == sandbox
    };
    pids.find(is_it).expect("the agent is a process of this host")
}

pub fn signal(pid: i32, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

async fn destroy(serve: &Serve, sandbox: &str) {
    serve.api.destroy(sandbox).await;
    ended(serve, sandbox).await;
}

async fn ended(serve: &Serve, sandbox: &str) {
    eventually("the sandbox ends", PATIENCE, async || {
        let (_, state) = serve.api.get(&format!("/sandboxes/{sandbox}")).await;
        (state["state"] == "destroyed" || state["code"] == "NOT_FOUND").then_some(())
    })
    .await;
}

in_both!(account_files_that_are_none);

/// Whatever the account files are, the next exec starts or is refused, and the one after it.
async fn account_files_that_are_none(provider: &str) {
    let serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    for make in [
        "mkfifo $f",
        "mkdir $f",
        "ln -s $f $f",
        "ln -s /dev/zero $f",
        "ln -s /dev/tty $f",
        "ln -s /proc/self/mem $f",
        "ln -s /proc/kmsg $f",
        "ln -s /proc/1/fd/0 $f",
        "truncate -s 100G $f",
        "yes x:x:1:1:::: | head -c 20000000 >$f",
    ] {
        let line =
            format!("for f in /etc/passwd /etc/group /etc/shells; do rm -rf $f; {make}; done; echo made");
        let made = exec(&serve, &sandbox, &line).await;
        assert_eq!(made["stdout"], "made\n", "{provider}: {make}: {made}");
        let works = exec(&serve, &sandbox, "echo works").await;
        assert_eq!(works["stdout"], "works\n", "{provider}: {make}: {works}");
        let path = format!("/sandboxes/{sandbox}/exec");
        let named = serve.api.post(&path, json!({"command": "true", "user": "nobody"}));
        tokio::time::timeout(PATIENCE, named).await.expect("an answer");
    }
    destroy(&serve, &sandbox).await;
}

in_both!(socket_removed_and_replaced);

/// The agent is reached although nothing is left, or something else is, where it made its socket.
async fn socket_removed_and_replaced(provider: &str) {
    let mut serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    for line in [
        "rm -rf /.stacyvm/run/* /.stacyvm/run/.[!.]*; ls -A /.stacyvm/run",
        "mkdir /.stacyvm/run/agent.sock",
        "rmdir /.stacyvm/run/agent.sock; mkfifo /.stacyvm/run/agent.sock",
        "rm /.stacyvm/run/agent.sock; ln -s /proc/1/root /.stacyvm/run/agent.sock",
    ] {
        let done = exec(&serve, &sandbox, line).await;
        assert_eq!(
            (&done["exit_code"], &done["stdout"]),
            (&json!(0), &json!("")),
            "{provider}: {line}: {done}"
        );
    }
    serve.kill_and_restart().await;
    assert_eq!(exec(&serve, &sandbox, "echo works").await["stdout"], "works\n", "{provider}");
    destroy(&serve, &sandbox).await;
}

in_both!(everything_is_stopped_all_the_time);

/// Whatever the agent starts may be stopped before it is a program: the agent must not wait for it.
async fn everything_is_stopped_all_the_time(provider: &str) {
    let serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let path = format!("/sandboxes/{sandbox}/exec");
    // Others and the agent's children are stopped; a process does not stop itself with this.
    let stopping = "while :; do kill -STOP -1; done";
    let (_, begun) = serve.api.post(&path, json!({"command": stopping, "detach": true})).await;
    assert!(begun["exec_id"].is_string(), "{provider}: {begun}");
    let asked = serve.api.post(&path, json!({"command": "true", "timeout": "2s"}));
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer");
    let began = Instant::now();
    destroy(&serve, &sandbox).await;
    assert!(began.elapsed() < PATIENCE);
}

in_both!(agent_that_was_stopped);

/// Agents that were stopped for good, as by a hole in the kernel: nobody else waits for them, and they end.
async fn agent_that_was_stopped(provider: &str) {
    let mut serve = Serve::with_provider(provider).await;
    let mut victims = Vec::new();
    for _ in 0..2 {
        let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
        signal(agent_of(&sandbox), "-STOP");
        victims.push(sandbox);
    }
    let brief = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5s"})).await;
    signal(agent_of(&brief), "-STOP");
    let other = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let before = serve.process.descriptors();
    // None of these is answered by the agent; each is given up, and costs no more than so many descriptors meanwhile.
    let path = format!("/sandboxes/{}/files/list?path=/", victims[0]);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (api, path) = (serve.api.clone(), path.clone());
        asked.spawn(async move { api.get(&path).await.0 });
    }
    assert_eq!(exec(&serve, &other, "echo works").await["stdout"], "works\n", "{provider}");
    // Half a connection for each of ours is the client's part; the agent's are bounded.
    eventually("descriptors are given back", PATIENCE, async || {
        (serve.process.descriptors() < before + 300).then_some(())
    })
    .await;
    ended(&serve, &brief).await;
    let began = Instant::now();
    destroy(&serve, &victims[0]).await;
    while let Some(status) = asked.join_next().await {
        let status = status.unwrap();
        assert!(status >= 400, "{provider}: {status}");
    }
    assert!(began.elapsed() < PATIENCE, "{provider}: what is asked of it ends with it");
    serve.kill_and_restart().await;
    assert_eq!(exec(&serve, &other, "echo works").await["stdout"], "works\n", "{provider}");
    for sandbox in &victims[1..] {
        destroy(&serve, sandbox).await;
    }
}
