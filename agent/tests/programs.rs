//! What is executed, where, as whom and with which environment.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use agent::client::CallError;
use agent::protocol::{StartErrorKind, StartExec, StartRefusal, TerminalSize};
use harness::{BINARY, Running, new_id};

fn shell(script: &str) -> StartExec {
    StartExec::new(new_id(), ["/bin/sh", "-c", script])
}

fn program(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

async fn refusal(agent: &Running, start: StartExec) -> (StartErrorKind, String) {
    match agent.client.start_exec(start).await.err() {
        Some(CallError::Refused(StartRefusal::NotStarted { kind, message })) => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_program_of_this_machine_is_not_run_as_a_script() {
    let agent = Running::start().await;
    let place = agent.workspace();
    let whole = fs::read("/bin/true").unwrap();
    let mut foreign = whole.clone();
    // e_machine: a SPARC.
    foreign[18..20].copy_from_slice(&2_u16.to_le_bytes());
    let mut garbage = b"echo it ran\n".to_vec();
    garbage.extend([0, 1, 2, 3]);
    for (name, bytes) in [
        ("foreign", &foreign[..]),
        ("magic-only", b"\x7fELF"),
        ("cut-in-header", &whole[..40]),
        ("cut-after-header", &whole[..64]),
        ("garbage", &garbage),
        ("windows", b"MZ\x90\0\x03echo it ran\n"),
        ("script-of-garbage", format!("#!{}\necho it ran\n", place.join("garbage").display()).as_bytes()),
        ("nameless", b"#!\necho it ran\n"),
    ] {
        program(&place.join(name), bytes);
        let ran = agent.run([format!("./{name}")]).await;
        assert_eq!(
            (ran.code(), ran.stdout().as_str(), ran.stderr()),
            (126, "", format!("./{name}: Exec format error\n"))
        );
        // Found on the way of PATH it is the same.
        let start = StartExec {
            env: vec![("PATH".to_owned(), format!("/no/such:{}:/bin", place.display()))],
            ..StartExec::new(new_id(), [name])
        };
        let ran = agent.run_exec(start).await;
        assert_eq!((ran.code(), ran.stderr()), (126, format!("{name}: Exec format error\n")));
    }
}

#[tokio::test]
async fn text_without_an_interpreter_is_a_script_for_the_shell() {
    let agent = Running::start().await;
    program(&agent.workspace().join("plain"), "echo \"$0 $1 ä\"\n".as_bytes());
    let path = vec![("PATH".to_owned(), format!("{}:/bin", agent.workspace().display()))];
    for (argv, name) in [
        (vec!["./plain", "x"], "./plain".to_owned()),
        (vec!["plain", "x"], format!("{}/plain", agent.workspace().display())),
    ] {
        let ran = agent.run_exec(StartExec { env: path.clone(), ..StartExec::new(new_id(), argv) }).await;
        assert_eq!((ran.code(), ran.stdout()), (0, format!("{name} x ä\n")));
    }
    program(&agent.workspace().join("empty"), b"");
    assert_eq!(agent.run(["./empty"]).await.code(), 0);
}

#[tokio::test]
async fn each_failure_to_execute_says_what_it_is() {
    let agent = Running::start().await;
    let place = agent.workspace();
    program(&place.join("lost"), b"#!/no/such/interpreter -x\n");
    let mut loaderless = fs::read("/bin/true").unwrap();
    let loader = b"/lib64/ld-linux-x86-64.so.2";
    let at = loaderless.windows(loader.len()).position(|window| window == loader).unwrap();
    loaderless[at + 1] = b'X';
    program(&place.join("loaderless"), &loaderless);
    symlink("round", place.join("round")).unwrap();
    fs::write(place.join("plain"), "echo x").unwrap();
    fs::create_dir(place.join("directory")).unwrap();
    program(&place.join("busy"), b"#!/bin/sh\n");
    let _writer = fs::File::options().append(true).open(place.join("busy")).unwrap();
    for (name, code, said) in [
        ("./lost", 126, "/no/such/interpreter: bad interpreter: No such file or directory"),
        ("./loaderless", 126, "cannot execute: its dynamic loader or interpreter is not in the image"),
        ("./round", 126, "Too many levels of symbolic links"),
        ("./plain", 126, "Permission denied"),
        ("./directory", 126, "Is a directory"),
        ("./plain/x", 127, "No such file or directory"),
        ("./nothing", 127, "No such file or directory"),
        ("nothing", 127, "command not found"),
    ] {
        let ran = agent.run([name]).await;
        assert_eq!((ran.code(), ran.stderr()), (code, format!("{name}: {said}\n")));
    }
    // Older kernels refuse a file that is open for writing.
    let busy = agent.run(["./busy"]).await;
    assert!(busy.code() == 0 || (busy.code(), busy.stderr()) == (126, "./busy: Text file busy\n".to_owned()));
    let long = vec!["x".repeat(100_000); 60];
    let start = StartExec::new(new_id(), ["/bin/true".to_owned()].into_iter().chain(long));
    if let Err(error) = agent.client.start_exec(start).await {
        // A message may be too large before its arguments are.
        assert!(!matches!(error, CallError::Refused(_)), "{error:?}");
    }
    let start = StartExec::new(new_id(), ["/bin/true".to_owned(), "x".repeat(200_000)]);
    let (kind, message) = refusal(&agent, start).await;
    assert_eq!(kind, StartErrorKind::InvalidArgument);
    assert!(message.contains("larger than Linux takes"), "{message}");
    assert_eq!(agent.run(["true"]).await.code(), 0);
}

#[tokio::test]
async fn a_later_directory_has_the_program_that_an_earlier_one_cannot_run() {
    let agent = Running::start().await;
    let place = agent.workspace();
    for name in ["closed", "broken", "good"] {
        fs::create_dir(place.join(name)).unwrap();
    }
    fs::write(place.join("closed/tool"), "").unwrap();
    program(&place.join("broken/tool"), b"#!/no/such\n");
    let path = |parts: &[&str]| {
        let parts: Vec<_> = parts.iter().map(|part| place.join(part).display().to_string()).collect();
        vec![("PATH".to_owned(), parts.join(":"))]
    };
    let all = path(&["none", "closed", "broken", "good"]);
    let start = StartExec { env: all.clone(), ..StartExec::new(new_id(), ["tool"]) };
    assert_eq!(agent.run_exec(start).await.code(), 126);
    program(&place.join("good/tool"), b"#!/bin/sh\necho good\n");
    let start = StartExec { env: all, ..StartExec::new(new_id(), ["tool"]) };
    assert_eq!(agent.run_exec(start).await.stdout(), "good\n");
    // An empty part is the working directory; very long ones are passed over.
    let start = StartExec {
        env: vec![("PATH".to_owned(), format!("/{}:", "x".repeat(5000)))],
        cwd: Some("good".to_owned()),
        ..StartExec::new(new_id(), ["tool"])
    };
    assert_eq!(agent.run_exec(start).await.stdout(), "good\n");
}

#[tokio::test]
async fn a_default_directory_that_is_gone_is_made_again() {
    let agent = Running::start().await;
    let place = agent.workspace();
    assert_eq!(agent.shell("rm -rf \"$PWD\"").await.code(), 0);
    assert!(!place.exists());
    assert_eq!(agent.run(["pwd"]).await.stdout().trim(), place.to_str().unwrap());
    assert!(place.is_dir());
}

#[tokio::test]
async fn no_exec_runs_in_another_directory_than_its_own() {
    let agent = Running::start().await;
    let place = agent.workspace();
    let default = || StartExec::new(new_id(), ["pwd"]);
    let explicit = |cwd: &str| StartExec { cwd: Some(cwd.to_owned()), ..default() };
    fs::write(place.join("file"), "").unwrap();
    symlink("/no/such/place", place.join("dangling")).unwrap();
    symlink("around", place.join("around")).unwrap();
    fs::create_dir(place.join("closed")).unwrap();
    fs::set_permissions(place.join("closed"), Permissions::from_mode(0o700)).unwrap();
    for (start, said) in [
        (explicit("nothing"), "No such file"),
        (explicit("file"), "Not a directory"),
        (explicit("dangling"), "No such file"),
        (explicit("around"), "Too many levels"),
        (StartExec { user: Some("65534".to_owned()), ..explicit("closed") }, "Permission denied"),
    ] {
        let (kind, message) = refusal(&agent, start).await;
        assert_eq!(kind, StartErrorKind::WorkingDirectory, "{message}");
        assert!(message.contains(said), "{message}");
    }
    fs::remove_dir_all(&place).unwrap();
    assert_eq!(refusal(&agent, explicit("sub")).await.0, StartErrorKind::WorkingDirectory);
    fs::write(&place, "").unwrap();
    let (kind, message) = refusal(&agent, default()).await;
    assert_eq!(
        (kind, message.ends_with("is not a directory")),
        (StartErrorKind::WorkingDirectory, true),
        "{message}"
    );
    fs::remove_file(&place).unwrap();
    symlink("/no/such/place", &place).unwrap();
    let (kind, message) = refusal(&agent, default()).await;
    assert_eq!(kind, StartErrorKind::WorkingDirectory);
    assert!(message.ends_with("is a link that leads nowhere"), "{message}");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();
    let (kind, _) = refusal(&agent, StartExec { user: Some("65534".to_owned()), ..default() }).await;
    assert_eq!(kind, StartErrorKind::WorkingDirectory);
}

#[tokio::test]
async fn the_environment_of_the_image_lies_beneath() {
    let agent = Running::start_with(&["--keep-environment"]).await;
    let environment = |output: &str| -> Vec<String> { output.lines().map(str::to_owned).collect() };
    let plain = environment(&agent.run(["env"]).await.stdout());
    assert!(plain.contains(&"LEAKED=from the agent".to_owned()), "{plain:?}");
    agent
        .client
        .set_environment(vec![
            ("LEAKED".to_owned(), "sandbox".to_owned()),
            ("B".to_owned(), "sandbox".to_owned()),
        ])
        .await
        .unwrap();
    let start =
        StartExec { env: vec![("B".to_owned(), "exec".to_owned())], ..StartExec::new(new_id(), ["env"]) };
    let layered = environment(&agent.run_exec(start).await.stdout());
    for variable in ["LEAKED=sandbox", "B=exec", "TERM=dumb"] {
        assert!(layered.contains(&variable.to_owned()), "{variable}: {layered:?}");
    }
    let start = StartExec {
        tty: Some(TerminalSize { rows: 24, cols: 80 }),
        ..shell("echo $TERM; test -n \"$LANG$LC_ALL\" && echo letters")
    };
    assert_eq!(agent.run_exec(start).await.stdout(), "xterm-256color\r\nletters\r\n");
}

#[tokio::test]
async fn programs_are_sought_in_the_path_of_the_exec() {
    let agent = Running::start().await;
    program(&agent.workspace().join("own-tool"), b"#!/bin/sh\necho own\n");
    let start = StartExec {
        env: vec![("PATH".to_owned(), agent.workspace().display().to_string())],
        ..StartExec::new(new_id(), ["own-tool"])
    };
    assert_eq!(agent.run_exec(start).await.stdout(), "own\n");
    let start = StartExec {
        env: vec![("PATH".to_owned(), "/no/such".to_owned())],
        ..StartExec::new(new_id(), ["ls"])
    };
    assert_eq!(agent.run_exec(start).await.code(), 127);
}

#[tokio::test]
async fn the_default_user_is_for_those_who_name_none() {
    let agent = Running::start_with(&["--default-user", "4711:4712"]).await;
    fs::set_permissions(agent.directory.path(), Permissions::from_mode(0o755)).unwrap();
    let metadata = fs::metadata(agent.workspace()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
    let who = "id -u; id -g; id -G; echo $HOME; echo through >/dev/stdout";
    assert_eq!(agent.shell(who).await.stdout(), "4711\n4712\n4712\n/\nthrough\n");
    for root in ["root", "0", "0:0", "root:root"] {
        let start = StartExec { user: Some(root.to_owned()), ..shell("id -u; id -g; echo $HOME") };
        assert_eq!(agent.run_exec(start).await.stdout(), "0\n0\n/root\n", "{root}");
    }
    assert_eq!(agent.shell("rm -rf \"$PWD\"/* && echo mine >file && cat file").await.stdout(), "mine\n");
    fs::remove_dir_all(agent.workspace()).unwrap();
    assert_eq!(agent.shell("echo mine >file && cat file").await.stdout(), "mine\n");
    let terminal =
        StartExec { tty: Some(TerminalSize { rows: 24, cols: 80 }), ..shell("echo again >$(tty)") };
    assert_eq!(agent.run_exec(terminal).await.stdout(), "again\r\n");
}

#[tokio::test]
async fn what_is_made_where_the_default_user_works_is_its() {
    use agent::client::WriteFile;
    let agent = Running::start_with(&["--default-user", "4711:4712"]).await;
    let place = agent.workspace();
    let owner = |path: &str| fs::symlink_metadata(place.join(path)).map(|it| (it.uid(), it.gid())).unwrap();
    agent.client.put_file(WriteFile::new("a/b/file"), "x".into()).await.unwrap();
    agent.client.mkdir("c/d", 0o750).await.unwrap();
    agent.client.move_path("a/b/file", "e/f").await.unwrap();
    for path in ["a", "a/b", "c", "c/d", "e", "e/f"] {
        assert_eq!(owner(path), (4711, 4712), "{path}");
    }
    assert_eq!(fs::metadata(place.join("c/d")).unwrap().permissions().mode() & 0o7777, 0o750);
    // Not behind a link of the user's into what is root's, and not what is root's own.
    fs::create_dir(agent.directory.path().join("roots")).unwrap();
    symlink(agent.directory.path().join("roots"), place.join("link")).unwrap();
    agent.client.put_file(WriteFile::new("link/sub/file"), "x".into()).await.unwrap();
    for path in ["link/sub", "link/sub/file"] {
        assert_eq!(owner(path), (0, 0), "{path}");
    }
    fs::write(place.join("of-another"), "").unwrap();
    std::os::unix::fs::chown(place.join("of-another"), Some(7), Some(8)).unwrap();
    agent.client.put_file(WriteFile::new("of-another"), "x".into()).await.unwrap();
    assert_eq!(owner("of-another"), (7, 8));
}

#[tokio::test]
async fn nobody_holds_what_only_the_agent_needs() {
    let agent = Running::start().await;
    let sets = |status: String| -> Vec<(String, u64)> {
        status
            .lines()
            .filter(|line| line.starts_with("Cap"))
            .map(|line| {
                let (name, bits) = line.split_once(":\t").unwrap();
                (name.to_owned(), u64::from_str_radix(bits, 16).unwrap())
            })
            .collect()
    };
    let root = sets(agent.run(["cat", "/proc/self/status"]).await.stdout());
    assert_eq!(root.len(), 5);
    assert!(root.iter().all(|(_, bits)| bits & (1 << 8) == 0), "{root:?}");
    let start = StartExec {
        user: Some("4711".to_owned()),
        cwd: Some("/".to_owned()),
        ..StartExec::new(new_id(), ["cat", "/proc/self/status"])
    };
    let other = sets(agent.run_exec(start).await.stdout());
    assert!(other.iter().all(|(name, bits)| name == "CapBnd" || *bits == 0), "{other:?}");
}

#[tokio::test]
async fn without_rights_an_exec_can_be_who_the_agent_is() {
    let directory = tempfile::TempDir::new().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let binary = directory.path().join("agent");
    fs::copy(BINARY, &binary).unwrap();
    // Root without capabilities, as in a sandbox with the minimal set.
    let mut process = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "--"])
        .arg(&binary)
        .args(["--any-peer", "--socket"])
        .arg(directory.path().join("agent.sock"))
        .arg("--run-dir")
        .arg(directory.path())
        .arg("--workspace")
        .arg(directory.path().join("workspace"))
        .spawn()
        .unwrap();
    let client = harness::connect(&directory.path().join("agent.sock")).await;
    for (user, permitted) in [("root", true), ("0", true), ("0:0", true), ("4711", false), ("0:4711", false)]
    {
        let start =
            StartExec { user: Some(user.to_owned()), ..shell("id -u; grep CapBnd /proc/self/status") };
        match client.start_exec(start).await {
            Ok(connection) => {
                assert!(permitted, "{user}");
                assert_eq!(harness::collect(connection).await.stdout(), "0\nCapBnd:\t0000000000000000\n");
            }
            Err(CallError::Refused(StartRefusal::NotStarted { kind, .. })) => {
                assert!(!permitted && kind == StartErrorKind::UserNotPermitted, "{user}: {kind:?}");
            }
            Err(other) => panic!("{user}: {other:?}"),
        }
    }
    client.shutdown(std::time::Duration::ZERO).await.unwrap();
    process.wait().unwrap();
}
