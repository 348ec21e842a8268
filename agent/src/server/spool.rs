use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

/// Writes up to this size are gathered, so that byte-wise output does not cost an entry a byte.
const SMALL: usize = 8 * 1024;
const GATHERED: usize = 16 * 1024;

/// Files this large are cut short when they are empty, so that others have the room.
const LARGE_FILE: u64 = 1024 * 1024;

#[derive(Clone)]
pub struct Limits {
    pub memory_bytes: usize,
    pub file_bytes: u64,
    /// What all files of the agent may still take together.
    pub room: Rc<Room>,
}

/// Bytes on the disk that are left for spools, whoever takes them.
pub struct Room(Cell<u64>);

impl Room {
    pub fn new(bytes: u64) -> Rc<Self> {
        Rc::new(Self(Cell::new(bytes)))
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let left = self.0.get().checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        self.0.set(left);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.0.set(self.0.get().saturating_add(bytes));
    }
}

/// The unacked bytes of one stream: the first in memory, what does not fit there in an unlinked file
/// that is written round and round.
pub struct Spool {
    /// In stream order, without gaps.
    chunks: VecDeque<Chunk>,
    /// First byte still held.
    base: u64,
    /// One past the last byte.
    end: u64,
    in_memory: usize,
    ring: Option<Ring>,
    /// Set when the file cannot take more (disk full, run directory not writable) until memory has room.
    ring_failed: bool,
    /// The newest bytes if they went to the file: whoever is attached gets them without reading it.
    tail: Option<(u64, Bytes)>,
}

enum Chunk {
    Gathered { start: u64, bytes: BytesMut },
    Whole { start: u64, bytes: Bytes },
    Filed { start: u64, len: u64, at: u64 },
}

impl Chunk {
    fn start(&self) -> u64 {
        match self {
            Self::Gathered { start, .. } | Self::Whole { start, .. } | Self::Filed { start, .. } => *start,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Gathered { bytes, .. } => bytes.len() as u64,
            Self::Whole { bytes, .. } => bytes.len() as u64,
            Self::Filed { len, .. } => *len,
        }
    }

    fn end(&self) -> u64 {
        self.start() + self.len()
    }
}

impl Spool {
    pub fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            base: 0,
            end: 0,
            in_memory: 0,
            ring: None,
            ring_failed: false,
            tail: None,
        }
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn is_empty(&self) -> bool {
        self.base == self.end
    }

    /// Whether one more read may be pushed.
    pub fn has_room(&self, limits: &Limits) -> bool {
        if self.in_memory < limits.memory_bytes {
            return true;
        }
        let filed = self.ring.as_ref().map_or(0, |ring| ring.used());
        !self.ring_failed && filed < limits.file_bytes
    }

    /// Keeps bytes. Never loses any: what the file refuses stays in memory, and there is no room then.
    pub fn push(&mut self, bytes: &[u8], limits: &Limits, directory: &Path) {
        if self.in_memory + bytes.len() <= limits.memory_bytes {
            self.ring_failed = false;
            self.keep_in_memory(bytes);
        } else if self.file(bytes, limits, directory).is_ok() {
            self.tail = Some((self.end, Bytes::copy_from_slice(bytes)));
        } else {
            self.ring_failed = self.in_memory > 0;
            self.keep_in_memory(bytes);
        }
        self.end += bytes.len() as u64;
    }

    fn keep_in_memory(&mut self, bytes: &[u8]) {
        self.tail = None;
        self.in_memory += bytes.len();
        if bytes.len() > SMALL {
            self.chunks.push_back(Chunk::Whole { start: self.end, bytes: Bytes::copy_from_slice(bytes) });
        } else if let Some(Chunk::Gathered { bytes: gathered, .. }) = self.chunks.back_mut()
            && gathered.len() + bytes.len() <= GATHERED
        {
            gathered.extend_from_slice(bytes);
        } else {
            self.chunks.push_back(Chunk::Gathered { start: self.end, bytes: BytesMut::from(bytes) });
        }
    }

    fn file(&mut self, bytes: &[u8], limits: &Limits, directory: &Path) -> io::Result<()> {
        let ring = match &mut self.ring {
            Some(ring) => ring,
            none => none.insert(Ring::create(directory, limits)?),
        };
        let at = ring.append(bytes)?;
        let len = bytes.len() as u64;
        match self.chunks.back_mut() {
            Some(Chunk::Filed { len: filed, .. }) => *filed += len,
            Some(Chunk::Gathered { .. } | Chunk::Whole { .. }) | None => {
                self.chunks.push_back(Chunk::Filed { start: self.end, len, at });
            }
        }
        Ok(())
    }

    /// Bytes from `offset` on, at most `most`; `None` at the end. The offset is not below the base.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Option<Bytes>> {
        if let Some((start, bytes)) = &self.tail
            && let Some(skip) = offset.checked_sub(*start).and_then(|skip| usize::try_from(skip).ok())
            && skip < bytes.len()
        {
            return Ok(Some(bytes.slice(skip..bytes.len().min(skip.saturating_add(most)))));
        }
        let index = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        let Some(chunk) = self.chunks.get(index) else {
            return Ok(None);
        };
        let skip = offset.saturating_sub(chunk.start());
        let count = usize::try_from(chunk.len() - skip).unwrap_or(usize::MAX).min(most);
        let from = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(Some(match chunk {
            Chunk::Gathered { bytes, .. } => Bytes::copy_from_slice(&bytes[from..from + count]),
            Chunk::Whole { bytes, .. } => bytes.slice(from..from + count),
            Chunk::Filed { at, .. } => match &self.ring {
                Some(ring) => ring.read(at + skip, count)?,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }))
    }

    /// Forgets everything below `offset`.
    pub fn release(&mut self, offset: u64) {
        let offset = offset.min(self.end);
        if offset <= self.base {
            return;
        }
        self.base = offset;
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.end() <= offset {
                match self.chunks.pop_front() {
                    Some(Chunk::Gathered { bytes, .. }) => self.in_memory -= bytes.len(),
                    Some(Chunk::Whole { bytes, .. }) => self.in_memory -= bytes.len(),
                    Some(Chunk::Filed { at, len, .. }) => self.release_ring(at + len),
                    None => {}
                }
                continue;
            }
            if let Chunk::Filed { start, len, at } = chunk
                && let Some(cut) = offset.checked_sub(*start)
            {
                (*start, *len, *at) = (*start + cut, *len - cut, *at + cut);
                let at = *at;
                self.release_ring(at);
            }
            break;
        }
        if self.is_empty() {
            self.tail = None;
            self.ring_failed = false;
            self.chunks.shrink_to_fit();
        }
    }

    fn release_ring(&mut self, to: u64) {
        if let Some(ring) = &mut self.ring {
            ring.release(to);
        }
    }
}

/// A file used as a ring. Positions count on for ever; the place in the file is the remainder.
struct Ring {
    file: File,
    capacity: u64,
    first: u64,
    next: u64,
    /// How far it was ever written, and what of the room it has taken.
    extent: u64,
    room: Rc<Room>,
}

impl Ring {
    fn create(directory: &Path, limits: &Limits) -> io::Result<Self> {
        let capacity = limits.file_bytes;
        if capacity == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Unlinked from the start: gone with the agent, however that ends.
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        let unnamed = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).unwrap_or(0);
        let file = options.clone().custom_flags(unnamed).open(directory).or_else(|_| {
            let path = directory.join(format!(".spool-{:016x}", random()));
            let file = options.create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok::<_, io::Error>(file)
        })?;
        Ok(Self { file, capacity, first: 0, next: 0, extent: 0, room: Rc::clone(&limits.room) })
    }

    fn used(&self) -> u64 {
        self.next - self.first
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.used() == 0 {
            // Back to the front: a stream that is acked in time stays within a few warm pages.
            (self.first, self.next) = (0, 0);
            self.shrink();
        }
        if self.used() + bytes.len() as u64 > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let at = self.next;
        self.extend((at + bytes.len() as u64).min(self.capacity))?;
        let (head, tail) = bytes.split_at(self.until_wrap(at, bytes.len()));
        self.file.write_all_at(head, at % self.capacity)?;
        self.file.write_all_at(tail, 0)?;
        self.next += bytes.len() as u64;
        Ok(at)
    }

    fn read(&self, at: u64, count: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; count];
        let (head, tail) = bytes.split_at_mut(self.until_wrap(at, count));
        self.file.read_exact_at(head, at % self.capacity)?;
        self.file.read_exact_at(tail, 0)?;
        Ok(bytes.into())
    }

    fn release(&mut self, to: u64) {
        self.first = to;
        if self.used() == 0 {
            self.shrink();
        }
    }

    fn extend(&mut self, to: u64) -> io::Result<()> {
        if let Some(more) = to.checked_sub(self.extent) {
            self.room.take(more)?;
            self.extent = to;
        }
        Ok(())
    }

    /// Of an empty file nothing is needed any more.
    fn shrink(&mut self) {
        if self.extent > LARGE_FILE && self.file.set_len(0).is_ok() {
            self.room.give_back(self.extent);
            self.extent = 0;
        }
    }

    fn until_wrap(&self, at: u64, count: usize) -> usize {
        usize::try_from(self.capacity - at % self.capacity).unwrap_or(usize::MAX).min(count)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.room.give_back(self.extent);
    }
}

/// For names only.
pub fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // The one failure is a kernel without getrandom; a name that exists is refused by create_new.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
