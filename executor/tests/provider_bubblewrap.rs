//! What only boxes made by bubblewrap have: files and processes on the host that could stay behind, and a maker
//! without privileges.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code)]
#[path = "provider_conformance/rig.rs"]
mod rig;

use std::io::BufRead;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent::client::Client;
use events::{FailureCode, Network, SandboxId};
use executor::provider::{BoxHandle, BoxOrder, Capability, NoProgress, Provider, StatsError};
use executor::providers::bubblewrap::{BOX_USER, BubblewrapConfig, BubblewrapProvider, RootfsSource};
use rig::{Rig, agent_path, leave_running, shell, socket};

/// Makes this test program, run again as a process of its own, be [`another_process`] with this configuration.
const ROLE: &str = "STACYVM_TEST_BUBBLEWRAP";

/// Whoever has no rights at all.
const NOBODY: u32 = 65_534;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_are_nobody_on_the_host_and_mount_only_what_they_share() {
    Rig::bubblewrap_with(|_| ())
        .run(|rig| async move {
            let (handle, other) = (rig.any_box().await, rig.any_box().await);
            let mut ranges = Vec::new();
            for handle in [&handle, &other] {
                let status = std::fs::read_to_string(format!("/proc/{}/status", agent_pid(handle))).unwrap();
                assert!(status.contains("Groups:\t \n"), "{status}");
                let users = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
                let users: Vec<u32> = users.split('\t').map(|id| id.parse().unwrap()).collect();
                assert!(users.iter().all(|id| *id == users[0] && *id > BOX_USER), "{status}");
                assert_eq!((users[0] - BOX_USER) % 65_536, 0, "{status}");
                ranges.push(users[0]);
                // Files of the image and new ones are the box's users', here and there.
                let made =
                    "id -u; stat -c %u /etc/passwd /; touch /mine /his && chown 7 /his; echo >>/etc/passwd";
                assert_eq!(shell(handle, made).await.stdout, "0\n0\n0\n");
                let upper = socket(handle).ancestors().nth(2).unwrap().join("upper");
                for (name, id) in [("mine", 0), ("his", 7), ("etc/passwd", 0)] {
                    assert_eq!(std::fs::metadata(upper.join(name)).unwrap().uid(), users[0] + id, "{name}");
                }
            }
            assert_ne!(ranges[0], ranges[1]);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let ours = mounts.lines().filter(|line| line.contains(&*rig.data_dir().to_string_lossy()));
            // What each shares with the executor, and nothing else.
            let shared =
                |line: &&str| line.contains("/run rw,nosuid,nodev,noexec") && line.contains(" - tmpfs ");
            assert!(ours.clone().count() == 2 && ours.clone().all(|line| shared(&line)), "{mounts}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_outlive_the_process_that_made_them() {
    let mut config = None;
    let rig = Rig::bubblewrap_with(|used| config = Some(used.clone()));
    rig.run(|rig| async move {
        let config = config.unwrap();
        let (mut maker, id) = other_process(&config, "make", None);
        let made = rig.listed(id).await.expect("the box is listed");
        leave_running(&made, "exec sleep 1000").await;
        maker.kill().unwrap();
        maker.wait().unwrap();
        let found = rig.listed(id).await.expect("the box is listed");
        assert_eq!(found, made);
        assert!(found.running);
        assert_eq!(Client::with(found.agent.clone()).list_execs().await.unwrap().len(), 1);
        assert_eq!(rig.provider.stats(id).await.unwrap().mem_limit_bytes, 256 << 20);
        rig.provider.destroy(id).await.unwrap();
        assert!(!alive(agent_pid(&found)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_whose_record_was_not_written_is_replaced_and_ended() {
    Rig::bubblewrap_with(|_| ())
        .run(|rig| async move {
            let order = rig.order(rig.spec());
            let lost = rig.create(&order).await;
            // As if the maker had died between starting the box and writing this.
            let directory = socket(&lost);
            let directory = directory.ancestors().nth(2).unwrap();
            std::fs::remove_file(directory.join("box.json")).unwrap();
            assert!(!rig.listed(order.id).await.expect("the box is listed").running);
            let made = rig.create(&order).await;
            assert!(!alive(agent_pid(&lost)), "the lost box lives on");
            assert_eq!(shell(&made, "echo new").await.stdout, "new\n");
            std::fs::remove_file(directory.join("box.json")).unwrap();
            rig.provider.destroy(order.id).await.unwrap();
            assert!(!alive(agent_pid(&made)), "the lost box lives on");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_network_is_only_for_those_who_may() {
    Rig::bubblewrap_with(|_| ())
        .run(|rig| async move {
            let mut spec = rig.spec();
            spec.network = Network::Bridge;
            let error =
                rig.provider.create(&rig.order(spec), &NoProgress).await.expect_err("there is no bridge");
            assert_eq!(error.code(), FailureCode::Unsupported);
            assert!(error.to_string().contains("providers.bubblewrap.host_network"), "{error}");
        })
        .await;
    Rig::bubblewrap_with(|config| config.host_network = true)
        .run(|rig| async move {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let connect = format!(
                "import socket\nsocket.create_connection((\"127.0.0.1\", {}), 3)\nprint(\"connected\")",
                listener.local_addr().unwrap().port()
            );
            let mut spec = rig.spec();
            assert_ne!(rig::python(&rig.any_box().await, &connect).await.code(), 0);
            spec.network = Network::Bridge;
            let handle = rig.create(&rig.order(spec)).await;
            assert_eq!(rig::python(&handle, &connect).await.stdout, "connected\n");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_privileges_makes_boxes_too() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // Where nobody may go: this program, the agent and the root file system may be below a home directory.
    let agent = place.path().join("agent");
    std::fs::copy(agent_path(), &agent).unwrap();
    let data = place.path().join("data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut config = BubblewrapConfig::new(&data, agent).unwrap();
    config.images.insert("alpine:latest".to_owned(), RootfsSource::Tar(base_tar()));
    let (mut process, _) = other_process(&config, "try", Some(place.path()));
    assert!(process.wait().unwrap().success(), "see the output above");
}

/// Not a test: what [`other_process`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by other tests, as a process of its own"]
async fn another_process() {
    let role = std::env::var(ROLE).unwrap();
    let parts: Vec<_> = role.split('\n').collect();
    let [what, data_dir, image_dir, agent, parent, tar] = parts[..] else { panic!("{role}") };
    let mut config = BubblewrapConfig::new(data_dir, agent).unwrap();
    config.image_dir = image_dir.into();
    config.cgroup_parent = parent.to_owned();
    config.images.insert("alpine:latest".to_owned(), RootfsSource::Tar(tar.into()));
    let provider = BubblewrapProvider::new(config).unwrap();
    let spec = serde_json::json!({
        "provider": "bubblewrap", "image": "alpine", "memory_mib": 256, "cpu_millis": 1000, "pids_limit": 100,
    });
    let order = BoxOrder {
        id: SandboxId::new(),
        tenant: events::TenantId::default_tenant(),
        spec: serde_json::from_value(spec).unwrap(),
        time_left: Duration::from_secs(300),
        make_within: Duration::from_secs(300),
        turns: Default::default(),
    };
    let handle = provider.create(&order, &NoProgress).await.unwrap();
    #[expect(clippy::print_stdout, reason = "the other process listens")]
    {
        println!("\nmade {}", order.id);
    }
    if what == "make" {
        std::future::pending::<()>().await;
    }
    let health = provider.health().await.unwrap();
    // What this machine has few of is told besides.
    let of_rights = health.warnings.iter().filter(|warning| !warning.starts_with("pseudo terminals"));
    assert!(!provider.capabilities().has(Capability::Limits) && of_rights.count() == 2, "{health:?}");
    let ran = shell(&handle, "id -u && echo x >/usr/mine && mkdir -p /closed/in && chmod 0 /closed && grep CapEff /proc/self/status").await;
    assert_eq!(ran.stdout, "0\nCapEff:\t0000000000000000\n", "{ran:?}");
    assert!(matches!(provider.stats(order.id).await, Err(StatsError::Unsupported)));
    assert_eq!(provider.list().await.unwrap(), std::slice::from_ref(&handle));
    leave_running(&handle, "trap '' TERM; setsid sleep 1000 & sleep 1000").await;
    provider.destroy(order.id).await.unwrap();
    assert!(!alive(agent_pid(&handle)));
    assert_eq!(provider.list().await.unwrap(), []);
}

/// Runs [`another_process`] until it has made a box, as nobody if there is a place that nobody may go to.
fn other_process(config: &BubblewrapConfig, what: &str, nobodys: Option<&Path>) -> (Child, SandboxId) {
    let mut program = std::env::current_exe().unwrap();
    if let Some(place) = nobodys {
        let copy = place.join("test");
        std::fs::copy(program, &copy).unwrap();
        program = copy;
    }
    let role = [
        what.into(),
        config.data_dir.to_string_lossy(),
        config.image_dir.to_string_lossy(),
        config.agent_path.to_string_lossy(),
        config.cgroup_parent.as_str().into(),
        base_tar().to_string_lossy().into_owned().into(),
    ];
    let mut command = Command::new(program);
    command
        .args(["--exact", "another_process", "--ignored", "--nocapture"])
        .env(ROLE, role.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if let Some(place) = nobodys {
        command.uid(NOBODY).gid(NOBODY).current_dir(place);
    }
    let mut child = loop {
        match command.spawn() {
            // Another test has forked while the copy was being written.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => break outcome.unwrap(),
        }
    };
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let (sender, made) = std::sync::mpsc::channel();
    // To the end: a test program does not like its output to be closed.
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("made ") {
                let _ = sender.send(id.parse().unwrap());
            }
            eprintln!("the other process: {line}");
        }
    });
    let id = made.recv().expect("the other process makes a box; see its output above");
    (child, id)
}

fn base_tar() -> PathBuf {
    let cache = std::env::var("STACYVM_CACHE").unwrap_or_else(|_| "/var/cache/stacyvm".to_owned());
    Path::new(&cache).join("base.tar")
}

fn agent_pid(handle: &BoxHandle) -> i32 {
    handle.runtime_id.split_once('-').unwrap().0.parse().unwrap()
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
