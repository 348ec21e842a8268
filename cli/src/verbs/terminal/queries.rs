//! Output of the past, written to a terminal once more.
//!
//! A program asks its terminal what it is and where the cursor stands, and reads the answer as if it were typed. The
//! program has long had its answers when its output is shown again: asked once more, our terminal would type them into
//! whatever runs now. So questions are left out, and so are bells, notifications and what sets the clipboard.

use super::sequences::{Piece, Sequences, is_control};

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQ: u8 = 0x05;
/// Ends whatever sequence a terminal is in.
const CAN: u8 = 0x18;
/// In UTF-8 what begins with it and goes on below 0xa0 is a control character that may stand for ESC and another one.
const C1: u8 = 0xc2;
/// In place of a character that is none, as terminals show it.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Takes out of past output what only had a meaning at its time.
#[derive(Debug, Default)]
pub struct Scrollback {
    sequences: Sequences,
    filter: Filter,
}

#[derive(Debug, Default)]
struct Filter {
    /// The terminal may be inside a sequence that did not end. What is left out ends it, or the rest would stand for a new one.
    is_open: bool,
    /// The first byte of a character that may be a control character waits for the second.
    is_waiting: bool,
}

impl Scrollback {
    /// What of the output is to be shown.
    pub fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let filter = &mut self.filter;
        self.sequences.feed(bytes, |piece| match piece {
            Piece::Text(text) => filter.text(text, &mut out),
            Piece::Sequence(sequence) if is_for_its_time(&heard(sequence)) => filter.leave_out(&mut out),
            Piece::Sequence(sequence) => {
                filter.settle(&mut out);
                out.extend_from_slice(sequence);
                filter.is_open = false;
            }
        });
        out
    }

    /// What was held back, because it is not whole yet.
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.filter.is_waiting {
            out.push(C1);
        }
        out.extend(self.sequences.finish());
        out
    }
}

impl Filter {
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if text.first() == Some(&ESC) {
            self.is_open = true;
        }
        for byte in text.iter().copied() {
            match byte {
                0xa0..=0xbf if std::mem::take(&mut self.is_waiting) => out.extend([C1, byte]),
                0x80..=0x9f if self.is_waiting => {
                    self.leave_out(out);
                }
                BEL | ENQ => self.leave_out(out),
                byte => {
                    self.settle(out);
                    if byte == C1 {
                        self.is_waiting = true;
                    } else {
                        out.push(byte);
                    }
                }
            }
        }
    }

    /// What waited is no whole character. It does not go out as it is: what follows could complete it once something between is
    /// left out.
    fn settle(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_waiting) {
            out.extend_from_slice(REPLACEMENT);
        }
    }

    fn leave_out(&mut self, out: &mut Vec<u8>) {
        self.settle(out);
        if std::mem::take(&mut self.is_open) {
            out.push(CAN);
        }
    }
}

/// What a terminal takes a sequence for: without the control characters in it, but for those that frame it.
pub(super) fn heard(sequence: &[u8]) -> Vec<u8> {
    sequence.iter().copied().filter(|byte| *byte == ESC || !is_control(*byte)).collect()
}

fn is_for_its_time(sequence: &[u8]) -> bool {
    match sequence {
        // DECID
        b"\x1bZ" => true,
        [0x1b, b'[', body @ .., end] => is_control_question(body, *end),
        [0x1b, b']', body @ ..] => is_command_for_its_time(body),
        // DECRQSS, XTGETTCAP, XTGETXRES
        [0x1b, b'P', b'$' | b'+', b'q' | b'Q', ..] => true,
        // The kitty graphics protocol answers.
        [0x1b, b'_', b'G', ..] => true,
        _ => false,
    }
}

fn is_control_question(body: &[u8], end: u8) -> bool {
    let private = body.first().copied().filter(|byte| (0x3c..=0x3f).contains(byte));
    let intermediate = body.last().copied().filter(|byte| (0x20..=0x2f).contains(byte));
    let first = body.split(|byte| matches!(byte, b';' | b':')).next().unwrap_or_default();
    match (private, intermediate, end) {
        // DA1, DA2, DA3
        (None | Some(b'>' | b'='), None, b'c') => true,
        // DSR
        (None | Some(b'?'), None, b'n') => true,
        // DECRQM
        (None | Some(b'?'), Some(b'$'), b'p') => true,
        // XTWINOPS: reports are 11 to 21, all else does something
        (None, None, b't') => {
            matches!(first, b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21")
        }
        // XTVERSION
        (Some(b'>'), None, b'q') => true,
        // The kitty keyboard protocol; XTQMODKEYS; XTSMGRAPHICS
        (Some(b'?'), None, b'u' | b'm' | b'S') => true,
        // DECREQTPARM
        (None, None, b'x') => true,
        // DECRQPSR, DECRQCRA
        (None, Some(b'$'), b'w') | (None, Some(b'*'), b'y') => true,
        // Media copy: it prints.
        (_, None, b'i') => true,
        _ => false,
    }
}

fn is_command_for_its_time(body: &[u8]) -> bool {
    let body = body.strip_suffix(b"\x1b\\").or_else(|| body.strip_suffix(&[BEL])).unwrap_or(body);
    let mut fields = body.split(|byte| *byte == b';');
    // 52 is the clipboard, 9, 99 and 777 are notifications.
    let is_loud = matches!(fields.next(), Some(b"52" | b"9" | b"99" | b"777"));
    is_loud || fields.any(|field| field == b"?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        let mut scrollback = Scrollback::default();
        let mut out = scrollback.filter(output.as_bytes());
        out.extend(scrollback.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn questions_are_not_asked_twice() {
        for question in [
            "\x1b[c",
            "\x1b[0c",
            "\x1b[>c",
            "\x1b[=0c",
            "\x1bZ",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?2026$p",
            "\x1b[4$p",
            "\x1b[14t",
            "\x1b[18t",
            "\x1b[>0q",
            "\x1b[?u",
            "\x1b[?4m",
            "\x1b]10;?\x07",
            "\x1b]11;?\x1b\\",
            "\x1b]4;1;?\x07",
            "\x1b]52;c;?\x07",
            "\x1b]52;c;aGk=\x07",
            "\x1b]777;notify;a;b\x07",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x07",
            "\x05",
        ] {
            assert_eq!(shown(&format!("a{question}b")), "ab", "{question:?}");
        }
    }

    #[test]
    fn what_is_left_out_leaves_no_question_behind() {
        // The rest of a sequence that another one interrupted is text, and not its end.
        assert_eq!(shown("\x1b[6\x1b[>cn"), "\x1b[6\x18n");
        assert_eq!(shown("\x1b[6\x1b[>c\x1b[>cn"), "\x1b[6\x18n");
        // What a terminal does at once does not hide the question around it.
        assert_eq!(shown("a\x1b[1\r8tb\x1b\rZ\x1b[\x7f6nc"), "abc");
        // ESC and another character, as one.
        assert_eq!(shown("a\u{9b}6n\u{9d}52;c;?\u{9c}b"), "a\u{fffd}6n\u{fffd}52;c;?\u{fffd}b");
        assert_eq!(shown("é © \u{85}"), "é © \u{fffd}");
        // A title that is too long to be kept together still ends.
        let title = format!("\x1b]0;{}", "x".repeat(10_000));
        assert_eq!(shown(&format!("{title}\x07b")), format!("{title}\x18b"));
    }

    #[test]
    fn all_else_is_shown_as_it_was() {
        for output in [
            "text\r\n\tmore é 汉字",
            "\x1b[31m\x1b[H\x1b[2J\x1b[5;7H\x1b[K\x1b[?1049h\x1b[?25l\x1b[1;5r",
            "\x1b]0;a title\x07\x1b]2;another\x1b\\\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\",
            "\x1b[8;24;80t\x1b[22;0t\x1b[>4;2m\x1b[>1u\x1b[2 q\x1b[!p\x1bP1;1|x\x1b\\",
            "\x1b]4;1;rgb:00/00/00\x07",
            "half a sequence \x1b[3",
        ] {
            assert_eq!(shown(output), output);
        }
    }

    #[test]
    fn a_question_in_two_pieces_is_one() {
        let mut scrollback = Scrollback::default();
        let shown = [scrollback.filter(b"a\x1b["), scrollback.filter(b"6nb"), scrollback.finish()].concat();
        assert_eq!(shown, b"ab");
    }
}
