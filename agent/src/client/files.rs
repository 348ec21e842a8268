use bytes::Bytes;
use futures::Stream as FuturesStream;

use super::bounds::{is_beneath, is_entry, is_file, is_match, sane_end};
use super::connect::{Call, SendError};
use super::{CallError, Client, WORK};
use crate::protocol::{
    Entry, FilePart, FileRefusal, FoundFile, Input, MAX_CHUNK, MAX_LISTED, MAX_LISTED_BYTES, Reply, Request,
    Search, Searched,
};

/// Where and how to write a file. Build it with [`WriteFile::new`] and set what differs.
#[derive(Clone, Debug)]
pub struct WriteFile {
    pub path: String,
    pub mode: u32,
    pub size_hint: Option<u64>,
    /// Flush to disk before the file appears.
    pub sync: bool,
}

impl WriteFile {
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o644, size_hint: None, sync: false }
    }
}

type FileResult<T> = Result<T, CallError<FileRefusal>>;

impl Client {
    /// Opens a file for reading, from `offset` and at most `limit` bytes.
    pub async fn read_file(
        &self,
        path: impl Into<String>,
        offset: u64,
        limit: Option<u64>,
    ) -> FileResult<FileDownload> {
        let part = FilePart::From { offset, limit };
        self.open_file(&Request::ReadFile { path: path.into(), part }).await
    }

    /// Opens a file for reading, `last` bytes before its end; where the end is by the entry.
    pub async fn read_file_end(&self, path: impl Into<String>, last: u64) -> FileResult<FileDownload> {
        let part = FilePart::Last { bytes: last };
        self.open_file(&Request::ReadFile { path: path.into(), part }).await
    }

    async fn open_file(&self, request: &Request) -> FileResult<FileDownload> {
        let mut call = self.call("read file", request).await?;
        match call.reply().await? {
            Reply::File(entry) if is_file(&entry) => Ok(FileDownload { entry, call, over: false }),
            other => Err(call.unexpected(&other)),
        }
    }

    /// Begins a file that appears as a whole on [`FileUpload::commit`], or never.
    pub async fn write_file(&self, write: WriteFile) -> FileResult<FileUpload> {
        let WriteFile { path, mode, size_hint, sync } = write;
        let call = self.call("write file", &Request::WriteFile { path, mode, size_hint, sync }).await?;
        Ok(FileUpload { call })
    }

    /// Writes a whole file from memory.
    pub async fn put_file(&self, write: WriteFile, contents: Bytes) -> FileResult<u64> {
        let write = WriteFile { size_hint: Some(contents.len() as u64), ..write };
        let mut upload = self.write_file(write).await?;
        upload.send(contents).await?;
        upload.commit().await
    }

    /// The entries of a directory, sorted by path; symlinks are not descended into. The flag says
    /// that there were more than [`MAX_LISTED`], which only an agent of before answers: now it refuses.
    pub async fn list(&self, path: impl Into<String>, recursive: bool) -> FileResult<(Vec<Entry>, bool)> {
        self.open_list(path, recursive).await?.collect().await
    }

    /// The same as it comes. A refusal comes before the first entry.
    pub async fn open_list(&self, path: impl Into<String>, recursive: bool) -> FileResult<Listing<Entry>> {
        let path = path.into();
        let call = self.work_call("list", &Request::List { path: path.clone(), recursive }).await?;
        Listing::begin(call, path).await
    }

    /// The regular files below a directory that match, sorted by path, and what matches and is none.
    pub async fn search(&self, search: Search) -> FileResult<(Vec<FoundFile>, Searched)> {
        let most = search.most_files as usize;
        let mut call = self.work_call("search", &Request::Search(search)).await?;
        let (mut files, mut bytes) = (Vec::<FoundFile>::new(), 0);
        loop {
            match call.reply().await? {
                Reply::Found(batch) if !batch.is_empty() && files.len() + batch.len() <= most => {
                    for file in batch {
                        bytes += file.path.len();
                        // In order, so that none is there twice.
                        let is_next = files.last().is_none_or(|last| last.path < file.path);
                        if !is_next || !is_beneath(&file.path) || bytes > MAX_LISTED_BYTES {
                            return Err(call.violation("a found file that is none"));
                        }
                        files.push(FoundFile { mode: file.mode & 0o7777, ..file });
                    }
                }
                Reply::Searched(end) => return Ok((files, sane_end(end))),
                other => return Err(call.unexpected(&other)),
            }
        }
    }

    /// Opens a file that [`search`](Self::search) found for reading, at most so many bytes of it.
    pub async fn read_beneath(
        &self,
        directory: impl Into<String>,
        path: impl Into<String>,
        limit: u64,
    ) -> FileResult<FileDownload> {
        let (directory, path) = (directory.into(), path.into());
        self.open_file(&Request::ReadBeneath { directory, path, limit }).await
    }

    pub async fn stat(&self, path: impl Into<String>) -> FileResult<Entry> {
        let mut call = self.call("stat", &Request::Stat { path: path.into() }).await?;
        match call.reply().await? {
            Reply::File(entry) if is_file(&entry) => Ok(entry),
            other => Err(call.unexpected(&other)),
        }
    }

    /// Removes a file, a symlink, or (`recursive`) a directory with all that is in it.
    pub async fn delete(&self, path: impl Into<String>, recursive: bool) -> FileResult<()> {
        self.work_call("delete", &Request::Delete { path: path.into(), recursive }).await?.done().await
    }

    /// Renames, across file systems too; the target's parent directories are created.
    pub async fn move_path(&self, from: impl Into<String>, to: impl Into<String>) -> FileResult<()> {
        self.work_call("move", &Request::Move { from: from.into(), to: to.into() }).await?.done().await
    }

    pub async fn chmod(&self, path: impl Into<String>, mode: u32) -> FileResult<()> {
        self.call("chmod", &Request::Chmod { path: path.into(), mode }).await?.done().await
    }

    /// Absolute paths that match, sorted; the flag is that of [`list`](Self::list).
    pub async fn glob(&self, pattern: impl Into<String>) -> FileResult<(Vec<String>, bool)> {
        self.open_glob(pattern).await?.collect().await
    }

    /// The same as it comes. A refusal comes before the first path.
    pub async fn open_glob(&self, pattern: impl Into<String>) -> FileResult<Listing<String>> {
        let pattern = pattern.into();
        let call = self.work_call("glob", &Request::Glob { pattern: pattern.clone() }).await?;
        Listing::begin(call, pattern).await
    }

    /// Creates a directory and its parents; one that exists is fine.
    pub async fn mkdir(&self, path: impl Into<String>, mode: u32) -> FileResult<()> {
        self.call("mkdir", &Request::Mkdir { path: path.into(), mode }).await?.done().await
    }
}

/// Entries or paths on their way out of the sandbox.
pub struct Listing<T> {
    call: Call,
    /// The directory or pattern.
    asked: String,
    first: Option<Vec<T>>,
    count: usize,
    /// Of paths.
    bytes: usize,
    /// Set at the end: whether there was more.
    over: Option<bool>,
}

/// What a listing is made of.
pub trait Listed: Sized {
    /// The items of a message that has some.
    fn of(reply: Reply) -> Result<Vec<Self>, Reply>;
    /// How long its path is, in bytes; nothing for what cannot be in the answer to this.
    fn length(&self, asked: &str) -> Option<usize>;
}

impl Listed for Entry {
    fn of(reply: Reply) -> Result<Vec<Self>, Reply> {
        if let Reply::Entries(entries) = reply { Ok(entries) } else { Err(reply) }
    }

    fn length(&self, asked: &str) -> Option<usize> {
        is_entry(self, asked).then_some(self.path.len())
    }
}

impl Listed for String {
    fn of(reply: Reply) -> Result<Vec<Self>, Reply> {
        if let Reply::Paths(paths) = reply { Ok(paths) } else { Err(reply) }
    }

    fn length(&self, _: &str) -> Option<usize> {
        is_match(self).then_some(self.len())
    }
}

impl<T: Listed> Listing<T> {
    async fn begin(call: Call, asked: String) -> FileResult<Self> {
        let mut listing = Self { call, asked, first: None, count: 0, bytes: 0, over: None };
        listing.first = listing.receive().await?;
        Ok(listing)
    }

    /// The next items; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> FileResult<Option<Vec<T>>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None if self.over.is_some() => Ok(None),
            None => self.receive().await,
        }
    }

    /// Whether there was more than was sent; known at the end.
    pub fn is_truncated(&self) -> bool {
        self.over.unwrap_or(false)
    }

    async fn receive(&mut self) -> FileResult<Option<Vec<T>>> {
        let reply = self.call.reply().await?;
        if let Reply::Listed { truncated } = reply {
            self.over = Some(truncated);
            return Ok(None);
        }
        let batch = T::of(reply).map_err(|other| self.call.unexpected(&other))?;
        if batch.is_empty() {
            return Err(self.call.violation("an empty part of a listing"));
        }
        for item in &batch {
            let length = item.length(&self.asked);
            self.bytes += length.ok_or_else(|| self.call.violation("a name that is none"))?;
        }
        self.count += batch.len();
        // Paths are counted here as they are shown, which is longer where they are no UTF-8, and with what is above them.
        if self.count > MAX_LISTED || self.bytes > 3 * MAX_LISTED_BYTES {
            return Err(self.call.violation("a listing without an end"));
        }
        Ok(Some(batch))
    }

    async fn collect(mut self) -> FileResult<(Vec<T>, bool)> {
        let mut items = Vec::new();
        while let Some(batch) = self.next().await? {
            items.extend(batch);
        }
        Ok((items, self.is_truncated()))
    }
}

/// A file on its way out of the sandbox.
pub struct FileDownload {
    /// The file as it was when opened.
    pub entry: Entry,
    call: Call,
    over: bool,
}

impl FileDownload {
    /// The next bytes; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> FileResult<Option<Bytes>> {
        if self.over {
            return Ok(None);
        }
        match self.call.reply().await? {
            Reply::Chunk { bytes } if !bytes.is_empty() && bytes.len() <= MAX_CHUNK => Ok(Some(bytes)),
            Reply::Done => {
                self.over = true;
                Ok(None)
            }
            other => Err(self.call.unexpected(&other)),
        }
    }

    pub fn into_stream(self) -> impl FuturesStream<Item = FileResult<Bytes>> + Send {
        futures::stream::try_unfold(self, |mut download| async move {
            Ok(download.next().await?.map(|bytes| (bytes, download)))
        })
    }

    /// All of it in memory, if it is at most `limit` bytes; `None` if it is longer.
    pub async fn collect(mut self, limit: usize) -> FileResult<Option<Vec<u8>>> {
        let mut contents = Vec::new();
        while let Some(bytes) = self.next().await? {
            if contents.len() + bytes.len() > limit {
                return Ok(None);
            }
            contents.extend_from_slice(&bytes);
        }
        Ok(Some(contents))
    }
}

/// A file on its way into the sandbox. Dropping it leaves what was there before.
pub struct FileUpload {
    call: Call,
}

impl FileUpload {
    /// Sends the next bytes, any amount.
    pub async fn send(&mut self, mut bytes: Bytes) -> FileResult<()> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(MAX_CHUNK));
            if let Err(error) = self.call.send(&Input::Chunk { bytes: chunk }).await {
                return Err(self.reason(error).await);
            }
        }
        Ok(())
    }

    /// Puts the file in place and answers its size.
    pub async fn commit(mut self) -> FileResult<u64> {
        if let Err(error) = self.call.send(&Input::Commit).await {
            return Err(self.reason(error).await);
        }
        self.call.allow(WORK);
        match self.call.reply().await? {
            Reply::Written { size } => Ok(size),
            other => Err(self.call.unexpected(&other)),
        }
    }

    /// An agent that refuses an upload stops reading: its reason is worth more than the failed write.
    async fn reason(&mut self, error: SendError) -> CallError<FileRefusal> {
        let operation = self.call.operation;
        match error {
            SendError::Silent(after) => CallError::Silent { operation, after },
            SendError::Frame(error) => match self.call.reply::<FileRefusal>().await {
                Err(refused @ CallError::Refused(_)) => refused,
                _ => CallError::from_frame(operation, error),
            },
        }
    }
}
