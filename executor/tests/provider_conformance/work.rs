use agent::client::{Client, WriteFile};
use bytes::Bytes;

use crate::rig::{Rig, python, run, shell};

pub async fn commands_run(rig: &Rig) {
    let handle = rig.any_box().await;
    assert!(handle.running);
    let ran = shell(&handle, "echo out; echo err >&2; exit 7").await;
    assert_eq!((ran.code(), ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(run(&handle, &["pwd"]).await.stdout, "/workspace\n");
    assert_eq!(run(&handle, &["hostname"]).await.stdout.trim(), handle.id.to_string());
}

pub async fn common_tools_work(rig: &Rig) {
    let handle = rig.any_box().await;
    for line in [
        "python3 -c 'import threading; t = threading.Thread(target=print, args=(\"x\",)); t.start(); t.join()'",
        "python3 -c 'import subprocess; print(subprocess.check_output([\"ls\", \"/\"]))'",
        "python3 -c 'import multiprocessing as m; p = m.Pool(2); print(p.map(abs, [-1, -2]))'",
        "python3 -c 'import asyncio; asyncio.run(asyncio.sleep(0.01))'",
        "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); c = socket.create_connection(s.getsockname())'",
        "python3 -c 'import random, tempfile; tempfile.TemporaryFile().write(b\"x\")'",
        "find / -xdev -name passwd | sort | head -n 3",
        "tar c /etc/hostname /etc/passwd | gzip | gunzip | tar t",
        "dd if=/dev/zero of=/tmp/zero bs=64k count=16 && cp /tmp/zero /workspace/zero && rm /tmp/zero",
        "head -c 16 /dev/urandom | base64",
        "mkfifo /tmp/pipe && (echo x >/tmp/pipe &) && cat /tmp/pipe",
        "timeout 5 sh -c 'sleep 0.1 & wait'",
        "ln -s a /tmp/link && chmod 700 /tmp && stat /tmp && df / && date && id && uname -a",
    ] {
        let ran = shell(&handle, line).await;
        assert_eq!(ran.code(), 0, "{line}: {ran:?}");
    }
}

pub async fn files_are_written_and_read(rig: &Rig) {
    let handle = rig.any_box().await;
    let client = Client::with(handle.agent.clone());
    let content = Bytes::from((0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    client.put_file(WriteFile::new("deep/er/data.bin"), content.clone()).await.expect("write a file");
    let mut download = client.read_file("/workspace/deep/er/data.bin", 0, None).await.expect("read it");
    let mut read = Vec::new();
    while let Some(chunk) = download.next().await.expect("read on") {
        read.extend_from_slice(&chunk);
    }
    assert!(read == content, "the file came back different");
    let sum = shell(&handle, "wc -c <deep/er/data.bin").await;
    assert_eq!(sum.stdout.trim(), content.len().to_string());
}

pub async fn stats_count(rig: &Rig) {
    let handle = rig.any_box().await;
    let idle = rig.provider.stats(handle.id).await.expect("read stats");
    assert_eq!(idle.mem_limit_bytes, 256 << 20);
    assert!(idle.mem_bytes < 64 << 20, "{idle:?}");
    crate::rig::leave_running(&handle, "exec python3 -c 'x = b\"x\" * (80 << 20)\nwhile True: pass'").await;
    let mut busy = idle;
    for _ in 0..100 {
        busy = rig.provider.stats(handle.id).await.expect("read stats");
        if busy.cpu_pct > 20.0 && busy.mem_bytes > 80 << 20 {
            return;
        }
    }
    panic!("the work does not show: {busy:?}");
}

pub async fn the_root_is_private_and_writable(rig: &Rig) {
    let first = rig.any_box().await;
    let ran = shell(&first, "echo mine >/usr/mine && mkdir /data && rm /etc/passwd && cat /usr/mine").await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (0, "mine\n"), "{ran:?}");
    let second = rig.any_box().await;
    let ran = shell(&second, "test ! -e /usr/mine && test ! -e /data && test -s /etc/passwd").await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(python(&second, "print(sum(range(10)))").await.stdout, "45\n");
}
