#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use std::time::Duration;

use agent::client::{CallError, WriteFile};
use agent::protocol::{FileErrorKind, FileRefusal};
use bytes::Bytes;
use futures::TryStreamExt;
use harness::{Running, eventually};

#[track_caller]
fn kind<T>(result: Result<T, CallError<FileRefusal>>) -> FileErrorKind {
    match result {
        Err(CallError::Refused(refusal)) => {
            assert!(!refusal.message.is_empty() && !refusal.message.contains("os error"), "{refusal}");
            refusal.kind
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn put(agent: &Running, path: &str, contents: &str) {
    agent.client.put_file(WriteFile::new(path), Bytes::from(contents.to_owned())).await.unwrap();
}

async fn get(agent: &Running, path: &str) -> Vec<u8> {
    agent.client.read_file(path, 0, None).await.unwrap().collect(usize::MAX).await.unwrap().unwrap()
}

#[tokio::test]
async fn bytes_come_back_as_they_were_written() {
    let agent = Running::start().await;
    let contents: Vec<u8> =
        (0..5_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let write = WriteFile { mode: 0o640, sync: true, ..WriteFile::new("some/new/dir/data.bin") };
    let size = agent.client.put_file(write, Bytes::from(contents.clone())).await.unwrap();
    assert_eq!(size, contents.len() as u64);
    assert!(get(&agent, "some/new/dir/data.bin").await == contents);
    let on_disk = agent.workspace().join("some/new/dir/data.bin");
    assert_eq!(std::fs::metadata(&on_disk).unwrap().mode() & 0o7777, 0o640);
    // By absolute path, from an offset, a part, as a stream.
    let download = agent.client.read_file(on_disk.to_str().unwrap(), 1_000_000, Some(700_000)).await.unwrap();
    assert_eq!((download.entry.size, download.entry.mode, download.entry.is_dir), (5_000_000, 0o640, false));
    let part: Vec<Bytes> = download.into_stream().try_collect().await.unwrap();
    assert!(part.concat() == contents[1_000_000..1_700_000]);
    for (offset, limit, expected) in
        [(5_000_000, None, 0), (u64::MAX, None, 0), (4_999_999, Some(9), 1), (0, Some(0), 0)]
    {
        let download = agent.client.read_file("some/new/dir/data.bin", offset, limit).await.unwrap();
        assert_eq!(download.collect(usize::MAX).await.unwrap().unwrap().len(), expected);
    }
    assert_eq!(
        agent.client.read_file("some/new/dir/data.bin", 0, None).await.unwrap().collect(10).await.unwrap(),
        None
    );
    for last in [0, 1, 700_001, 5_000_000, u64::MAX] {
        let download = agent.client.read_file_end("some/new/dir/data.bin", last).await.unwrap();
        assert_eq!(download.entry.size, 5_000_000);
        let read = download.collect(usize::MAX).await.unwrap().unwrap();
        assert!(read == contents[5_000_000 - last.min(5_000_000) as usize..], "the last {last}");
    }
    put(&agent, "empty", "").await;
    assert!(get(&agent, "empty").await.is_empty());
    // A file without a size of its own.
    assert!(!get(&agent, "/proc/self/status").await.is_empty());
    let end = agent.client.read_file_end("/proc/self/status", 5).await.unwrap();
    assert_eq!((end.entry.size, end.collect(usize::MAX).await.unwrap().unwrap().len()), (0, 5));
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_what_was_there() {
    let agent = Running::start().await;
    put(&agent, "file", "old").await;
    let write = WriteFile { size_hint: Some(200_000_000), ..WriteFile::new("file") };
    let mut upload = agent.client.write_file(write).await.unwrap();
    for _ in 0..20 {
        upload.send(Bytes::from(vec![7; 1_000_000])).await.unwrap();
    }
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(agent.workspace())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 2);
    assert_eq!(get(&agent, "file").await, b"old");
    drop(upload);
    eventually("the temporary file is gone", || names() == ["file"]).await;
    assert_eq!(get(&agent, "file").await, b"old");
}

#[tokio::test]
async fn a_write_replaces_at_once_and_keeps_the_owner() {
    let agent = Running::start().await;
    put(&agent, "file", "old").await;
    std::os::unix::fs::chown(agent.workspace().join("file"), Some(4711), Some(4712)).unwrap();
    let held = std::fs::File::open(agent.workspace().join("file")).unwrap();
    let write = WriteFile { size_hint: Some(1_000_000), mode: 0o755, ..WriteFile::new("file") };
    let mut upload = agent.client.write_file(write).await.unwrap();
    upload.send(Bytes::from_static(b"new")).await.unwrap();
    upload.commit().await.unwrap();
    assert_eq!(std::io::read_to_string(held).unwrap(), "old");
    let metadata = std::fs::metadata(agent.workspace().join("file")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (4711, 4712, 0o755));
    assert_eq!((metadata.len(), metadata.blocks() <= 8), (3, true));
}

#[tokio::test]
async fn writes_go_through_symlinks() {
    let agent = Running::start().await;
    std::fs::create_dir(agent.workspace().join("real")).unwrap();
    symlink("real/target", agent.workspace().join("link")).unwrap();
    put(&agent, "link", "through").await;
    assert_eq!(std::fs::read_to_string(agent.workspace().join("real/target")).unwrap(), "through");
    assert!(std::fs::symlink_metadata(agent.workspace().join("link")).unwrap().is_symlink());
    symlink("loop", agent.workspace().join("loop")).unwrap();
    assert_eq!(
        kind(agent.client.put_file(WriteFile::new("loop"), Bytes::new()).await),
        FileErrorKind::InvalidPath
    );
    assert_eq!(kind(agent.client.read_file("loop", 0, None).await), FileErrorKind::InvalidPath);
    let entry = agent.client.stat("loop").await.unwrap();
    assert!(entry.is_symlink && !entry.is_dir);
}

#[tokio::test]
async fn every_kind_of_refusal_is_typed() {
    let agent = Running::start().await;
    let client = &agent.client;
    put(&agent, "file", "x").await;
    put(&agent, "full/inner", "x").await;
    std::fs::create_dir(agent.workspace().join("dir")).unwrap();
    let long = "x/".repeat(2500);
    for path in ["", "nul\0byte", &long, &"n".repeat(300)] {
        assert_eq!(kind(client.read_file(path, 0, None).await), FileErrorKind::InvalidPath);
        assert_eq!(
            kind(client.put_file(WriteFile::new(path), Bytes::from(vec![0; 3_000_000])).await),
            FileErrorKind::InvalidPath
        );
        assert_eq!(kind(client.stat(path).await), FileErrorKind::InvalidPath);
        assert_eq!(kind(client.list(path, true).await), FileErrorKind::InvalidPath);
        assert_eq!(kind(client.delete(path, true).await), FileErrorKind::InvalidPath);
        assert_eq!(kind(client.move_path("file", path).await), FileErrorKind::InvalidPath);
        assert_eq!(kind(client.mkdir(path, 0o755).await), FileErrorKind::InvalidPath);
        assert_eq!(kind(client.chmod(path, 0o755).await), FileErrorKind::InvalidPath);
    }
    for pattern in ["", "a\0b", "[", "{a"] {
        assert_eq!(kind(client.glob(pattern).await), FileErrorKind::InvalidPath);
    }
    assert_eq!(kind(client.read_file("missing", 0, None).await), FileErrorKind::NotFound);
    assert_eq!(kind(client.stat("missing").await), FileErrorKind::NotFound);
    assert_eq!(kind(client.list("missing", false).await), FileErrorKind::NotFound);
    assert_eq!(kind(client.delete("missing", true).await), FileErrorKind::NotFound);
    assert_eq!(kind(client.move_path("missing", "made/up").await), FileErrorKind::NotFound);
    assert!(!agent.workspace().join("made").exists());
    assert_eq!(kind(client.read_file("dir", 0, None).await), FileErrorKind::IsADirectory);
    for path in ["dir", "/", "..", "new/"] {
        assert_eq!(
            kind(client.put_file(WriteFile::new(path), Bytes::new()).await),
            FileErrorKind::IsADirectory
        );
    }
    for path in ["file/below"] {
        assert_eq!(kind(client.read_file(path, 0, None).await), FileErrorKind::NotADirectory);
        assert_eq!(
            kind(client.put_file(WriteFile::new(path), Bytes::new()).await),
            FileErrorKind::NotADirectory
        );
    }
    assert_eq!(kind(client.list("file", false).await), FileErrorKind::NotADirectory);
    assert_eq!(kind(client.delete("full", false).await), FileErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(client.move_path("dir", "full").await), FileErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(client.mkdir("file", 0o755).await), FileErrorKind::AlreadyExists);
    assert_eq!(
        kind(client.put_file(WriteFile::new("/proc/new"), Bytes::new()).await),
        FileErrorKind::NotFound
    );
    let huge = WriteFile { size_hint: Some(1 << 60), ..WriteFile::new("huge") };
    let upload = client.write_file(huge).await.unwrap();
    assert_eq!(kind(upload.commit().await), FileErrorKind::NoSpace);
    assert!(!agent.workspace().join("huge").exists());
}

#[tokio::test]
async fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let agent = Running::start().await;
    assert_eq!(agent.run(["mkfifo", "pipe"]).await.code(), 0);
    let _socket = std::os::unix::net::UnixListener::bind(agent.workspace().join("socket")).unwrap();
    symlink("socket", agent.workspace().join("link")).unwrap();
    for path in ["pipe", "socket", "link", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/full"] {
        let read = agent.client.read_file(path, 0, Some(1));
        // None waits for its other end.
        let read = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
        assert_eq!(kind(read), FileErrorKind::InvalidPath, "{path}");
        let written = agent.client.put_file(WriteFile::new(path), Bytes::new());
        let written = tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
        assert_eq!(kind(written), FileErrorKind::InvalidPath, "{path}");
        assert!(agent.client.stat(path).await.is_ok(), "{path}");
    }
    assert_eq!(agent.client.stat("/dev/null").await.unwrap().name, "null");
    agent.client.delete("socket", false).await.unwrap();
    agent.client.move_path("pipe", "moved").await.unwrap();
    // What the kernel says of a file of its own is typed too.
    let refused = agent.client.read_file("/proc/self/mem", 0, Some(1)).await;
    assert_eq!(kind(refused), FileErrorKind::Failed);
}

/// A mount that goes when the test does.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn mount(arguments: &[&str], target: std::path::PathBuf) -> Self {
        let status = std::process::Command::new("mount").args(arguments).arg(&target).status().unwrap();
        assert!(status.success(), "mount {arguments:?} {}", target.display());
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_mount_point_is_written_in_place_and_cannot_go() {
    let agent = Running::start().await;
    put(&agent, "source", "the old and longer content").await;
    put(&agent, "target", "covered").await;
    let source = agent.workspace().join("source");
    let _mounted = Mounted::mount(&["--bind", source.to_str().unwrap()], agent.workspace().join("target"));
    put(&agent, "target", "new").await;
    assert_eq!(get(&agent, "target").await, b"new");
    assert_eq!(std::fs::read_to_string(&source).unwrap(), "new");
    assert_eq!(std::fs::read_dir(agent.workspace()).unwrap().count(), 2);
    assert_eq!(kind(agent.client.delete("target", false).await), FileErrorKind::Busy);
    assert_eq!(kind(agent.client.move_path("source", "target").await), FileErrorKind::Busy);
    assert_eq!(std::fs::read_to_string(&source).unwrap(), "new");
}

#[tokio::test]
async fn a_full_file_system_says_so_and_keeps_what_was_there() {
    let agent = Running::start().await;
    std::fs::create_dir(agent.workspace().join("small")).unwrap();
    let _mounted =
        Mounted::mount(&["-t", "tmpfs", "-o", "size=1m", "small"], agent.workspace().join("small"));
    put(&agent, "small/file", "old").await;
    for size_hint in [None, Some(2_000_000)] {
        let mut upload =
            agent.client.write_file(WriteFile { size_hint, ..WriteFile::new("small/file") }).await.unwrap();
        let sent = upload.send(Bytes::from(vec![7; 2_000_000])).await;
        let committed = match sent {
            Ok(()) => upload.commit().await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(kind(committed), FileErrorKind::NoSpace);
    }
    assert_eq!(get(&agent, "small/file").await, b"old");
    put(&agent, "small/file", "new").await;
    assert_eq!(get(&agent, "small/file").await, b"new");
}

#[tokio::test]
async fn names_may_be_as_long_as_the_kernel_takes() {
    let agent = Running::start().await;
    let name = "n".repeat(255);
    // A path that has room for no name longer than the file's own.
    let mut path = agent.workspace().to_str().unwrap().to_owned();
    while path.len() + 256 + 4 <= 4095 {
        path = format!("{path}/{}", "d".repeat(255));
    }
    path = format!("{path}/{}", "p".repeat(4095 - path.len() - 3));
    for path in [name.as_str(), &format!("{path}/x")] {
        put(&agent, path, "long").await;
        assert_eq!(get(&agent, path).await, b"long");
        put(&agent, path, "longer").await;
        assert_eq!(get(&agent, path).await, b"longer");
        assert_eq!(agent.client.stat(path).await.unwrap().size, 6);
    }
    agent.client.move_path(&name, "m".repeat(255)).await.unwrap();
}

#[tokio::test]
async fn dots_and_odd_names_mean_what_they_mean_in_the_sandbox() {
    let agent = Running::start().await;
    put(&agent, "a/../b/./c", "dots").await;
    assert_eq!(std::fs::read_to_string(agent.workspace().join("b/c")).unwrap(), "dots");
    for name in ["sp ace", "new\nline", "-rf", "ünï", "*", "...", "$(id)", "'\""] {
        put(&agent, name, name).await;
        assert_eq!(get(&agent, name).await, name.as_bytes());
        assert_eq!(agent.client.stat(name).await.unwrap().name, name);
        agent.client.delete(name, false).await.unwrap();
        assert!(!agent.workspace().join(name).exists());
    }
    // Out of the workspace, but never out of the root.
    let up = "../".repeat(100) + "etc/passwd";
    assert_eq!(get(&agent, &up).await, std::fs::read("/etc/passwd").unwrap());
}

#[tokio::test]
async fn listing_stat_move_chmod_mkdir_delete() {
    let agent = Running::start().await;
    let client = &agent.client;
    put(&agent, "b.txt", "12345").await;
    put(&agent, "a/deep/er.txt", "1").await;
    symlink("a", agent.workspace().join("z")).unwrap();
    let (entries, truncated) = client.list(".", false).await.unwrap();
    assert!(!truncated);
    let shown: Vec<_> = entries.iter().map(|it| (it.name.as_str(), it.is_dir, it.is_symlink)).collect();
    assert_eq!(shown, [("a", true, false), ("b.txt", false, false), ("z", true, true)]);
    assert_eq!((entries[1].size, entries[1].mode), (5, 0o644));
    assert!(entries[1].modified_unix_seconds > 1_600_000_000);
    let (entries, _) = client.list(agent.workspace().to_str().unwrap(), true).await.unwrap();
    let names: Vec<_> = entries.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a", "deep", "er.txt", "b.txt", "z"]);
    assert_eq!(entries[2].path, agent.workspace().join("a/deep/er.txt").to_str().unwrap());

    client.move_path("a", "moved/to/here").await.unwrap();
    assert_eq!(get(&agent, "moved/to/here/deep/er.txt").await, b"1");
    assert!(!agent.workspace().join("a").exists());
    client.move_path("b.txt", "moved/to/here/deep/er.txt").await.unwrap();
    assert_eq!(get(&agent, "moved/to/here/deep/er.txt").await, b"12345");
    assert_eq!(kind(client.move_path("moved", "moved/into/itself").await), FileErrorKind::InvalidPath);

    client.chmod("moved/to/here/deep/er.txt", 0o4751).await.unwrap();
    let entry = client.stat("moved/to/here/deep/er.txt").await.unwrap();
    assert_eq!((entry.mode, entry.size, entry.is_dir), (0o4751, 5, false));

    client.mkdir("made/by/hand", 0o700).await.unwrap();
    client.mkdir("made/by/hand", 0o755).await.unwrap();
    let mode = std::fs::metadata(agent.workspace().join("made/by/hand")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);

    // The link goes, not what it leads to.
    symlink("moved", agent.workspace().join("link")).unwrap();
    client.delete("link", true).await.unwrap();
    assert!(agent.workspace().join("moved").exists());
    client.delete("moved", true).await.unwrap();
    client.delete("made/by/hand", false).await.unwrap();
    assert!(!agent.workspace().join("moved").exists());
}

#[tokio::test]
async fn moves_across_file_systems_copy() {
    let agent = Running::start().await;
    let other = tempfile::TempDir::new_in("/dev/shm").unwrap();
    assert_ne!(
        std::fs::metadata(other.path()).unwrap().dev(),
        std::fs::metadata(agent.workspace()).unwrap().dev()
    );
    put(&agent, "tree/a/file", "contents").await;
    agent.client.chmod("tree/a/file", 0o751).await.unwrap();
    symlink("a/file", agent.workspace().join("tree/link")).unwrap();
    let target = other.path().join("new/place");
    agent.client.move_path("tree", target.to_str().unwrap()).await.unwrap();
    assert!(!agent.workspace().join("tree").exists());
    assert_eq!(std::fs::read_to_string(target.join("link")).unwrap(), "contents");
    assert_eq!(std::fs::metadata(target.join("a/file")).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(std::fs::read_dir(other.path().join("new")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_move_of_a_tree_of_any_depth_costs_no_stack() {
    let agent = Running::start().await;
    let nest = async |name: &str, levels: usize| {
        // In memory: the way out is the disk.
        let script = "import os, sys\nos.mkdir(sys.argv[1]); os.chdir(sys.argv[1])\nfor _ in range(int(sys.argv[2])):\n os.mkdir('d'); os.chdir('d')";
        let made = agent.run(["python3", "-c", script, name, &levels.to_string()]).await;
        assert_eq!(made.code(), 0, "{}", made.stderr());
    };
    let place = tempfile::TempDir::new_in("/dev/shm").unwrap();
    let (source, deeper) = (place.path().join("tree"), place.path().join("deeper"));
    nest(source.to_str().unwrap(), 1500).await;
    agent.client.move_path(source.to_str().unwrap(), "moved").await.unwrap();
    assert!(!source.exists());
    assert!(agent.workspace().join("moved").join("d/".repeat(1500)).is_dir());
    nest(deeper.to_str().unwrap(), 30_000).await;
    let refused = agent.client.move_path(deeper.to_str().unwrap(), "deeper").await.unwrap_err();
    assert!(refused.to_string().contains("name too long"), "{refused}");
    assert!(deeper.exists() && !agent.workspace().join("deeper").exists());
    agent.client.delete(deeper.to_str().unwrap(), true).await.unwrap();
}

#[tokio::test]
async fn globs_find_what_a_shell_would() {
    let agent = Running::start().await;
    for path in ["a.py", "b.txt", "src/c.py", "src/deep/er/d.py", "src/deep/e.rs", ".hidden.py"] {
        put(&agent, path, "x").await;
    }
    let workspace = agent.workspace();
    let found = async |pattern: &str| {
        let (paths, truncated) = agent.client.glob(pattern).await.unwrap();
        assert!(!truncated);
        let prefix = format!("{}/", workspace.display());
        paths.iter().map(|path| path.strip_prefix(&prefix).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("*.py").await, [".hidden.py", "a.py"]);
    assert_eq!(found("**/*.py").await, [".hidden.py", "a.py", "src/c.py", "src/deep/er/d.py"]);
    assert_eq!(found("src/*").await, ["src/c.py", "src/deep"]);
    assert_eq!(found("src/**/*.{py,rs}").await, ["src/c.py", "src/deep/e.rs", "src/deep/er/d.py"]);
    assert_eq!(found("s?c/[a-c].py").await, ["src/c.py"]);
    assert_eq!(found("b.txt").await, ["b.txt"]);
    assert_eq!(found(&format!("{}/*.txt", workspace.display())).await, ["b.txt"]);
    assert!(found("none*").await.is_empty());
    assert!(found("missing/**").await.is_empty());
}

#[tokio::test]
async fn long_listings_come_whole() {
    let agent = Running::start().await;
    let script = "import os\nos.makedirs('many')\nfor i in range(20000): open(f'many/{i:05}-' + 'n' * 100, 'w').close()";
    assert_eq!(agent.run(["python3", "-c", script]).await.code(), 0);
    let (entries, truncated) = agent.client.list("many", true).await.unwrap();
    assert_eq!((entries.len(), truncated), (20_000, false));
    assert!(entries.windows(2).all(|pair| pair[0].path < pair[1].path));
    assert_eq!(agent.client.glob("many/*").await.unwrap().0.len(), 20_000);
    // More than one answer holds is refused, not cut off.
    let script = "import os\nfor i in range(80001): open(f'many/l{i}', 'w').close()";
    assert_eq!(agent.run(["python3", "-c", script]).await.code(), 0);
    for recursive in [false, true] {
        assert_eq!(kind(agent.client.list("many", recursive).await), FileErrorKind::TooMany);
    }
    assert_eq!(kind(agent.client.glob("many/*").await), FileErrorKind::TooMany);
    assert_eq!(agent.client.glob("many/l8000*").await.unwrap().0.len(), 11 - 9);
}

#[tokio::test]
async fn names_that_are_no_text_are_listed() {
    use std::os::unix::ffi::OsStrExt;
    let agent = Running::start().await;
    for name in [&b"\xff\xfe"[..], b"new\nline", b"\x1b[31m"] {
        let name = std::ffi::OsStr::from_bytes(name);
        std::fs::write(agent.workspace().join(name), "x").unwrap();
    }
    let (entries, _) = agent.client.list(".", false).await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["\u{1b}[31m", "new\nline", "\u{fffd}\u{fffd}"]);
    assert_eq!(agent.client.glob("*").await.unwrap().0.len(), 3);
}

#[tokio::test]
async fn trees_of_any_depth_are_listed_and_removed() {
    let agent = Running::start().await;
    let script = "import os\nfor i in range(5000):\n os.mkdir('d'); os.chdir('d')";
    assert_eq!(agent.run(["python3", "-c", script]).await.code(), 0);
    assert!(agent.client.list("d", true).await.is_ok());
    assert!(agent.client.glob("d/**").await.is_ok());
    agent.client.delete("d", true).await.unwrap();
    assert!(!agent.workspace().join("d").exists());
}
