use std::collections::VecDeque;
use std::ops::Range;

use aho_corasick::automaton::StateID;
use bytes::{Buf, Bytes, BytesMut};

use super::secrets::Begun;
use super::{RULE_WINDOW, Redaction};

/// Masks a stream that comes in pieces, as if it came in one.
///
/// Bytes that may be the beginning of a secret are held back until more has come: never more than the longest secret.
/// Rules see a word only when it is over, or 256 bytes of it, with 256 bytes before it; a longer match of a rule over
/// the bound of two pieces may be masked in part only. Who cannot wait calls [`flush`](Self::flush): of a secret that
/// has begun it masks all but what a few characters tell, and then it may be what was no secret.
#[derive(Debug)]
pub struct RedactionStream {
    redaction: Redaction,
    /// The original bytes: a look back, and what is held.
    window: BytesMut,
    /// Where the window begins in the stream.
    base: u64,
    /// Up to here everything was given out.
    released: u64,
    state: StateID,
    /// Places of secrets that are not given out yet, in order, merged.
    masks: VecDeque<Range<u64>>,
}

impl RedactionStream {
    /// A stream whose next byte stands at `from`, and of which everything before `released` was given out earlier: those
    /// bytes are only looked at.
    pub fn new(redaction: &Redaction, from: u64, released: u64) -> Self {
        Self {
            state: redaction.secrets.as_ref().map_or_else(StateID::default, |secrets| secrets.start()),
            redaction: redaction.clone(),
            window: BytesMut::new(),
            base: from,
            released: released.max(from),
            masks: VecDeque::new(),
        }
    }

    /// Takes the next bytes, and gives out what may be told now.
    pub fn push(&mut self, bytes: &[u8]) -> Bytes {
        let offset = self.end();
        self.window.extend_from_slice(bytes);
        let mut safe = self.end();
        if let Some(secrets) = self.redaction.secrets.clone() {
            self.state = secrets.scan(self.state, bytes, offset, |found| self.mask(found));
            safe -= u64::from(secrets.begun(self.state).depth);
            // What is masked tells nothing.
            if let Some(mask) = self.masks.iter().find(|mask| mask.contains(&safe)) {
                safe = mask.end;
            }
        }
        self.release(safe, true)
    }

    /// Gives out all that is held, because no more is waited for. What may be the beginning of a secret, and is more than a
    /// few characters, is masked.
    pub fn flush(&mut self) -> Bytes {
        let guarded = self.guarded();
        if guarded > 0 {
            let end = self.end();
            self.mask(end - guarded..end);
        }
        self.finish()
    }

    /// Gives out what is held for other reasons than that a secret has begun: unfinished words, and what is too short.
    pub fn flush_words(&mut self) -> Bytes {
        let guarded = self.guarded();
        self.release(self.end() - guarded, false)
    }

    /// Gives out all that is held, because there is no more: what is no secret is none.
    pub(super) fn finish(&mut self) -> Bytes {
        self.release(self.end(), false)
    }

    /// How many of the last bytes may be the beginning of a secret; some of them may have been given out.
    pub fn begun(&self) -> u64 {
        self.progress().map_or(0, |begun| u64::from(begun.depth))
    }

    /// The same, where so much of a secret has come that it is masked rather than told: otherwise 0.
    pub fn guarded(&self) -> u64 {
        self.progress().filter(|begun| begun.guarded).map_or(0, |begun| u64::from(begun.depth))
    }

    fn progress(&self) -> Option<Begun> {
        self.redaction.secrets.as_ref().map(|secrets| secrets.begun(self.state))
    }

    /// How many bytes are held back.
    pub fn held(&self) -> u64 {
        self.end().saturating_sub(self.released)
    }

    fn end(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Places come in the order of their ends.
    fn mask(&mut self, mut found: Range<u64>) {
        while let Some(last) = self.masks.back().filter(|last| last.end >= found.start) {
            found.start = found.start.min(last.start);
            self.masks.pop_back();
        }
        self.masks.push_back(found);
    }

    fn release(&mut self, mut until: u64, more_comes: bool) -> Bytes {
        let mut ruled = Vec::new();
        if !self.redaction.rules.0.is_empty() {
            ruled = self.ruled();
            if more_comes {
                until = until.min(self.base + last_word(&self.window) as u64);
                // Held from its beginning, a match that is not over can be told whole.
                for found in ruled.iter().rev() {
                    if found.contains(&until) && until - found.start <= RULE_WINDOW as u64 {
                        until = found.start;
                    }
                }
            }
        }
        if until <= self.released {
            self.forget();
            return Bytes::new();
        }
        let from = self.released;
        let mut told = BytesMut::from(&self.window[self.index(from)..self.index(until)]);
        for masked in self.masks.iter().chain(&ruled) {
            let (start, end) = (masked.start.clamp(from, until), masked.end.clamp(from, until));
            told[(start - from) as usize..(end - from) as usize].fill(b'*');
        }
        self.released = until;
        self.forget();
        told.freeze()
    }

    /// What the rules find in the window, by their beginnings.
    fn ruled(&self) -> Vec<Range<u64>> {
        let place =
            |found: regex::bytes::Match<'_>| self.base + found.start() as u64..self.base + found.end() as u64;
        let rules = self.redaction.rules.0.iter();
        let mut found: Vec<_> = rules.flat_map(|rule| rule.find_iter(&self.window).map(place)).collect();
        found.sort_unstable_by_key(|found| found.start);
        found
    }

    /// Keeps no more than what is needed to go on.
    fn forget(&mut self) {
        let back = if self.redaction.rules.0.is_empty() { 0 } else { RULE_WINDOW };
        let keep_from = self.released.min(self.end()).saturating_sub(back as u64);
        if keep_from > self.base {
            self.window.advance(self.index(keep_from));
            self.base = keep_from;
        }
        while self.masks.front().is_some_and(|mask| mask.end <= self.released) {
            self.masks.pop_front();
        }
    }

    /// Where in the window a byte of the stream is.
    fn index(&self, offset: u64) -> usize {
        // Within the window by construction: at most what was pushed.
        (offset - self.base) as usize
    }
}

/// Where the last word begins, which may not be over; at most so far from the end as rules see.
fn last_word(window: &[u8]) -> usize {
    let earliest = window.len().saturating_sub(RULE_WINDOW);
    let space = window[earliest..].iter().rposition(u8::is_ascii_whitespace);
    space.map_or(earliest, |index| earliest + index + 1)
}
