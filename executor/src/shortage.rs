//! Whether an error is that this machine ran out of something. That is never the fault of whoever asked, and it passes.

use std::error::Error;
use std::io;

/// Descriptors, memory, processes, room on the disk; and a disk that is not written to at all.
const ERRNOS: [i32; 8] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EAGAIN,
    libc::ENOBUFS,
    libc::EROFS,
];
/// The same in words, as programs and engines pass it on.
const WORDS: [&str; 7] = [
    "too many open files",
    "cannot allocate memory",
    "no space left on device",
    "disk quota exceeded",
    "resource temporarily unavailable",
    "no buffer space available",
    "read-only file system",
];

/// Whether this error, or one under it, is such a one.
pub(crate) fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if number.is_some_and(|number| ERRNOS.contains(&number)) || is_said_in(&error.to_string()) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a program said that it was such a one.
pub(crate) fn is_said_in(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_is_told_from_what_is_wrong() {
        for number in ERRNOS {
            assert!(is_shortage(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for number in [libc::ENOENT, libc::EACCES, libc::EINVAL] {
            assert!(!is_shortage(&io::Error::from_raw_os_error(number)), "{number}");
        }
        assert!(is_shortage(&io::Error::other(
            "tar: exit status: 2: x: Cannot write: No space left on device"
        )));
        assert!(!is_shortage(&io::Error::other("tar: exit status: 2: this is no archive")));
    }
}
