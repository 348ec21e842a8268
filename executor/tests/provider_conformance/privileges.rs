//! What root and others in a box may do, and what nobody may.

use agent::client::{CallError, Client};
use agent::protocol::{StartErrorKind, StartExec, StartRefusal};
use events::CapabilitySet;
use executor::provider::BoxHandle;

use crate::rig::{Ran, Rig, new_exec, python, run_exec, shell};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE.
const STANDARD: &str = "00000000000004fb";
const NONE: &str = "0000000000000000";

fn as_user(user: &str, line: &str) -> StartExec {
    StartExec { user: Some(user.to_owned()), ..StartExec::new(new_exec(), ["/bin/sh", "-c", line]) }
}

async fn refused(handle: &BoxHandle, start: StartExec) -> StartErrorKind {
    match Client::with(handle.agent.clone()).start_exec(start).await.err() {
        Some(CallError::Refused(StartRefusal::NotStarted { kind, .. })) => kind,
        other => panic!("{other:?}"),
    }
}

/// One line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim_start_matches(':').trim()
}

async fn well(handle: &BoxHandle, line: &str) -> Ran {
    let ran = shell(handle, line).await;
    assert_eq!(ran.code(), 0, "{line}: {ran:?}");
    ran
}

pub async fn root_has_the_standard_capabilities_and_others_have_none(rig: &Rig) {
    let handle = rig.any_box().await;
    let status = well(&handle, "cat /proc/self/status").await.stdout;
    for (name, bits) in
        [("CapPrm", STANDARD), ("CapEff", STANDARD), ("CapBnd", STANDARD), ("CapInh", NONE), ("CapAmb", NONE)]
    {
        assert_eq!(field(&status, name), bits, "{name}");
    }
    let ran = run_exec(&handle, as_user("daemon", "cat /proc/self/status")).await;
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(field(&ran.stdout, name), NONE, "{name}");
    }
    for status in [status, ran.stdout] {
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
    }
}

pub async fn the_minimal_set_is_none(rig: &Rig) {
    let mut spec = rig.spec();
    spec.capabilities = Some(CapabilitySet::Minimal);
    let handle = rig.create(&rig.order(spec)).await;
    for process in ["self", "1"] {
        let status = well(&handle, &format!("cat /proc/{process}/status")).await.stdout;
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, name), NONE, "{process} {name}");
        }
    }
    assert_ne!(shell(&handle, "chown 1:1 /tmp").await.code(), 0);
    assert_eq!(run_exec(&handle, as_user("root", "id -u")).await.stdout, "0\n");
    assert_eq!(refused(&handle, as_user("daemon", "id")).await, StartErrorKind::UserNotPermitted);
}

pub async fn execs_run_as_whom_they_name(rig: &Rig) {
    let handle = rig.any_box().await;
    well(&handle, "mkdir -m 777 /workspace/all && echo private >/etc/of-root && chmod 600 /etc/of-root")
        .await;
    let who = "echo $(id -u) $(id -g) $(id -G) $HOME";
    for (user, said) in [
        ("daemon", "1 1 1 /usr/sbin"),
        ("1", "1 1 1 /usr/sbin"),
        ("1:2", "1 2 2 /usr/sbin"),
        ("daemon:bin", "1 2 2 /usr/sbin"),
        ("4711", "4711 0 0 /"),
        ("4711:4712", "4711 4712 4712 /"),
        ("65534", "65534 65534 65534 /nonexistent"),
        ("root", "0 0 0 /root"),
        ("0", "0 0 0 /root"),
        ("0:0", "0 0 0 /root"),
    ] {
        let ran = run_exec(&handle, as_user(user, who)).await;
        assert_eq!(ran.stdout.trim(), said, "{user}: {ran:?}");
    }
    let line = "touch all/mine && stat -c %u all/mine && cat /etc/of-root";
    let ran = run_exec(&handle, as_user("daemon", line)).await;
    assert_eq!((ran.stdout.as_str(), ran.code()), ("1\n", 1), "{ran:?}");
    assert!(ran.stderr.contains("Permission denied"), "{ran:?}");
    for user in ["nobody-by-this-name", "daemon:no-such-group", "4294967295", "", ":", "-1", "0x0"] {
        assert_eq!(refused(&handle, as_user(user, "id")).await, StartErrorKind::UnknownUser, "{user:?}");
    }
}

pub async fn files_of_all_users_are_roots_to_use(rig: &Rig) {
    let handle = rig.any_box().await;
    let client = Client::with(handle.agent.clone());
    well(&handle, "mkdir -m 700 /home/app && echo x >/home/app/note && chmod 600 /home/app/note && chown -R 1000:1000 /home/app /workspace && chmod 700 /workspace").await;
    client.put_file(agent::client::WriteFile::new("/home/app/note"), "new".into()).await.expect("write it");
    client.put_file(agent::client::WriteFile::new("more"), "new".into()).await.expect("write another");
    client.chmod("/home/app/note", 0o640).await.expect("change its mode");
    let ran = well(&handle, "cat /home/app/note && stat -c '%u:%g %a' /home/app/note").await;
    assert_eq!(ran.stdout, "new1000:1000 640\n");
    client.delete("/home/app", true).await.expect("delete all of it");
}

pub async fn an_archive_keeps_its_owners(rig: &Rig) {
    let handle = rig.any_box().await;
    well(
        &handle,
        "mkdir in out && touch in/a in/b && chown 1:2 in/a && chown 4711:4712 in/b && chmod 4755 in/b",
    )
    .await;
    well(&handle, "tar -C in -cf all.tar . && tar -C out -xpf all.tar").await;
    let ran = well(&handle, "stat -c '%n %u:%g %a' out/a out/b").await;
    assert_eq!(ran.stdout, "out/a 1:2 644\nout/b 4711:4712 4755\n");
}

pub async fn users_are_made_and_become(rig: &Rig) {
    let handle = rig.any_box().await;
    well(&handle, "groupadd team && useradd --create-home --groups team --shell /bin/sh ann").await;
    let ran = well(&handle, "su ann -c 'id -un; id -Gn; echo $HOME; touch ~/mine' && su - ann -c pwd").await;
    assert_eq!(ran.stdout, "ann\nann team\n/home/ann\n/home/ann\n");
    let ran =
        well(&handle, "setpriv --reuid ann --regid ann --init-groups id -un && stat -c %U /home/ann/mine")
            .await;
    assert_eq!(ran.stdout, "ann\nann\n");
    let ran = run_exec(&handle, as_user("ann", "cd && pwd && id -Gn")).await;
    assert_eq!(ran.stdout, "/home/ann\nann team\n");
    well(&handle, "echo 'ann:secret' | chpasswd && passwd --lock ann && userdel --remove ann").await;
}

pub async fn a_daemon_runs_as_its_own_user_on_a_low_port(rig: &Rig) {
    let handle = rig.any_box().await;
    // Listens as root, then becomes somebody else: as servers do.
    let server = r#"
import os, socket
listener = socket.create_server(("127.0.0.1", 80))
os.setgroups([]); os.setgid(33); os.setuid(33)
try:
    os.setuid(0)
    print("root again", flush=True)
except PermissionError:
    pass
open("/tmp/ready", "w").close()
while True:
    peer, _ = listener.accept()
    peer.sendall(b"%d" % os.getuid())
    peer.close()
"#;
    let client = Client::with(handle.agent.clone());
    client.put_file(agent::client::WriteFile::new("/srv/server.py"), server.into()).await.expect("write it");
    well(&handle, "start-stop-daemon --start --background --make-pidfile --pidfile /run/server.pid --exec /usr/bin/python3 -- /srv/server.py").await;
    let knock = "import os, socket, time\nwhile not os.path.exists('/tmp/ready'): time.sleep(0.05)\nprint(socket.create_connection((\"127.0.0.1\", 80)).recv(9).decode())";
    assert_eq!(python(&handle, knock).await.stdout, "33\n");
    // Root ends what belongs to others.
    well(&handle, "start-stop-daemon --stop --retry KILL/30 --pidfile /run/server.pid").await;
}

pub async fn a_capability_reaches_nothing_beyond_the_box(rig: &Rig) {
    let handle = rig.any_box().await;
    let attacks = r#"
import ctypes, errno, os, socket, stat
libc = ctypes.CDLL(None, use_errno=True)
def refused(what, attempt):
    try:
        attempt()
        print(what, "was done")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS, errno.EAFNOSUPPORT, errno.EXDEV, errno.EBUSY):
            print(what, error)
def call(number, *arguments):
    def attempt():
        if libc.syscall(number, *arguments) == -1:
            raise OSError(ctypes.get_errno(), "")
    return attempt
refused("mount", call(165, b"none", b"/mnt", b"tmpfs", 0, 0))
refused("move_mount", call(429, -1, b"/mnt", -100, b"/tmp", 0))
refused("umount", call(166, b"/proc", 2))
refused("pivot_root", call(155, b"/", b"/"))
refused("chroot", lambda: os.chroot("/tmp"))
refused("unshare", call(272, 0x10000000))
refused("setns", call(308, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
refused("ptrace of the agent", call(101, 16, 1, 0, 0))
refused("memory of the agent", lambda: open("/proc/1/mem", "rb"))
refused("a file of the agent", lambda: os.open("/proc/1/fd/0", os.O_RDONLY))
refused("environment of the agent", lambda: open("/proc/1/environ", "rb").read())
refused("root of the agent", lambda: os.listdir("/proc/1/root/"))
refused("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
refused("packet socket", lambda: socket.socket(17, socket.SOCK_RAW))
refused("disk", lambda: os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)))
refused("memory device", lambda: os.mknod("/tmp/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1)))
refused("host name", lambda: socket.sethostname("other"))
refused("clock", call(227, 0, b"\0" * 16))
refused("network", lambda: open("/proc/sys/net/ipv4/ip_forward", "w").write("1"))
refused("core pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x"))
if os.path.exists("/proc/sysrq-trigger"):
    refused("sysrq", lambda: open("/proc/sysrq-trigger", "w").write("b"))
refused("agent", lambda: open("/.stacyvm/agent", "wb"))
refused("agent's name", lambda: os.rename("/.stacyvm/agent", "/tmp/agent"))
refused("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
refused("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
refused("file capabilities", lambda: os.setxattr("/bin/true", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")))
refused("open by handle", call(304, -100, b"\0" * 16, 0))
"#;
    let ran = python(&handle, attacks).await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (0, ""), "{ran:?}");
}

pub async fn a_set_uid_program_gains_nothing(rig: &Rig) {
    let handle = rig.any_box().await;
    well(&handle, "cp /usr/bin/id /usr/bin/as-root && chmod 6755 /usr/bin/as-root").await;
    let ran =
        run_exec(&handle, as_user("daemon", "as-root -u; id -u; cat /proc/self/status | grep CapEff")).await;
    assert_eq!(ran.stdout, format!("1\n1\nCapEff:\t{NONE}\n"), "{ran:?}");
    // What the image brings along is the same.
    let ran = run_exec(&handle, as_user("daemon", "su -c id </dev/null; mount --bind /etc /mnt")).await;
    assert!(ran.code() != 0 && !ran.stdout.contains("uid=0"), "{ran:?}");
}
