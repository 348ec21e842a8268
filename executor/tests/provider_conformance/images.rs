//! What an image says, and what it has where we need something else.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use agent::client::{CallError, Client, WriteFile};
use agent::protocol::{StartErrorKind, StartExec, StartRefusal};
use events::CapabilitySet;
use executor::provider::{BoxHandle, NoProgress};

use crate::rig::{Ran, Rig, new_exec, run, run_exec, shell};

/// Files of an image: busybox, and whatever a test adds.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("make a directory"));
        std::fs::set_permissions(files.0.path(), PermissionsExt::from_mode(0o755)).expect("open it");
        for directory in ["bin", "etc", "tmp", "opt/tools"] {
            std::fs::create_dir_all(files.at(directory)).expect("make a directory");
        }
        std::fs::set_permissions(files.at("tmp"), PermissionsExt::from_mode(0o1777)).expect("open it");
        std::fs::copy("/bin/busybox", files.at("bin/busybox"))
            .expect("busybox (apt-get install busybox-static)");
        for applet in ["sh", "env", "id", "pwd", "cat", "stat", "touch", "mkdir", "rm", "echo"] {
            symlink("busybox", files.at("bin").join(applet)).expect("link an applet");
        }
        files.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n");
        files.write("etc/group", "root:x:0:\napp:x:1001:\nteam:x:1002:app\n");
        files.write("opt/tools/tool", "#!/bin/sh\necho tool\n");
        std::fs::set_permissions(files.at("opt/tools/tool"), PermissionsExt::from_mode(0o755))
            .expect("open it");
        files
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).expect("write a file");
    }

    fn root(&self) -> &Path {
        self.0.path()
    }
}

async fn made(rig: &Rig, files: &Files, says: &[(&str, &str)]) -> BoxHandle {
    let mut spec = rig.spec();
    spec.image = rig.publish(files.root(), says);
    rig.create(&rig.order(spec)).await
}

async fn refused(handle: &BoxHandle, start: StartExec) -> (StartErrorKind, String) {
    match Client::with(handle.agent.clone()).start_exec(start).await.err() {
        Some(CallError::Refused(StartRefusal::NotStarted { kind, message })) => (kind, message),
        other => panic!("{other:?}"),
    }
}

fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().collect()
}

pub async fn its_environment_lies_beneath_all_others(rig: &Rig) {
    let files = Files::new();
    let says = [
        ("ENV", "PATH=/opt/tools:/bin"),
        ("ENV", "JAVA_HOME=/opt/java"),
        ("ENV", "TZ=Europe/Vienna"),
        ("ENV", "LANG=de_AT.UTF-8"),
    ];
    let handle = made(rig, &files, &says).await;
    let ran = run(&handle, &["env"]).await;
    for variable in [
        "PATH=/opt/tools:/bin",
        "JAVA_HOME=/opt/java",
        "TZ=Europe/Vienna",
        "LANG=de_AT.UTF-8",
        "HOME=/root",
        "TERM=dumb",
    ] {
        assert!(lines(&ran).contains(&variable), "{variable}: {ran:?}");
    }
    assert!(!ran.stdout.contains("PWD=") && !ran.stdout.contains("SHLVL"), "{ran:?}");
    assert_eq!(run(&handle, &["tool"]).await.stdout, "tool\n", "its PATH is not sought");
    let client = Client::with(handle.agent.clone());
    let sandbox = [("TZ", "UTC"), ("LANG", "C")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    client.set_environment(sandbox.to_vec()).await.expect("set the sandbox's environment");
    let start =
        StartExec { env: vec![("LANG".to_owned(), "fr".to_owned())], ..StartExec::new(new_exec(), ["env"]) };
    let ran = run_exec(&handle, start).await;
    for variable in ["JAVA_HOME=/opt/java", "TZ=UTC", "LANG=fr"] {
        assert!(lines(&ran).contains(&variable), "{variable}: {ran:?}");
    }
}

pub async fn without_one_there_are_defaults(rig: &Rig) {
    let handle = made(rig, &Files::new(), &[]).await;
    let ran = run(&handle, &["env"]).await;
    for variable in [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "HOME=/root",
        "TERM=dumb",
    ] {
        assert!(lines(&ran).contains(&variable), "{variable}: {ran:?}");
    }
    assert_eq!(run(&handle, &["pwd"]).await.stdout, "/workspace\n");
}

pub async fn its_directory_is_the_default_one(rig: &Rig) {
    let files = Files::new();
    let handle = made(rig, &files, &[("WORKDIR", "/srv/app")]).await;
    assert_eq!(run(&handle, &["pwd"]).await.stdout, "/srv/app\n");
    let client = Client::with(handle.agent.clone());
    client.put_file(WriteFile::new("note"), "x".into()).await.expect("write a file");
    assert_eq!(shell(&handle, "cat /srv/app/note; cd /workspace && pwd").await.stdout, "x/workspace\n");
    assert_eq!(shell(&handle, "rm -rf /srv/app").await.code(), 0);
    assert_eq!(run(&handle, &["pwd"]).await.stdout, "/srv/app\n");
}

pub async fn its_user_is_the_default_one(rig: &Rig) {
    let files = Files::new();
    std::fs::create_dir_all(files.at("home/app")).expect("make a directory");
    std::os::unix::fs::chown(files.at("home/app"), Some(1000), Some(1001)).expect("give it away");
    std::fs::set_permissions(files.at("home/app"), PermissionsExt::from_mode(0o700)).expect("close it");
    let handle = made(rig, &files, &[("USER", "app"), ("WORKDIR", "/home/app")]).await;
    let who = "id -u; id -g; id -G; echo $HOME; pwd; touch mine /workspace/mine && stat -c %U mine";
    assert_eq!(shell(&handle, who).await.stdout, "1000\n1001\n1001 1002\n/home/app\n/home/app\napp\n");
    let root = StartExec { user: Some("root".to_owned()), ..StartExec::new(new_exec(), ["id", "-u"]) };
    assert_eq!(run_exec(&handle, root).await.stdout, "0\n");
    let client = Client::with(handle.agent.clone());
    assert_eq!(client.list("/home/app", false).await.expect("list what is the user's").0.len(), 1);
    client.put_file(WriteFile::new("/home/app/mine"), "new".into()).await.expect("write what is the user's");
    client.put_file(WriteFile::new("/workspace/new/file"), "x".into()).await.expect("write a new one");
    assert_eq!(shell(&handle, "stat -c %U /workspace/new /workspace/new/file").await.stdout, "app\napp\n");
    assert_eq!(shell(&handle, "cat mine; echo more >>mine && stat -c %U mine").await.stdout, "newapp\n");
}

pub async fn a_user_that_it_does_not_have_is_named(rig: &Rig) {
    let handle = made(rig, &Files::new(), &[("USER", "ghost")]).await;
    let (kind, message) = refused(&handle, StartExec::new(new_exec(), ["id"])).await;
    assert_eq!(kind, StartErrorKind::UnknownUser);
    assert!(message.contains("\"ghost\""), "{message}");
    let root = StartExec { user: Some("0".to_owned()), ..StartExec::new(new_exec(), ["id", "-u"]) };
    assert_eq!(run_exec(&handle, root).await.stdout, "0\n");
}

pub async fn its_user_is_not_asked_for_where_nobody_can_change(rig: &Rig) {
    let mut spec = rig.spec();
    spec.image = rig.publish(Files::new().root(), &[("USER", "app")]);
    spec.capabilities = Some(CapabilitySet::Minimal);
    let handle = rig.create(&rig.order(spec)).await;
    assert_eq!(run(&handle, &["id", "-u"]).await.stdout, "0\n");
}

pub async fn its_entrypoint_is_not_run(rig: &Rig) {
    let files = Files::new();
    let says = [
        ("ENTRYPOINT", r#"["/bin/touch", "/tmp/entrypoint"]"#),
        ("CMD", r#"["/bin/touch", "/tmp/command"]"#),
        ("LABEL", "stacyvm.sandbox=other"),
        ("VOLUME", "/data"),
    ];
    let handle = made(rig, &files, &says).await;
    let ran = shell(
        &handle,
        "test ! -e /tmp/entrypoint && test ! -e /tmp/command && mkdir -p /data && touch /data/x && echo well",
    )
    .await;
    assert_eq!(ran.stdout, "well\n", "{ran:?}");
    assert_eq!(rig.provider.list().await.expect("list"), [handle]);
}

pub async fn without_a_shell_programs_run_and_lines_do_not(rig: &Rig) {
    let files = Files::new();
    std::fs::remove_file(files.at("bin/sh")).expect("take the shell away");
    files.write("opt/tools/script", "echo x\n");
    std::fs::set_permissions(files.at("opt/tools/script"), PermissionsExt::from_mode(0o755))
        .expect("open it");
    let handle = made(rig, &files, &[]).await;
    assert_eq!(run(&handle, &["echo", "it runs"]).await.stdout, "it runs\n");
    let (kind, message) = refused(&handle, StartExec::new(new_exec(), ["/bin/sh", "-c", "echo x"])).await;
    assert_eq!(
        (kind, message.as_str()),
        (StartErrorKind::InvalidArgument, "the image has no shell (/bin/sh): run a program with mode argv")
    );
    for script in ["/opt/tools/script", "/opt/tools/tool"] {
        let ran = run(&handle, &[script]).await;
        assert_eq!(ran.code(), 126, "{ran:?}");
        assert!(ran.stderr.contains("/bin/sh"), "{ran:?}");
    }
}

pub async fn a_file_where_the_agent_goes_is_out_of_the_way_or_named(rig: &Rig) {
    let files = Files::new();
    files.write(".stacyvm", "not a directory");
    let mut spec = rig.spec();
    spec.image = rig.publish(files.root(), &[]);
    match rig.provider.create(&rig.order(spec), &NoProgress).await {
        Ok(handle) => assert_eq!(shell(&handle, "echo well").await.stdout, "well\n"),
        Err(error) => {
            assert_eq!(error.code(), events::FailureCode::Invalid, "{error:?}");
            assert!(error.to_string().contains("/.stacyvm"), "{error}");
            assert_eq!(rig.provider.list().await.expect("list"), []);
        }
    }
}

pub async fn a_link_where_the_agent_goes_leads_nowhere_else(rig: &Rig) {
    let outside = tempfile::tempdir().expect("make a directory");
    let files = Files::new();
    symlink(outside.path(), files.at(".stacyvm")).expect("make a link");
    symlink(outside.path(), files.at("workspace")).expect("make a link");
    let mut spec = rig.spec();
    spec.image = rig.publish(files.root(), &[]);
    match rig.provider.create(&rig.order(spec), &NoProgress).await {
        Ok(handle) => {
            assert_eq!(
                run_exec(
                    &handle,
                    StartExec { cwd: Some("/".to_owned()), ..StartExec::new(new_exec(), ["echo", "well"]) }
                )
                .await
                .stdout,
                "well\n"
            );
        }
        Err(error) => assert_eq!(error.code(), events::FailureCode::Invalid, "{error:?}"),
    }
    assert_eq!(std::fs::read_dir(outside.path()).expect("read it").count(), 0, "the host was written to");
}
