//! Output of a terminal, cut into text and escape sequences (ECMA-48), whatever pieces it arrives in.

/// The longest sequence that is kept together, in bytes. A longer one (an image, say) passes as text.
const MAX_BYTES: usize = 8 << 10;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// A piece of output. All pieces together are the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Characters, control characters among them; and what began as a sequence and was none.
    Text(&'a [u8]),
    /// One whole sequence, from its ESC to its end.
    Sequence(&'a [u8]),
}

/// Cuts output into pieces.
#[derive(Debug, Default)]
pub struct Sequences {
    state: State,
    /// A sequence that has begun.
    held: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After ESC, and after ESC with intermediates.
    Escape,
    /// After `ESC [`.
    Control,
    /// After `ESC ]`, which BEL may end too.
    Command,
    /// After `ESC P`, `ESC X`, `ESC ^` and `ESC _`.
    String,
    /// In a string that is too long to be kept.
    Long,
}

impl Sequences {
    /// Takes output; what is whole by then goes to `each`, in order.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let taken = match self.state {
                State::Ground | State::Long => {
                    let ends = |byte: &u8| *byte == ESC || self.state == State::Long && *byte == BEL;
                    let length = rest.iter().position(ends).unwrap_or(rest.len());
                    match length {
                        0 if *first == ESC => {
                            self.held.push(ESC);
                            self.state = State::Escape;
                            1
                        }
                        0 => {
                            each(Piece::Text(&[BEL]));
                            self.state = State::Ground;
                            1
                        }
                        length => {
                            each(Piece::Text(rest.get(..length).unwrap_or_default()));
                            length
                        }
                    }
                }
                State::Escape | State::Control | State::Command | State::String => {
                    self.step(*first, &mut each);
                    1
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Gives out what is held, as text: nothing more will come.
    pub fn finish(&mut self) -> Vec<u8> {
        self.state = State::Ground;
        std::mem::take(&mut self.held)
    }

    fn step(&mut self, byte: u8, each: &mut impl FnMut(Piece<'_>)) {
        let in_string = matches!(self.state, State::Command | State::String);
        let ends_string = in_string && self.held.last() == Some(&ESC);
        if matches!(byte, CAN | SUB) || byte == ESC && !in_string || ends_string && byte != b'\\' {
            return self.abandon(byte, each);
        }
        self.held.push(byte);
        let is_whole = match self.state {
            // A terminal does at once what a control character says, and goes on with the sequence that it stands in.
            State::Escape if is_control(byte) => false,
            State::Escape if self.held.iter().filter(|byte| !is_control(**byte)).count() == 1 => match byte {
                b'[' => {
                    self.state = State::Control;
                    false
                }
                b']' => {
                    self.state = State::Command;
                    false
                }
                b'P' | b'X' | b'^' | b'_' => {
                    self.state = State::String;
                    false
                }
                byte => !is_intermediate(byte),
            },
            State::Escape => !is_intermediate(byte),
            State::Control => (0x40..=0x7e).contains(&byte),
            State::Command => ends_string || byte == BEL,
            State::String => ends_string,
            State::Ground | State::Long => true,
        };
        if is_whole {
            each(Piece::Sequence(&self.held));
            self.held.clear();
            self.state = State::Ground;
        } else if self.held.len() >= MAX_BYTES {
            each(Piece::Text(&self.held));
            self.held.clear();
            self.state = if in_string { State::Long } else { State::Ground };
        }
    }

    /// What was held is no sequence. The byte may begin another one.
    fn abandon(&mut self, byte: u8, each: &mut impl FnMut(Piece<'_>)) {
        let ended_by_escape = self.held.len() > 1 && self.held.last() == Some(&ESC);
        if ended_by_escape {
            self.held.pop();
        }
        each(Piece::Text(&self.held));
        self.held.clear();
        self.state = State::Ground;
        let again: &[u8] = if ended_by_escape { &[ESC, byte] } else { &[byte] };
        if byte == ESC || ended_by_escape {
            self.feed(again, &mut *each as &mut dyn FnMut(Piece<'_>));
        } else {
            each(Piece::Text(again));
        }
    }
}

/// Whether a terminal looks at it apart from the sequence that it stands in.
pub fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn is_intermediate(byte: u8) -> bool {
    (0x20..=0x2f).contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(parts: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut sequences = Sequences::default();
        let mut out: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut take = |is_sequence: bool, bytes: &[u8]| match out.last_mut() {
            Some((false, text)) if !is_sequence => text.extend_from_slice(bytes),
            _ if bytes.is_empty() => {}
            _ => out.push((is_sequence, bytes.to_vec())),
        };
        for part in parts {
            sequences.feed(part, |piece| match piece {
                Piece::Text(bytes) => take(false, bytes),
                Piece::Sequence(bytes) => take(true, bytes),
            });
        }
        let rest = sequences.finish();
        take(false, &rest);
        out
    }

    fn text(bytes: &[u8]) -> (bool, Vec<u8>) {
        (false, bytes.to_vec())
    }

    fn sequence(bytes: &[u8]) -> (bool, Vec<u8>) {
        (true, bytes.to_vec())
    }

    #[test]
    fn sequences_of_all_kinds_are_found() {
        let all: &[&[u8]] = &[
            b"\x1b[?1049h",
            b"\x1b[m",
            b"\x1b[38;5;1m",
            b"\x1b[0 q",
            b"\x1b7",
            b"\x1b(B",
            b"\x1b=",
            b"\x1b]0;title\x07",
            b"\x1b]11;?\x1b\\",
            b"\x1bP$qm\x1b\\",
            b"\x1b_G\x07 is no end here\x1b\\",
        ];
        for one in all {
            assert_eq!(pieces(&[b"a\r\n", one, b"b"]), [text(b"a\r\n"), sequence(one), text(b"b")]);
        }
    }

    #[test]
    fn what_breaks_off_is_text() {
        assert_eq!(pieces(&[b"\x1b[12\x18x"]), [text(b"\x1b[12\x18x")]);
        assert_eq!(pieces(&[b"\x1b[12\x1b[m"]), [text(b"\x1b[12"), sequence(b"\x1b[m")]);
        assert_eq!(pieces(&[b"\x1b]0;t\x1b[mx"]), [text(b"\x1b]0;t"), sequence(b"\x1b[m"), text(b"x")]);
        assert_eq!(pieces(&[b"\x1b\x1b\x1b[m"]), [text(b"\x1b\x1b"), sequence(b"\x1b[m")]);
        assert_eq!(pieces(&[b"a\x1b["]), [text(b"a\x1b[")]);
    }

    #[test]
    fn a_long_string_passes_as_text_and_ends() {
        let long = [b"\x1bP".as_slice(), &vec![b'x'; 3 * MAX_BYTES], b"\x1b\\"].concat();
        let found = pieces(&[&long, b"\x1b[m"]);
        assert_eq!(found.last().unwrap(), &sequence(b"\x1b[m"));
        assert!(found.iter().flat_map(|(_, bytes)| bytes).copied().eq([&long[..], b"\x1b[m"].concat()));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_cuts_change_nothing(
            bytes in proptest::collection::vec(prop_oneof![Just(ESC), Just(b'['), Just(b']'), Just(b'\\'), Just(BEL), any::<u8>()], 0..80),
            at in 0usize..80,
        ) {
            let whole = pieces(&[&bytes]);
            prop_assert_eq!(whole.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>(), bytes.clone());
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(pieces(&[head, tail]), whole);
        }
    }
}
