use bytes::{Bytes, BytesMut};
use events::{ContentHash, ObjectPlace};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use crate::{PutError, Store, StoreError};

/// How much is sent at once, in bytes: services take no smaller parts, some want all to be of one size.
const PART: usize = 5 << 20;

/// An object on its way into a store. Nobody sees it before [`Put::finish`] has answered; dropping it leaves nothing to be seen.
pub struct Put {
    store: Store,
    place: ObjectPlace,
    most_bytes: u64,
    size: u64,
    hasher: Sha256,
    waiting: BytesMut,
    upload: Option<Upload>,
    _turns: [Option<OwnedSemaphorePermit>; 2],
}

struct Upload {
    to: Path,
    parts: Box<dyn MultipartUpload>,
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// How many bytes.
    pub size: u64,
    /// What they are.
    pub sha256: ContentHash,
}

impl Put {
    pub(crate) fn begin(
        store: Store,
        place: ObjectPlace,
        most_bytes: u64,
        turns: [Option<OwnedSemaphorePermit>; 2],
    ) -> Self {
        let (hasher, waiting) = (Sha256::new(), BytesMut::new());
        Self { store, place, most_bytes, size: 0, hasher, waiting, upload: None, _turns: turns }
    }

    /// How many bytes have come so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes. Waits until the store has taken those before them, so that no more than one part is in memory.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), PutError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.most_bytes {
            self.abort().await;
            return Err(PutError::TooLarge { limit: self.most_bytes });
        }
        self.hasher.update(&bytes);
        while !bytes.is_empty() {
            if self.waiting.len() == PART {
                self.send_part().await?;
            }
            let taken = bytes.split_to(bytes.len().min(PART - self.waiting.len()));
            self.waiting.extend_from_slice(&taken);
        }
        Ok(())
    }

    /// Puts the object in place, and answers once it is safe. What is there already is left as it is.
    pub async fn finish(mut self) -> Result<Stored, PutError> {
        let sha256 = ContentHash(std::mem::take(&mut self.hasher).finalize().into());
        let stored = Stored { size: self.size, sha256 };
        let key = self.place.key(sha256);
        if self.store.size(&key).await? == Some(self.size) {
            self.abort().await;
            return Ok(stored);
        }
        let to = self.store.path(&key);
        if self.upload.is_none() && !self.store.is_local() {
            let payload = PutPayload::from(self.waiting.split().freeze());
            self.store.inner.put(&to, payload).await.map_err(StoreError::from)?;
            return Ok(stored);
        }
        if !self.waiting.is_empty() || self.upload.is_none() {
            self.send_part().await?;
        }
        if let Some(mut upload) = self.upload.take() {
            let outcome = async {
                upload.parts.complete().await?;
                self.store.inner.rename(&upload.to, &to).await
            };
            if let Err(error) = outcome.await {
                give_up(&self.store, upload).await;
                return Err(StoreError::from(error).into());
            }
        }
        Ok(stored)
    }

    async fn send_part(&mut self) -> Result<(), PutError> {
        if self.upload.is_none() {
            let to = self.store.staging();
            let parts = self.store.inner.put_multipart(&to).await.map_err(StoreError::from)?;
            self.upload = Some(Upload { to, parts });
        }
        let part = PutPayload::from(self.waiting.split().freeze());
        let sent = match &mut self.upload {
            Some(upload) => upload.parts.put_part(part).await,
            None => Ok(()),
        };
        if let Err(error) = sent {
            self.abort().await;
            return Err(StoreError::from(error).into());
        }
        Ok(())
    }

    /// Takes back what was sent. What cannot be taken back now is swept later.
    pub async fn abort(&mut self) {
        self.waiting = BytesMut::new();
        if let Some(upload) = self.upload.take() {
            give_up(&self.store, upload).await;
        }
    }
}

async fn give_up(store: &Store, mut upload: Upload) {
    if let Err(error) = upload.parts.abort().await {
        tracing::debug!(error = %error, "an upload could not be taken back");
    }
    // It may have been put together already.
    let _ = store.inner.delete(&upload.to).await;
}

impl Drop for Put {
    /// Whoever is cancelled in the middle does not say so.
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let store = self.store.clone();
            runtime.spawn(async move { give_up(&store, upload).await });
        }
    }
}
