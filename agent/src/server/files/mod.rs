//! Files, resolved as any process of the sandbox would: `..` and symlinks lead nowhere but there.

mod copy;
mod glob;
mod list;
mod owner;
mod path;
mod remove;
mod search;
mod upload;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use agent::protocol::{Entry, FilePart, FileRefusal, FrameError, Input, MAX_CHUNK, Reply, Search};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::Agent;
use super::session::{Reader, Writer};
use list::Listing;
use owner::Owner;
use path::{entry_of, named, refusal};

pub use upload::Write;

/// Longest message of a listing, in bytes of names; well below the longest frame.
const BATCH_BYTES: usize = 128 * 1024;

/// Threads that work on files at once: fewer than there are, so that an exec still finds one.
static WORKERS: Semaphore = Semaphore::const_new(super::BLOCKING_THREADS - 1);

/// Runs file work on another thread, so that a slow disk holds up nobody else.
async fn blocking<T: Send + 'static>(
    path: &str,
    work: impl FnOnce() -> Result<T, FileRefusal> + Send + 'static,
) -> Result<T, FileRefusal> {
    // Nobody closes it.
    let _worker = WORKERS.acquire().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(refusal(path, &io::Error::other("the operation was given up"))),
    }
}

fn reply<T>(result: Result<T, FileRefusal>, answer: impl FnOnce(T) -> Reply) -> Reply {
    match result {
        Ok(value) => answer(value),
        Err(refusal) => Reply::Refused(refusal.into()),
    }
}

async fn finish(writer: &mut Writer, reply: Reply) -> Result<(), FrameError> {
    writer.send(&reply).await?;
    writer.flush().await
}

/// Where a part begins in a file of this size, and how long it is at most.
fn bounds(part: FilePart, size: u64) -> (u64, u64) {
    match part {
        FilePart::From { offset, limit } => (offset, limit.unwrap_or(u64::MAX)),
        FilePart::Last { bytes } => (size.saturating_sub(bytes), bytes),
    }
}

pub async fn read(
    agent: &Agent,
    path: String,
    part: FilePart,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let full = match path::resolve(agent, &path) {
        Ok(full) => full,
        Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
    };
    let shown = path.clone();
    let opened = blocking(&path, move || {
        let (file, metadata) = open_regular(&full).map_err(named(&shown))?;
        let (offset, left) = bounds(part, metadata.len());
        let first = read_chunk(&file, offset, left).map_err(named(&shown))?;
        let entry = entry_of(&full, &metadata, false);
        Ok(Opened { file: Arc::new(file), entry, at: offset, left, first })
    });
    match opened.await {
        Ok(opened) => send(&path, opened, writer).await,
        Err(refusal) => finish(writer, Reply::Refused(refusal.into())).await,
    }
}

/// The same, of a file that was found below a directory.
pub async fn read_beneath(
    agent: &Agent,
    directory: String,
    path: String,
    limit: u64,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let full = match path::check(&path).and_then(|()| path::resolve(agent, &directory)) {
        Ok(full) => full,
        Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
    };
    let shown = path.clone();
    let opened = blocking(&path, move || {
        let (file, metadata) = search::open_beneath(&full, &shown).map_err(named(&shown))?;
        let first = read_chunk(&file, 0, limit).map_err(named(&shown))?;
        let entry = entry_of(&full.join(&shown), &metadata, false);
        Ok(Opened { file: Arc::new(file), entry, at: 0, left: limit, first })
    });
    match opened.await {
        Ok(opened) => send(&path, opened, writer).await,
        Err(refusal) => finish(writer, Reply::Refused(refusal.into())).await,
    }
}

/// A file that is about to be sent.
struct Opened {
    file: Arc<File>,
    entry: Entry,
    /// Where the first bytes are from, and how many may be sent from there on.
    at: u64,
    left: u64,
    first: Bytes,
}

async fn send(path: &str, opened: Opened, writer: &mut Writer) -> Result<(), FrameError> {
    let Opened { file, entry, mut at, mut left, first: mut chunk } = opened;
    writer.send(&Reply::File(entry)).await?;
    while !chunk.is_empty() {
        (at, left) = (at.saturating_add(chunk.len() as u64), left - chunk.len() as u64);
        writer.send(&Reply::Chunk { bytes: chunk }).await?;
        let (file, shown) = (Arc::clone(&file), path.to_owned());
        chunk = match blocking(path, move || read_chunk(&file, at, left).map_err(named(&shown))).await {
            Ok(chunk) => chunk,
            Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
        };
    }
    finish(writer, Reply::Done).await
}

/// Looks before it opens: opening a device or a FIFO can wait, take a terminal, or do something.
fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let place = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    let metadata = place.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(not_regular());
    }
    // What was looked at, and nothing that has taken its name since. Some files of the kernel wait in a read.
    let same = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    Ok((File::options().read(true).custom_flags(flags).open(same)?, metadata))
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn read_chunk(file: &File, offset: u64, left: u64) -> io::Result<Bytes> {
    if i64::try_from(offset).is_err() {
        return Ok(Bytes::new());
    }
    let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(MAX_CHUNK)];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

pub async fn write(
    agent: &Agent,
    write: Write,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    // The caller waits for our Hello before it sends the first bytes.
    writer.flush().await?;
    let received = receive(agent, write, reader).await?;
    let refused = received.is_err();
    let answer = reply(received, |size| Reply::Written { size });
    writer.send(&answer).await?;
    writer.shutdown().await?;
    if refused {
        // What is still under way is taken in, so that closing does not overtake the reason.
        let rest = async { while let Ok(Some(_)) = reader.receive::<Input>().await {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), rest).await;
    }
    Ok(())
}

/// The outer error is the connection's: then nothing of the upload remains.
async fn receive(
    agent: &Agent,
    write: Write,
    reader: &mut Reader,
) -> Result<Result<u64, FileRefusal>, FrameError> {
    let path = write.path.clone();
    let full = match path::resolve(agent, &path) {
        Ok(full) => full,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let owner = Owner::of_new(agent).await;
    let mut upload = match blocking(&path, move || upload::Upload::begin(write, &full, owner)).await {
        Ok(upload) => upload,
        Err(refusal) => return Ok(Err(refusal)),
    };
    loop {
        match reader.receive::<Input>().await? {
            Some(Input::Chunk { bytes }) => {
                let written = blocking(&path, move || upload.append(&bytes).map(|()| upload));
                upload = match written.await {
                    Ok(upload) => upload,
                    Err(refusal) => return Ok(Err(refusal)),
                };
            }
            Some(Input::Commit) => return Ok(blocking(&path, move || upload.commit()).await),
            None => return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into())),
            Some(
                Input::Ack { .. }
                | Input::Stdin { .. }
                | Input::CloseStdin
                | Input::Resize { .. }
                | Input::Signal { .. },
            ) => return Err(FrameError::Malformed("not part of an upload")),
        }
    }
}

pub async fn list(
    agent: &Agent,
    path: String,
    recursive: bool,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let listed = match path::resolve(agent, &path) {
        Ok(full) => {
            let shown = path.clone();
            blocking(&path, move || Listing::of(&full, recursive, &shown)).await
        }
        Err(refusal) => Err(refusal),
    };
    let mut listing = match listed {
        Ok(listing) => listing,
        Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
    };
    loop {
        let looked = blocking(&path, move || {
            let batch = listing.next(BATCH_BYTES);
            Ok((listing, batch))
        });
        let batch;
        (listing, batch) = match looked.await {
            Ok(looked) => looked,
            Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
        };
        if batch.is_empty() {
            return finish(writer, Reply::Listed { truncated: false }).await;
        }
        writer.send(&Reply::Entries(batch)).await?;
    }
}

pub async fn glob(agent: &Agent, pattern: String, writer: &mut Writer) -> Result<(), FrameError> {
    let workspace = agent.options.workspace.clone();
    let shown = pattern.clone();
    let found = match path::check(&pattern) {
        Ok(()) => blocking(&pattern, move || glob::glob(&workspace, &shown)).await,
        Err(refusal) => Err(refusal),
    };
    let paths = match found {
        Ok(paths) => paths.into_iter().map(|path| path.to_string_lossy().into_owned()),
        Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
    };
    for batch in batches(paths, |path: &String| path.len() + 8) {
        writer.send(&Reply::Paths(batch)).await?;
    }
    finish(writer, Reply::Listed { truncated: false }).await
}

pub async fn search(agent: &Agent, search: Search, writer: &mut Writer) -> Result<(), FrameError> {
    let found = match path::resolve(agent, &search.directory) {
        Ok(full) => {
            let shown = search.directory.clone();
            blocking(&shown, move || search::search(&full, &search)).await
        }
        Err(refusal) => Err(refusal),
    };
    let found = match found {
        Ok(found) => found,
        Err(refusal) => return finish(writer, Reply::Refused(refusal.into())).await,
    };
    for batch in batches(found.files.into_iter(), |file| file.path.len() + 32) {
        writer.send(&Reply::Found(batch)).await?;
    }
    finish(writer, Reply::Searched(found.end)).await
}

fn batches<T>(items: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let first = items.next()?;
        let mut total = size(&first);
        let mut batch = vec![first];
        while let Some(item) = items.next_if(|item| {
            total += size(item);
            total < BATCH_BYTES
        }) {
            batch.push(item);
        }
        Some(batch)
    })
}

pub async fn stat(agent: &Agent, path: String) -> Reply {
    let entry = on_path(agent, &path, |full| {
        let link = fs::symlink_metadata(full)?;
        // A link that leads nowhere is still there.
        let metadata = if link.is_symlink() {
            fs::metadata(full).unwrap_or_else(|_| link.clone())
        } else {
            link.clone()
        };
        Ok(entry_of(full, &metadata, link.is_symlink()))
    });
    reply(entry.await, Reply::File)
}

pub async fn delete(agent: &Agent, path: String, recursive: bool) -> Reply {
    let deleted = on_path(agent, &path, move |full| {
        if !fs::symlink_metadata(full)?.is_dir() {
            fs::remove_file(full)
        } else if recursive {
            remove::remove_tree(full)
        } else {
            fs::remove_dir(full)
        }
    });
    reply(deleted.await, |()| Reply::Done)
}

pub async fn move_path(agent: &Agent, from: String, to: String) -> Reply {
    let target = match path::resolve(agent, &to) {
        Ok(target) => target,
        Err(refusal) => return Reply::Refused(refusal.into()),
    };
    let owner = Owner::of_new(agent).await;
    let moved = on_path(agent, &from, move |source| {
        fs::symlink_metadata(source)?;
        if let Some(parent) = target.parent() {
            owner.make_directories(parent)?;
        }
        match fs::rename(source, &target) {
            // Another file system, or a directory of an image's lower layer.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy::move_by_copy(source, &target)
            }
            other => other,
        }
    });
    reply(moved.await, |()| Reply::Done)
}

pub async fn chmod(agent: &Agent, path: String, mode: u32) -> Reply {
    let changed = on_path(agent, &path, move |full| {
        fs::set_permissions(full, fs::Permissions::from_mode(mode & 0o7777))
    });
    reply(changed.await, |()| Reply::Done)
}

pub async fn mkdir(agent: &Agent, path: String, mode: u32) -> Reply {
    let owner = Owner::of_new(agent).await;
    let made = on_path(agent, &path, move |full| {
        if full.is_dir() {
            return Ok(());
        }
        owner.make_directories(full)?;
        fs::set_permissions(full, fs::Permissions::from_mode(mode & 0o7777))
    });
    reply(made.await, |()| Reply::Done)
}

async fn on_path<T: Send + 'static>(
    agent: &Agent,
    path: &str,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, FileRefusal> {
    let full = path::resolve(agent, path)?;
    let shown = path.to_owned();
    blocking(path, move || work(&full).map_err(named(&shown))).await
}
