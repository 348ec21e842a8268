use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;

use super::confine::{Confinement, Outside};
use super::{BubblewrapConfig, RootfsSource, ids};
use crate::provider::{CreateError, PullCause, Source};
use crate::providers::image::ImageConfig;
use crate::providers::remover::{Removed, Remover};

/// How long removing what was half unpacked may take.
const PARTIAL_REMOVAL: Duration = Duration::from_secs(60);

/// What a box is made from.
pub(super) struct Image {
    /// Its root file system.
    pub(super) root: PathBuf,
    pub(super) config: ImageConfig,
}

/// Root file systems, unpacked once.
#[derive(Default)]
pub(super) struct Images {
    /// One unpacking at a time for each directory.
    unpacking: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// The directory with the image's root file system, unpacked if it was not yet, and what the image says about
    /// itself.
    pub(super) async fn rootfs(
        &self,
        config: &BubblewrapConfig,
        outside: Option<&Outside>,
        image: &str,
    ) -> Result<Image, CreateError> {
        let failed = |error: io::Error| CreateError::here(error);
        let not_found = |source: Option<Source>| {
            let (image, cause) = (image.to_owned(), PullCause::NotHere);
            CreateError::ImageNotFound { image, cause, source }
        };
        match config.images.get(&with_tag(image)) {
            None => Err(not_found(None)),
            Some(RootfsSource::Directory(directory)) => match std::fs::metadata(directory) {
                Ok(metadata) if metadata.is_dir() => {
                    let config = ImageConfig::beside(directory).map_err(failed)?;
                    Ok(Image { root: directory.clone(), config })
                }
                Ok(_) => Err(not_found(Some("what is configured is no directory".into()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found(Some(error.into()))),
                Err(error) => Err(CreateError::here(error)),
            },
            Some(RootfsSource::Tar(tar)) => {
                let file = File::open(tar).map_err(|error| {
                    let missing = error.kind() == io::ErrorKind::NotFound;
                    if missing { not_found(Some(error.into())) } else { CreateError::here(error) }
                })?;
                let said = ImageConfig::beside(tar).map_err(failed)?;
                let directory = config.image_dir.join(key(tar, &file, outside).map_err(failed)?);
                self.unpack_once(&directory, file, outside, &Remover::new(&config.agent_path))
                    .await
                    .map_err(failed)?;
                Ok(Image { root: directory, config: said })
            }
        }
    }

    async fn unpack_once(
        &self,
        directory: &Path,
        tar: File,
        outside: Option<&Outside>,
        remover: &Remover,
    ) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        let lock = {
            let mut unpacking = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(unpacking.entry(directory.to_owned()).or_default())
        };
        let _one = lock.lock().await;
        if directory.is_dir() {
            return Ok(());
        }
        // Another process may be at it too: each has a directory of its own, and the first to finish wins.
        let partial = directory.with_extension(format!("partial-{}", uuid::Uuid::now_v7().simple()));
        let outcome =
            unpack(&partial, tar, outside).await.and_then(|()| match std::fs::rename(&partial, directory) {
                Err(_) if directory.is_dir() => Ok(()),
                outcome => outcome,
            });
        if partial.exists() {
            // An image is somebody's too. What stays half unpacked is of no use, and in nobody's way.
            let removed = remover.remove(&partial, PARTIAL_REMOVAL).await;
            if let Removed::Stays(error) = removed {
                tracing::warn!(path = %partial.display(), error = %error, "what was unpacked was not removed");
            }
        }
        outcome
    }
}

/// Unpacks as the root of the boxes' users, so that each file gets the owner that it has in the archive. Where there is
/// only one user, all of it is its.
async fn unpack(directory: &Path, tar: File, outside: Option<&Outside>) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut confinement = Confinement::inside(outside)?;
    if let Some(outside) = outside {
        outside.give(directory)?;
    }
    let target = confinement.bind(directory, "image")?;
    let owner: &[&str] =
        if outside.is_some() { &["--same-owner", "--numeric-owner"] } else { &["--no-same-owner"] };
    let mut command = Command::new("tar");
    command
        .args(["--extract", "--file=-", "--preserve-permissions", "--delay-directory-restore"])
        .args(owner)
        // Devices cannot be made without privileges, and a box gets its own.
        .args(["--exclude=./dev/*", "--exclude=dev/*", "--directory"])
        .arg(target)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::from(tar))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    confinement.apply(&mut command);
    let output = command.spawn()?.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("tar: {}: {}", output.status, said.lines().next().unwrap_or_default())))
}

/// Names what was unpacked: another file, another owner, another directory.
fn key(path: &Path, tar: &File, outside: Option<&Outside>) -> io::Result<String> {
    let metadata = tar.metadata()?;
    let mut hasher = DefaultHasher::new();
    (
        path,
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino(),
        outside.map(|outside| (outside.uid, outside.gid, ids::COUNT)),
    )
        .hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}
