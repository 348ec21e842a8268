//! The keys that leave a program running and give the terminal back.

use std::str::FromStr;

/// More keys than anybody would press.
const MAX_KEYS: usize = 4;

/// Keys to be pressed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    /// Of each key, what a terminal may send for it. The plain form comes first.
    keys: Vec<Vec<Vec<u8>>>,
    shown: String,
}

/// What came of input.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// This is for the program.
    Bytes(Vec<u8>),
    /// The keys were pressed; this came before them.
    Detach(Vec<u8>),
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub struct Typing {
    /// What a terminal may send for all keys together.
    wanted: Vec<Vec<u8>>,
    /// The beginnings of that which end where a key ends: worth waiting for more.
    worth_waiting: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: vec![control(b'p'), control(b'q')], shown: "ctrl-p,ctrl-q".to_owned() }
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// `ctrl-p,ctrl-q`, `ctrl-],x`, or `none`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::none());
        }
        let keys = text.split(',').map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        Ok(Self { keys, shown: text.to_owned() })
    }
}

impl std::fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

fn key(text: &str) -> Result<Vec<Vec<u8>>, String> {
    match text.as_bytes() {
        [letter @ 0x21..=0x7e] => Ok(vec![vec![*letter]]),
        [b'c' | b'C', b't', b'r', b'l', b'-', letter @ (b'a'..=b'z' | b'@'..=b'_')] => Ok(control(*letter)),
        _ => Err(format!(
            "{text:?} is no key: write a character, ctrl-a to ctrl-z, or ctrl- and one of @[\\]^_"
        )),
    }
}

/// Programs can ask a terminal to send keys in a longer form: xterm's modifyOtherKeys, and kitty's.
fn control(letter: u8) -> Vec<Vec<u8>> {
    let code = letter.to_ascii_lowercase();
    vec![
        vec![letter & 0x1f],
        format!("\x1b[27;5;{code}~").into_bytes(),
        format!("\x1b[{code};5u").into_bytes(),
    ]
}

impl DetachKeys {
    /// No keys leave.
    pub fn none() -> Self {
        Self { keys: Vec::new(), shown: "none".to_owned() }
    }

    /// Looks for them in what is typed from now on.
    pub fn watch(&self) -> Typing {
        let mut wanted: Vec<Vec<u8>> = Vec::new();
        let mut worth_waiting = Vec::new();
        for (index, forms) in self.keys.iter().enumerate() {
            let before = if index == 0 { vec![Vec::new()] } else { std::mem::take(&mut wanted) };
            worth_waiting.extend(before.iter().filter(|bytes| !bytes.is_empty()).cloned());
            wanted = before
                .iter()
                .flat_map(|before| {
                    forms.iter().map(move |form| [before.as_slice(), form.as_slice()].concat())
                })
                .collect();
        }
        Typing { wanted, worth_waiting, held: Vec::new() }
    }
}

impl Typing {
    /// Takes what was read at once.
    pub fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(self.held.len() + bytes.len());
        for byte in bytes {
            self.held.push(*byte);
            while !self.held.is_empty() && !self.wanted.iter().any(|wanted| wanted.starts_with(&self.held)) {
                out.push(self.held.remove(0));
            }
            if self.wanted.contains(&self.held) {
                self.held.clear();
                return Typed::Detach(out);
            }
        }
        // A lone ESC is a key of its own, and must not wait for the next one.
        while !self.held.is_empty() && !self.worth_waiting.contains(&self.held) {
            out.push(self.held.remove(0));
        }
        Typed::Bytes(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, parts: &[&str]) -> (String, bool) {
        let mut typing = keys.parse::<DetachKeys>().unwrap().watch();
        let mut all = Vec::new();
        for part in parts {
            match typing.take(part.as_bytes()) {
                Typed::Bytes(bytes) => all.extend(bytes),
                Typed::Detach(bytes) => {
                    all.extend(bytes);
                    return (String::from_utf8(all).unwrap(), true);
                }
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn both_keys_detach_and_are_not_sent() {
        for parts in [
            ["ls\r\x10\x11", "x"],
            ["ls\r\x10", "\x11"],
            ["ls\r\x1b[27;5;112~", "\x1b[27;5;113~"],
            ["ls\r\x1b[112;5u", "\x1b[113;5u"],
        ] {
            assert_eq!(typed("ctrl-p,ctrl-q", &parts), ("ls\r".to_owned(), true), "{parts:?}");
        }
        assert_eq!(typed("ctrl-],x", &["\x1dx"]), (String::new(), true));
        assert_eq!(DetachKeys::default(), "ctrl-p,ctrl-q".parse().unwrap());
    }

    #[test]
    fn half_of_them_is_sent_once_it_is_clear() {
        let keys = "ctrl-p,ctrl-q";
        assert_eq!(typed(keys, &["\x10"]), (String::new(), false), "the next key decides");
        assert_eq!(typed(keys, &["\x10", "\x10", "a"]), ("\x10\x10a".to_owned(), false));
        assert_eq!(typed(keys, &["\x10\x10\x11"]), ("\x10".to_owned(), true));
        assert_eq!(
            typed(keys, &["\x11\x1b", "[A", "\x1b[27;5;1"]),
            ("\x11\x1b[A\x1b[27;5;1".to_owned(), false)
        );
        assert_eq!(typed(keys, &["\x10\x1b"]), ("\x10\x1b".to_owned(), false), "ESC does not wait");
        assert_eq!(typed("none", &["\x10\x11"]), ("\x10\x11".to_owned(), false));
    }

    #[test]
    fn what_is_no_key_is_told() {
        for text in ["", "ctrl-", "ctrl-p,", "alt-x", "ab", "ctrl-é", "a,b,c,d,e"] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }
}
