//! What is kept is what was pushed, whatever is released, wherever it is kept, and whatever the disk does.

use fastrand::Rng;

use super::*;

/// What a read of a process's output may bring at once.
const MOST: usize = 40_000;

/// The byte at a place of the stream.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

struct Tried {
    spool: Spool,
    limits: Limits,
}

impl Tried {
    fn push(&mut self, length: usize, directory: &Path) {
        let from = self.spool.end();
        let bytes: Vec<u8> = (from..from + length as u64).map(byte).collect();
        self.spool.push(&bytes, &self.limits, directory);
        assert_eq!(self.spool.end(), from + length as u64, "nothing is lost");
    }

    fn check(&self, rng: &mut Rng) {
        let (spool, memory) = (&self.spool, self.limits.memory_bytes);
        assert!(spool.in_memory <= memory + 2 * MOST, "{} in memory", spool.in_memory);
        assert!(spool.ring.as_ref().map_or(0, Ring::used) <= self.limits.file_bytes);
        // From anywhere on, in pieces of any length, up to the end.
        let mut at = rng.u64(spool.base()..=spool.end());
        let most = 1 + rng.usize(..MOST);
        while let Some(bytes) = spool.read(at, most).unwrap() {
            assert!(!bytes.is_empty() && bytes.len() <= most);
            assert!(bytes.iter().copied().eq((at..).map(byte).take(bytes.len())), "wrong bytes at {at}");
            at += bytes.len() as u64;
        }
        assert_eq!(at, spool.end());
    }
}

fn simulate(seed: u64, directory: &Path) {
    let mut rng = Rng::with_seed(seed);
    let bytes_of_room = rng.u64(..400_000);
    let room = Room::new(bytes_of_room);
    let limits =
        Limits { memory_bytes: rng.usize(..60_000), file_bytes: rng.u64(..200_000), room: Rc::clone(&room) };
    // Two streams have one room.
    let mut spools = [(); 2].map(|()| Tried { spool: Spool::new(), limits: limits.clone() });
    let gone = directory.join("gone");
    for _ in 0..120 {
        let Tried { spool, .. } = &mut spools[rng.usize(..2)];
        let (base, end) = (spool.base(), spool.end());
        if rng.u8(..3) == 0 {
            let to = if rng.u8(..4) == 0 { end + rng.u64(..10) } else { rng.u64(base..=end) };
            spool.release(to);
            // What was released before is released.
            spool.release(rng.u64(..=to));
            assert_eq!(spool.base(), to.min(end).max(base));
        }
        let tried = &mut spools[rng.usize(..2)];
        if tried.spool.has_room(&limits) {
            let most = if rng.bool() { 100 } else { MOST };
            // Now and then its file cannot be made.
            let place = if rng.u8(..5) == 0 { &gone } else { directory };
            tried.push(1 + rng.usize(..most), place);
        } else {
            assert!(!tried.spool.is_empty(), "there is room as soon as all of it is released");
        }
        spools.iter().for_each(|tried| tried.check(&mut rng));
        let taken: u64 = spools.iter().filter_map(|tried| Some(tried.spool.ring.as_ref()?.extent)).sum();
        assert_eq!(room.0.get() + taken, bytes_of_room);
    }
    for tried in &mut spools {
        tried.spool.release(u64::MAX);
        assert!(tried.spool.is_empty() && tried.spool.in_memory == 0 && tried.spool.chunks.is_empty());
        assert!(tried.spool.has_room(&limits) || limits.memory_bytes == 0 && limits.file_bytes == 0);
    }
    drop(spools);
    assert_eq!(room.0.get(), bytes_of_room, "with the spools their files are gone");
}

#[test]
fn what_is_kept_is_what_was_pushed_whatever_is_released_and_whatever_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..25 {
        let outcome = std::panic::catch_unwind(|| simulate(seed, directory.path()));
        if let Err(cause) = outcome {
            eprintln!("the seed is {seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn what_comes_byte_by_byte_costs_no_entry_a_byte() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { memory_bytes: 1 << 20, file_bytes: 0, room: Room::new(0) };
    let mut tried = Tried { spool: Spool::new(), limits };
    for _ in 0..100_000 {
        tried.push(1, directory.path());
    }
    assert!(tried.spool.chunks.len() <= 100_000 / GATHERED + 1, "{}", tried.spool.chunks.len());
    tried.check(&mut Rng::with_seed(1));
}
