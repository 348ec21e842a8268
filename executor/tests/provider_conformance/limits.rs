use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use agent::client::Client;
use agent::protocol::{ExecEnd, ExecId, Left, StartExec};
use events::SandboxId;

use crate::rig::{Rig, leave_running, python, shell, socket};

pub async fn processes_are_limited(rig: &Rig) {
    let mut spec = rig.spec();
    spec.pids_limit = 40;
    let handle = rig.create(&rig.order(spec)).await;
    let bomb = "import os, time\nforked = 0\ntry:\n while forked < 500:\n  if os.fork() == 0: time.sleep(60)\n  forked += 1\nexcept OSError as error:\n print(forked, error.errno, flush=True)";
    let ran = python(&handle, &format!("{bomb}\nos.kill(0, 9)")).await;
    let (forked, errno) = ran.stdout.trim().split_once(' ').expect("the bomb was stopped");
    let forked: u32 = forked.parse().expect("a number");
    assert!((10..40).contains(&forked), "{forked} processes");
    assert_eq!(errno, libc::EAGAIN.to_string());
    assert_eq!(shell(&handle, "echo still here").await.stdout, "still here\n");
}

pub async fn memory_is_limited_and_the_agent_survives(rig: &Rig) {
    let mut spec = rig.spec();
    spec.memory_mib = 96;
    let handle = rig.create(&rig.order(spec)).await;
    for _ in 0..3 {
        let ran = python(&handle, "x = bytearray(400 << 20); print('got it')").await;
        assert_eq!((ran.code(), ran.stdout.as_str()), (137, ""), "{ran:?}");
        assert_eq!(ran.outcome.end, ExecEnd::OutOfMemory { left: Left::Signal(9) });
        Client::with(handle.agent.clone()).ping().await.expect("the agent is alive");
    }
    // What the main process waited for counts, and what was killed otherwise does not.
    let ran = shell(&handle, "python3 -c 'x = bytearray(400 << 20)'; exit $?").await;
    assert_eq!(ran.outcome.end, ExecEnd::OutOfMemory { left: Left::Code(137) });
    let ran = shell(&handle, "kill -9 $$").await;
    assert_eq!(ran.outcome.end, ExecEnd::Signaled { signal: 9 });
    let ran = python(&handle, "x = b'x' * (20 << 20); print(len(x))").await;
    assert_eq!(ran.code(), 0, "{ran:?}");
    // Nor does it go when the workload makes itself as dear as it can, and not for long is it that.
    let low = "echo 0 >/proc/self/oom_score_adj; exec python3 -c 'x = bytearray(400 << 20)'";
    assert_eq!(shell(&handle, low).await.code(), 137);
    Client::with(handle.agent.clone()).ping().await.expect("the agent is alive");
    let low = "echo 0 >/proc/self/oom_score_adj; i=0
        while [ $i -lt 150 ] && [ $(cat /proc/$$/oom_score_adj) != 1000 ]; do sleep 0.1; i=$((i + 1)); done
        cat /proc/$$/oom_score_adj";
    assert_eq!(shell(&handle, low).await.stdout, "1000\n");
    // The agent is the last to go: even a small process goes before it.
    let scores = shell(&handle, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await.stdout;
    let scores: Vec<i32> = scores.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(scores[0] < scores[1], "{scores:?}");
}

pub async fn a_daemon_ends_with_the_time_of_its_command(rig: &Rig) {
    let handle = rig.any_box().await;
    let daemon = "import os, signal, time\nif os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n os.closerange(0, 9)\n signal.signal(15, signal.SIG_IGN)\n os.execve('/bin/sleep', ['sleep', '4711'], {})\nprint('up', flush=True)\ntime.sleep(1000)";
    let mut start = StartExec::new(ExecId(*SandboxId::new().as_bytes()), ["python3", "-c", daemon]);
    start.timeout = Some(Duration::from_secs(2));
    let ran = crate::rig::run_exec(&handle, start).await;
    assert_eq!((ran.code(), ran.stdout.as_str()), (124, "up\n"), "{ran:?}");
    let seen = shell(&handle, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await.stdout;
    assert!(!seen.contains("sleep 4711"), "{seen}");
}

pub async fn cpu_is_limited(rig: &Rig) {
    let mut spec = rig.spec();
    spec.cpu_millis = 200;
    let handle = rig.create(&rig.order(spec)).await;
    leave_running(&handle, "while :; do :; done & while :; do :; done").await;
    let mut seen = Vec::new();
    for _ in 0..15 {
        seen.push(rig.provider.stats(handle.id).await.expect("read stats").cpu_pct);
    }
    // A sample of 100 ms holds one period's budget, two at the worst.
    let mean = seen.iter().sum::<f64>() / seen.len() as f64;
    assert!((2.0..60.0).contains(&mean), "{seen:?}");
}

pub async fn the_agent_serves_when_processes_run_out(rig: &Rig) {
    let mut spec = rig.spec();
    spec.pids_limit = 40;
    let handle = rig.create(&rig.order(spec)).await;
    let bomb = "import os, time\nwhile True:\n try:\n  if os.fork() == 0: time.sleep(60)\n except OSError:\n  open(\"full\", \"w\"); time.sleep(0.01)";
    let start = StartExec::new(ExecId(*SandboxId::new().as_bytes()), ["python3", "-c", bomb]);
    let client = Client::with(handle.agent.clone());
    let bomb = start.exec_id;
    client.start_exec(start).await.expect("start the bomb");
    while client.stat("full").await.is_err() {
        client.ping().await.expect("the agent is alive");
    }
    // Several at once: more than the agent has threads for.
    let reads = (0..20).map(|_| client.stat("/etc/passwd"));
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    client.kill_exec(bomb, Duration::ZERO).await.expect("end the bomb");
    // Until the last of it is gone, starting anything may be refused.
    let fresh = || StartExec::new(ExecId(*SandboxId::new().as_bytes()), ["true"]);
    while client.start_exec(fresh()).await.is_err() {
        client.ping().await.expect("the agent is alive");
    }
    assert!(rig.listed(handle.id).await.is_some_and(|found| found.running));
}

pub async fn what_is_shared_with_the_executor_is_small_and_apart(rig: &Rig) {
    let handle = rig.any_box().await;
    let socket = socket(&handle);
    let (run, data) = (socket.parent().expect("it is in a directory"), rig.data_dir());
    let device = |path: &std::path::Path| std::fs::metadata(path).expect("look at it").dev();
    assert_ne!(device(run), device(data), "it lies on the disk");
    let options = "while read -r a b c d place options rest; do
        test $place = /.stacyvm/run && echo $options; done </proc/self/mountinfo";
    let options = shell(&handle, options).await.stdout;
    for expected in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(options.trim().split(',').any(|option| option == expected), "{expected}: {options}");
    }
    // Full of bytes, and full of files.
    let ran = shell(&handle, "head -c 1G /dev/zero >/.stacyvm/run/fill; stat -c %s /.stacyvm/run/fill").await;
    assert!(ran.stderr.contains("No space left"), "{ran:?}");
    let size: u64 = ran.stdout.trim().parse().expect("a number");
    assert!(size > 1 << 20 && size <= 16 << 20, "{size}");
    let ran = shell(&handle, "i=0; while : >/.stacyvm/run/$i; do i=$((i + 1)); done").await;
    assert!(ran.code() != 0 && ran.stderr.contains("No space left"), "{ran:?}");
    // Output waits in memory then, and all of it comes.
    let line = "head -c 20000000 /dev/zero | tr '\\0' x";
    for _ in 0..2 {
        assert_eq!(shell(&handle, line).await.stdout.len(), 20_000_000);
        shell(&handle, "rm -rf /.stacyvm/run/fill /.stacyvm/run/[0-9]*").await;
    }
    rig.provider.destroy(handle.id).await.expect("destroy it");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    assert!(!mounts.contains(data.to_str().expect("UTF-8")), "a mount stays: {mounts}");
}

/// Deep, with long names, wide, closed, and of every kind.
const LEAVINGS: &str = r#"
import os, socket
def nest(at, name, levels):
    os.makedirs(at); os.chdir(at)
    for _ in range(levels):
        os.mkdir(name); os.chdir(name)
nest("/deep", "d", 1500)
nest("/long", "n" * 255, 100)
os.makedirs("/wide"); os.chdir("/wide")
for number in range(3000): os.mkdir(str(number))
for number in range(100): os.mkdir(f"{number}/inner")
os.makedirs("/kinds/closed/closed"); os.chdir("/kinds")
os.mkfifo("fifo"); os.symlink("/", "link"); socket.socket(socket.AF_UNIX).bind("socket")
os.chmod("closed/closed", 0); os.chmod("closed", 0)
print("made")
"#;

pub async fn whatever_work_leaves_is_removed(rig: &Rig) {
    let handle = rig.any_box().await;
    assert_eq!(python(&handle, LEAVINGS).await.stdout, "made\n");
    leave_running(
        &handle,
        "while :; do for i in 1 2 3 4 5 6 7 8; do mkdir -p /grows/$i/$i; echo >/grows/$i/f; done; done",
    )
    .await;
    rig.provider.destroy(handle.id).await.expect("destroy it");
    assert_eq!(rig.listed(handle.id).await, None);
    rig.provider.destroy(handle.id).await.expect("destroy it again");
    let began = std::time::Instant::now();
    while let Some(left) = rig.left_of(handle.id) {
        assert!(began.elapsed() < Duration::from_secs(90), "{left} stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
