//! What a box has, whoever made it: the list of docs/providers.md.

use agent::client::{CallError, Client, WriteFile};
use agent::protocol::{FileErrorKind, StartExec, TerminalSize};
use bytes::Bytes;

use crate::rig::{Rig, new_exec, python, run_exec, shell};

pub async fn its_devices_are_there_and_work(rig: &Rig) {
    let handle = rig.any_box().await;
    for line in [
        "for d in null zero full random urandom tty ptmx; do test -e /dev/$d || echo no $d; done",
        "for l in fd stdin stdout stderr; do test -L /dev/$l || echo no $l; done",
        "test -d /dev/pts || echo no pts",
        "test \"$(stat -c %a /dev/shm)\" = 1777 || stat /dev/shm",
        "echo lost >/dev/null",
        "test \"$(head -c 100 /dev/zero | wc -c)\" = 100 || echo zero",
        "test \"$(head -c 100 /dev/urandom | wc -c)\" = 100 || echo urandom",
        "! cp /etc/passwd /dev/full 2>/dev/null || echo full",
        "echo in | cat /dev/stdin | grep -q in || echo stdin",
        "echo kept >/dev/shm/f && grep -q kept /dev/shm/f || echo shm",
    ] {
        let ran = shell(&handle, line).await;
        assert_eq!((ran.code(), ran.stdout.as_str()), (0, ""), "{line}: {ran:?}");
    }
    let semaphore = "import multiprocessing, pty, os\nmultiprocessing.Semaphore(2).acquire()\nmaster, slave = pty.openpty()\nprint(os.ttyname(slave).startswith('/dev/pts/'))";
    assert_eq!(python(&handle, semaphore).await.stdout, "True\n");
}

pub async fn its_names_resolve(rig: &Rig) {
    let handle = rig.any_box().await;
    let id = handle.id.to_string();
    let ask = "import socket, sys\nfor name in sys.argv[1:] + [socket.gethostname(), 'localhost']:\n print(socket.gethostbyname(name))";
    let ran = python(&handle, ask).await;
    let addresses: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(addresses.len(), 2, "{ran:?}");
    assert!(addresses.iter().all(|address| address.starts_with("127.")), "{ran:?}");
    assert_eq!(shell(&handle, "cat /etc/hostname").await.stdout.trim(), id);
    assert_eq!(shell(&handle, "test -f /etc/resolv.conf; echo $?").await.stdout, "0\n");
    // Whatever it is made of, it is a file for whoever writes files.
    let client = Client::with(handle.agent.clone());
    let hosts = "127.0.0.1 localhost\n127.0.0.7 database\n";
    client.put_file(WriteFile::new("/etc/hosts"), Bytes::from(hosts)).await.expect("write /etc/hosts");
    assert_eq!(shell(&handle, "cat /etc/hosts").await.stdout, hosts);
    let ran = python(&handle, "import socket; print(socket.gethostbyname('database'))").await;
    assert_eq!(ran.stdout, "127.0.0.7\n", "{ran:?}");
}

pub async fn low_ports_are_for_everybody(rig: &Rig) {
    let handle = rig.any_box().await;
    let listen = "import socket\ns = socket.create_server(('127.0.0.1', 80))\nsocket.create_connection(('localhost', 80), 5)\nprint('up')";
    let ran = python(&handle, listen).await;
    assert_eq!(ran.stdout, "up\n", "{ran:?}");
}

pub async fn the_kernel_is_shown_and_not_to_be_changed(rig: &Rig) {
    let handle = rig.any_box().await;
    let ran = shell(&handle, "cat /sys/devices/system/cpu/online && nproc && ls /sys/fs/cgroup").await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    // Its own group, with its limit.
    let limit =
        "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    assert_eq!(shell(&handle, limit).await.stdout.trim(), (256 << 20).to_string());
    // Of the two versions of control groups one is there.
    assert_ne!(shell(&handle, "echo 1 >/sys/new").await.code(), 0, "/sys can be written");
    for path in ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"] {
        let ran = shell(&handle, &format!("test -e {path} && echo 1 >{path}")).await;
        assert_ne!(ran.code(), 0, "{path} can be written");
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"] {
        let ran = shell(&handle, &format!("head -c 10 {path} 2>/dev/null")).await;
        assert_eq!(ran.stdout, "", "{path} tells something");
    }
    let ran =
        shell(&handle, "ls -A /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep .").await;
    assert_eq!(ran.stdout, "", "{ran:?}");
}

pub async fn a_terminal_keeps_every_letter(rig: &Rig) {
    let handle = rig.any_box().await;
    let program = "import sys; print(sys.stdout.encoding, input())";
    let line = format!("echo $LANG; echo 'café ☃' | python3 -c '{program}'");
    let mut start = StartExec::new(new_exec(), ["/bin/sh", "-c", &line]);
    start.tty = Some(TerminalSize { rows: 24, cols: 80 });
    let ran = run_exec(&handle, start).await;
    assert_eq!(ran.stdout, "C.UTF-8\r\nutf-8 café ☃\r\n", "{ran:?}");
}

/// What may be written and lies in memory.
const IN_MEMORY: &str = r#"
import os
for line in open("/proc/mounts"):
    path, kind, options = line.split()[1:4]
    # An engine that mounts control groups of version 1 leaves a tmpfs between them.
    if path == "/sys/fs/cgroup": continue
    if kind == "tmpfs" and "rw" in options.split(",") and os.path.isdir(path) and os.access(path, os.W_OK):
        print(path, os.statvfs(path).f_blocks * os.statvfs(path).f_frsize)
"#;

pub async fn what_fills_up_in_memory_ends_nobody(rig: &Rig) {
    let mut spec = rig.spec();
    (spec.read_only_root, spec.memory_mib) = (true, 192);
    let handle = rig.create(&rig.order(spec)).await;
    let client = Client::with(handle.agent.clone());
    let ran = python(&handle, IN_MEMORY).await;
    let sizes: Vec<(String, u64)> = ran
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(path, size)| (path.to_owned(), size.parse().expect("a number")))
        .collect();
    for expected in ["/tmp", "/workspace", "/dev/shm"] {
        assert!(sizes.iter().any(|(path, _)| path == expected), "{expected}: {ran:?}");
    }
    let sum: u64 = sizes.iter().map(|(_, size)| size).sum();
    assert!(sum < 192 << 20, "{sizes:?}");
    // All of it at once.
    for (path, _) in &sizes {
        let ran = shell(&handle, &format!("head -c 1G /dev/zero >{path}/fill")).await;
        assert!(ran.code() != 0 && ran.stderr.contains("No space left"), "{path}: {ran:?}");
    }
    client.ping().await.expect("the agent is alive");
    for path in ["/tmp/more", "/workspace/more"] {
        let written = client.put_file(WriteFile::new(path), Bytes::from(vec![7; 1 << 20])).await;
        let Err(CallError::Refused(refusal)) = written else { panic!("{written:?}") };
        assert_eq!(refusal.kind, FileErrorKind::NoSpace, "{refusal}");
    }
    assert_eq!(shell(&handle, "echo works").await.stdout, "works\n");
    let ran = python(&handle, "x = bytearray(400 << 20)").await;
    assert!(matches!(ran.outcome.end, agent::protocol::ExecEnd::OutOfMemory { .. }), "{ran:?}");
    assert_eq!(
        shell(&handle, "rm /tmp/fill && echo back >/tmp/more && cat /tmp/more").await.stdout,
        "back\n"
    );
}
