use std::time::Duration;

use agent::client::{CallError, Client};
use agent::protocol::{FileRefusal, FoundFile, PassedOverReason, Search};
use events::{ObjectPlace, ObjectRef};
use objects::{PutError, Store, StoreError};

use super::Artifact;

/// Directories above one another that are looked into.
const MOST_DEPTH: u32 = 64;
/// How many of the files that were left out are named.
const MOST_NAMED: usize = 100;

/// Which files are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The directory in the sandbox; a relative one begins at its workspace.
    pub directory: String,
    /// [`Patterns`](super::Patterns) of paths below it.
    pub patterns: Vec<String>,
    /// How long all of it may take. The search for them has at most half of it.
    pub within: Duration,
}

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Those that are stored, by path.
    pub artifacts: Vec<Artifact>,
    /// How many match and are not stored.
    pub left_out: u64,
    /// The first hundred of these.
    pub named: Vec<LeftOut>,
}

/// A file that matches and is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path below the directory, with replacement characters where it is no UTF-8.
    pub path: String,
    /// Why.
    pub reason: LeftOutReason,
}

/// Why a file is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOutReason {
    /// It is a symlink.
    Symlink,
    /// It is a FIFO, a socket or a device.
    Special,
    /// Its name is not UTF-8.
    Name,
    /// It is larger than one artifact may be.
    TooLarge,
    /// With those before it, it is more than the artifacts of one job may have together.
    NoRoom,
    /// It was removed, or became something else, before it was read.
    Changed,
}

impl LeftOutReason {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Special => "special",
            Self::Name => "name",
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::Changed => "changed",
        }
    }
}

/// Why nothing is known to be kept. Some may be stored; doing it again stores them once.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The agent found nothing, or more than it was allowed to.
    #[error("the files cannot be looked for")]
    Search(#[source] CallError<FileRefusal>),
    /// The agent does not answer any more.
    #[error("the sandbox does not give its files")]
    Agent(#[source] CallError<FileRefusal>),
    /// The store does not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was not enough time.
    #[error("not all files were stored within {} s", .0.as_secs())]
    Late(Duration),
}

/// Stores the files of a sandbox that are wanted, each as it is found: no more of one that grows, and what is there of one that shrinks.
/// A file that cannot be stored is left out, and said so; the limits are those of the store.
pub async fn collect(
    agent: &Client,
    store: &Store,
    place: &ObjectPlace,
    wanted: &Wanted,
) -> Result<Collected, CollectError> {
    let collecting = async {
        let (files, end) = agent.search(search(store, wanted)).await.map_err(CollectError::Search)?;
        let mut collected = Collected { left_out: end.passed_over, ..Collected::default() };
        for over in end.first {
            let reason = match over.reason {
                PassedOverReason::Symlink => LeftOutReason::Symlink,
                PassedOverReason::Special => LeftOutReason::Special,
                PassedOverReason::Name => LeftOutReason::Name,
            };
            collected.named.push(LeftOut { path: over.path, reason });
        }
        let mut room = store.limits().owner_bytes;
        for file in files {
            match keep(agent, store, place, wanted, &file, room).await? {
                Ok(artifact) => {
                    room = room.saturating_sub(artifact.object.size);
                    collected.artifacts.push(artifact);
                }
                Err(reason) => {
                    collected.left_out = collected.left_out.saturating_add(1);
                    if collected.named.len() < MOST_NAMED {
                        collected.named.push(LeftOut { path: file.path, reason });
                    }
                }
            }
        }
        Ok(collected)
    };
    tokio::time::timeout(wanted.within, collecting).await.unwrap_or(Err(CollectError::Late(wanted.within)))
}

fn search(store: &Store, wanted: &Wanted) -> Search {
    Search {
        directory: wanted.directory.clone(),
        patterns: wanted.patterns.clone(),
        most_files: store.limits().owner_count,
        most_depth: MOST_DEPTH,
        within: wanted.within / 2,
    }
}

/// The outer error ends all of it.
async fn keep(
    agent: &Client,
    store: &Store,
    place: &ObjectPlace,
    wanted: &Wanted,
    file: &FoundFile,
    room: u64,
) -> Result<Result<Artifact, LeftOutReason>, CollectError> {
    // Judged by its size before a byte is read: a sparse file has any.
    if file.size > store.limits().object_bytes {
        return Ok(Err(LeftOutReason::TooLarge));
    }
    if file.size > room {
        return Ok(Err(LeftOutReason::NoRoom));
    }
    let opened = agent.read_beneath(wanted.directory.as_str(), file.path.as_str(), file.size).await;
    let mut download = match opened {
        Ok(download) => download,
        Err(CallError::Refused(_)) => return Ok(Err(LeftOutReason::Changed)),
        Err(error) => return Err(CollectError::Agent(error)),
    };
    let mut put = store.put(place, file.size).await;
    loop {
        match download.next().await {
            Ok(Some(bytes)) => match put.write(bytes).await {
                Ok(()) => {}
                // An agent that sends more than it was asked for.
                Err(PutError::TooLarge { .. }) => return Ok(Err(LeftOutReason::Changed)),
                Err(PutError::Store(error)) => return Err(error.into()),
            },
            Ok(None) => break,
            Err(CallError::Refused(_)) => return Ok(Err(LeftOutReason::Changed)),
            Err(error) => return Err(CollectError::Agent(error)),
        }
    }
    match put.finish().await {
        Ok(stored) => {
            let object = ObjectRef { size: stored.size, sha256: stored.sha256 };
            // Bits that make a program another user's are good for nothing elsewhere.
            Ok(Ok(Artifact { path: file.path.clone(), mode: file.mode & 0o777, object }))
        }
        Err(PutError::TooLarge { .. }) => Ok(Err(LeftOutReason::TooLarge)),
        Err(PutError::Store(error)) => Err(error.into()),
    }
}
