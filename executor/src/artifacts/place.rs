use agent::client::{CallError, Client, WriteFile};
use agent::protocol::FileRefusal;
use events::ObjectPlace;
use futures::TryStreamExt;
use objects::{ReadError, Store};

use super::Artifact;

/// Why an artifact is not in the sandbox. Nothing of it is to be seen there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The artifact cannot be read from the store.
    #[error("{path} cannot be read from the store of objects")]
    Read {
        /// Which artifact.
        path: String,
        #[source]
        source: ReadError,
    },
    /// The sandbox does not take it.
    #[error("{path} cannot be written in the sandbox")]
    Write {
        /// Which artifact.
        path: String,
        #[source]
        source: CallError<FileRefusal>,
    },
}

/// Puts artifacts into a sandbox, below a directory there, each with its path and its mode. A file appears as a whole, with the bytes that
/// its hash says, or not at all.
pub async fn place(
    agent: &Client,
    store: &Store,
    from: &ObjectPlace,
    artifacts: &[Artifact],
    directory: &str,
) -> Result<(), PlaceError> {
    for artifact in artifacts {
        let path = || artifact.path.clone();
        let unread = |source| PlaceError::Read { path: path(), source };
        let unwritten = |source| PlaceError::Write { path: path(), source };
        let mut object = store.get(&from.key(artifact.object.sha256), None).await.map_err(unread)?;
        let to = std::path::Path::new(directory).join(&artifact.path).to_string_lossy().into_owned();
        let write = WriteFile { mode: artifact.mode, size_hint: Some(object.size), ..WriteFile::new(to) };
        let mut upload = agent.write_file(write).await.map_err(unwritten)?;
        while let Some(bytes) = object.contents.try_next().await.map_err(unread)? {
            upload.send(bytes).await.map_err(unwritten)?;
        }
        upload.commit().await.map_err(unwritten)?;
    }
    Ok(())
}
