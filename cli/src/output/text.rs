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

fn escape(text: &str, keep_line_feeds: bool) -> Cow<'_, str> {
    let harmful = |c: char| {
        let bidirectional =
            matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        c != '\n' && c.is_control() || c == '\n' && !keep_line_feeds || bidirectional
    };
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
