#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::client::{CallError, Client};
use agent::protocol::{
    ExecEnd, Hello, KillCause, Left, PROTOCOL_VERSION, StartExec, StatsSource, TunnelRefusal, Versions,
};
use bytes::BytesMut;
use harness::{BINARY, Running, collect, connect, eventually, new_id, next_output};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn shell(script: &str) -> StartExec {
    StartExec::new(new_id(), ["/bin/sh", "-c", script])
}

#[tokio::test]
async fn garbage_on_the_socket_ends_only_its_connection() {
    let agent = Running::start().await;
    let mut frame_without_end = vec![0, 0, 0, 100];
    frame_without_end.extend(b"short");
    let mut request_garbage = BytesMut::new();
    Hello::ours().encode(PROTOCOL_VERSION, &mut request_garbage).unwrap();
    request_garbage.extend_from_slice(&[0, 0, 0, 3, 200, 200, 200]);
    let garbage: [&[u8]; 7] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        &[0; 4096],
        &frame_without_end,
        &[0, 0, 0, 0],
        &request_garbage,
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        let _ = stream.write_all(bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        // Closed, or reset because some of it was never read; at most our Hello comes back.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 40, "{answer:?}");
    }
    assert_eq!(agent.shell("exit 7").await.code(), 7);
}

#[tokio::test]
async fn random_bytes_after_the_hello_do_no_harm() {
    let agent = Running::start().await;
    let mut seed = 1_u64;
    for _ in 0..3000 {
        let mut message = BytesMut::new();
        Hello::ours().encode(PROTOCOL_VERSION, &mut message).unwrap();
        let length = (seed % 60) as u8;
        message.extend_from_slice(&[0, 0, 0, length]);
        for index in 0..length {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Not the ones that shut down, set deadlines or delete: those work as they should.
            let byte = (seed >> 33) as u8;
            message.extend_from_slice(&[if index == 0 {
                [0, 1, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 19][byte as usize % 13]
            } else {
                byte
            }]);
        }
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        stream.write_all(&message).unwrap();
    }
    assert_eq!(agent.shell("exit 7").await.code(), 7);
}

#[tokio::test]
async fn another_version_is_told_and_refused() {
    let agent = Running::start().await;
    let mut ours = BytesMut::new();
    Hello::ours().encode(PROTOCOL_VERSION, &mut ours).unwrap();
    let mut theirs = BytesMut::new();
    let versions = Versions { lowest: 98, highest: 99 };
    Hello { versions, ..Hello::ours() }.encode(99, &mut theirs).unwrap();
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.write_all(&theirs).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, ours);

    // And the other way round, with an agent from the future.
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("future.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&theirs).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = Client::new(&path).ping().await.unwrap_err();
    assert!(
        matches!(error, CallError::Version { theirs: Versions { lowest: 98, highest: 99 } }),
        "{error:?}"
    );
    server.join().unwrap();
    let gone = Client::new(directory.path().join("nobody")).ping().await.unwrap_err();
    assert!(gone.is_retryable());
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_may_have_a_long_path() {
    let agent = Running::start().await;
    assert_eq!(std::fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = tempfile::TempDir::new().unwrap();
    let deep =
        directory.path().join("a-directory-with-a-long-name".repeat(4)).join("and-another-one".repeat(4));
    std::fs::create_dir_all(&deep).unwrap();
    let socket = deep.join("agent.sock");
    let mut process = Command::new(BINARY)
        .args(["--any-peer", "--socket"])
        .arg(&socket)
        .arg("--run-dir")
        .arg(directory.path())
        .arg("--workspace")
        .arg(directory.path())
        .spawn()
        .unwrap();
    let client = connect(&socket).await;
    client.shutdown(Duration::ZERO).await.unwrap();
    assert!(process.wait().unwrap().success());
}

#[tokio::test]
async fn the_deadline_ends_everything() {
    let mut agent = Running::start_with(&["--deadline-seconds", "3600"]).await;
    let remaining = agent.client.stats().await.unwrap().deadline_in.unwrap();
    assert!(remaining > Duration::from_secs(3500) && remaining <= Duration::from_secs(3600));
    // A daemon that left its exec long ago, deaf to SIGTERM.
    let daemon = agent.shell("trap '' TERM; setsid sh -c 'echo $$; exec sleep 1000' 2>/dev/null >daemon & sleep 0.2; cat daemon").await;
    let daemon: i32 = daemon.stdout().trim().parse().unwrap();
    let running = agent.client.start_exec(shell("trap '' TERM; echo up; sleep 1000")).await.unwrap();
    let pid = running.started.pid as i32;
    agent.client.set_deadline(Duration::from_millis(300)).await.unwrap();
    let output = collect(running).await;
    assert_eq!(output.outcome.end, ExecEnd::Killed { cause: KillCause::Shutdown, left: Left::Signal(9) });
    assert_eq!(agent.ended().await, 3);
    for pid in [pid, daemon] {
        let gone = || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
        eventually("killed at the deadline", gone).await;
    }
}

#[tokio::test]
async fn shutdown_gives_grace() {
    let mut agent = Running::start().await;
    let start = shell("trap 'echo saved > saved; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    let mut running = agent.client.start_exec(start).await.unwrap();
    next_output(&mut running).await;
    agent.client.shutdown(Duration::from_secs(20)).await.unwrap();
    assert_eq!(
        collect(running).await.outcome.end,
        ExecEnd::Killed { cause: KillCause::Shutdown, left: Left::Code(0) }
    );
    assert_eq!(agent.ended().await, 0);
    assert!(agent.workspace().join("saved").exists());
}

#[tokio::test]
async fn stats_count_what_runs() {
    let agent = Running::start().await;
    let stats = agent.client.stats().await.unwrap();
    // Not PID 1 here, so no cgroup is taken for the sandbox's own.
    assert_eq!(stats.source, StatsSource::Proc);
    assert!(stats.processes >= 1 && stats.memory_bytes > 0 && stats.agent_rss_bytes > 0);
    assert_eq!(stats.deadline_in, None);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let agent = Running::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Speaks first, so that its bytes may travel with the agent's answer.
        stream.write_all(b"welcome").await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
    });
    let mut tunnel = agent.client.open_tcp(port).await.unwrap();
    let mut welcome = [0; 7];
    tunnel.read_exact(&mut welcome).await.unwrap();
    assert_eq!(&welcome, b"welcome");
    let sent: Vec<u8> = (0..300_000_u32).map(|index| index as u8).collect();
    tunnel.write_all(&sent).await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut received = Vec::new();
    tunnel.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
    server.await.unwrap();
    let refused = agent.client.open_tcp(port).await.err();
    assert!(
        matches!(&refused, Some(CallError::Refused(TunnelRefusal::ConnectionRefused { .. }))),
        "{refused:?}"
    );
}

/// As in a real sandbox: PID 1 of its own pid namespace, and no `--any-peer`.
struct Sandbox {
    process: std::process::Child,
    directory: tempfile::TempDir,
    client: Client,
}

impl Sandbox {
    async fn start() -> Self {
        let directory = tempfile::TempDir::new().unwrap();
        let process = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--", BINARY, "--socket"])
            .arg(directory.path().join("agent.sock"))
            .arg("--run-dir")
            .arg(directory.path())
            .arg("--workspace")
            .arg(directory.path().join("workspace"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let client = connect(&directory.path().join("agent.sock")).await;
        Self { process, directory, client }
    }

    async fn shell(&self, script: &str) -> harness::Output {
        collect(self.client.start_exec(shell(script)).await.unwrap()).await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Takes the namespace along.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

/// Sends a Hello and says what came back.
const KNOCK: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
try:
    s.sendall(bytes([0, 0, 0, 5]) + b"svmA" + bytes([1]) + bytes([0, 0, 0, 1, 0]))
    print(len(s.recv(100)))
except (BrokenPipeError, ConnectionResetError):
    print(0)
"#;

#[tokio::test]
async fn processes_of_the_sandbox_cannot_talk_to_its_agent() {
    let sandbox = Sandbox::start().await;
    let socket = sandbox.directory.path().join("agent.sock");
    let knock = |runner: StartExec| StartExec {
        argv: [runner.argv, ["python3", "-c", KNOCK, socket.to_str().unwrap()].map(str::to_owned).to_vec()]
            .concat(),
        ..runner
    };
    // From outside the same words are answered.
    let outside = Command::new("python3").args(["-c", KNOCK]).arg(&socket).output().unwrap();
    assert_eq!(String::from_utf8(outside.stdout).unwrap(), "14\n");
    // From inside they are not, also not from a pid namespace further in.
    for runner in [vec![], vec!["unshare", "--pid", "--fork"]] {
        let start = knock(StartExec::new(new_id(), runner));
        let inside = collect(sandbox.client.start_exec(start).await.unwrap()).await;
        assert_eq!((inside.stdout().as_str(), inside.code()), ("0\n", 0), "{}", inside.stderr());
    }
}

#[tokio::test]
async fn as_pid_1_it_reaps_everything_and_cannot_be_killed_from_inside() {
    let sandbox = Sandbox::start().await;
    assert_eq!(sandbox.shell("cat /proc/1/comm").await.stdout(), "stacyvm-agent\n");
    // Orphans, by the dozen.
    let orphans = sandbox
        .shell("for i in $(seq 50); do (sh -c 'exit 3' & ) ; (setsid sleep 0.1 &) ; done >/dev/null")
        .await;
    assert_eq!(orphans.code(), 0);
    for round in 0.. {
        let zombies = sandbox.shell("grep -l '^State:.Z' /proc/[0-9]*/status | wc -l").await.stdout();
        let sleepers = sandbox.shell("cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep").await.stdout();
        if (zombies.trim(), sleepers.trim()) == ("0", "0") {
            break;
        }
        assert!(round < 100, "{zombies} zombies, {sleepers} sleepers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stats = sandbox.client.stats().await.unwrap();
    assert_eq!(stats.processes, 1);
    sandbox.shell("kill -TERM 1; kill -KILL 1; kill -INT 1; kill -STOP 1; kill -HUP 1").await;
    sandbox.shell("kill -TERM -1").await;
    assert_eq!(sandbox.shell("exit 9").await.code(), 9);
    // Nor looked at: neither its descriptors nor its memory.
    let start = StartExec {
        user: Some("65534".to_owned()),
        cwd: Some("/".to_owned()),
        ..shell("ls /proc/1/fd; cat /proc/1/environ")
    };
    let looked = collect(sandbox.client.start_exec(start).await.unwrap()).await;
    assert_eq!(looked.stdout(), "");
}

#[tokio::test]
async fn as_pid_1_its_end_is_the_end_of_the_sandbox() {
    let mut sandbox = Sandbox::start().await;
    let running =
        sandbox.client.start_exec(shell("trap '' TERM; (setsid sleep 1000 &); sleep 1000")).await.unwrap();
    let begin = Instant::now();
    sandbox.client.set_deadline(Duration::from_millis(200)).await.unwrap();
    assert_eq!(
        collect(running).await.outcome.end,
        ExecEnd::Killed { cause: KillCause::Shutdown, left: Left::Signal(9) }
    );
    assert_eq!(sandbox.process.wait().unwrap().code(), Some(3));
    assert!(begin.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_read_only_run_directory_only_means_less_room() {
    let directory = tempfile::TempDir::new().unwrap();
    let agent = Running::start_with(&["--run-dir", "/proc", "--spool-memory-bytes", "100000"]).await;
    let output = agent.shell("seq 1 400000").await;
    let expected: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    assert!(output.stdout == expected.into_bytes());
    drop(directory);
}

#[tokio::test]
async fn a_busy_agent_becomes_small_again() {
    let agent = Running::start().await;
    let before = agent.client.stats().await.unwrap().agent_rss_bytes;
    for _ in 0..4 {
        assert_eq!(agent.shell("head -c 50000000 /dev/zero").await.stdout.len(), 50_000_000);
    }
    // A debug build has more pages of code to touch than the static one; it is the growth that counts.
    let allowed = before + 3 * 1024 * 1024;
    for round in 0.. {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = std::fs::read_to_string(format!("/proc/{}/statm", agent.process.id())).unwrap();
        let pages: u64 = now.split_whitespace().nth(1).unwrap().parse().unwrap();
        if pages * 4096 <= allowed {
            break;
        }
        assert!(round < 50, "{before} bytes before, {} after", pages * 4096);
    }
}
