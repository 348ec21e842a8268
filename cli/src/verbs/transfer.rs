//! Files on their way, as streams: no file is held in memory.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use events::RequestId;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;

use super::error::VerbError;
use super::stdin::read_stdin;
use super::terminal::output_of_sandboxes;
use crate::output::{self, TransferBar};
use client::{Client, Download, FileInfo, WriteOptions};

/// How much of a local file is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Where an upload comes from.
pub struct Source {
    name: String,
    length: Option<u64>,
    mode: Option<u32>,
    bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// Where a download goes to.
pub enum Target {
    /// A file. It is there when all of it is.
    File(PathBuf),
    /// Our stdout.
    Stdout,
}

impl Source {
    /// A local file.
    pub async fn open(path: &Path) -> Result<Self, VerbError> {
        let shown = path.display();
        let failed = |source| VerbError::Local { what: format!("cannot read {shown}"), source };
        let file = File::open(path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(VerbError::Failed(format!("{shown} is a folder: copy it with -r")));
        }
        // Pipes have no length. What is appended meanwhile is not part of the copy.
        let length = metadata.is_file().then_some(metadata.len());
        let reader = file.take(length.unwrap_or(u64::MAX));
        Ok(Self {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            length,
            mode: metadata.is_file().then(|| metadata.permissions().mode() & 0o777),
            bytes: ReaderStream::with_capacity(reader, CHUNK).boxed(),
        })
    }

    /// Our stdin.
    pub fn stdin() -> Result<Self, VerbError> {
        let input = read_stdin().map_err(VerbError::local("cannot start a thread"))?;
        let bytes = stream::unfold(input, |mut input| async move { Some((input.recv().await?, input)) });
        Ok(Self { name: "stdin".to_owned(), length: None, mode: None, bytes: bytes.boxed() })
    }
}

/// Writes a file in a sandbox.
pub async fn upload(api: &Client, sandbox: &str, path: &str, source: Source) -> Result<(), VerbError> {
    let bar = TransferBar::new(&source.name, source.length);
    let counted = bar.clone();
    let bytes = source.bytes.inspect(move |bytes| counted.advance(bytes.as_ref().map_or(0, Bytes::len)));
    let options = WriteOptions { mode: source.mode, length: source.length };
    let outcome = api.upload_file(sandbox, path, options, bytes).await;
    bar.finish();
    Ok(outcome?)
}

/// Reads a file in a sandbox.
pub async fn download(
    api: &Client,
    sandbox: &str,
    path: &str,
    file: &FileInfo,
    target: Target,
) -> Result<(), VerbError> {
    let contents = api.read_file(sandbox, path).await?;
    let mode = u32::from_str_radix(&file.mode, 8).unwrap_or(0o644) & 0o777;
    // Files of /proc say that they are empty.
    save(contents, path, Some(file.size).filter(|size| *size > 0), mode, target).await
}

/// Writes what comes, which is shown by this name and has so many bytes, where that is known.
pub async fn save(
    contents: Download,
    name: &str,
    size: Option<u64>,
    mode: u32,
    target: Target,
) -> Result<(), VerbError> {
    match target {
        Target::Stdout => to_stdout(contents).await,
        Target::File(local) => {
            let bar = TransferBar::new(name, size);
            let outcome = to_file(contents, &local, mode, &bar).await;
            bar.finish();
            outcome
        }
    }
}

async fn to_stdout(mut contents: Download) -> Result<(), VerbError> {
    let out = output_of_sandboxes(false).map_err(VerbError::local("cannot start a thread"))?;
    while let Some(bytes) = contents.chunk().await? {
        out.write(output::Target::Stdout, bytes).await.map_err(VerbError::output)?;
    }
    out.flush().await.map_err(VerbError::output)
}

async fn to_file(
    mut contents: Download,
    local: &Path,
    mode: u32,
    bar: &TransferBar,
) -> Result<(), VerbError> {
    let failed = |source| VerbError::Local { what: format!("cannot write {}", local.display()), source };
    let mut partial = Partial::create(local, mode).await.map_err(failed)?;
    while let Some(bytes) = contents.chunk().await? {
        partial.file.write_all(&bytes).await.map_err(failed)?;
        bar.advance(bytes.len());
    }
    partial.complete().await.map_err(failed)
}

/// A file that is not whole yet, beside the one that it will be. Dropped before that, it goes.
struct Partial {
    file: File,
    /// Where it is, and where it shall be; none for devices and pipes, which are written to as they are.
    places: Option<(PathBuf, PathBuf)>,
}

impl Partial {
    async fn create(local: &Path, mode: u32) -> io::Result<Self> {
        // Through a symbolic link: the file is replaced, not the link.
        let target = tokio::fs::canonicalize(local).await.unwrap_or_else(|_| local.to_owned());
        let known = tokio::fs::metadata(&target).await.ok();
        if known.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let file = OpenOptions::new().write(true).open(&target).await?;
            return Ok(Self { file, places: None });
        }
        target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        // Of a length of its own: a name may be as long as a name can be.
        let partial = target.with_file_name(format!(".stacyvm-{}", RequestId::new()));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial).await?;
        let new = Self { file, places: Some((partial, target)) };
        if let Some(metadata) = known {
            // A file that was there keeps its permissions, as with cp.
            new.file.set_permissions(Permissions::from_mode(metadata.permissions().mode() & 0o777)).await?;
        }
        Ok(new)
    }

    async fn complete(mut self) -> io::Result<()> {
        self.file.flush().await?;
        if let Some((partial, target)) = self.places.take()
            && let Err(error) = tokio::fs::rename(&partial, target).await
        {
            let _ = tokio::fs::remove_file(partial).await;
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.places {
            let _ = std::fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn a_file_is_there_when_all_of_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        let mut partial = Partial::create(&path, 0o750).await.unwrap();
        partial.file.write_all(b"half").await.unwrap();
        assert!(!path.exists());
        partial.complete().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"half");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o700, 0o700);
        assert_eq!(names(folder.path()), ["result"]);
    }

    #[tokio::test]
    async fn the_name_may_be_as_long_as_a_name_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        let partial = Partial::create(&path, 0o644).await.unwrap();
        partial.complete().await.unwrap();
        assert_eq!(names(folder.path()), ["n".repeat(255)]);
    }

    #[tokio::test]
    async fn half_a_file_goes_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        std::fs::write(&path, "old").unwrap();
        let mut partial = Partial::create(&path, 0o644).await.unwrap();
        partial.file.write_all(b"half").await.unwrap();
        drop(partial);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["result"]);
    }

    #[tokio::test]
    async fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut partial = Partial::create(&link, 0o755).await.unwrap();
        partial.file.write_all(b"new").await.unwrap();
        partial.complete().await.unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_source_knows_its_length_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        std::fs::write(&path, "12345").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let source = Source::open(&path).await.unwrap();
        assert_eq!((source.length, source.mode, source.name.as_str()), (Some(5), Some(0o755), "tool"));
        assert!(matches!(Source::open(folder.path()).await, Err(VerbError::Failed(_))));
        assert!(matches!(Source::open(&folder.path().join("none")).await, Err(VerbError::Local { .. })));
    }
}
