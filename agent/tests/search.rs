#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use agent::client::CallError;
use agent::protocol::{FileErrorKind, FileRefusal, PassedOverReason, Search};
use harness::Running;

fn looking(patterns: &[&str]) -> Search {
    Search {
        directory: ".".to_owned(),
        patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        most_files: 1000,
        most_depth: 20,
        within: Duration::from_secs(60),
    }
}

async fn found(agent: &Running, patterns: &[&str]) -> Vec<String> {
    let (files, end) = agent.client.search(looking(patterns)).await.unwrap();
    assert_eq!(end.passed_over, 0, "{patterns:?}: {end:?}");
    files.into_iter().map(|file| file.path).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, CallError<FileRefusal>>) -> FileErrorKind {
    match result {
        Err(CallError::Refused(refusal)) => refusal.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn files_are_found_by_patterns_below_the_directory() {
    let agent = Running::start().await;
    let top = agent.workspace();
    for path in
        ["a.txt", "b.log", "out/a.txt", "out/deep/er/c.txt", "out/.hidden", "dist/x", "dist/y/z", "outer"]
    {
        std::fs::create_dir_all(top.join(path).parent().unwrap()).unwrap();
        std::fs::write(top.join(path), path).unwrap();
    }
    std::fs::set_permissions(top.join("b.log"), PermissionsExt::from_mode(0o750)).unwrap();
    for (patterns, expected) in [
        (&["*.txt"][..], &["a.txt"][..]),
        (&["**/*.txt"], &["a.txt", "out/a.txt", "out/deep/er/c.txt"]),
        (&["out/*"], &["out/.hidden", "out/a.txt"]),
        (&["out/**"], &["out/.hidden", "out/a.txt", "out/deep/er/c.txt"]),
        // A directory stands for what is in it.
        (&["dist"], &["dist/x", "dist/y/z"]),
        (&["./dist//y/"], &["dist/y/z"]),
        (&["out/d*/"], &["out/deep/er/c.txt"]),
        (&["dist/y/z", "dist/y", "dist/**", "a.txt"], &["a.txt", "dist/x", "dist/y/z"]),
        (&["{a,b}.{txt,log}"], &["a.txt", "b.log"]),
        (&["[ab].txt"], &["a.txt"]),
        (&["o?ter"], &["outer"]),
        (&["nothing", "no/thing/**"], &[]),
    ] {
        assert_eq!(found(&agent, patterns).await, expected, "{patterns:?}");
    }
    assert_eq!(found(&agent, &["."]).await.len(), 8);
    let (files, _) = agent.client.search(looking(&["b.log"])).await.unwrap();
    assert_eq!((files[0].size, files[0].mode), (5, 0o750));
    let read = agent.client.read_beneath(".", "out/deep/er/c.txt", 8).await.unwrap();
    assert_eq!(read.collect(100).await.unwrap().unwrap(), b"out/deep");

    for pattern in ["/etc/passwd", "../x", "a/../../x", "a\0b", "[", &"x".repeat(2000)] {
        let kind = refused(agent.client.search(looking(&[pattern])).await);
        assert_eq!(kind, FileErrorKind::InvalidPath, "{pattern}");
    }
    assert_eq!(refused(agent.client.search(looking(&[])).await), FileErrorKind::InvalidPath);
    let many = vec!["x"; 101];
    assert_eq!(refused(agent.client.search(looking(&many)).await), FileErrorKind::InvalidPath);
    let elsewhere = |directory: &str| Search { directory: directory.to_owned(), ..looking(&["x"]) };
    assert_eq!(refused(agent.client.search(elsewhere("missing")).await), FileErrorKind::NotFound);
    assert_eq!(refused(agent.client.search(elsewhere("a.txt")).await), FileErrorKind::NotADirectory);
}

#[tokio::test]
async fn no_symlink_is_followed_and_nothing_but_files_is_taken() {
    let agent = Running::start().await;
    let top = agent.workspace();
    let outside = agent.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::fs::write(top.join("plain"), "plain").unwrap();
    symlink(outside.join("secret"), top.join("link")).unwrap();
    symlink(&outside, top.join("linked")).unwrap();
    symlink("/", top.join("root")).unwrap();
    symlink(".", top.join("circle")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    std::fs::write(top.join(OsStr::from_bytes(b"no\xfftext")), "x").unwrap();
    let (files, end) = agent.client.search(looking(&["**"])).await.unwrap();
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["plain"]);
    assert_eq!((end.passed_over, end.first.len()), (6, 6));
    let reason = |name: &str| end.first.iter().find(|over| over.path == name).unwrap().reason;
    for name in ["link", "linked", "root", "circle"] {
        assert_eq!(reason(name), PassedOverReason::Symlink);
    }
    assert_eq!(reason("fifo"), PassedOverReason::Special);
    assert_eq!(reason("no\u{fffd}text"), PassedOverReason::Name);
    // Where a pattern names the link itself, what is behind it is not reached either.
    for pattern in ["linked/secret", "linked/", "root/etc/*"] {
        let (files, end) = agent.client.search(looking(&[pattern])).await.unwrap();
        assert!(files.is_empty() && end.passed_over == 1, "{pattern}: {files:?}");
    }
    // What was a directory when it was found may be something else when it is read.
    for path in
        ["link", "linked/secret", "root/etc/passwd", "../outside/secret", "/etc/passwd", "fifo", "", "."]
    {
        let read = agent.client.read_beneath(".", path, 100).await;
        assert!(matches!(read, Err(CallError::Refused(_))), "{path}");
    }
}

#[tokio::test]
async fn a_search_ends_at_its_bounds() {
    let agent = Running::start().await;
    let top = agent.workspace();
    for index in 0..30 {
        std::fs::write(top.join(format!("{index}")), "").unwrap();
    }
    let deep: std::path::PathBuf = (0..30).map(|_| "d").collect();
    std::fs::create_dir_all(top.join(&deep)).unwrap();
    let bounded = |change: fn(&mut Search)| {
        let mut search = looking(&["**"]);
        change(&mut search);
        search
    };
    for search in [
        bounded(|search| search.most_files = 29),
        bounded(|search| search.most_depth = 29),
        bounded(|search| search.within = Duration::ZERO),
    ] {
        if search.within.is_zero() {
            for index in 0..500 {
                std::fs::write(top.join(format!("x{index}")), "").unwrap();
            }
        }
        assert_eq!(refused(agent.client.search(search).await), FileErrorKind::TooMany);
    }
    // Who asks for no more than the top is not kept by what is below it.
    let flat = Search { most_depth: 2, ..looking(&["1?"]) };
    assert_eq!(agent.client.search(flat).await.unwrap().0.len(), 10);
    // As large as it says, and nothing is read of it.
    std::fs::File::create(top.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let (files, _) = agent.client.search(looking(&["sparse"])).await.unwrap();
    assert_eq!(files[0].size, 1 << 40);
}
