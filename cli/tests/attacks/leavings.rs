//! What a workload leaves behind for others to clear away.

use std::time::Duration;

use crate::in_both;
use crate::support::eventually;
use crate::support::serve::Serve;
use crate::support::tmpfs::Tmpfs;
use serde_json::json;

/// Deeper than a process has descriptors or stack for, in memory; where it lies on a disk that takes milliseconds a level, as
/// deep as there is time for.
fn levels(provider: &str) -> usize {
    if provider == "bubblewrap" { 30_000 } else { 2000 }
}

in_both!(trees_without_a_bottom);

async fn trees_without_a_bottom(provider: &str) {
    let dir = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    // Dropped after the server is.
    let disk = Tmpfs::mount(dir.path(), 2048);
    let mut serve = Serve::on(dir, logs.path().join("serve.log"), provider, &[], "").await;
    let neighbour = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let mut hostile = Vec::new();
    for _ in 0..2 {
        let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "memory": "512m"})).await;
        let nest = format!(
            "python3 -c 'import os\nos.mkdir(\"/deep\"); os.chdir(\"/deep\")\nfor _ in range({}):\n os.mkdir(\"d\"); os.chdir(\"d\")'",
            levels(provider)
        );
        assert_eq!(serve.api.exec(&sandbox, &nest).await["exit_code"], 0, "{provider}");
        hostile.push(sandbox);
    }
    for sandbox in &hostile {
        assert!([200, 202, 204].contains(&serve.api.destroy(sandbox).await));
    }
    // In the middle of it: another server on what this one leaves.
    assert_eq!(serve.api.exec(&neighbour, "echo fine").await["stdout"], "fine\n");
    serve.kill_and_restart().await;
    assert_eq!(serve.api.exec(&neighbour, "echo fine").await["stdout"], "fine\n");
    let open = serve.process.descriptors();
    assert!(open < 400, "{open} descriptors");
    for sandbox in &hostile {
        eventually("it is gone", Duration::from_secs(60), async || {
            (serve.api.get(&format!("/sandboxes/{sandbox}")).await.0 == 404).then_some(())
        })
        .await;
    }
    // And nothing of them stays.
    let trash = serve.dir.path().join("bubblewrap/boxes/.trash");
    eventually("all is removed", Duration::from_secs(120), async || {
        let left = std::fs::read_dir(&trash).map_or(0, Iterator::count);
        let containers = serve.containers();
        (left == 0 && hostile.iter().all(|sandbox| !containers.contains(sandbox))).then_some(())
    })
    .await;
    assert_eq!(serve.api.exec(&neighbour, "echo fine").await["stdout"], "fine\n");
    drop(serve);
    drop(disk);
}
