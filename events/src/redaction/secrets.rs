use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::MIN_SECRET_BYTES;

/// Lines of a secret that are shorter are not secrets of their own.
const MIN_LINE_BYTES: usize = 8;

/// All secrets at once, as an automaton that takes a byte at a time.
pub(super) struct Secrets {
    values: Vec<Box<[u8]>>,
    automaton: NFA,
    start: StateID,
    /// How many bytes of a secret have been seen, for the states in which a secret goes on.
    depths: HashMap<StateID, usize>,
    longest: usize,
}

impl Secrets {
    /// `None` when there is nothing to mask.
    pub(super) fn new(values: Vec<Box<[u8]>>) -> Option<Self> {
        let mut needles: Vec<&[u8]> = Vec::new();
        for value in values.iter().map(|value| &**value).filter(|value| value.len() >= MIN_SECRET_BYTES) {
            needles.push(value);
            if value.contains(&b'\n') {
                let lines = value.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
                needles.extend(lines.filter(|line| line.len() >= MIN_LINE_BYTES));
            }
        }
        needles.sort_unstable();
        needles.dedup();
        let longest = needles.iter().map(|needle| needle.len()).max()?;
        let built = NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(&needles);
        let (automaton, start) = match built.map(|built| (built.start_state(Anchored::No), built)) {
            Ok((Ok(start), automaton)) => (automaton, start),
            // Only patterns of gigabytes cannot be built; the gateway admits kilobytes.
            Ok((Err(_), _)) | Err(_) => {
                tracing::error!("secrets cannot be masked");
                return None;
            }
        };
        let mut depths = HashMap::new();
        for needle in &needles {
            let mut state = start;
            // At its last byte nothing of this secret is to come.
            for (index, byte) in needle[..needle.len() - 1].iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state, index + 1);
            }
        }
        Some(Self { values, automaton, start, depths, longest })
    }

    pub(super) fn values(&self) -> &[Box<[u8]>] {
        &self.values
    }

    pub(super) const fn longest(&self) -> usize {
        self.longest
    }

    pub(super) const fn start(&self) -> StateID {
        self.start
    }

    /// Goes on from `state` with `bytes`, the first of which stands at `offset`. Tells every place of a secret, overlaps
    /// included, in the order of their ends.
    pub(super) fn scan(
        &self,
        mut state: StateID,
        bytes: &[u8],
        offset: u64,
        mut found: impl FnMut(Range<u64>),
    ) -> StateID {
        let mut end = offset;
        for byte in bytes {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            end += 1;
            if self.automaton.is_match(state) {
                let lengths = (0..self.automaton.match_len(state))
                    .map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)));
                let longest = lengths.max().unwrap_or_default() as u64;
                found(end.saturating_sub(longest)..end);
            }
        }
        state
    }

    /// How many of the last bytes may be the beginning of a secret.
    pub(super) fn begun(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or_default()
    }
}
