//! What an exec leaves running writes on after its end, and that is its output until it is closed.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::time::{Duration, Instant};

use agent::client::{CallError, ExecConnection, ExecEvent};
use agent::protocol::{
    Attach, ClosedOutput, ExecEnd, ExecOutcome, ExecRefusal, MAX_OPEN_OUTPUTS, OutputEnd, StartExec,
};
use harness::{Running, eventually, new_id};

const LINGER: Duration = Duration::from_millis(100);

fn lingering(script: &str) -> StartExec {
    StartExec { linger: Some(LINGER), ..StartExec::new(new_id(), ["/bin/sh", "-c", script]) }
}

/// What came until the word that is waited for.
async fn until<T>(
    exec: &mut ExecConnection,
    text: &mut String,
    wanted: impl Fn(&ExecEvent) -> Option<T>,
) -> T {
    loop {
        let event = exec.next().await.unwrap().unwrap();
        if let Some(found) = wanted(&event) {
            return found;
        }
        match event {
            ExecEvent::Output { stream, offset, bytes } => {
                text.push_str(&String::from_utf8_lossy(&bytes));
                let _ = exec.writer().ack(stream, offset + bytes.len() as u64).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn left_open(event: &ExecEvent) -> Option<ExecOutcome> {
    if let ExecEvent::ExitedOpen(outcome) = event { Some(*outcome) } else { None }
}

fn closed(event: &ExecEvent) -> Option<ClosedOutput> {
    if let ExecEvent::OutputClosed(closed) = event { Some(*closed) } else { None }
}

#[tokio::test]
async fn an_exec_ends_within_its_linger_and_what_it_left_writes_on() {
    let agent = Running::start().await;
    let script = "(while ! test -e go; do sleep 0.05; done; echo later) & echo now; exit 3";
    let mut exec = agent.client.start_exec(lingering(script)).await.unwrap();
    let mut text = String::new();
    let outcome = until(&mut exec, &mut text, left_open).await;
    assert_eq!((text.as_str(), outcome.end), ("now\n", ExecEnd::Exited { code: 3 }));
    assert_eq!((outcome.stdout_len, outcome.stderr_len), (4, 0));
    std::fs::write(agent.workspace().join("go"), "").unwrap();
    let end = until(&mut exec, &mut text, closed).await;
    assert_eq!(text, "now\nlater\n");
    assert_eq!(end, ClosedOutput { reason: OutputEnd::Eof, stdout_len: 10, stderr_len: 0 });
    assert_eq!(exec.next().await.unwrap(), None);
}

#[tokio::test]
async fn one_that_leaves_nothing_ends_as_ever() {
    let agent = Running::start().await;
    let output = agent.run_exec(lingering("echo all; (exec >/dev/null 2>&1; sleep 100) &")).await;
    assert_eq!((output.stdout().as_str(), output.code()), ("all\n", 0));
    // What closes in time belongs to the exec itself.
    let patient = StartExec { linger: Some(Duration::from_secs(8)), ..lingering("(sleep 0.5; echo late) &") };
    assert_eq!(agent.run_exec(patient).await.stdout(), "late\n");
}

#[tokio::test]
async fn whoever_takes_over_goes_on_where_it_stood_and_hears_the_end_once_more() {
    let agent = Running::start().await;
    let start =
        lingering("echo up; (i=0; while test $i -lt 40; do echo line $i; i=$((i+1)); sleep 0.05; done) &");
    let exec_id = start.exec_id;
    let mut exec = agent.client.start_exec(start).await.unwrap();
    let mut text = String::new();
    let first = until(&mut exec, &mut text, left_open).await;
    let mut at = text.len() as u64;
    for _ in 0..3 {
        drop(exec);
        exec =
            agent.client.attach_exec(Attach { exec_id, stdout_offset: at, stderr_offset: 0 }).await.unwrap();
        assert_eq!(until(&mut exec, &mut text, left_open).await, first);
        until(&mut exec, &mut text, |event| matches!(event, ExecEvent::Output { .. }).then(|| event.clone()))
            .await;
        // Not acknowledged: it comes again.
        at = text.len() as u64;
    }
    drop(exec);
    exec = agent.client.attach_exec(Attach { exec_id, stdout_offset: at, stderr_offset: 0 }).await.unwrap();
    until(&mut exec, &mut text, left_open).await;
    let end = until(&mut exec, &mut text, closed).await;
    let mut lines: Vec<_> = (0..40).map(|i| format!("line {i}")).collect();
    lines.insert(0, "up".to_owned());
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    assert_eq!((end.reason, end.stdout_len), (OutputEnd::Eof, text.len() as u64));
    // All of it is acknowledged: only what became of it is remembered.
    drop(exec);
    let spent = Attach { exec_id, stdout_offset: end.stdout_len, stderr_offset: 0 };
    let mut exec = agent.client.attach_exec(spent).await.unwrap();
    assert_eq!(until(&mut exec, &mut text, left_open).await, first);
    assert_eq!(until(&mut exec, &mut text, closed).await, end);
}

#[tokio::test]
async fn a_caller_closes_it_and_what_holds_it_goes_on() {
    let agent = Running::start().await;
    let start = lingering("(while :; do echo x; echo y >> on; sleep 0.02; done) & echo $!");
    let exec_id = start.exec_id;
    let running = lingering("sleep 100");
    let busy = agent.client.start_exec(running.clone()).await.unwrap();
    let mut exec = agent.client.start_exec(start).await.unwrap();
    let mut text = String::new();
    until(&mut exec, &mut text, left_open).await;
    agent.client.close_output(exec_id, OutputEnd::Request).await.unwrap();
    let end = until(&mut exec, &mut text, closed).await;
    assert_eq!((end.reason, end.stdout_len), (OutputEnd::Request, text.len() as u64));
    let child: i32 = text.lines().find_map(|line| line.parse().ok()).unwrap();
    let written = || std::fs::metadata(agent.workspace().join("on")).unwrap().len();
    let before = written();
    eventually("it writes on after the close", || written() > before + 10).await;
    assert!(std::fs::exists(format!("/proc/{child}")).unwrap(), "it died of the close");
    // Neither one that is closed nor one that runs can be closed.
    for exec_id in [exec_id, running.exec_id] {
        match agent.client.close_output(exec_id, OutputEnd::Request).await {
            Err(CallError::Refused(ExecRefusal::Ended)) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(busy);
}

#[tokio::test]
async fn a_terminal_is_read_on_too_and_the_end_of_the_sandbox_closes_it() {
    let mut agent = Running::start().await;
    let mut start = lingering("trap '' HUP; (echo held; exec sleep 1000) & sleep 0.1");
    start.tty = Some(agent::protocol::TerminalSize { rows: 24, cols: 80 });
    let mut exec = agent.client.start_exec(start).await.unwrap();
    let mut text = String::new();
    until(&mut exec, &mut text, left_open).await;
    assert_eq!(text, "held\r\n");
    agent.client.shutdown(Duration::ZERO).await.unwrap();
    let end = until(&mut exec, &mut text, closed).await;
    assert_eq!(end.reason, OutputEnd::Sandbox);
    agent.ended().await;
}

#[tokio::test]
async fn the_oldest_is_closed_when_too_many_leave_theirs_open() {
    let agent = Running::start().await;
    let mut execs = Vec::new();
    for _ in 0..=MAX_OPEN_OUTPUTS {
        let start = StartExec { linger: Some(Duration::ZERO), ..lingering("sleep 1000 & echo up") };
        let mut exec = agent.client.start_exec(start).await.unwrap();
        until(&mut exec, &mut String::new(), left_open).await;
        execs.push(exec);
    }
    let end = until(&mut execs[0], &mut String::new(), closed).await;
    assert_eq!(end.reason, OutputEnd::TooMany);
    let next = tokio::time::timeout(Duration::from_millis(200), execs[1].next()).await;
    assert!(next.is_err(), "{next:?}");
}

/// Nobody reads, so it waits: nothing of it is lost, and the agent keeps no more of it than of any exec.
#[tokio::test]
async fn a_child_that_writes_without_end_waits_for_its_reader() {
    let agent = Running::start_with(&["--spool-memory-bytes", "65536", "--spool-file-bytes", "65536"]).await;
    let start = lingering("yes &");
    let exec_id = start.exec_id;
    let mut exec = agent.client.start_exec(start).await.unwrap();
    until(&mut exec, &mut String::new(), left_open).await;
    drop(exec);
    let mut before = 0;
    let since = Instant::now();
    loop {
        let execs = agent.client.list_execs().await.unwrap();
        let produced = execs.iter().find(|exec| exec.exec_id == exec_id).unwrap().produced[0];
        if produced == before && produced > 0 {
            break;
        }
        before = produced;
        assert!(since.elapsed() < Duration::from_secs(20), "it is read without end: {produced}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let exec = agent.client.list_execs().await.unwrap().into_iter().find(|exec| exec.exec_id == exec_id);
    let attach = Attach { exec_id, stdout_offset: exec.unwrap().retained_from[0], stderr_offset: 0 };
    // What is thrown away from here on does not block it any more.
    agent.client.close_output(exec_id, OutputEnd::Limit).await.unwrap();
    let mut exec = agent.client.attach_exec(attach).await.unwrap();
    let mut count = attach.stdout_offset;
    let end = loop {
        match exec.next().await.unwrap().unwrap() {
            ExecEvent::Output { bytes, .. } => count += bytes.len() as u64,
            ExecEvent::ExitedOpen(_) => {}
            ExecEvent::OutputClosed(closed) => break closed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((end.reason, end.stdout_len), (OutputEnd::Limit, count));
}
