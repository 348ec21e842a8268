use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Ends what bubblewrap runs of sandboxes whose files are in this directory, and takes away what is mounted there and what they
/// wrote: they outlive the servers that made them.
pub fn remove(dir: &Path) {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    end_boxes(&dir);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut places: Vec<&Path> = places.map(Path::new).filter(|place| place.starts_with(&dir)).collect();
    // Those within others first.
    places.sort_unstable();
    for place in places.iter().rev() {
        let _ = rustix::mount::unmount(*place, rustix::mount::UnmountFlags::DETACH);
    }
    // What removes directories for a test goes down in itself, and a tree without a bottom has no stack that is deep enough.
    // A remover of the server may be at it too, and move parts of it about: then it is tried again with what is left.
    let began = Instant::now();
    while dir.exists() && began.elapsed() < Duration::from_secs(60) {
        let _ = Command::new("rm")
            .args(["-rf", "--one-file-system", "--"])
            .arg(&dir)
            .stderr(Stdio::null())
            .status();
        std::thread::sleep(Duration::from_millis(if dir.exists() { 200 } else { 0 }));
    }
}

fn end_boxes(dir: &Path) {
    let boxes = std::fs::read_dir(dir.join("bubblewrap/boxes")).into_iter().flatten().flatten();
    let boxes: Vec<_> = boxes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if boxes.is_empty() {
        return;
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        let read = |name: &str| {
            let bytes = std::fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (line, groups) = (read("cmdline"), read("cgroup"));
        // Bubblewrap itself by its arguments; what runs in the box, which outlives it, by its control groups.
        let is_of_a_box = boxes.iter().any(|name| {
            line.contains(&format!("--hostname\0{name}\0"))
                || groups.lines().any(|group| group.split('/').any(|part| part == name))
        });
        if is_of_a_box {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
