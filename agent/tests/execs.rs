#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::time::Duration;

use agent::client::{CallError, ExecEvent};
use agent::protocol::{
    Attach, AttachRefusal, ExecEnd, ExecRefusal, KillCause, Left, StartErrorKind, StartExec, StartRefusal,
    Stream, TerminalSize,
};
use bytes::Bytes;
use harness::{Running, collect, eventually, new_id, next_output};

fn shell(script: &str) -> StartExec {
    StartExec::new(new_id(), ["/bin/sh", "-c", script])
}

fn attach(start: &StartExec, stdout_offset: u64) -> Attach {
    Attach { exec_id: start.exec_id, stdout_offset, stderr_offset: 0 }
}

fn alive(pid: i32) -> bool {
    // A zombie of somebody else is dead enough.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].contains(" Z "))
}

#[tokio::test]
async fn exit_codes_and_both_streams_arrive() {
    let agent = Running::start().await;
    let output = agent.shell("echo out; echo err >&2; exit 3").await;
    assert_eq!((output.stdout().as_str(), output.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!(output.outcome.end, ExecEnd::Exited { code: 3 });
    assert_eq!((output.outcome.stdout_len, output.outcome.stderr_len), (4, 4));
    assert!(output.outcome.max_rss_bytes > 0);
    assert_eq!(agent.run(["true"]).await.code(), 0);
}

#[tokio::test]
async fn a_signal_that_ends_it_is_told() {
    let agent = Running::start().await;
    assert_eq!(agent.shell("kill -SEGV $$").await.outcome.end, ExecEnd::Signaled { signal: 11 });
}

#[tokio::test]
async fn programs_that_cannot_run_end_as_in_a_shell() {
    let agent = Running::start().await;
    let missing = agent.run(["no-such-program"]).await;
    assert_eq!((missing.code(), missing.stderr().as_str()), (127, "no-such-program: command not found\n"));
    assert_eq!(agent.run(["/no/such/program"]).await.code(), 127);
    let forbidden = agent.run(["/etc/passwd"]).await;
    assert_eq!((forbidden.code(), forbidden.stderr().as_str()), (126, "/etc/passwd: Permission denied\n"));
    assert_eq!(agent.run(["/etc"]).await.code(), 126);
}

#[tokio::test]
async fn starts_that_make_no_sense_are_refused_with_a_reason() {
    let agent = Running::start().await;
    let base = shell("true");
    let cases = [
        (
            StartExec { cwd: Some("/no/such/place".to_owned()), ..base.clone() },
            StartErrorKind::WorkingDirectory,
        ),
        (StartExec { cwd: Some("/etc/passwd".to_owned()), ..base.clone() }, StartErrorKind::WorkingDirectory),
        (
            StartExec { user: Some("nobody-by-this-name".to_owned()), ..base.clone() },
            StartErrorKind::UnknownUser,
        ),
        (StartExec { argv: Vec::new(), ..base.clone() }, StartErrorKind::InvalidArgument),
        (StartExec { argv: vec!["a\0b".to_owned()], ..base.clone() }, StartErrorKind::InvalidArgument),
        (
            StartExec { env: vec![("A=B".to_owned(), String::new())], ..base.clone() },
            StartErrorKind::InvalidArgument,
        ),
    ];
    for (start, expected) in cases {
        match agent.client.start_exec(start.clone()).await.err() {
            Some(CallError::Refused(StartRefusal::NotStarted { kind, message })) => {
                assert_eq!(kind, expected, "{message}");
                assert!(!message.is_empty());
            }
            other => panic!("{start:?}: {other:?}"),
        }
    }
    // Nothing of it is remembered: the same id can be started properly.
    assert_eq!(agent.run_exec(base).await.code(), 0);
}

#[tokio::test]
async fn the_environment_is_the_given_one() {
    let agent = Running::start().await;
    let start =
        StartExec { env: vec![("A".to_owned(), "b c".to_owned())], ..StartExec::new(new_id(), ["env"]) };
    let output = agent.run_exec(start).await.stdout();
    let mut names: Vec<_> = output.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "HOME", "LANG", "PATH", "TERM"]);
    assert!(output.contains("A=b c\n") && output.contains("LANG=C.UTF-8\n"), "{output}");
}

#[tokio::test]
async fn the_process_is_clean() {
    let agent = Running::start().await;
    // sh opens nothing of its own; ls shows its own directory as the fourth.
    let descriptors = agent.run(["ls", "/proc/self/fd"]).await.stdout();
    assert_eq!(descriptors, "0\n1\n2\n3\n");
    let status = agent.run(["cat", "/proc/self/status"]).await.stdout();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
    let session = agent.shell("cut -d' ' -f1,5,6 /proc/$$/stat").await.stdout();
    let ids: Vec<_> = session.split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{session}");
    assert_eq!(agent.run(["pwd"]).await.stdout().trim(), agent.workspace().to_str().unwrap());
    assert_eq!(agent.run(["cat"]).await.stdout(), "");
}

#[tokio::test]
async fn it_runs_as_the_user_asked_for() {
    let agent = Running::start().await;
    let as_user = |user: &str| StartExec {
        user: Some(user.to_owned()),
        cwd: Some("/".to_owned()),
        ..shell("id -u; id -g; echo $HOME")
    };
    assert_eq!(agent.run_exec(as_user("4711:4712")).await.stdout(), "4711\n4712\n/\n");
    assert_eq!(agent.run_exec(as_user("root")).await.stdout(), "0\n0\n/root\n");
    let nobody = agent.run_exec(as_user("nobody")).await.stdout();
    assert!(nobody.starts_with("65534\n65534\n"), "{nobody}");
}

#[tokio::test]
async fn output_comes_as_it_is_printed_and_stdin_goes_in() {
    let agent = Running::start().await;
    let start = StartExec { stdin: true, ..shell("while read line; do echo \"got $line\"; done; echo end") };
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    assert!(connection.started.fresh);
    for word in ["one", "two"] {
        connection.writer().stdin(Bytes::from(format!("{word}\n"))).await.unwrap();
        let (_, _, bytes) = next_output(&mut connection).await;
        assert_eq!(bytes, format!("got {word}\n"));
    }
    // Out of band, twice under the same offset: it is written once.
    for _ in 0..2 {
        agent.client.write_stdin(start.exec_id, Some(8), Bytes::from_static(b"three\n")).await.unwrap();
    }
    let (_, _, bytes) = next_output(&mut connection).await;
    assert_eq!(bytes, "got three\n");
    let gap = agent.client.write_stdin(start.exec_id, Some(99), Bytes::from_static(b"x")).await;
    assert!(matches!(gap, Err(CallError::Refused(ExecRefusal::StdinGap { taken: 14 }))), "{gap:?}");
    agent.client.close_stdin(start.exec_id).await.unwrap();
    let output = collect(connection).await;
    assert_eq!((output.stdout().as_str(), output.code()), ("end\n", 0));
}

#[tokio::test]
async fn a_lot_of_stdin_comes_back_through_cat() {
    let agent = Running::start().await;
    let start = StartExec { stdin: true, ..StartExec::new(new_id(), ["cat"]) };
    let (mut reader, writer) = agent.client.start_exec(start).await.unwrap().split();
    let sent: Vec<u8> =
        (0..20_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let input = Bytes::from(sent.clone());
    let feeding = writer.clone();
    let feeder = tokio::spawn(async move {
        feeding.stdin(input).await.unwrap();
        feeding.close_stdin().await.unwrap();
    });
    let mut received = Vec::new();
    while let Some(ExecEvent::Output { stream, offset, bytes }) = reader.next().await.unwrap() {
        received.extend_from_slice(&bytes);
        writer.ack(stream, offset + bytes.len() as u64).await.unwrap();
    }
    feeder.await.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn stdin_that_nobody_reads_ends_with_the_exec() {
    let agent = Running::start().await;
    let start = StartExec { stdin: true, ..shell("exec sleep 0.3") };
    let (mut reader, writer) = agent.client.start_exec(start).await.unwrap().split();
    let feeder = tokio::spawn(async move { writer.stdin(Bytes::from(vec![0; 8_000_000])).await });
    while reader.next().await.unwrap().is_some() {}
    // Whether the rest was thrown away before the end was heard or refused after it is a race; hanging is what it must not.
    match tokio::time::timeout(Duration::from_secs(20), feeder).await.unwrap().unwrap() {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe),
    }
}

/// A stream that is different at every offset, made without outside tools.
fn counted(lines: u32) -> (String, Vec<u8>) {
    let script = format!("seq -f 'line number %010.0f of many' 1 {lines}");
    let expected: String = (1..=lines).map(|line| format!("line number {line:010} of many\n")).collect();
    (script, expected.into_bytes())
}

#[tokio::test]
async fn sixty_four_mebibytes_arrive_byte_for_byte() {
    let agent = Running::start().await;
    let (script, expected) = counted(2_200_000);
    assert!(expected.len() > 64 * 1024 * 1024);
    let output = agent.shell(&script).await;
    assert!(output.stdout == expected);
    assert_eq!(output.code(), 0);
}

#[tokio::test]
async fn nothing_is_lost_when_nobody_acks() {
    // Small limits: memory and file fill within the first of eight megabytes, and the process must block.
    let agent = Running::start_with(&["--spool-memory-bytes", "65536", "--spool-file-bytes", "700001"]).await;
    let (script, expected) = counted(250_000);
    let start = shell(&format!("{script}; echo done > finished"));
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    let mut received = Vec::new();
    let held = loop {
        match tokio::time::timeout(Duration::from_millis(500), connection.next()).await {
            Ok(event) => match event.unwrap().unwrap() {
                ExecEvent::Output { bytes, .. } => received.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            },
            Err(_) => break received.len(),
        }
    };
    assert!(held < 2_000_000, "held {held}");
    assert!(!agent.workspace().join("finished").exists());
    // Read again from the start: all of it is still there.
    let mut connection = agent.client.attach_exec(attach(&start, 0)).await.unwrap();
    let mut again = Vec::new();
    while again.len() < held {
        again.extend_from_slice(&next_output(&mut connection).await.2);
    }
    assert!(again == received && expected.starts_with(&again));
    connection.writer().ack(Stream::Stdout, held as u64).await.unwrap();
    let rest = collect(connection).await;
    again.extend_from_slice(&rest.stdout);
    assert!(again == expected);
    assert!(agent.workspace().join("finished").exists());
}

#[tokio::test]
async fn all_files_of_output_share_one_limit_and_what_is_acked_makes_room() {
    let total = 3 << 20;
    let limits =
        ["--spool-memory-bytes", "65536", "--spool-file-bytes", "4000000", "--spool-total-bytes", "3145728"];
    let agent = Running::start_with(&limits).await;
    let (script, expected) = counted(800_000);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut connection = agent.client.start_exec(shell(&script)).await.unwrap();
        let mut received = Vec::new();
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(500), connection.next()).await {
            match event.unwrap().unwrap() {
                ExecEvent::Output { bytes, .. } => received.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        held.push((connection, received));
    }
    // What is in memory, and what was read last, comes on top.
    let sum: usize = held.iter().map(|(_, received)| received.len()).sum();
    assert!(sum > total && sum < total + 4 * (512 << 10), "{sum}");
    // Whoever came first has most of the room, and gives it back.
    for (connection, mut received) in held {
        connection.writer().ack(Stream::Stdout, received.len() as u64).await.unwrap();
        received.extend_from_slice(&collect(connection).await.stdout);
        assert!(received == expected);
    }
    let output = agent.shell(&script).await;
    assert!(output.stdout == expected);
}

#[tokio::test]
async fn a_dropped_connection_goes_on_at_its_offset() {
    let agent = Running::start().await;
    let (script, expected) = counted(400_000);
    let start = shell(&script);
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    let mut received = Vec::new();
    let mut drops = 0;
    let outcome = loop {
        match connection.next().await.unwrap().unwrap() {
            ExecEvent::Output { bytes, .. } => received.extend_from_slice(&bytes),
            ExecEvent::Exited(outcome) => break outcome,
            other => panic!("{other:?}"),
        }
        if received.len() / 1_000_000 > drops {
            drops += 1;
            connection.writer().ack(Stream::Stdout, received.len() as u64 - 10_000).await.unwrap();
            drop(connection);
            connection = agent.client.attach_exec(attach(&start, received.len() as u64)).await.unwrap();
            assert!(!connection.started.fresh);
        }
    };
    assert!(drops >= 10);
    assert!(received == expected);
    assert_eq!(outcome.stdout_len, expected.len() as u64);
}

#[tokio::test]
async fn attaching_where_there_is_nothing_is_refused() {
    let agent = Running::start().await;
    let start = shell("echo hello");
    let unknown = agent.client.attach_exec(attach(&start, 0)).await.err().unwrap();
    assert!(matches!(unknown, CallError::Refused(AttachRefusal::UnknownExec(id)) if id == start.exec_id));
    assert!(!unknown.is_retryable());
    collect(agent.client.start_exec(start.clone()).await.unwrap()).await;
    let beyond = agent.client.attach_exec(attach(&start, 7)).await.err().unwrap();
    assert!(
        matches!(
            beyond,
            CallError::Refused(AttachRefusal::BeyondEnd { stream: Stream::Stdout, produced: 6 })
        ),
        "{beyond:?}"
    );
    let mut refused = None;
    for _ in 0..500 {
        // The last ack travels on another connection.
        refused = agent.client.attach_exec(attach(&start, 0)).await.err();
        if refused.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        matches!(refused, Some(CallError::Refused(AttachRefusal::Released { retained_from: 6, .. }))),
        "{refused:?}"
    );
    // At the end there is the outcome.
    let output = collect(agent.client.attach_exec(attach(&start, 6)).await.unwrap()).await;
    assert_eq!(output.outcome.end, ExecEnd::Exited { code: 0 });
}

#[tokio::test]
async fn a_second_start_runs_nothing() {
    let agent = Running::start().await;
    let start = shell("echo ran >> log; echo out; exit 5");
    let first = agent.client.start_exec(start.clone()).await.unwrap();
    let pid = first.started.pid;
    drop(first);
    let second = agent.client.start_exec(start.clone()).await.unwrap();
    assert_eq!((second.started.fresh, second.started.pid), (false, pid));
    let output = collect(second).await;
    assert_eq!((output.stdout().as_str(), output.code()), ("out\n", 5));
    let third = StartExec { stdout_offset: 4, ..start };
    assert_eq!(collect(agent.client.start_exec(third).await.unwrap()).await.code(), 5);
    assert_eq!(std::fs::read_to_string(agent.workspace().join("log")).unwrap(), "ran\n");
    let execs = agent.client.list_execs().await.unwrap();
    assert_eq!(execs.len(), 1);
    assert_eq!(execs[0].outcome.unwrap().end, ExecEnd::Exited { code: 5 });
}

#[tokio::test]
async fn secrets_are_given_back_while_there_is_output_to_mask() {
    let agent = Running::start().await;
    let env = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    agent.client.set_environment(env(&[("S", "of-the-sandbox"), ("P", "plain")])).await.unwrap();
    let start =
        StartExec { env: env(&[("E", "of-the-exec"), ("Q", "plain")]), ..shell("echo $S $E; read x") };
    let start = StartExec { stdin: true, secret_names: vec!["E".to_owned()], ..start };
    let first = agent.client.start_exec(start.clone()).await.unwrap();
    let names = vec!["S".to_owned(), "missing".to_owned()];
    assert_eq!(agent.client.secrets(None, names).await.unwrap(), ["of-the-sandbox"]);
    assert_eq!(agent.client.secrets(Some(start.exec_id), Vec::new()).await.unwrap(), ["of-the-exec"]);
    let unknown = agent.client.secrets(Some(new_id()), Vec::new()).await;
    assert!(matches!(unknown, Err(CallError::Refused(ExecRefusal::UnknownExec(_)))), "{unknown:?}");
    agent.client.close_stdin(start.exec_id).await.unwrap();
    let output = collect(first).await;
    assert_eq!(output.stdout(), "of-the-sandbox of-the-exec\n");
}

#[tokio::test]
async fn the_newest_attach_cuts_off_the_older() {
    let agent = Running::start().await;
    let start = StartExec { stdin: true, ..shell("echo ready; cat") };
    let mut old = agent.client.start_exec(start.clone()).await.unwrap();
    next_output(&mut old).await;
    let mut new = agent.client.attach_exec(attach(&start, 0)).await.unwrap();
    assert_eq!(old.next().await.unwrap(), Some(ExecEvent::Superseded));
    assert_eq!(old.next().await.unwrap(), None);
    // What the old one still says has no effect.
    let _ = old.writer().ack(Stream::Stdout, 6).await;
    let _ = old.writer().signal(9).await;
    assert!(old.writer().stdin(Bytes::from_static(b"stale")).await.is_err());
    assert_eq!(next_output(&mut new).await.2, "ready\n");
    new.writer().stdin(Bytes::from_static(b"fresh\n")).await.unwrap();
    assert_eq!(next_output(&mut new).await.2, "fresh\n");
    new.writer().close_stdin().await.unwrap();
    assert_eq!(collect(new).await.code(), 0);
}

#[tokio::test]
async fn a_superseded_caller_that_does_not_read_is_cut_off_too() {
    let agent = Running::start().await;
    let start = shell("exec cat /dev/zero");
    let old = agent.client.start_exec(start.clone()).await.unwrap();
    // More than a connection holds: the agent waits for somebody who does not read.
    while agent.client.list_execs().await.unwrap()[0].produced[0] < 2 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut new = agent.client.attach_exec(attach(&start, 0)).await.unwrap();
    assert_eq!(next_output(&mut new).await.1, 0);
    agent.client.kill_exec(start.exec_id, Duration::ZERO).await.unwrap();
    drop(old);
    assert_eq!(
        collect(new).await.outcome.end,
        ExecEnd::Killed { cause: KillCause::Request, left: Left::Signal(9) }
    );
}

#[tokio::test]
async fn killing_takes_the_grandchildren_along() {
    let agent = Running::start().await;
    // One grandchild in the group, one in a session of its own, all deaf to SIGTERM.
    let start = shell(
        "trap '' TERM; sleep 1000 & echo $!; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' & wait; wait",
    );
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    let mut printed = String::new();
    while printed.lines().count() < 2 {
        printed += std::str::from_utf8(&next_output(&mut connection).await.2).unwrap();
    }
    let pids: Vec<i32> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| alive(*pid)));
    agent.client.kill_exec(start.exec_id, Duration::from_millis(100)).await.unwrap();
    let output = collect(connection).await;
    assert_eq!(output.outcome.end, ExecEnd::Killed { cause: KillCause::Request, left: Left::Signal(9) });
    eventually("grandchildren are gone", || !pids.iter().any(|pid| alive(*pid))).await;
    let again = agent.client.kill_exec(start.exec_id, Duration::ZERO).await;
    assert!(matches!(again, Err(CallError::Refused(ExecRefusal::Ended))), "{again:?}");
}

#[tokio::test]
async fn a_process_may_end_by_itself_within_the_grace() {
    let agent = Running::start().await;
    let start = shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    next_output(&mut connection).await;
    agent.client.kill_exec(start.exec_id, Duration::from_secs(20)).await.unwrap();
    let output = collect(connection).await;
    assert_eq!(output.stdout(), "bye\n");
    assert_eq!(output.outcome.end, ExecEnd::Killed { cause: KillCause::Request, left: Left::Code(7) });
}

#[tokio::test]
async fn signals_reach_the_process() {
    let agent = Running::start().await;
    let start = shell(
        "exec 2>/dev/null; trap 'echo usr1' USR1; trap 'echo int; exit 9' INT; echo ready; while :; do sleep 0.05; done",
    );
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    next_output(&mut connection).await;
    connection.writer().signal(10).await.unwrap();
    assert_eq!(next_output(&mut connection).await.2, "usr1\n");
    let invalid = agent.client.signal_exec(start.exec_id, 12345).await;
    assert!(matches!(invalid, Err(CallError::Refused(ExecRefusal::InvalidSignal(12345)))));
    agent.client.signal_exec(start.exec_id, 2).await.unwrap();
    let output = collect(connection).await;
    assert_eq!((output.stdout().as_str(), output.code()), ("int\n", 9));
}

#[tokio::test]
async fn a_timeout_kills_the_group() {
    let agent = Running::start().await;
    let start = StartExec {
        timeout: Some(Duration::from_millis(300)),
        ..shell("echo $$; sleep 1000 & echo $!; wait")
    };
    let output = agent.run_exec(start).await;
    assert_eq!(output.outcome.end, ExecEnd::TimedOut { left: Left::Signal(9) });
    let pids: Vec<i32> = output.stdout().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    eventually("the group is gone", || !pids.iter().any(|pid| alive(*pid))).await;
}

/// Leaves the session, the process group, its parent, its environment and its streams behind. The pid is in a file.
const DAEMON: &str = r#"
import os, signal, sys, time
def daemon(work):
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    os.closerange(0, 100)
    for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
    work()
def stay():
    open("stay.new", "w").write(str(os.getpid()))
    os.rename("stay.new", "stay")
    os.execve("/bin/sleep", ["sleep", "1000"], {})
def hop():
    # Never the same process for long.
    while True:
        if os.fork(): os._exit(0)
        open("hop", "w").write(str(os.getpid()))
daemon(stay)
if "hop" in sys.argv: daemon(hop)
for name in ["stay"] + sys.argv[1:]:
    while not os.path.exists(name): time.sleep(0.01)
print("up", flush=True)
"#;

fn daemon_of(agent: &Running) -> i32 {
    std::fs::read_to_string(agent.workspace().join("stay")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_timeout_ends_daemons_too_and_what_runs_from_process_to_process() {
    let agent = Running::start().await;
    let start = StartExec {
        timeout: Some(Duration::from_secs(3)),
        ..StartExec::new(new_id(), ["python3", "-c", &format!("{DAEMON}\ntime.sleep(1000)"), "hop"])
    };
    let output = agent.run_exec(start).await;
    assert_eq!(output.outcome.end, ExecEnd::TimedOut { left: Left::Signal(9) });
    assert_eq!(output.stdout(), "up\n");
    // Not later: the end is told when nobody is left.
    assert!(!alive(daemon_of(&agent)));
    let hop = agent.workspace().join("hop");
    let last = std::fs::read_to_string(&hop).unwrap();
    // There is nothing to wait for: it is that nothing happens any more.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(std::fs::read_to_string(&hop).unwrap(), last);
}

#[tokio::test]
async fn a_kill_ends_daemons_too_and_those_of_others_stay() {
    let agent = Running::start().await;
    // Its exec ends in time: it lives on.
    assert_eq!(agent.run(["python3", "-c", DAEMON]).await.code(), 0);
    let kept = daemon_of(&agent);
    std::fs::remove_file(agent.workspace().join("stay")).unwrap();
    let start = StartExec::new(new_id(), ["python3", "-c", &format!("{DAEMON}\ntime.sleep(1000)")]);
    let mut connection = agent.client.start_exec(start.clone()).await.unwrap();
    next_output(&mut connection).await;
    let daemon = daemon_of(&agent);
    assert!(alive(kept) && alive(daemon));
    agent.client.kill_exec(start.exec_id, Duration::from_millis(50)).await.unwrap();
    collect(connection).await;
    eventually("the daemon is gone", || !alive(daemon)).await;
    assert!(alive(kept));
}

#[tokio::test]
async fn something_left_in_the_background_does_not_hold_up_the_exit() {
    let agent = Running::start().await;
    let output =
        agent.shell("(while :; do sleep 2; echo late || exit; : > late; done) & echo $!; exit 4").await;
    assert_eq!(output.code(), 4);
    let pid: i32 = output.stdout().trim().parse().unwrap();
    // It goes on, and its output goes nowhere instead of breaking its pipe.
    let late = agent.workspace().join("late");
    eventually("it has written", || late.exists()).await;
    assert!(alive(pid));
    // Nor does one that never stops printing.
    assert_eq!(agent.shell("yes & exit 6").await.code(), 6);
}

#[tokio::test]
async fn output_written_just_before_the_end_is_complete() {
    let agent = Running::start().await;
    for _ in 0..50 {
        let output = agent.shell("head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2").await;
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
    }
}

#[tokio::test]
async fn byte_by_byte_output_is_kept_cheaply() {
    let agent = Running::start_with(&["--spool-memory-bytes", "1000"]).await;
    let script = "import os\nfor i in range(30000): os.write(1, b'%d' % (i % 10))";
    let output = agent.run(["python3", "-c", script]).await;
    assert!(output.stdout.iter().enumerate().all(|(index, byte)| *byte == b'0' + (index % 10) as u8));
    assert_eq!(output.stdout.len(), 30_000);
}

#[tokio::test]
async fn a_terminal_is_a_terminal() {
    let agent = Running::start().await;
    let start = StartExec {
        tty: Some(TerminalSize { rows: 30, cols: 100 }),
        ..shell(
            "tty >/dev/null && stty size; read line; echo \"got $line\" >&2; stty size; ps -o tty= -p $$ | grep -c pts; cat",
        )
    };
    let connection = agent.client.start_exec(start.clone()).await.unwrap();
    connection.writer().resize(TerminalSize { rows: 40, cols: 120 }).await.unwrap();
    connection.writer().stdin(Bytes::from_static(b"hello\n")).await.unwrap();
    connection.writer().close_stdin().await.unwrap();
    let output = collect(connection).await;
    let text = output.stdout().replace("\r\n", "\n");
    assert!(text.contains("got hello\n40 120\n"), "{text}");
    assert_eq!((output.stderr.len(), output.code()), (0, 0));
    let plain = shell("exec sleep 5");
    let _connection = agent.client.start_exec(plain.clone()).await.unwrap();
    let refused = agent.client.resize_exec(plain.exec_id, TerminalSize { rows: 1, cols: 1 }).await;
    assert!(matches!(refused, Err(CallError::Refused(ExecRefusal::NoTerminal))));
}

#[tokio::test]
async fn many_execs_at_once_keep_apart() {
    let agent = Running::start().await;
    let tasks = (0..40).map(|index| {
        let client = agent.client.clone();
        tokio::spawn(async move {
            let start = shell(&format!("seq {index} $(({index} + 5000)); exit {index}"));
            (index, collect(client.start_exec(start).await.unwrap()).await)
        })
    });
    for task in futures::future::join_all(tasks).await {
        let (index, output) = task.unwrap();
        let expected: String = (index..=index + 5000).map(|number| format!("{number}\n")).collect();
        assert!(output.stdout == expected.into_bytes());
        assert_eq!(output.code(), index);
    }
}

#[tokio::test]
async fn outcomes_are_remembered_for_the_last_four_thousand() {
    let agent = Running::start().await;
    let first = shell("exit 1");
    let second = shell("exit 2");
    for start in [&first, &second] {
        collect(agent.client.start_exec(start.clone()).await.unwrap()).await;
    }
    for _ in 0..4095 {
        // Never executed, so this is fast; its message must be acked to be forgotten.
        agent.run(["/no/such/program"]).await;
    }
    eventually_known(&agent, &first, false).await;
    eventually_known(&agent, &second, true).await;
}

async fn eventually_known(agent: &Running, start: &StartExec, expected: bool) {
    for _ in 0..200 {
        if agent.client.attach_exec(attach(start, 0)).await.is_ok() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("known is not {expected}");
}
