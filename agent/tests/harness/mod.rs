//! Runs the real agent as a process, in a directory of its own.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use agent::client::{Client, ExecConnection, ExecEvent};
use agent::protocol::{ExecId, ExecOutcome, StartExec, Stream};
use bytes::Bytes;
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_stacyvm-agent");

pub struct Running {
    pub process: Child,
    pub directory: TempDir,
    pub client: Client,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let mut command = Command::new(BINARY);
        command
            .arg("--socket")
            .arg(directory.path().join("agent.sock"))
            .arg("--run-dir")
            .arg(directory.path())
            .arg("--workspace")
            .arg(directory.path().join("workspace"))
            .arg("--any-peer")
            .args(arguments)
            .env("LEAKED", "from the agent")
            .env_remove("TERM")
            .env_remove("LANG");
        let process = command.spawn().unwrap();
        let client = connect(&directory.path().join("agent.sock")).await;
        Self { process, directory, client }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    pub fn workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }

    pub async fn run<S: Into<String>>(&self, argv: impl IntoIterator<Item = S>) -> Output {
        self.run_exec(StartExec::new(new_id(), argv)).await
    }

    pub async fn shell(&self, script: &str) -> Output {
        self.run(["/bin/sh", "-c", script]).await
    }

    pub async fn run_exec(&self, start: StartExec) -> Output {
        collect(self.client.start_exec(start).await.unwrap()).await
    }

    /// Waits for the agent itself to end.
    pub async fn ended(&mut self) -> i32 {
        for _ in 0..1000 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the agent did not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        if self.process.try_wait().unwrap().is_none() {
            // SIGTERM, not SIGKILL: the agent ends what it runs first.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            self.process.wait().unwrap();
        }
    }
}

pub async fn connect(socket: &Path) -> Client {
    for _ in 0..500 {
        if let Ok(client) = Client::connect(socket).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no agent on {}", socket.display());
}

#[derive(Debug)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub outcome: ExecOutcome,
}

impl Output {
    pub fn code(&self) -> i32 {
        self.outcome.end.exit_code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.stderr.clone()).unwrap()
    }
}

/// Reads to the end, acking everything.
pub async fn collect(mut connection: ExecConnection) -> Output {
    let mut streams = [Vec::new(), Vec::new()];
    while let Some(event) = connection.next().await.unwrap() {
        match event {
            ExecEvent::Output { stream, offset, bytes } => {
                streams[stream.index()].extend_from_slice(&bytes);
                // The agent may be gone already, if this exec was ended by its end.
                let _ = connection.writer().ack(stream, offset + bytes.len() as u64).await;
            }
            ExecEvent::Exited(outcome) => {
                let [stdout, stderr] = streams;
                return Output { stdout, stderr, outcome };
            }
            other @ (ExecEvent::Superseded | ExecEvent::ExitedOpen(_) | ExecEvent::OutputClosed(_)) => {
                panic!("{other:?}")
            }
        }
    }
    panic!("no outcome");
}

/// The next output of a stream, which must be what comes next.
pub async fn next_output(connection: &mut ExecConnection) -> (Stream, u64, Bytes) {
    match connection.next().await.unwrap() {
        Some(ExecEvent::Output { stream, offset, bytes }) => (stream, offset, bytes),
        other => panic!("expected output, got {other:?}"),
    }
}

pub fn new_id() -> ExecId {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).unwrap();
    ExecId(id)
}

/// Polls until the check holds.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
