//! What a command wrote, shown on a terminal that is not lent to it: text, colours and a cursor that moves. Nothing that asks the
//! terminal, sets its title, clipboard, modes or keys, links elsewhere, turns text around, or lasts beyond the output.

use super::queries::heard;
use super::sequences::{Piece, Sequences};
use crate::output::{Filter, is_direction};

const SHOW_CURSOR: &[u8] = b"\x1b[?25h";
const PLAIN: &[u8] = b"\x1b[m";

/// Lets through what only shows something.
#[derive(Debug, Default)]
pub struct Calm {
    sequences: Sequences,
    shown: Shown,
}

#[derive(Debug, Default)]
struct Shown {
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
    is_styled: bool,
    is_cursor_hidden: bool,
}

impl Filter for Calm {
    fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let shown = &mut self.shown;
        self.sequences.feed(bytes, |piece| match piece {
            Piece::Text(text) => shown.text(text, &mut out),
            Piece::Sequence(sequence) => shown.sequence(&heard(sequence), &mut out),
        });
        out
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        // A sequence that has not ended by now would swallow what the next program writes.
        let begun = self.sequences.finish();
        self.shown.text(&begun, &mut out);
        self.shown.settle(&mut out);
        if std::mem::take(&mut self.shown.is_styled) {
            out.extend_from_slice(PLAIN);
        }
        if std::mem::take(&mut self.shown.is_cursor_hidden) {
            out.extend_from_slice(SHOW_CURSOR);
        }
        out
    }
}

impl Shown {
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(text);
        let mut rest = &*bytes;
        loop {
            match str::from_utf8(rest) {
                Ok(text) => return show(text, out),
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    show(str::from_utf8(valid).unwrap_or_default(), out);
                    let Some(length) = error.error_len() else {
                        self.begun = after.to_vec();
                        return;
                    };
                    show("\u{fffd}", out);
                    rest = after.get(length..).unwrap_or_default();
                }
            }
        }
    }

    fn sequence(&mut self, sequence: &[u8], out: &mut Vec<u8>) {
        self.settle(out);
        match sequence {
            b"\x1b[?25h" => self.is_cursor_hidden = false,
            b"\x1b[?25l" => self.is_cursor_hidden = true,
            [0x1b, b'[', numbers @ .., b'm'] if are_numbers(numbers) => self.is_styled = true,
            // Moves the cursor, clears, inserts and deletes, saves and restores the place of the cursor.
            [
                0x1b,
                b'[',
                numbers @ ..,
                b'@'
                | b'A'..=b'H'
                | b'J'..=b'M'
                | b'P'
                | b'S'
                | b'T'
                | b'X'
                | b'`'
                | b'a'
                | b'd'..=b'f'
                | b's'
                | b'u',
            ] if are_numbers(numbers) => {}
            [0x1b, b'7' | b'8' | b'D' | b'E' | b'M'] => {}
            _ => return,
        }
        out.extend_from_slice(sequence);
    }

    /// What was begun is no character.
    fn settle(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.begun).is_empty() {
            show("\u{fffd}", out);
        }
    }
}

fn are_numbers(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
}

fn show(text: &str, out: &mut Vec<u8>) {
    let is_shown =
        |c: &char| matches!(c, '\n' | '\r' | '\t' | '\u{8}') || !c.is_control() && !is_direction(*c);
    for c in text.chars().filter(is_shown) {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut calm = Calm::default();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| calm.filter(piece)).collect();
        out.extend(calm.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_only_shows_something_stays() {
        for text in [
            "plain\r\nlines\tand \u{8}back",
            "größer 日本 👩\u{200d}🚀",
            "\x1b[31mred\x1b[0m\x1b[m",
            "\x1b[38;2;1;2;3;48:5:7mcolours\x1b[m",
            "10%\x1b[K\r20%\x1b[2A\x1b[10;20H\x1b[J\x1b7\x1b8",
            "\x1b[?25lhidden\x1b[?25h",
        ] {
            let mut calm = Calm::default();
            assert_eq!(String::from_utf8(calm.filter(text.as_bytes())).unwrap(), text);
        }
    }

    #[test]
    fn what_does_something_to_the_terminal_goes() {
        for harmful in [
            "\x1b]0;title\x07",
            "\x1b]2;title\x1b\\",
            "\x1b]52;c;Y3VybA==\x07",
            "\x1b]8;;http://evil.example\x07",
            "\x1b]8;;\x07",
            "\x1b]9;hear\x07",
            "\x1b]4;1;?\x07",
            "\x1b]10;?\x1b\\",
            "\x1b]1337;File=inline=1:AAAA\x07",
            "\x1bP$qm\x1b\\",
            "\x1bPq#0;2;0;0;0\x1b\\",
            "\x1bP1000p\x1b\\",
            "\x1b_Ga=T;AAAA\x1b\\",
            "\x1b^private\x1b\\",
            "\x1bXstring\x1b\\",
            "\x1b[c",
            "\x1b[6n",
            "\x1b[?1049h",
            "\x1b[?1000h",
            "\x1b[?2004h",
            "\x1b[?5h",
            "\x1b[20h",
            "\x1b[1;5r",
            "\x1b[!p",
            "\x1b[5i",
            "\x1b[8;1;1t",
            "\x1b[21t",
            "\x1b[>4;2m",
            "\x1b[?4m",
            "\x1bc",
            "\x1bZ",
            "\x1b(0",
            "\x1b=",
            "\x1b#8",
            "\x1b%@",
            "\x0e",
            "\x0f",
            "\x07",
            "\x05",
            "\x7f",
            "\u{9b}31m",
            "\u{9d}0;x\u{9c}",
            "\u{90}q\u{9c}",
            "\u{202e}",
            "\u{2066}",
        ] {
            let out = shown(&[b"a", harmful.as_bytes(), b"b"]);
            assert!(out.starts_with('a') && out.ends_with('b'), "{harmful:?}: {out:?}");
            assert!(!out.contains(|c: char| c.is_control()), "{harmful:?}: {out:?}");
            assert!(!out.contains('\u{202e}') && !out.contains('\u{2066}'), "{harmful:?}");
        }
    }

    #[test]
    fn raw_bytes_that_are_control_characters_elsewhere_are_none() {
        assert_eq!(shown(&[b"a\x9b31mb\x9d0;x\x9cc"]), "a\u{fffd}31mb\u{fffd}0;x\u{fffd}c");
        // Nor do they come about where something between is left out.
        assert_eq!(shown(&[b"\xc2\x1b]0;x\x07\x9b31m"]), "\u{fffd}\u{fffd}31m");
    }

    #[test]
    fn nothing_lasts_beyond_the_end_and_nothing_is_swallowed() {
        assert_eq!(shown(&[b"\x1b[31mred"]), "\x1b[31mred\x1b[m");
        assert_eq!(shown(&[b"\x1b[?25lgone"]), "\x1b[?25lgone\x1b[?25h");
        assert_eq!(shown(&[b"a\x1b]0;the end"]), "a]0;the end");
        assert_eq!(shown(&[b"half \xe6\x97"]), "half \u{fffd}");
        assert_eq!(shown(&[b"\xe6", b"\x97", b"\xa5"]), "日");
    }

    proptest! {
        #[test]
        fn it_is_the_same_in_any_pieces_and_never_harmful(
            bytes in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 2 => proptest::sample::select(b"\x1b[]P_;?25hlm0\x07\\\xc2\x9b\x9d".to_vec())], 0..200),
            cuts in proptest::collection::vec(0..200usize, 0..5),
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let out = shown(&pieces);
            prop_assert_eq!(&out, &shown(&[&bytes]));
            // All that is left with an ESC is what may be there; run through once more nothing changes.
            let mut calm = Calm::default();
            prop_assert_eq!(calm.filter(out.as_bytes()), out.as_bytes());
            let is_harmful = |c: char| c.is_control() && !matches!(c, '\x1b' | '\n' | '\r' | '\t' | '\x08');
            prop_assert!(!out.contains(is_harmful), "{:?}", out);
        }
    }
}
