use std::io;

use bytes::Bytes;
use events::{Event, EventData, Frame, Position, SandboxEvent, SandboxId};
use record::{AppendBody, BodyStream, DATA_KEY, DataKey, DataKeyChange, Encoding, KeyFate, StoredBody};
use secrets::{MasterKey, SealError, encrypt, random};

use super::cache::Cache;
use super::numberer::Incoming;

/// Fewer bytes are not worth compressing.
const MIN_COMPRESSED: usize = 256;
/// What is mostly noise is found out by looking at so many bytes of it.
const SAMPLE: usize = 4 << 10;
/// The quickest level: the recorder is the one place that all output goes through.
const LEVEL: i32 = 1;
/// Sandboxes whose keys stay in memory between batches.
const CACHED_KEYS: usize = 2_000;

/// Why a body could not be brought into the form in which it is kept.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It could not be compressed, or the system had no random bytes for a key.
    #[error("cannot encode a body")]
    Io(#[from] io::Error),
    /// The key that it must be sealed under cannot be opened.
    #[error("the key of a sandbox cannot be opened")]
    Key(#[from] SealError),
    /// The key that it must be sealed under is sealed itself, and there is no master key.
    #[error("the output of a sandbox is kept under a key, and there is no master key")]
    NoMasterKey,
}

/// Brings bodies into the form in which they are kept. It is shown every event that is recorded, in order.
pub trait Encode {
    /// The body of a numbered event, if it has one.
    fn encode(&mut self, event: &Event, frame: &Frame) -> Result<Option<AppendBody>, EncodeError>;

    /// The keys that were made and destroyed for what was encoded since the last time.
    fn key_changes(&mut self) -> Vec<DataKeyChange>;
}

/// Compresses what becomes smaller by it, and seals what has a key.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    sealing: Sealing,
    keys: Cache<SandboxId, Key>,
    changes: Vec<DataKeyChange>,
}

/// What is sealed.
#[derive(Debug, Clone, Default)]
pub struct Sealing {
    /// Whether sandboxes get a key with their first body.
    pub enabled: bool,
    /// What keys are sealed under.
    pub master_key: Option<MasterKey>,
}

enum Key {
    None,
    Open([u8; 32]),
    Destroyed,
}

impl Encoder {
    /// An encoder that only compresses.
    pub fn new() -> Result<Self, EncodeError> {
        Self::with(Sealing::default())
    }

    /// An encoder.
    pub fn with(sealing: Sealing) -> Result<Self, EncodeError> {
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            sealing,
            keys: Cache::new(CACHED_KEYS),
            changes: Vec::new(),
        })
    }

    /// The sandboxes whose keys must be known before these events can be encoded.
    pub fn missing(&mut self, incoming: &[Incoming]) -> Vec<SandboxId> {
        self.keys.trim();
        let mut missing: Vec<SandboxId> = incoming
            .iter()
            .filter(|incoming| BodyStream::of(&incoming.event.data).is_some())
            .filter_map(|incoming| incoming.event.sandbox)
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing.retain(|sandbox| !self.keys.contains(sandbox));
        missing
    }

    /// Takes in what was missing.
    pub fn learn(&mut self, missing: &[SandboxId], known: Vec<DataKey>) -> Result<(), EncodeError> {
        for sandbox in missing {
            self.keys.insert(*sandbox, Key::None);
        }
        for DataKey { sandbox, sealed } in known {
            let key = match sealed {
                None => Key::Destroyed,
                Some(sealed) => {
                    let master = self.sealing.master_key.as_ref().ok_or(EncodeError::NoMasterKey)?;
                    let key = master.open(DATA_KEY, &sandbox.as_bytes()[..], &sealed)?;
                    Key::Open(key.try_into().map_err(|_| SealError)?)
                }
            };
            self.keys.insert(sandbox, key);
        }
        Ok(())
    }

    fn compress(&mut self, body: &Bytes) -> Result<StoredBody, EncodeError> {
        let raw = || StoredBody { encoding: Encoding::Raw, bytes: body.clone() };
        if body.len() < MIN_COMPRESSED {
            return Ok(raw());
        }
        if body.len() > 2 * SAMPLE && !pays(SAMPLE, self.compressor.compress(&body[..SAMPLE])?.len()) {
            return Ok(raw());
        }
        let compressed = self.compressor.compress(body)?;
        if !pays(body.len(), compressed.len()) {
            return Ok(raw());
        }
        Ok(StoredBody { encoding: Encoding::Zstd, bytes: compressed.into() })
    }

    /// Makes a key for a sandbox that has none, where that is wanted.
    fn make_key(&mut self, event: &Event, sandbox: SandboxId) -> Result<(), EncodeError> {
        if !self.sealing.enabled || !matches!(self.keys.get(&sandbox), None | Some(Key::None)) {
            return Ok(());
        }
        let master = self.sealing.master_key.as_ref().ok_or(EncodeError::NoMasterKey)?;
        let key: [u8; 32] = random()?;
        let sealed = master.seal(DATA_KEY, &sandbox.as_bytes()[..], &key)?;
        self.keys.insert(sandbox, Key::Open(key));
        self.change(event, sandbox, KeyFate::Made(sealed));
        Ok(())
    }

    fn destroy_key(&mut self, event: &Event, sandbox: SandboxId) {
        self.keys.insert(sandbox, Key::Destroyed);
        self.change(event, sandbox, KeyFate::Destroyed(event.time.timestamp_micros()));
    }

    fn change(&mut self, event: &Event, sandbox: SandboxId, fate: KeyFate) {
        // A key that was made for this batch and is destroyed in it is never written down.
        self.changes.retain(|change| change.sandbox != sandbox);
        self.changes.push(DataKeyChange { sandbox, tenant: event.tenant.clone(), fate });
    }

    /// Seals a body if its sandbox has a key. `None`: its key was destroyed.
    fn seal(
        &mut self,
        sandbox: SandboxId,
        position: Position,
        stored: StoredBody,
    ) -> Result<Option<StoredBody>, EncodeError> {
        match self.keys.get(&sandbox) {
            None | Some(Key::None) => Ok(Some(stored)),
            Some(Key::Destroyed) => Ok(None),
            Some(Key::Open(key)) => {
                let bytes = encrypt(key, &position.0.to_be_bytes(), &stored.bytes)?;
                Ok(Some(StoredBody { encoding: stored.encoding.sealed(), bytes: bytes.into() }))
            }
        }
    }
}

/// Whether at least an eighth is saved.
const fn pays(before: usize, after: usize) -> bool {
    after <= before - before / 8
}

impl Encode for Encoder {
    fn encode(&mut self, event: &Event, frame: &Frame) -> Result<Option<AppendBody>, EncodeError> {
        if let (EventData::Sandbox(SandboxEvent::Erased(_)), Some(sandbox)) = (&event.data, event.sandbox) {
            self.destroy_key(event, sandbox);
        }
        let Some(stream) = BodyStream::of(&event.data) else {
            return Ok(None);
        };
        let mut stored = Some(self.compress(&frame.body)?);
        if let (Some(sandbox), Some(plain)) = (event.sandbox, stored.take()) {
            self.make_key(event, sandbox)?;
            stored = self.seal(sandbox, frame.position, plain)?;
        }
        let hash = match &stored {
            Some(stored) => stored.hash(),
            // Of the bytes that came too late nothing is kept, not even a hash that a guess could be checked by.
            None => random()?,
        };
        Ok(Some(AppendBody { stream, length: frame.body.len() as u64, hash, stored }))
    }

    fn key_changes(&mut self) -> Vec<DataKeyChange> {
        std::mem::take(&mut self.changes)
    }
}
