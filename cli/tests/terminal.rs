//! Programs on a terminal, through the client in a real terminal (tmux), with real gateways that are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::eventually;
use support::process::stacyvm;
use support::serve::Serve;
use support::split::Split;
use support::tmux::Tmux;
use support::verbs::{assert_output, text};

const BIN: &str = env!("CARGO_BIN_EXE_stacyvm");
/// The default prompt of a root shell.
const PROMPT: &str = ":/workspace#";

fn url(api: &support::api::Api) -> String {
    api.base.trim_end_matches("/api/v1").to_owned()
}

async fn sandbox(api: &support::api::Api) -> String {
    api.spawn(json!({"image": "alpine:latest", "ttl": "20m"})).await
}

/// The exec with a terminal that runs in a sandbox.
async fn running(api: &support::api::Api, sandbox: &str) -> String {
    eventually("an exec runs", Duration::from_secs(20), async || {
        let (status, page) = api.get(&format!("/sandboxes/{sandbox}/execs?state=running")).await;
        assert_eq!(status, 200, "{page}");
        page["execs"][0]["id"].as_str().map(str::to_owned)
    })
    .await
}

/// Leaves what runs in a terminal, kills the gateway, and comes back in a terminal of the same size: it looks the same.
async fn leave_and_come_back(split: &mut Split, terminal: Tmux, exec: &str) -> Tmux {
    let before = terminal.settled();
    terminal.keys(&["C-p", "C-q"]);
    assert_eq!(terminal.ended(), 0);
    let left = terminal.history();
    assert!(left.contains(&format!("stacyvm attach {exec}")), "{left}");
    assert_eq!(terminal.ask("#{alternate_on} #{cursor_flag} #{keypad_flag}"), "0 1 0", "modes were left on");
    split.restart_gateway().await;
    let again = Tmux::start(100, 30, &url(&split.api), &[BIN, "attach", exec]);
    again.wait("the screen as it was", |screen| screen == before.0);
    assert_eq!(again.settled(), before);
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn vim_top_and_python_look_the_same_after_a_detach_a_killed_gateway_and_a_reattach() {
    let mut split = Split::start().await;
    let id = sandbox(&split.api).await;
    let terminal = Tmux::start(100, 30, &url(&split.api), &[BIN, "shell", &id]);
    terminal.wait_for(PROMPT);
    let exec = running(&split.api, &id).await;

    terminal.line("vi notes.txt");
    terminal.wait("vi", |screen| screen.matches("\n~").count() > 20);
    terminal.text("ione line\rund größer\r汉字\rlast");
    terminal.keys(&["Escape"]);
    terminal.text("2G");
    terminal.wait("the text", |screen| screen.contains("汉字") && screen.contains("last"));
    let terminal = leave_and_come_back(&mut split, terminal, &exec).await;
    terminal.text("A and more");
    terminal.keys(&["Escape"]);
    terminal.wait_for("größer and more");
    terminal.line(":wq");
    terminal.wait_for(PROMPT);
    terminal.line("cat notes.txt; wc -l < notes.txt");
    terminal.wait_for("größer and more\n汉字\nlast\n4\n");

    terminal.line("top -d 3000");
    terminal.wait("top", |screen| screen.contains("load average") && screen.contains("COMMAND"));
    let terminal = leave_and_come_back(&mut split, terminal, &exec).await;
    terminal.text("q");
    terminal
        .wait("the shell", |screen| !screen.contains("load average:") || screen.trim_end().ends_with('#'));

    terminal.line("clear; python3 -q");
    terminal.wait_for(">>>");
    terminal.line("x = 6 * 7");
    terminal.line("def f(y):");
    terminal.line("  return x + y");
    terminal.keys(&["Enter"]);
    terminal.line("print('result', f(1))");
    terminal.wait_for("result 43");
    terminal.text("print('half a li");
    terminal.wait_for("half a li");
    let terminal = leave_and_come_back(&mut split, terminal, &exec).await;
    terminal.line("ne', x)");
    terminal.wait_for("half a line 42");
    terminal.keys(&["C-d"]);
    terminal.wait("the shell", |screen| screen.trim_end().ends_with('#'));
    terminal.line("exit 7");
    assert_eq!(terminal.ended(), 7, "the exit code is the shell's");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_keys_reach_the_program() {
    let serve = Serve::start().await;
    let id = sandbox(&serve.api).await;
    let terminal = Tmux::start(100, 30, &url(&serve.api), &[BIN, "shell", &id]);
    terminal.wait_for(PROMPT);
    let exec = running(&serve.api, &id).await;
    terminal.line("echo $TERM; tty");
    terminal.wait_for("/dev/pts/");
    terminal.line("sh -c 'trap \"stty size\" WINCH; echo up; while :; do sleep 0.1; done'");
    terminal.wait_for("\nup\n");
    terminal.resize(90, 20);
    terminal.wait_for("20 90");
    terminal.keys(&["C-c"]);
    terminal.line("echo code=$?");
    terminal.wait_for("code=130");
    // Ctrl-Z is for the shell over there.
    terminal.line("sh -c 'echo sleeping; exec sleep 1000'");
    terminal.wait_for("\nsleeping\n");
    terminal.keys(&["C-z"]);
    terminal.wait_for("Stopped");
    // Half of the detach keys is a key like any other once the next one is known.
    terminal.keys(&["C-p", "C-p"]);
    terminal.wait("an older line", |screen| screen.matches("exec sleep 1000").count() == 3);
    terminal.keys(&["C-u"]);
    terminal.line("kill %1");

    let second = Tmux::start(77, 22, &url(&serve.api), &[BIN, "attach", &exec, "--tail"]);
    // A second viewer is told of nothing that was before, and its size is the terminal's.
    second.keys(&["C-l"]);
    second.wait_for(PROMPT);
    second.line("stty size");
    second.wait_for("22 77");
    terminal.wait_for("22 77");
    let third = Tmux::start(77, 22, &url(&serve.api), &[BIN, "attach", &exec, "--ro"]);
    third.wait_for("22 77");
    third.line("echo not me");
    third.keys(&["C-c"]);
    assert_eq!(third.ended(), 0, "Ctrl-C leaves what is only watched");
    second.line("exit 3");
    assert_eq!((second.ended(), terminal.ended()), (3, 3));
    assert!(!second.screen().contains("not me"));
}

/// A shell of this machine, in which the client runs.
fn local_shell(url: &str) -> Tmux {
    let terminal = Tmux::start(100, 30, url, &["bash", "--norc", "--noprofile"]);
    terminal.wait_for("local>");
    terminal
}

fn stty(terminal: &Tmux, path: &std::path::Path) -> String {
    terminal.line(&format!("clear; stty -a > {}; echo is-$((40+2))", path.display()));
    terminal.wait("stty", |screen| screen.starts_with("is-42"));
    let written = std::fs::read_to_string(path).unwrap();
    terminal.line("clear");
    terminal.wait("a clean screen", |screen| screen.trim_end() == "local>");
    written
}

/// How the terminal is set right now, asked from outside.
fn modes(terminal: &Tmux) -> String {
    let output = Command::new("stty").args(["-a", "-F", &terminal.ask("#{pane_tty}")]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The client that runs in a shell.
fn client_of(terminal: &Tmux) -> i32 {
    let [shell] = children(terminal.pid())[..] else { panic!("no shell") };
    let [client] = children(shell)[..] else { panic!("no client") };
    client
}

fn children(parent: i32) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{parent}"))
    };
    pids.filter(is_child).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_at_the_end_and_on_signals() {
    let serve = Serve::start().await;
    let id = sandbox(&serve.api).await;
    let dir = tempfile::tempdir().unwrap();
    let terminal = local_shell(&url(&serve.api));
    let before = stty(&terminal, &dir.path().join("before"));
    assert!(before.contains(" icanon") && before.contains(" echo "), "{before}");

    terminal.line(&format!("{BIN} shell {id}; echo code=$?"));
    terminal.wait_for(PROMPT);
    // What a program leaves on is turned off too.
    terminal.line("printf '\\033[?25l\\033[?1000h\\033[?2004h\\033='; exit 5");
    terminal.wait_for("code=5");
    assert_eq!(terminal.ask("#{cursor_flag} #{mouse_any_flag} #{keypad_flag}"), "1 0 0");
    assert_eq!(stty(&terminal, &dir.path().join("ended")), before);

    for (signal, code) in [(15, 143), (1, 129), (2, 130)] {
        terminal.line(&format!("clear; {BIN} shell {id}; echo code=$?"));
        terminal.wait_for(PROMPT);
        terminal.line("vi");
        terminal.wait("vi", |screen| screen.matches("\n~").count() > 20);
        assert_eq!(terminal.ask("#{alternate_on}"), "1");
        let client = rustix::process::Pid::from_raw(client_of(&terminal)).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(client, signal).unwrap();
        let screen = terminal.wait_for(&format!("code={code}"));
        assert!(screen.contains("stacyvm attach ex-"), "{screen}");
        assert_eq!(terminal.ask("#{alternate_on} #{cursor_flag} #{keypad_flag}"), "0 1 0");
        assert_eq!(stty(&terminal, &dir.path().join("signaled")), before);
        // It is still there: nobody ended it.
        let exec = running(&serve.api, &id).await;
        let killed = verb(&serve, &["kill", &exec]);
        assert!(killed.status.success(), "{}", text(&killed.stderr));
        let gone = async || {
            let (_, exec) = serve.api.get(&format!("/execs/{exec}")).await;
            (exec["state"] != "running").then_some(())
        };
        eventually("the exec has ended", Duration::from_secs(20), gone).await;
    }

    // Stopped from outside and continued: another program had the terminal in between.
    terminal.line(&format!("clear; {BIN} shell {id}; echo code=$?"));
    terminal.wait_for(PROMPT);
    let client = rustix::process::Pid::from_raw(client_of(&terminal)).unwrap();
    rustix::process::kill_process(client, rustix::process::Signal::STOP).unwrap();
    terminal.wait_for("Stopped");
    terminal.line("clear; stty sane; fg; echo code=$?");
    terminal
        .wait("the job", |screen| screen.lines().next().is_some_and(|line| line.contains("/stacyvm shell")));
    // Before the client has it again, keys would be for the line discipline of this machine.
    eventually("raw mode", Duration::from_secs(20), async || {
        modes(&terminal).contains("-isig").then_some(())
    })
    .await;
    terminal.line("cat -v");
    terminal.keys(&["C-b"]);
    terminal.wait_for("^B");
    terminal.keys(&["C-c"]);
    terminal.wait("the prompt", |screen| screen.trim_end().ends_with('#'));
    terminal.line("exit 6");
    terminal.wait_for("code=6");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_lends_its_terminal_and_passes_signals_on() {
    let serve = Serve::start().await;
    let id = sandbox(&serve.api).await;
    let terminal = local_shell(&url(&serve.api));
    let script = "trap \"echo got it; exit 4\" TERM; stty size; while :; do sleep 0.1; done";
    terminal.line(&format!("clear; {BIN} exec -t {id} -- sh -c '{script}'; echo code=$?"));
    terminal.wait_for("30 100\n");
    let client = rustix::process::Pid::from_raw(client_of(&terminal)).unwrap();
    rustix::process::kill_process(client, rustix::process::Signal::TERM).unwrap();
    terminal.wait_for("got it");
    terminal.wait_for("code=4");
    terminal.line(&format!("clear; {BIN} exec -t --detach-keys ctrl-] {id} -- cat; echo code=$?"));
    terminal.line("once");
    terminal.wait_for("once\nonce\n");
    terminal.keys(&["C-]"]);
    let screen = terminal.wait_for("code=0");
    assert!(screen.contains("stacyvm attach ex-"), "{screen}");
    terminal.line(&format!("clear; {BIN} run -t alpine:latest -- sh -c 'tty; exit 3'; echo code=$?"));
    let screen = terminal.wait_for("code=3");
    assert!(screen.contains("/dev/pts/"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_loses_and_doubles_nothing() {
    let mut split = Split::start().await;
    let id = sandbox(&split.api).await;
    let terminal = Tmux::start(100, 30, &url(&split.api), &[BIN, "shell", &id]);
    terminal.wait_for(PROMPT);
    terminal.line(
        "clear; i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; echo all-$((40+2))",
    );
    terminal.wait_for("line 20\n");
    split.gateway.kill();
    terminal.line("echo typed-$((1+1))");
    terminal.wait_for("the server is away");
    split.restart_gateway().await;
    terminal.wait_for("typed-2");
    let screen = terminal.wait("the prompt", |screen| screen.trim_end().ends_with('#'));
    assert!(!screen.contains("the server is away"), "{screen}");
    let history = terminal.history();
    // The echo of what is typed may stand before one: it arrives in pieces, between two lines.
    let lines: Vec<&str> =
        history.lines().filter_map(|line| line.find("line ").map(|at| &line[at..])).collect();
    let expected: Vec<String> = (1..=150).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected, "lines are missing or double");
    assert_eq!(history.matches("all-42").count(), 1, "{history}");
    assert_eq!(history.matches("typed-2").count(), 1, "{history}");
}

fn verb(serve: &Serve, words: &[&str]) -> Output {
    fed(serve, words, "")
}

fn fed(serve: &Serve, words: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command: Command = stacyvm();
    command.env("STACYVM_URL", url(&serve.api)).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_work_in_place_of_a_terminal() {
    let serve = Serve::start().await;
    let id = sandbox(&serve.api).await;
    assert_output(&fed(&serve, &["shell", &id], "echo out; exit 3\n"), 3, "out\n");
    assert_output(&fed(&serve, &["shell", &id, "--", "sh", "-c", "cat; echo end"], "in\n"), 0, "in\nend\n");

    let started =
        verb(&serve, &["exec", "-d", "-i", &id, "--", "sh", "-c", "read a; echo got $a; cat; exit 4"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    let exec = text(&started.stdout).trim().to_owned();
    assert!(exec.starts_with("ex-"), "{exec}");
    assert_output(&fed(&serve, &["attach", &exec], "one\ntwo\n"), 4, "got one\ntwo\n");
    assert_output(&verb(&serve, &["attach", &exec, "--ro"]), 4, "got one\ntwo\n");
    assert_output(&verb(&serve, &["logs", &exec]), 0, "got one\ntwo\n");

    let started = verb(
        &serve,
        &["exec", "-d", &id, "--shell", "--", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done"],
    );
    let exec = text(&started.stdout).trim().to_owned();
    eventually("it is up", Duration::from_secs(20), async || {
        (text(&verb(&serve, &["logs", &exec]).stdout) == "up\n").then_some(())
    })
    .await;
    assert_output(&verb(&serve, &["signal", &exec, "USR1"]), 0, "");
    assert_output(&verb(&serve, &["attach", &exec]), 9, "up\n");
    assert_output(&verb(&serve, &["kill", &exec]), 0, &format!("{exec}\n"));

    let listed = verb(&serve, &["execs", &id, "--output", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let ours = listed.as_array().unwrap().iter().find(|listed| listed["id"] == *exec).unwrap();
    assert_eq!((&ours["state"], &ours["exit_code"]), (&"exited".into(), &9.into()));
    let table = text(&verb(&serve, &["execs", &id]).stdout);
    assert!(table.starts_with("ID ") && table.contains(&exec), "{table}");

    let missing = verb(&serve, &["attach", "ex-00000000000000000000000000"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(text(&missing.stderr).contains("NOT_FOUND"), "{}", text(&missing.stderr));
    assert_eq!(
        verb(&serve, &["exec", "-t", &id, "--", "true"]).status.code(),
        Some(125),
        "no terminal to lend"
    );
}

/// Nothing takes what the client writes for longer than the server waits for a client.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_was_too_slow_goes_on_where_it_stood() {
    use std::io::Read as _;
    let serve = Serve::with_config("docker", &[], "server:\n  slow_reader_limit: 1s\n").await;
    let id = sandbox(&serve.api).await;
    let started = verb(&serve, &["exec", "-d", &id, "--", "seq", "3000000"]);
    let exec = text(&started.stdout).trim().to_owned();
    let mut command = stacyvm();
    command.env("STACYVM_URL", url(&serve.api)).args(["attach", &exec]);
    let mut viewer =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = vec![0; 1000];
    viewer.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    eventually("the server gives it up", Duration::from_secs(60), async || {
        let metrics = serve
            .api
            .http
            .get(serve.api.url("/metrics/prometheus"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        metrics
            .lines()
            .any(|line| line.starts_with("stacyvm_slow_readers_closed_total") && !line.ends_with(" 0"))
            .then_some(())
    })
    .await;
    viewer.stdout.as_mut().unwrap().read_to_end(&mut seen).unwrap();
    let ended = viewer.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(0), ""));
    let expected: String = (1..=3_000_000).map(|i| format!("{i}\n")).collect();
    assert!(seen == expected.as_bytes(), "{} bytes, not {}", seen.len(), expected.len());
}
