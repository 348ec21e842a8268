use agent::client::Client;
use executor::provider::BoxHandle;

use crate::rig::{Rig, leave_running, python, run, shell};

pub async fn the_agent_is_out_of_reach(rig: &Rig) {
    let handle = rig.any_box().await;
    let tracing =
        python(&handle, "import ctypes; print(ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0))").await;
    assert_eq!(tracing.stdout.trim(), "-1", "the agent can be traced");
    let killing = shell(&handle, "kill -9 1; kill -STOP 1; echo alive").await;
    assert_eq!(killing.stdout, "alive\n");
}

pub async fn dangerous_calls_are_refused(rig: &Rig) {
    let handle = rig.any_box().await;
    let sockets = r#"
import errno, socket
for family, kind in ((38, socket.SOCK_SEQPACKET), (40, socket.SOCK_STREAM), (17, socket.SOCK_RAW), (21, 5)):
    try:
        socket.socket(family, kind)
        print(family, "opened")
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EAFNOSUPPORT), error
socket.socketpair()
socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
"#;
    let ran = python(&handle, sockets).await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (0, ""), "{ran:?}");
    // mount, unshare, keyctl, bpf, io_uring_setup, userfaultfd, perf_event_open, open_by_handle_at, clone(NEWUSER).
    let calls = r#"
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for number, *arguments in ((165, b"none", b"/tmp", b"tmpfs", 0, 0), (272, 0x10000000), (250, 0, -3, 0), (321, 0, 0, 0),
                           (425, 1, 0), (323, 0), (298, 0, 0, -1, -1, 0), (304, 0, 0, 0), (56, 0x10000011, 0, 0, 0, 0)):
    ctypes.set_errno(0)
    answer = libc.syscall(number, *arguments)
    if answer == 0 and number == 56:
        libc._exit(0)
    if answer != -1 or ctypes.get_errno() != errno.EPERM:
        print(number, answer, ctypes.get_errno())
"#;
    let ran = python(&handle, calls).await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (0, ""), "{ran:?}");
}

pub async fn what_the_host_has_for_all_is_limited(rig: &Rig) {
    let handle = rig.any_box().await;
    let program = r#"
import ctypes, errno, resource
libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
print(libc.syscall(206, 128, ctypes.byref(context)), errno.errorcode[ctypes.get_errno()])
for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, 11, 12):
    print(*resource.getrlimit(limit))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000))
    print("raised")
except ValueError: pass
"#;
    let ran = python(&handle, program).await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines, ["-1 ENOSYS", "0 0", "16384 16384", "4096 4096", "409600 409600"], "{ran:?}");
    // No device of the host, and no set-uid program, wherever it may be put.
    let ran = shell(&handle, "cat /proc/self/mountinfo").await;
    for line in ran.stdout.lines() {
        let mut words = line.split(' ').skip(4);
        let (place, options) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let ours = rig.provider.name().as_str() == "bubblewrap" && !place.starts_with("/dev/")
            || ["/tmp", "/workspace", "/.stacyvm/run", "/dev/shm"].contains(&place);
        for expected in ["nosuid", "nodev"] {
            assert!(!ours || options.split(',').any(|option| option == expected), "{expected}: {line}");
        }
    }
}

pub async fn calls_of_another_abi_end_the_process(rig: &Rig) {
    let handle = rig.any_box().await;
    // getpid, the 32-bit way: mov eax, 20; int 0x80; ret.
    let program = "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex(\"b814000000cd80c3\"))\n\
                   print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())";
    let ran = python(&handle, program).await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (128 + libc::SIGSYS, ""), "{ran:?}");
}

pub async fn without_network_there_is_loopback_only(rig: &Rig) {
    let handle = rig.any_box().await;
    let interfaces = shell(&handle, "tail -n +3 /proc/net/dev | cut -d: -f1").await;
    let foreign: Vec<_> = interfaces.stdout.split_whitespace().filter(|name| *name == "eth0").collect();
    assert!(interfaces.stdout.contains("lo") && foreign.is_empty(), "{interfaces:?}");
    let outside = "import socket\ntry:\n socket.create_connection((\"192.0.2.1\", 80), 3)\nexcept OSError as error:\n print(error.errno)";
    assert_eq!(python(&handle, outside).await.stdout.trim(), libc::ENETUNREACH.to_string());
    let inside = "import socket\ns = socket.create_server((\"127.0.0.1\", 0))\nsocket.create_connection(s.getsockname(), 3)\nprint(\"up\")";
    assert_eq!(python(&handle, inside).await.stdout, "up\n");
}

pub async fn a_read_only_root_leaves_tmp_and_workspace(rig: &Rig) {
    let mut spec = rig.spec();
    spec.read_only_root = true;
    let handle = rig.create(&rig.order(spec)).await;
    for path in ["/etc/new", "/usr/new", "/new", "/.stacyvm/new"] {
        let ran = shell(&handle, &format!("echo x >{path}")).await;
        assert!(ran.code() != 0 && ran.stderr.contains("Read-only file system"), "{path}: {ran:?}");
    }
    for path in ["/tmp/new", "/workspace/new"] {
        let ran =
            shell(&handle, &format!("echo '#!/bin/sh\necho ran' >{path} && chmod +x {path} && {path}")).await;
        assert_eq!(ran.stdout, "ran\n", "{path}: {ran:?}");
    }
}

pub async fn boxes_do_not_see_one_another(rig: &Rig) {
    let (first, second) = (rig.any_box().await, rig.any_box().await);
    leave_running(&first, "echo secret >/tmp/secret; exec sleep 4711").await;
    leave_running(&first, "exec python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0name\"); s.listen(); time.sleep(60)'").await;
    let seen = shell(&first, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(seen.stdout.contains("sleep 4711"), "{seen:?}");
    let seen =
        shell(&second, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /tmp/*; ls -A /.stacyvm/run").await;
    assert!(!seen.stdout.contains("4711") && !seen.stdout.contains("secret"), "{seen:?}");
    assert!(!seen.stdout.contains(&first.id.to_string()), "{seen:?}");
    let connect = "import socket\ns = socket.socket(socket.AF_UNIX)\ntry:\n s.connect(\"\\0name\")\nexcept OSError as error:\n print(error.errno)";
    assert_eq!(python(&second, connect).await.stdout.trim(), libc::ECONNREFUSED.to_string());
    assert_eq!(
        shell(&second, "ls /proc | grep -c '^[0-9]*$'").await.stdout.trim().parse::<u32>().map(|n| n < 8),
        Ok(true)
    );
}

pub async fn a_socket_of_the_host_cannot_be_passed_off_as_the_agent(rig: &Rig) {
    let handle = rig.any_box().await;
    let target = rig.data_dir().join("host.sock");
    let host = std::os::unix::net::UnixListener::bind(&target).expect("listen");
    host.set_nonblocking(true).expect("do not wait");
    let line = format!("ln -sf {} /.stacyvm/run/agent.sock", target.display());
    assert_eq!(shell(&handle, &line).await.code(), 0);
    reaches_its_agent(rig, &handle).await;
    let nobody = host.accept().expect_err("the link was followed");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// Whatever the box does where the agent made its socket, the agent is reached, now and by whoever finds the box later.
pub async fn the_agents_socket_is_out_of_the_boxs_reach(rig: &Rig) {
    let handle = rig.any_box().await;
    let listed = shell(&handle, "rm -rf /.stacyvm/run/*; ls -A /.stacyvm/run").await;
    assert_eq!(listed.stdout, "", "{listed:?}");
    for line in
        ["mkdir /.stacyvm/run/agent.sock", "rmdir /.stacyvm/run/agent.sock; touch /.stacyvm/run/agent.sock"]
    {
        assert_eq!(shell(&handle, line).await.code(), 0, "{line}");
        reaches_its_agent(rig, &handle).await;
    }
    let listen = "import os, socket, time\nos.unlink('/.stacyvm/run/agent.sock')\ns = socket.socket(socket.AF_UNIX)\n\
                  s.bind('/.stacyvm/run/agent.sock')\ns.listen()\nopen('/tmp/listens', 'w')\ntime.sleep(60)";
    leave_running(&handle, &format!("exec python3 -c \"{}\"", listen.replace('\n', ";"))).await;
    shell(&handle, "while ! test -e /tmp/listens; do sleep 0.05; done").await;
    reaches_its_agent(rig, &handle).await;
}

async fn reaches_its_agent(rig: &Rig, handle: &BoxHandle) {
    let found = rig.provider.list().await.expect("list");
    let found = found.iter().find(|found| found.id == handle.id).expect("it is there");
    for handle in [handle, found] {
        assert!(handle.agent.place().contains(", process "), "{handle:?}");
        let agent = Client::with(handle.agent.clone());
        assert!(agent.ping().await.is_ok() && !agent.list_execs().await.expect("list execs").is_empty());
    }
}

pub async fn the_host_is_out_of_sight(rig: &Rig) {
    let marker = rig.data_dir().join("host-marker");
    std::fs::write(&marker, "x").expect("write a marker");
    let handle = rig.any_box().await;
    assert_eq!(
        run(&handle, &["cat", "/proc/1/comm"]).await.stdout.trim(),
        "stacyvm-agent".get(..5).map_or("", |_| "agent")
    );
    for path in [
        marker.to_string_lossy().as_ref(),
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/dev/kmsg",
        "/dev/vda",
    ] {
        let ran = run(&handle, &["ls", path]).await;
        assert_ne!(ran.code(), 0, "{path} is there");
    }
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"] {
        let ran = shell(&handle, &format!("echo 1 >{path}")).await;
        assert_ne!(ran.code(), 0, "{path} can be written");
    }
    // The agent's own files: its program cannot be replaced, and it serves nobody in the box.
    let ran = shell(&handle, "echo x >/.stacyvm/agent || rm /.stacyvm/agent").await;
    assert_ne!(ran.code(), 0, "the agent can be replaced");
    let mounts = run(&handle, &["cat", "/proc/mounts"]).await.stdout;
    for line in mounts.lines().filter(|line| !line.contains("overlay")) {
        assert!(!line.contains(&*rig.data_dir().to_string_lossy()), "{line}");
    }
}
