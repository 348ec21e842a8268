//! Changes of permission bits as `chmod` takes them: `u+x`, `a-w,go=`, `g=u`, `+X`, `=644`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What no class letter is written before is not done to these bits (POSIX: those of the umask). Sandboxes have this umask.
const UMASK: u32 = 0o022;
/// Permission bits, set-user-ID, set-group-ID and the sticky bit.
const ALL: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
/// The longest text, in bytes, and the most actions that are read.
const MAX_TEXT: usize = 256;

/// A change of permission bits, in the symbolic form of `chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModeChange {
    text: String,
    actions: Vec<Action>,
}

/// A text that says no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a symbolic mode is clauses such as u+x, a-w or go=u, separated by commas")]
pub struct NotAModeChange;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Action {
    /// The bits of the classes that are named; `None` when none is, which means all but those of the umask.
    classes: Option<u32>,
    operation: Operation,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permissions {
    /// These bits, and `X`: execute, where it is a directory or somebody may execute it already.
    Bits { bits: u32, search: bool },
    /// Those that this class has.
    Of(u32),
    /// An octal number, which leaves no bit out.
    Octal(u32),
}

impl ModeChange {
    /// The bits after the change.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        self.actions.iter().fold(mode & ALL, |mode, action| action.apply(mode, is_dir))
    }

    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Action {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Bits { bits, search } => {
                let search = search && (is_dir || mode & 0o111 != 0);
                bits | if search { 0o111 } else { 0 }
            }
            Permissions::Of(class) => {
                let own = mode & class & 0o777;
                // The three bits of one class, given to every class.
                let three = (own | own >> 3 | own >> 6) & 0o7;
                three << 6 | three << 3 | three
            }
            Permissions::Octal(bits) => bits,
        };
        let octal = matches!(self.permissions, Permissions::Octal(_));
        // The set-ID bits of a directory stay as they are unless they are named.
        let named = if octal { ALL } else { self.classes.unwrap_or(ALL) & bits };
        let kept = if is_dir { SET_ID & !named } else { 0 };
        let reach = if octal { ALL } else { self.classes.unwrap_or(ALL & !UMASK) };
        let bits = bits & reach & !kept;
        match self.operation {
            Operation::Add => mode | bits,
            Operation::Remove => mode & !bits,
            Operation::Set => {
                let untouched = if octal { 0 } else { self.classes.map_or(0, |classes| ALL & !classes) };
                mode & (untouched | kept) | bits
            }
        }
    }
}

impl FromStr for ModeChange {
    type Err = NotAModeChange;

    fn from_str(text: &str) -> Result<Self, NotAModeChange> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(NotAModeChange);
        }
        let mut actions = Vec::new();
        for clause in text.split(',') {
            read_clause(clause.as_bytes(), &mut actions)?;
        }
        Ok(Self { text: text.to_owned(), actions })
    }
}

fn read_clause(clause: &[u8], actions: &mut Vec<Action>) -> Result<(), NotAModeChange> {
    let named = clause.iter().take_while(|byte| class(**byte).is_some()).count();
    let (letters, mut rest) = clause.split_at(named);
    let classes = letters.iter().filter_map(|byte| class(*byte)).reduce(|all, one| all | one);
    if rest.is_empty() {
        return Err(NotAModeChange);
    }
    while let Some((sign, after)) = rest.split_first() {
        let operation = match sign {
            b'+' => Operation::Add,
            b'-' => Operation::Remove,
            b'=' => Operation::Set,
            _ => return Err(NotAModeChange),
        };
        let length = after.iter().take_while(|byte| !b"+-=".contains(byte)).count();
        let (what, next) = after.split_at(length);
        let permissions = read_permissions(what)?;
        if matches!(permissions, Permissions::Octal(_)) && (classes.is_some() || !next.is_empty()) {
            return Err(NotAModeChange);
        }
        actions.push(Action { classes, operation, permissions });
        rest = next;
    }
    Ok(())
}

fn read_permissions(text: &[u8]) -> Result<Permissions, NotAModeChange> {
    match text {
        [b'u'] => return Ok(Permissions::Of(0o700)),
        [b'g'] => return Ok(Permissions::Of(0o070)),
        [b'o'] => return Ok(Permissions::Of(0o007)),
        digits if digits.first().is_some_and(u8::is_ascii_digit) => {
            return octal(digits).map(Permissions::Octal).ok_or(NotAModeChange);
        }
        _ => {}
    }
    let (mut bits, mut search) = (0, false);
    for byte in text {
        match byte {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b's' => bits |= SET_ID,
            b't' => bits |= 0o1000,
            b'X' => search = true,
            _ => return Err(NotAModeChange),
        }
    }
    Ok(Permissions::Bits { bits, search })
}

fn octal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')).filter(|value| *value <= ALL),
        _ => None,
    })
}

/// All bits of the class that a letter means, its set-ID or sticky bit included.
const fn class(letter: u8) -> Option<u32> {
    match letter {
        b'u' => Some(0o4700),
        b'g' => Some(0o2070),
        b'o' => Some(0o1007),
        b'a' => Some(ALL),
        _ => None,
    }
}

impl TryFrom<String> for ModeChange {
    type Error = NotAModeChange;
    fn try_from(text: String) -> Result<Self, NotAModeChange> {
        text.parse()
    }
}

impl From<ModeChange> for String {
    fn from(change: ModeChange) -> Self {
        change.text
    }
}

impl fmt::Display for ModeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions as FilePermissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn changed(text: &str, mode: u32) -> u32 {
        text.parse::<ModeChange>().unwrap().apply(mode, false)
    }

    #[test]
    fn the_usual_ones_do_what_is_meant() {
        for (text, before, after) in [
            ("u+x", 0o644, 0o744),
            ("a-w,go=", 0o666, 0o400),
            ("+x", 0o644, 0o755),
            ("go-rwx", 0o755, 0o700),
            ("a=rX", 0o640, 0o444),
            ("a=rX", 0o740, 0o555),
            ("g=u", 0o704, 0o774),
            ("u=rw,g=r,o=", 0o777, 0o640),
            ("u+s,g+s,+t", 0o755, 0o7755),
            ("=", 0o777, 0o000),
            ("+0111", 0o600, 0o711),
            ("u+r-w", 0o200, 0o400),
        ] {
            assert_eq!(changed(text, before), after, "{text}");
        }
    }

    #[test]
    fn a_directory_keeps_its_set_ids_unless_they_are_named() {
        let change = |text: &str| text.parse::<ModeChange>().unwrap();
        assert_eq!(change("a=rx").apply(0o2755, true), 0o2555);
        assert_eq!(change("g-s").apply(0o2755, true), 0o755);
        assert_eq!(change("=755").apply(0o2700, true), 0o755);
    }

    #[test]
    fn what_chmod_does_not_take_is_refused() {
        for text in [
            "",
            "u",
            "x",
            "u+",
            "u+x,",
            ",u+x",
            "u+q",
            "u8x",
            "b+x",
            "u+x ",
            "u=u+g+rw x",
            "+888",
            "u+644",
            "+7+x",
            "=10000",
        ] {
            let taken = text.parse::<ModeChange>().is_ok();
            assert_eq!(taken, text == "u+", "{text}");
        }
        assert!("u+x,".repeat(100).trim_end_matches(',').parse::<ModeChange>().is_err());
    }

    /// The bits after the real `chmod`, or `None` where it refuses.
    fn real(path: &Path, before: u32, text: &str) -> Option<u32> {
        std::fs::set_permissions(path, FilePermissions::from_mode(before)).unwrap();
        let script = r#"umask 022; exec chmod -- "$1" "$2""#;
        let run = Command::new("sh").args(["-c", script, "sh", text]).arg(path).output().unwrap();
        run.status.success().then(|| std::fs::metadata(path).unwrap().permissions().mode() & ALL)
    }

    fn symbolic() -> impl Strategy<Value = String> {
        let action = ("[-+=]", prop_oneof!["[rwxXst]{0,4}", "[ugo]"]).prop_map(|(sign, what)| sign + &what);
        let clause = prop_oneof![
            ("[ugoa]{0,3}", prop::collection::vec(action, 1..4))
                .prop_map(|(who, actions)| who + &actions.concat()),
            "[-+=][0-7]{1,4}",
        ];
        prop::collection::vec(clause, 1..4).prop_map(|clauses| clauses.join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_change_is_that_of_chmod(
            text in prop_oneof![4 => symbolic(), 1 => "[ugoarwxXst+=,08-]{1,7}"],
            before in 0_u32..=ALL,
            is_dir: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("it");
            if is_dir { std::fs::create_dir(&path).unwrap() } else { std::fs::write(&path, "").unwrap() }
            // A plain octal number is no change but a mode.
            prop_assume!(!text.starts_with(|first: char| first.is_ascii_digit()));
            let ours = text.parse::<ModeChange>().ok().map(|change| change.apply(before, is_dir));
            prop_assert_eq!(ours, real(&path, before, &text), "{} of {:o}", text, before);
        }
    }
}
