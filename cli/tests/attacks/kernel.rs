//! What a workload asks of the kernel to leave its sandbox or to harm others.

use crate::in_both;
use crate::support::serve::Serve;
use serde_json::json;

/// Shell commands that no sandbox may succeed with.
const FORBIDDEN: [&str; 5] = [
    "mount -t tmpfs none /mnt",
    "mount -o remount,rw /proc/sys",
    "umount /proc",
    "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
    "echo 1 > /proc/sys/kernel/sysrq",
];

in_both!(privileges_of_the_host);

async fn privileges_of_the_host(provider: &str) {
    let serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    for command in FORBIDDEN {
        let answer = serve.api.exec(&sandbox, command).await;
        assert_ne!(answer["exit_code"], 0, "{provider}: {command}: {answer}");
    }
}
