//! Text from a server or a sandbox, made fit for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use chrono::TimeDelta;

/// One line without control characters: what a sandbox names its files must not move the cursor.
pub fn plain(text: &str) -> Cow<'_, str> {
    escape(text, false)
}

/// The same, but line feeds stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, true)
}

/// Marks that turn around what stands after them.
pub const fn is_direction(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// What is not seen and changes what is: the direction of text, its lines, or nothing at all.
const fn is_invisible(c: char) -> bool {
    is_direction(c)
        || matches!(
            c,
            '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// JSON that can be shown: what a terminal obeys, or does not show, is written as `\\u` and digits. It means the same.
pub fn json(text: &str) -> Cow<'_, str> {
    // Line feeds and the like stand between values; within them they are escaped already.
    let harmful = |c: char| !c.is_ascii() && c.is_control() || c == '\u{7f}' || is_invisible(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn escape(text: &str, keep_line_feeds: bool) -> Cow<'_, str> {
    let harmful = |c: char| c != '\n' && c.is_control() || c == '\n' && !keep_line_feeds || is_invisible(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if !keep_line_feeds => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if harmful(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A length of time as people say it: the greatest unit, or the greatest two below ten.
pub fn age(delta: TimeDelta) -> String {
    let seconds = delta.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{}m{}s", seconds / 60, seconds % 60),
        120..7200 => format!("{}m", seconds / 60),
        7200..36000 if seconds / 60 % 60 != 0 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A number of bytes as people say it.
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(plain("a\x1b[2Jb\r\n\tc\u{9b}d"), "a\\u{1b}[2Jb\\r\\n\\tc\\u{9b}d");
        assert_eq!(plain("\u{202e}evil"), "\\u{202e}evil");
        assert_eq!(plain("größe 😀 汉字"), "größe 😀 汉字");
        assert_eq!(lines("a\nb\x07"), "a\nb\\u{7}");
    }

    #[test]
    fn json_says_the_same_and_does_nothing() {
        let value = serde_json::json!({"a\u{9b}": "b\u{7f}\u{202e}\u{2028}\u{200b}\u{e0041}é汉\x1b\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert_eq!(
            shown,
            "{\n  \"a\\u009b\": \"b\\u007f\\u202e\\u2028\\u200b\\udb40\\udc41é汉\\u001b\\n\"\n}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(plain("a\u{feff}\u{2066}b"), "a\\u{feff}\\u{2066}b");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3600, "60m"),
            (7200, "2h"),
            (7260, "2h1m"),
            (36_060, "10h"),
            (172_799, "47h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(TimeDelta::seconds(seconds)), text, "{seconds}");
        }
    }
}
