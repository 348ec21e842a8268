//! What a sandbox writes, on its way to the terminal of a client; and what is typed there.
//!
//! The client is a program, not a library: the files that it is made of stand here once more.

#![allow(dead_code, reason = "only what reads bytes of others is wanted of these files")]

#[path = "../../cli/src/verbs/terminal/detach_keys.rs"]
mod detach_keys;
#[path = "../../cli/src/verbs/terminal/modes.rs"]
mod modes;
#[path = "../../cli/src/verbs/terminal/queries.rs"]
mod queries;
#[path = "../../cli/src/verbs/terminal/sequences.rs"]
mod sequences;
#[path = "../../cli/src/output/text.rs"]
mod text;

use detach_keys::DetachKeys;
use modes::Modes;
use queries::Scrollback;
use sequences::{Piece, Sequences};

/// The first byte is the length of the pieces that the rest arrives in.
pub fn terminal(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let size = usize::from(*size).max(1);
    let (mut sequences, mut seen) = (Sequences::default(), Vec::new());
    for piece in bytes.chunks(size) {
        sequences.feed(piece, |piece| match piece {
            Piece::Text(text) | Piece::Sequence(text) => seen.extend_from_slice(text),
        });
    }
    seen.extend(sequences.finish());
    assert_eq!(seen, bytes, "pieces that are not the whole");

    let shown = past(bytes, size);
    assert_eq!(
        past(&shown, shown.len().max(1)),
        shown,
        "a question stands up again from what was left of others"
    );
    assert_eq!(past(bytes, bytes.len().max(1)), shown, "it matters where output is cut");

    let mut modes = Modes::default();
    modes.follow(bytes);
    assert!(modes.reset().len() <= 4096 + bytes.len(), "more is undone than was done");

    if let Ok(keys) = String::from_utf8_lossy(bytes).parse::<DetachKeys>() {
        keys.watch().take(bytes);
    }
    let line = String::from_utf8_lossy(bytes);
    let plain = text::plain(&line);
    assert!(!plain.contains(char::is_control), "a control character on a line");
    assert!(text::lines(&line).chars().all(|c| c == '\n' || !c.is_control()));
}

fn past(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut scrollback = Scrollback::default();
    let mut shown: Vec<u8> = bytes.chunks(size).flat_map(|piece| scrollback.filter(piece)).collect();
    shown.extend(scrollback.finish());
    shown
}
