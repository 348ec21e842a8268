//! Which modes a program has turned on in our terminal, and what turns them off again.

use std::collections::BTreeMap;

use super::sequences::{Piece, Sequences};

/// DEC private modes that a program may leave behind: their number, and whether they are on at first.
const PRIVATE: [(u16, bool); 21] = [
    (1, false),    // cursor keys send other sequences
    (5, false),    // reverse video
    (6, false),    // rows are counted within the margins
    (7, true),     // lines wrap
    (9, false),    // mouse: clicks
    (25, true),    // the cursor shows
    (66, false),   // the keypad sends other sequences
    (1000, false), // mouse: buttons
    (1001, false), // mouse: highlights
    (1002, false), // mouse: drags
    (1003, false), // mouse: all motion
    (1004, false), // focus
    (1005, false), // mouse coordinates in UTF-8
    (1006, false), // mouse coordinates in decimal
    (1015, false), // mouse coordinates, urxvt's
    (1016, false), // mouse coordinates in pixels
    (2004, false), // pastes are bracketed
    (2026, false), // the screen waits
    (47, false),   // the other screen: three generations of it
    (1047, false),
    (1049, false),
];
const ALTERNATE_SCREENS: [u16; 3] = [47, 1047, 1049];

/// The modes of a terminal, as the output so far has set them.
#[derive(Debug, Default)]
pub struct Modes {
    sequences: Sequences,
    set: Set,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Set {
    /// Private modes that are not as at first.
    private: BTreeMap<u16, bool>,
    /// How deep the stack of the kitty keyboard protocol is.
    keyboard_depth: u32,
    keypad: bool,
    other_keys: bool,
    insert: bool,
    margins: bool,
    cursor_shape: bool,
    colours: bool,
    charset: bool,
}

impl Modes {
    /// Follows output. True when what undoes it has changed.
    pub fn follow(&mut self, bytes: &[u8]) -> bool {
        let before = self.set.clone();
        let set = &mut self.set;
        self.sequences.feed(bytes, |piece| match piece {
            Piece::Sequence(sequence) => set.take(sequence),
            Piece::Text(_) => {}
        });
        self.set != before
    }

    /// Whether a full-screen program has the other screen.
    pub fn is_alternate(&self) -> bool {
        ALTERNATE_SCREENS.iter().any(|mode| self.set.private.contains_key(mode))
    }

    /// What brings the terminal back to what it was. Empty where nothing is to be undone.
    pub fn reset(&self) -> Vec<u8> {
        let set = &self.set;
        let mut out = Vec::new();
        let mut put = |wanted: bool, bytes: &str| {
            if wanted {
                out.extend_from_slice(bytes.as_bytes());
            }
        };
        for (mode, at_first) in PRIVATE.iter().filter(|(mode, _)| !ALTERNATE_SCREENS.contains(mode)) {
            let end = if *at_first { 'h' } else { 'l' };
            put(set.private.contains_key(mode), &format!("\x1b[?{mode}{end}"));
        }
        put(set.keyboard_depth > 0, &format!("\x1b[<{}u", set.keyboard_depth));
        put(set.other_keys, "\x1b[>4m");
        put(set.keypad, "\x1b>");
        put(set.insert, "\x1b[4l");
        // Setting margins moves the cursor.
        put(set.margins, "\x1b7\x1b[r\x1b8");
        put(set.charset, "\x0f\x1b(B");
        put(set.colours, "\x1b[m");
        put(set.cursor_shape, "\x1b[0 q");
        for mode in ALTERNATE_SCREENS.iter().filter(|mode| set.private.contains_key(mode)) {
            put(true, &format!("\x1b[?{mode}l"));
        }
        out
    }
}

impl Set {
    fn take(&mut self, sequence: &[u8]) {
        match sequence {
            b"\x1bc" => *self = Self::default(),
            b"\x1b=" => self.keypad = true,
            b"\x1b>" => self.keypad = false,
            [0x1b, b'(', charset] => self.charset = *charset != b'B',
            [0x1b, b'[', body @ .., end] => {
                if let Ok(body) = std::str::from_utf8(body) {
                    self.control(body, *end);
                }
            }
            _ => {}
        }
    }

    fn control(&mut self, body: &str, end: u8) {
        match (body.as_bytes().first(), end) {
            (Some(b'?'), b'h' | b'l') => {
                for mode in numbers(body) {
                    if let Some((mode, at_first)) = PRIVATE.iter().find(|(known, _)| *known == mode) {
                        let on = end == b'h';
                        if on == *at_first {
                            self.private.remove(mode);
                        } else {
                            self.private.insert(*mode, on);
                        }
                    }
                }
            }
            (Some(b'>'), b'u') => self.keyboard_depth = self.keyboard_depth.saturating_add(1),
            (Some(b'<'), b'u') => {
                let popped = numbers(body).next().unwrap_or(1);
                self.keyboard_depth = self.keyboard_depth.saturating_sub(u32::from(popped));
            }
            (Some(b'>'), b'm') => {
                let mut numbers = numbers(body);
                if numbers.next() == Some(4) {
                    self.other_keys = numbers.next().is_some_and(|level| level > 0);
                }
            }
            (_, b'h' | b'l') if body == "4" => self.insert = end == b'h',
            (Some(b'0'..=b'9' | b';') | None, b'r') => self.margins = !body.is_empty(),
            (Some(b'0'..=b'9' | b';' | b':') | None, b'm') => self.colours = !matches!(body, "" | "0"),
            (_, b'q') if body.ends_with(' ') => self.cursor_shape = !matches!(body, " " | "0 "),
            (_, b'p') if body == "!" => {
                let Self { private, keyboard_depth, .. } = std::mem::take(self);
                self.keyboard_depth = keyboard_depth;
                // A soft reset leaves the mouse and the screen as they are.
                self.private = private.into_iter().filter(|(mode, _)| *mode >= 1000 || *mode == 47).collect();
            }
            _ => {}
        }
    }
}

/// The numbers of a sequence's parameters.
fn numbers(body: &str) -> impl Iterator<Item = u16> {
    body.split([';', ':', '?', '>', '<', '=']).filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset_after(output: &str) -> String {
        let mut modes = Modes::default();
        modes.follow(output.as_bytes());
        String::from_utf8(modes.reset()).unwrap()
    }

    #[test]
    fn what_is_left_on_is_turned_off() {
        for (output, reset) in [
            ("", ""),
            ("text \x1b[31mred\x1b[m \x1b[2J\x1b[5;1H", ""),
            ("\x1b[1;31m", "\x1b[m"),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?25l\x1b[?25h", ""),
            ("\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h", "\x1b[?1l\x1b[?2004l\x1b>\x1b[?1049l"),
            ("\x1b[?1049h\x1b[?1049l", ""),
            ("\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l"),
            ("\x1b[>4;2m", "\x1b[>4m"),
            ("\x1b[>4;2m\x1b[>4;m", ""),
            ("\x1b[>1u\x1b[>5u\x1b[<u", "\x1b[<1u"),
            ("\x1b[2;10r", "\x1b7\x1b[r\x1b8"),
            ("\x1b[2;10r\x1b[r", ""),
            ("\x1b[6 q", "\x1b[0 q"),
            ("\x1b(0", "\x0f\x1b(B"),
            ("\x1b[?25l\x1b[?1049h\x1bc", ""),
            ("\x1b[?25l\x1b[?1049h\x1b[!p", "\x1b[?1049l"),
            ("\x1b[?12h\x1b[?99999999h\x1b[?h", ""),
        ] {
            assert_eq!(reset_after(output), reset, "{output:?}");
        }
    }

    #[test]
    fn a_sequence_in_two_pieces_counts() {
        let mut modes = Modes::default();
        assert!(!modes.follow(b"\x1b[?10"));
        assert!(modes.follow(b"49h"));
        assert!(modes.is_alternate());
        assert!(!modes.follow(b"x"));
    }
}
