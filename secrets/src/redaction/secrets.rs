use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::{MAX_FORMS_BYTES, MIN_SECRET_BYTES, forms};

/// Lines of a secret that are shorter are not secrets of their own.
const MIN_LINE_BYTES: usize = 8;
/// So much of the beginning of a secret may be told when it does not go on: this many bytes, and a quarter of it at most.
/// It would be hard to wait for more after each prompt that ends like this.
const MAX_TOLD_BYTES: usize = 3;

/// How far a secret has come that may go on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begun {
    /// In bytes.
    pub depth: u32,
    /// Whether this is more than may be told.
    pub guarded: bool,
}

/// All secrets at once, as an automaton that takes a byte at a time.
pub(super) struct Secrets {
    values: Vec<Box<[u8]>>,
    automaton: NFA,
    start: StateID,
    /// How much of a secret has been seen, for the states in which a secret goes on.
    begun: HashMap<StateID, Begun>,
    longest: usize,
}

impl Secrets {
    /// `None` when there is nothing to mask.
    pub(super) fn new(values: Vec<Box<[u8]>>) -> Option<Self> {
        let mut forms: Vec<Vec<u8>> = Vec::new();
        let mut room = MAX_FORMS_BYTES;
        let mut by_length: Vec<&[u8]> = values.iter().map(|value| &**value).collect();
        by_length.sort_unstable_by_key(|value| value.len());
        for form in by_length.into_iter().filter(|value| value.len() >= MIN_SECRET_BYTES).flat_map(forms::of)
        {
            if let Some(left) = room.checked_sub(form.len()) {
                room = left;
                forms.push(form);
            }
        }
        let mut needles: Vec<&[u8]> = forms.iter().map(|form| &form[..]).collect();
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
        let mut begun: HashMap<StateID, Begun> = HashMap::new();
        for needle in &needles {
            let mut state = start;
            let told = MAX_TOLD_BYTES.min(needle.len() / 4);
            // At its last byte nothing of this secret is to come.
            for (index, byte) in needle[..needle.len() - 1].iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                let depth = index + 1;
                let known = begun.entry(state).or_default();
                // Those of one state begin with the same bytes.
                known.depth = u32::try_from(depth).unwrap_or(u32::MAX);
                known.guarded |= depth > told;
            }
        }
        Some(Self { values, automaton, start, begun, longest })
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
    pub(super) fn begun(&self, state: StateID) -> Begun {
        self.begun.get(&state).copied().unwrap_or_default()
    }
}
