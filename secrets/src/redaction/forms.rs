//! How programs write a secret when they do not write it as it is.
//!
//! Forms are looked for beside the value, as texts of their own: base64 wherever in a longer text the value stands, hexadecimal
//! digits, and what escaping for URLs, JSON and shells makes of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Forms of longer values are not looked for, so that no form is longer than the longest value.
pub(super) const MAX_VALUE_BYTES: usize = 4 << 10;
/// The fewest characters of base64: 48 bits.
const MIN_BASE64_BYTES: usize = 8;
/// The fewest hexadecimal digits: 48 bits.
const MIN_HEX_BYTES: usize = 12;
/// The fewest characters of a text with escapes.
const MIN_ESCAPED_BYTES: usize = 6;
/// At how many characters programs break lines of base64: PEM, MIME.
const BASE64_LINES: [usize; 2] = [64, 76];

/// The forms of a value other than itself, each once.
pub(super) fn of(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::new();
    if value.len() > MAX_VALUE_BYTES {
        return forms;
    }
    base64(value, &mut forms);
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        let hex: Vec<u8> = value
            .iter()
            .flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]])
            .collect();
        keep(hex, MIN_HEX_BYTES, &mut forms);
    }
    for escaped in urls(value) {
        keep(escaped, MIN_ESCAPED_BYTES, &mut forms);
    }
    if let Ok(text) = std::str::from_utf8(value) {
        for escaped in json(text).into_iter().chain(shells(text)) {
            keep(escaped.into_bytes(), MIN_ESCAPED_BYTES, &mut forms);
        }
    }
    forms.remove(value);
    forms
}

fn keep(form: Vec<u8>, least: usize, forms: &mut BTreeSet<Vec<u8>>) {
    if form.len() >= least {
        forms.insert(form);
    }
}

/// What is the same in the base64 of every text with the value in it, for each place that its first byte can have in a group
/// of three; and the base64 of the value alone, whole and in lines.
fn base64(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let mut text = vec![0; before];
            text.extend_from_slice(value);
            let encoded = engine.encode(&text).into_bytes();
            // Characters that hold bits of a neighbour are nobody's.
            let (first, end) = ((8 * before).div_ceil(6), 8 * text.len() / 6);
            if let Some(inner) = encoded.get(first..end) {
                keep(inner.to_vec(), MIN_BASE64_BYTES, forms);
            }
            if before == 0 {
                for line in BASE64_LINES.into_iter().filter(|line| encoded.len() > *line) {
                    let pieces: Vec<&[u8]> = encoded.chunks(line).collect();
                    // The last one may be too short to be known alone.
                    keep(pieces.join(&b'\n'), MIN_BASE64_BYTES, forms);
                    for piece in pieces {
                        keep(piece.to_vec(), MIN_BASE64_BYTES, forms);
                    }
                }
                keep(encoded, MIN_BASE64_BYTES, forms);
            }
        }
    }
}

/// Percent-encoding: programs do not agree about what need not be encoded, nor about the case of digits.
fn urls(value: &[u8]) -> Vec<Vec<u8>> {
    // What is left as it is besides letters and digits, and whether a space is a plus.
    const KINDS: [(&[u8], bool); 6] = [
        (b"-_.~", false),
        (b"-_.~/", false),
        (b"-_.~!*'()", false),
        (b"-_.~!*'();/?:@&=+$,#", false),
        (b"-_.~", true),
        (b"-_.*", true),
    ];
    let mut all = Vec::new();
    for (plain, plus) in KINDS {
        for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            let mut escaped = Vec::with_capacity(value.len() + 16);
            for byte in value {
                match byte {
                    b' ' if plus => escaped.push(b'+'),
                    _ if byte.is_ascii_alphanumeric() || plain.contains(byte) => escaped.push(*byte),
                    _ => escaped.extend_from_slice(&[
                        b'%',
                        digits[usize::from(byte >> 4)],
                        digits[usize::from(byte & 15)],
                    ]),
                }
            }
            all.push(escaped);
        }
    }
    all
}

/// What is in a JSON string: characters as they are, ASCII only, with what HTML knows escaped, with slashes escaped.
fn json(text: &str) -> Vec<String> {
    #[derive(Clone, Copy)]
    struct Kind {
        ascii: bool,
        html: bool,
        slash: bool,
        upper: bool,
    }
    let plain = Kind { ascii: false, html: false, slash: false, upper: false };
    let kinds = [
        plain,
        Kind { upper: true, ..plain },
        Kind { ascii: true, ..plain },
        Kind { ascii: true, upper: true, ..plain },
        Kind { html: true, ..plain },
        Kind { slash: true, ..plain },
        Kind { ascii: true, slash: true, ..plain },
    ];
    let escape = |kind: Kind| {
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            let short = match character {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                '\u{8}' => Some("\\b"),
                '\u{c}' => Some("\\f"),
                '/' if kind.slash => Some("\\/"),
                _ => None,
            };
            let in_html = kind.html && matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
            let long = character < ' ' || in_html || kind.ascii && !matches!(character, ' '..='~');
            match short {
                Some(short) => escaped.push_str(short),
                None if long => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        // Writing to a string does not fail.
                        let _ = if kind.upper {
                            write!(escaped, "\\u{unit:04X}")
                        } else {
                            write!(escaped, "\\u{unit:04x}")
                        };
                    }
                }
                None => escaped.push(character),
            }
        }
        escaped
    };
    kinds.into_iter().map(escape).collect()
}

/// What is between single quotes, between double quotes, and with a backslash before everything that means something.
fn shells(text: &str) -> [String; 4] {
    let backslashed = |special: &dyn Fn(char) -> bool| {
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if special(character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    };
    [
        text.replace('\'', r"'\''"),
        text.replace('\'', r#"'"'"'"#),
        backslashed(&|character| "$`\"\\".contains(character)),
        backslashed(&|character| " !\"#$&'()*,;<>?[\\]^`{|}~".contains(character)),
    ]
}
