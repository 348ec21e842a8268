//! Opens bodies that were read: takes them out of their seal and out of their compression.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use events::{Gone, Position, SandboxId};
use record::{DATA_KEY, DataKey, Encoding, StoreError, StoredBody};
use secrets::{MasterKey, decrypt};

use super::asking::Cells;
use super::events::{ID_CHUNKS, sandbox_id};
use super::sql::{Dialect, SqlStore, damaged, failed, pieces};
use super::statement::{Statement, Value};

const OPERATION: &str = "read a body";

/// A body as it was read.
pub(super) struct Kept {
    pub position: Position,
    pub sandbox: Option<SandboxId>,
    /// How many bytes it had when it was recorded.
    pub length: u64,
    /// What is there of it.
    pub stored: Option<StoredBody>,
}

impl<DB: Dialect> SqlStore<DB> {
    /// The bytes of each body, or why they are gone. Keys are looked up every time: what is erased is gone at once, for
    /// everybody.
    pub(super) async fn open_bodies(&self, kept: Vec<Kept>) -> Result<Vec<Result<Bytes, Gone>>, StoreError> {
        let needs_key = |body: &Kept| {
            body.length > 0 && body.stored.as_ref().is_none_or(|stored| stored.encoding.is_sealed())
        };
        let sandboxes: BTreeSet<SandboxId> =
            kept.iter().filter(|body| needs_key(body)).filter_map(|body| body.sandbox).collect();
        let mut keys: HashMap<SandboxId, Option<[u8; 32]>> = HashMap::new();
        if !sandboxes.is_empty() {
            let sandboxes: Vec<SandboxId> = sandboxes.into_iter().collect();
            for key in self.find_data_keys(&sandboxes).await? {
                let open = |sealed: Bytes| open_key(self.master_key.as_ref(), key.sandbox, &sealed);
                keys.insert(key.sandbox, key.sealed.map(open).transpose()?);
            }
        }
        kept.into_iter()
            .map(|body| {
                if body.length == 0 {
                    return Ok(Ok(Bytes::new()));
                }
                let key = body.sandbox.and_then(|sandbox| keys.get(&sandbox));
                let Some(stored) = body.stored else {
                    let erased = matches!(key, Some(None));
                    return Ok(Err(if erased { Gone::Erased } else { Gone::Expired }));
                };
                if !stored.encoding.is_sealed() {
                    return plain(stored.encoding, stored.bytes, body.length).map(Ok);
                }
                match key {
                    Some(Some(key)) => {
                        let opened = decrypt(key, &body.position.0.to_be_bytes(), &stored.bytes)
                            .map_err(|error| damaged(OPERATION, error))?;
                        plain(stored.encoding, opened.into(), body.length).map(Ok)
                    }
                    Some(None) => Ok(Err(Gone::Erased)),
                    None => Err(damaged(OPERATION, "the key that it is sealed under is missing")),
                }
            })
            .collect()
    }

    /// See [`record::DataKeys::of`].
    pub(super) async fn find_data_keys(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError> {
        const OPERATION: &str = "read keys";
        let failed = failed::<DB>(OPERATION);
        let mut keys = Vec::new();
        for piece in pieces(sandboxes.len(), &ID_CHUNKS) {
            let mut wanted = Statement::new("SELECT sandbox, sealed_key FROM data_keys WHERE TRUE", []);
            wanted.and_one_of("sandbox", sandboxes[piece].iter().map(|id| Value::Bytes(id.as_bytes())));
            for row in self.all(OPERATION, wanted).await? {
                let sealed = row.maybe_bytes(1).map_err(&failed)?;
                keys.push(DataKey {
                    sandbox: sandbox_id(row.bytes(0).map_err(&failed)?)?,
                    sealed: sealed.map(|sealed| sealed.to_vec().into()),
                });
            }
        }
        Ok(keys)
    }
}

/// Opens the key of a sandbox.
fn open_key(
    master_key: Option<&MasterKey>,
    sandbox: SandboxId,
    sealed: &[u8],
) -> Result<[u8; 32], StoreError> {
    let Some(master_key) = master_key else {
        return Err(damaged(OPERATION, "it is sealed, and this process has no master key"));
    };
    let key = master_key
        .open(DATA_KEY, &sandbox.as_bytes()[..], sealed)
        .map_err(|error| damaged(OPERATION, error))?;
    key.try_into().map_err(|_| damaged(OPERATION, "a key is not 32 bytes long"))
}

fn plain(encoding: Encoding, bytes: Bytes, length: u64) -> Result<Bytes, StoreError> {
    match encoding {
        Encoding::Raw | Encoding::SealedRaw => Ok(bytes),
        Encoding::Zstd | Encoding::SealedZstd => {
            let length = usize::try_from(length).map_err(|error| damaged(OPERATION, error))?;
            decompress(&bytes, length).map(Bytes::from).map_err(|error| damaged(OPERATION, error))
        }
    }
}

/// The bytes of a zstd frame that holds `length` bytes.
fn decompress(frame: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
    let plain = zstd::bulk::decompress(frame, length)?;
    if plain.len() == length {
        Ok(plain)
    } else {
        Err(std::io::Error::other("a compressed body does not have the length that it should have"))
    }
}
