use std::borrow::Cow;
use std::time::{Duration, Instant};

use agent::client::{CallError, Listed, Listing, WriteFile};
use agent::protocol::{Entry, FileErrorKind, FileRefusal};
use chrono::{DateTime, Utc};
use events::{EventData, FileDeleted, FileModeChanged, FileMoved, FileRead, FileWritten};
use transport::{ByteRange, FaultCode, FileEntry, LinkError, LinkFault, LinkIncoming, LinkValue, ModeChange};

use serde::Serialize;

use super::{Answer, crowded, unanswered, unavailable, unrecordable};
use crate::context::Context;
use crate::hosted::Hosted;
use crate::shared::Shared;

/// For how long, and how often, a change is told to a log that does not take it.
const LATE: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_millis(500));

/// The permission bits that a written file shall have.
pub(super) struct Mode {
    pub(super) bits: u32,
    /// Whether a file that is there keeps its own.
    pub(super) keep: bool,
}

impl Mode {
    async fn of(&self, hosted: &Hosted, path: &str) -> u32 {
        if !self.keep {
            return self.bits;
        }
        // What is wrong with the path, the write says better.
        hosted.agent.stat(path).await.map_or(self.bits, |found| found.mode & 0o7777)
    }
}

pub(super) async fn read(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    incoming: &mut LinkIncoming,
) -> Answer {
    let mut download = hosted.agent.read_file(path, 0, None).await.map_err(|error| fault(hosted, error))?;
    record_read(shared, context, FileRead { path: path.to_owned(), size: download.entry.size, range: None })
        .await?;
    incoming.accept(LinkValue::File(entry(&download.entry))).await.map_err(broken)?;
    while let Some(bytes) = download.next().await.map_err(|error| fault(hosted, error))? {
        incoming.write(bytes).await.map_err(broken)?;
    }
    Ok(LinkValue::Done)
}

/// As many bytes as the size of the file promises when it is opened, or an end that nobody takes for one.
pub(super) async fn read_part(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    asked: ByteRange,
    incoming: &mut LinkIncoming,
) -> Answer {
    let opened = match asked {
        ByteRange::From(first, last) => {
            let limit = last.map(|last| last.saturating_sub(first).saturating_add(1));
            hosted.agent.read_file(path, first, limit).await
        }
        ByteRange::Last(count) => hosted.agent.read_file_end(path, count).await,
    };
    let mut download = opened.map_err(|error| fault(hosted, error))?;
    let size = download.entry.size;
    let Some(range) = asked.of(size) else {
        // Files of /proc say that they are empty.
        if size == 0 && download.next().await.map_err(|error| fault(hosted, error))?.is_some() {
            return Err(LinkFault::new(FaultCode::Unsupported, "a file that does not tell its size"));
        }
        incoming.accept(LinkValue::File(entry(&download.entry))).await.map_err(broken)?;
        return Ok(LinkValue::Done);
    };
    let bounds = Some((range.start, range.end));
    record_read(shared, context, FileRead { path: path.to_owned(), size, range: bounds }).await?;
    incoming.accept(LinkValue::File(entry(&download.entry))).await.map_err(broken)?;
    let mut left = range.end - range.start;
    while left > 0 {
        let next = download.next().await.map_err(|error| fault(hosted, error))?;
        let Some(mut bytes) = next else {
            return Err(LinkFault::new(FaultCode::Failed, "the file became shorter while it was read"));
        };
        // What was appended meanwhile is not part of it.
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= bytes.len() as u64;
        incoming.write(bytes).await.map_err(broken)?;
    }
    Ok(LinkValue::Done)
}

/// The log has it before the first byte leaves.
async fn record_read(shared: &Shared, context: &Context, read: FileRead) -> Result<(), LinkFault> {
    if shared.log.publish(&[context.event(read)]).await.is_err() {
        tracing::warn!(sandbox.id = %context.sandbox, "a file was not read: that cannot be recorded");
        return Err(unrecordable());
    }
    Ok(())
}

pub(super) async fn write(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    mode: Mode,
    incoming: &mut LinkIncoming,
) -> Answer {
    let mode = mode.of(hosted, path).await;
    let write = WriteFile { mode, ..WriteFile::new(path) };
    let mut upload = hosted.agent.write_file(write).await.map_err(|error| fault(hosted, error))?;
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    // Dropping the upload on any error leaves the old file as it was.
    while let Some(bytes) = incoming.read().await.map_err(broken)? {
        upload.send(bytes).await.map_err(|error| fault(hosted, error))?;
    }
    let size = upload.commit().await.map_err(|error| fault(hosted, error))?;
    record(shared, context, FileWritten { path: path.to_owned(), size, mode }).await?;
    Ok(LinkValue::Done)
}

pub(super) async fn list(hosted: &Hosted, path: &str, incoming: &mut LinkIncoming) -> Answer {
    let listing = hosted.agent.open_list(path, false).await.map_err(|error| fault(hosted, error))?;
    pass_on(hosted, listing, entry, incoming).await
}

/// Line by line and as it comes: however long it is, little of it is held here.
async fn pass_on<T: Listed, L: Serialize>(
    hosted: &Hosted,
    mut listing: Listing<T>,
    shown: impl Fn(&T) -> L,
    incoming: &mut LinkIncoming,
) -> Answer {
    incoming.accept(LinkValue::Done).await.map_err(broken)?;
    while let Some(batch) = listing.next().await.map_err(|error| fault(hosted, error))? {
        let mut lines = Vec::new();
        for item in &batch {
            serde_json::to_writer(&mut lines, &shown(item)).map_err(|_| unavailable())?;
            lines.push(b'\n');
        }
        incoming.write(lines.into()).await.map_err(broken)?;
    }
    if listing.is_truncated() {
        return Err(LinkFault::new(FaultCode::TooMany, "there are more entries than one answer holds"));
    }
    Ok(LinkValue::Done)
}

pub(super) async fn stat(hosted: &Hosted, path: &str) -> Answer {
    let found = hosted.agent.stat(path).await.map_err(|error| fault(hosted, error))?;
    Ok(LinkValue::File(entry(&found)))
}

pub(super) async fn delete(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    recursive: bool,
) -> Answer {
    hosted.agent.delete(path, recursive).await.map_err(|error| fault(hosted, error))?;
    record(shared, context, FileDeleted { path: path.to_owned(), recursive }).await?;
    Ok(LinkValue::Done)
}

pub(super) async fn rename(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    from: &str,
    to: &str,
) -> Answer {
    let to = destination(hosted, from, to).await;
    hosted.agent.move_path(from, to.as_ref()).await.map_err(|error| fault(hosted, error))?;
    record(shared, context, FileMoved { from: from.to_owned(), to: to.into_owned() }).await?;
    Ok(LinkValue::Done)
}

/// Where a move leads: into what is a directory already, as with `mv`.
async fn destination<'a>(hosted: &Hosted, from: &str, to: &'a str) -> Cow<'a, str> {
    let parts = || from.split('/').filter(|part| !part.is_empty() && *part != ".");
    let Some(name) = parts().next_back().filter(|name| *name != "..") else { return Cow::Borrowed(to) };
    match hosted.agent.stat(to).await {
        Ok(found) if entry(&found).is_dir => Cow::Owned(format!("{}/{name}", to.trim_end_matches('/'))),
        // Not there, or whatever is wrong with it: the move says so.
        Ok(_) | Err(_) => Cow::Borrowed(to),
    }
}

/// The agent says how the bits are, and is told how they shall be: what `chmod` does too.
pub(super) async fn adjust_mode(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    change: &ModeChange,
) -> Answer {
    let found = hosted.agent.stat(path).await.map_err(|error| fault(hosted, error))?;
    let found = entry(&found);
    change_mode(shared, context, hosted, path, change.apply(found.mode, found.is_dir)).await
}

pub(super) async fn change_mode(
    shared: &Shared,
    context: &Context,
    hosted: &Hosted,
    path: &str,
    mode: u32,
) -> Answer {
    hosted.agent.chmod(path, mode).await.map_err(|error| fault(hosted, error))?;
    record(shared, context, FileModeChanged { path: path.to_owned(), mode }).await?;
    Ok(LinkValue::Done)
}

pub(super) async fn glob(hosted: &Hosted, pattern: &str, incoming: &mut LinkIncoming) -> Answer {
    let listing = hosted.agent.open_glob(pattern).await.map_err(|error| fault(hosted, error))?;
    pass_on(hosted, listing, String::clone, incoming).await
}

/// The log is told of a change after it was made: before, nobody knows whether it will be. When it cannot be told now it
/// is told as soon as that is possible, and the client hears the truth.
async fn record(shared: &Shared, context: &Context, data: impl Into<EventData>) -> Result<(), LinkFault> {
    let event = context.event(data);
    let Err(error) = shared.log.publish(std::slice::from_ref(&event)).await else {
        return Ok(());
    };
    tracing::warn!(sandbox.id = %context.sandbox, error = %error, "a change of files is not recorded yet");
    let log = shared.log.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        while began.elapsed() < LATE.0 {
            tokio::time::sleep(LATE.1).await;
            if log.publish(std::slice::from_ref(&event)).await.is_ok() {
                return;
            }
        }
        tracing::error!(event.id = %event.id, event.type = event.data.type_name(), "a change of files was not recorded");
    });
    let message = "it was done, but is not recorded yet: look before you do it again";
    Err(LinkFault::new(FaultCode::Unrecorded, message))
}

pub(super) fn broken(error: LinkError) -> LinkFault {
    // The gateway at the other end is gone or at odds with us: nobody reads this.
    LinkFault::new(FaultCode::Internal, error.to_string())
}

pub(super) fn fault(hosted: &Hosted, error: CallError<FileRefusal>) -> LinkFault {
    match error {
        CallError::Refused(refusal) => {
            let code = match refusal.kind {
                FileErrorKind::NotFound => FaultCode::NotFound,
                FileErrorKind::PermissionDenied => FaultCode::PermissionDenied,
                FileErrorKind::AlreadyExists => FaultCode::AlreadyExists,
                FileErrorKind::IsADirectory => FaultCode::IsADirectory,
                FileErrorKind::NotADirectory => FaultCode::NotADirectory,
                FileErrorKind::DirectoryNotEmpty => FaultCode::DirectoryNotEmpty,
                FileErrorKind::InvalidPath => FaultCode::InvalidPath,
                FileErrorKind::NoSpace => FaultCode::NoSpace,
                FileErrorKind::Busy => FaultCode::Busy,
                FileErrorKind::Unsupported => FaultCode::Unsupported,
                FileErrorKind::TooMany => FaultCode::TooMany,
                FileErrorKind::Failed => FaultCode::Failed,
                FileErrorKind::Other => FaultCode::Internal,
            };
            LinkFault::new(code, refusal.to_string())
        }
        CallError::InvalidCall { reason, .. } => LinkFault::new(FaultCode::InvalidPath, reason),
        error @ (CallError::Crowded { .. } | CallError::Full { .. }) => crowded(&error),
        error @ CallError::Unsupported { .. } => LinkFault::new(FaultCode::Unsupported, error.to_string()),
        error @ (CallError::Transport { .. }
        | CallError::Silent { .. }
        | CallError::Violation { .. }
        | CallError::Version { .. }) => unanswered(hosted, &error, "a file operation failed"),
    }
}

fn entry(found: &Entry) -> FileEntry {
    FileEntry {
        name: found.name.clone(),
        path: found.path.clone(),
        size: found.size,
        mode: found.mode,
        is_dir: found.is_dir,
        is_symlink: found.is_symlink,
        modified_at: DateTime::<Utc>::from_timestamp(found.modified_unix_seconds, found.modified_nanos)
            .unwrap_or_default(),
    }
}
