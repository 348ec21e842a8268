//! Words of the command line that are more than words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A length of time in Go syntax: `30s`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    spelling::parse_go_duration(text).map_err(|error| error.to_string())
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvPair {
    pub name: String,
    pub value: String,
}

impl FromStr for EnvPair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = std::env::var(text)
                    .map_err(|_| format!("{text} has no value here: write {text}=VALUE"))?;
                (text, value)
            }
        };
        if name.is_empty() {
            return Err("the name is empty: write NAME=VALUE".to_owned());
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file here.
    Local(PathBuf),
    /// A file in a sandbox.
    Remote {
        /// Which sandbox.
        sandbox: String,
        /// Where; relative to its workspace unless absolute.
        path: String,
    },
    /// `-`: stdin or stdout.
    Stdio,
}

impl Location {
    /// Reads `ID:PATH`, `PATH` or `-`. As with scp, a local name with a colon needs a `/` before it: `./a:b`.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdio);
        }
        if text.is_empty() {
            return Err("a path is empty".to_owned());
        }
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':');
        let slash = bytes.iter().position(|byte| *byte == b'/');
        let is_remote = colon.is_some_and(|colon| slash.is_none_or(|slash| colon < slash));
        if !is_remote {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        let text = text.to_str().ok_or("a path in a sandbox must be UTF-8")?;
        match text.split_once(':') {
            Some(("", _)) => Err(format!("{text:?} names no sandbox: write ID:/path")),
            Some((_, "")) => Err(format!("{text:?} names no path: write ID:/path")),
            Some((sandbox, path)) => Ok(Self::Remote { sandbox: sandbox.to_owned(), path: path.to_owned() }),
            None => Ok(Self::Local(PathBuf::from(OsString::from(text)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Result<Location, String> {
        Location::parse(OsStr::new(text))
    }

    #[test]
    fn a_colon_before_any_slash_names_a_sandbox() {
        let remote = |sandbox: &str, path: &str| {
            Ok(Location::Remote { sandbox: sandbox.to_owned(), path: path.to_owned() })
        };
        assert_eq!(location("sb-1:/etc/passwd"), remote("sb-1", "/etc/passwd"));
        assert_eq!(location("sb-1:notes.txt"), remote("sb-1", "notes.txt"));
        assert_eq!(location("sb-1:/a:b"), remote("sb-1", "/a:b"));
        for local in ["file", "./a:b", "/tmp/a:b", "dir/", "..", "sb-1"] {
            assert_eq!(location(local), Ok(Location::Local(local.into())), "{local}");
        }
        assert_eq!(location("-"), Ok(Location::Stdio));
    }

    #[test]
    fn half_a_location_is_refused() {
        for text in ["", ":", ":/path", "sb-1:"] {
            assert!(location(text).is_err(), "{text}");
        }
        assert!(Location::parse(OsStr::from_bytes(b"sb-1:/\xff")).is_err());
        assert!(Location::parse(OsStr::from_bytes(b"/tmp/\xff")).is_ok());
    }

    #[test]
    fn variables_have_a_name_and_a_value() {
        let pair = |name: &str, value: &str| Ok(EnvPair { name: name.to_owned(), value: value.to_owned() });
        assert_eq!("A=b".parse(), pair("A", "b"));
        assert_eq!("A=".parse(), pair("A", ""));
        assert_eq!("A=b=c d".parse(), pair("A", "b=c d"));
        assert_eq!("PATH".parse::<EnvPair>().unwrap().value, std::env::var("PATH").unwrap());
        assert!("=b".parse::<EnvPair>().is_err());
        assert!("".parse::<EnvPair>().is_err());
        assert!("STACYVM_NOT_SET_ANYWHERE".parse::<EnvPair>().is_err());
    }
}
