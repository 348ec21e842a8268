//! Finding and executing a program, as `execvp` does, but for what is no program at all: that is not handed to a shell.

use std::ffi::{CStr, CString, c_char};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::io::Errno;

/// The longest path that the kernel takes, its NUL byte included.
const PATH_BYTES: usize = 4096;
/// How much of a file is looked at to tell a script from something else.
const SAMPLE_BYTES: usize = 512;
/// A file that somebody still has open for writing cannot be executed. Where that is a process of ours that was just
/// forked and has yet to execute its own program, it passes in an instant.
const BUSY_ATTEMPTS: usize = 10;
const BUSY_PAUSE: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// The kernel's error numbers stay below this.
const BEYOND_ERRNO: i32 = 4096;

const SHELL: &CStr = c"/bin/sh";

/// Why a program was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no such program.
    NotFound,
    /// It is there; what it needs to run (an interpreter, a dynamic loader) is not.
    NoInterpreter,
    /// It is a script without a first line that names an interpreter, and there is no shell.
    NoShell,
    IsDirectory,
    /// Anything else, as the kernel says it.
    Other(Errno),
}

impl Failure {
    /// A number that passes through the pipe between the child and the agent.
    pub fn to_raw(self) -> i32 {
        match self {
            Self::NotFound => BEYOND_ERRNO + 1,
            Self::NoInterpreter => BEYOND_ERRNO + 2,
            Self::NoShell => BEYOND_ERRNO + 3,
            Self::IsDirectory => BEYOND_ERRNO + 4,
            Self::Other(error) => error.raw_os_error(),
        }
    }

    pub fn from_raw(raw: i32) -> Self {
        match raw - BEYOND_ERRNO {
            1 => Self::NotFound,
            2 => Self::NoInterpreter,
            3 => Self::NoShell,
            4 => Self::IsDirectory,
            _ => Self::Other(Errno::from_raw_os_error(raw)),
        }
    }
}

/// A program with its arguments and environment. Everything is made before the fork: after it nothing may be allocated.
pub struct Program {
    name: CString,
    /// `PATH` of the exec itself.
    path: Vec<u8>,
    argv: Pointers,
    /// The same behind a shell: its second element is put in when the program was found.
    script_argv: Pointers,
    env: Pointers,
}

/// An array as `execve` wants it, and what it points to.
struct Pointers {
    _strings: Vec<CString>,
    array: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the heap memory of the strings beside them, which nobody changes.
#[allow(unsafe_code)]
unsafe impl Send for Pointers {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Pointers {}

impl Pointers {
    fn to(strings: Vec<CString>) -> Self {
        let array = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, array }
    }
}

impl Program {
    /// Fails when something holds a NUL byte, or there is no program.
    pub fn new(argv: &[String], env: Vec<CString>, path: Vec<u8>) -> io::Result<Self> {
        let argv: Vec<_> =
            argv.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<_, _>>()?;
        let name = argv.first().cloned().ok_or(io::ErrorKind::InvalidInput)?;
        let script = [SHELL.to_owned(), name.clone()].into_iter().chain(argv.iter().skip(1).cloned());
        Ok(Self {
            name,
            path,
            script_argv: Pointers::to(script.collect()),
            argv: Pointers::to(argv),
            env: Pointers::to(env),
        })
    }

    /// Replaces the calling process. For a child that has been forked: system calls only, no allocation.
    pub fn execute(&mut self) -> Failure {
        let Self { name, path, argv, script_argv, env } = self;
        let mut attempt = |program: &CStr| execute(program, argv, script_argv, env);
        if name.to_bytes().contains(&b'/') {
            return attempt(name);
        }
        let mut remembered = Failure::NotFound;
        for directory in path.split(|byte| *byte == b':') {
            let mut buffer = [0_u8; PATH_BYTES];
            let Some(program) = join(&mut buffer, directory, name.to_bytes()) else { continue };
            let failure = attempt(program);
            if is_missing(failure) {
                continue;
            }
            if !is_passed_over(failure) {
                return failure;
            }
            if remembered == Failure::NotFound {
                remembered = failure;
            }
        }
        remembered
    }
}

/// Not there: the search goes on as if nothing had been seen.
fn is_missing(failure: Failure) -> bool {
    match failure {
        Failure::NotFound => true,
        Failure::Other(error) => {
            matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::STALE | Errno::NODEV)
        }
        Failure::NoInterpreter | Failure::NoShell | Failure::IsDirectory => false,
    }
}

/// There, but of no use: a later directory may have a better one.
fn is_passed_over(failure: Failure) -> bool {
    match failure {
        Failure::NoInterpreter | Failure::IsDirectory => true,
        Failure::Other(error) => error == Errno::ACCESS,
        Failure::NotFound | Failure::NoShell => false,
    }
}

/// An empty directory is the current one. Nothing when it is too long to be anything.
fn join<'a>(buffer: &'a mut [u8; PATH_BYTES], directory: &[u8], name: &[u8]) -> Option<&'a CStr> {
    let directory = if directory.is_empty() { b"." } else { directory };
    let length = directory.len() + 1 + name.len();
    buffer.get_mut(..directory.len())?.copy_from_slice(directory);
    *buffer.get_mut(directory.len())? = b'/';
    buffer.get_mut(directory.len() + 1..length)?.copy_from_slice(name);
    *buffer.get_mut(length)? = 0;
    CStr::from_bytes_with_nul(buffer.get(..=length)?).ok()
}

fn execute(program: &CStr, argv: &Pointers, script_argv: &mut Pointers, env: &Pointers) -> Failure {
    let mut error = execve(program, &argv.array, &env.array);
    for _ in 0..BUSY_ATTEMPTS {
        if error != Errno::TXTBSY {
            break;
        }
        pause();
        error = execve(program, &argv.array, &env.array);
    }
    match error {
        Errno::NOEXEC if is_plain_script(program) => {
            if let Some(slot) = script_argv.array.get_mut(1) {
                *slot = program.as_ptr();
            }
            match execve(SHELL, &script_argv.array, &env.array) {
                Errno::NOENT => Failure::NoShell,
                error => Failure::Other(error),
            }
        }
        Errno::NOENT if is_there(program) => Failure::NoInterpreter,
        Errno::NOENT | Errno::NOTDIR => Failure::NotFound,
        Errno::ACCESS if is_directory(program) => Failure::IsDirectory,
        // How the kernel calls programs that end too early, or make no sense.
        Errno::IO | Errno::INVAL | Errno::LIBBAD => Failure::Other(Errno::NOEXEC),
        error => Failure::Other(error),
    }
}

#[allow(unsafe_code)]
fn execve(program: &CStr, argv: &[*const c_char], env: &[*const c_char]) -> Errno {
    // SAFETY: the program and all that the arrays point to end with NUL bytes and live; both arrays end with null.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOEXEC)
}

#[allow(unsafe_code)]
fn pause() {
    let time = BUSY_PAUSE;
    // SAFETY: the pointer is valid; what is left of the time is not asked for.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

fn is_there(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok()
}

fn is_directory(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Whether a file that the kernel cannot execute is meant for a shell: text that names no other interpreter.
fn is_plain_script(path: &CStr) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = open(path, flags, Mode::empty()) else { return false };
    let mut sample = [0_u8; SAMPLE_BYTES];
    let Ok(length) = rustix::io::read(&file, &mut sample) else { return false };
    sample.get(..length).is_some_and(is_plain_text)
}

fn is_plain_text(sample: &[u8]) -> bool {
    // Backspace to carriage return, and escape. Bytes beyond ASCII may be letters in any encoding.
    let odd = |byte: &u8| (*byte < 0x20 && !matches!(*byte, 0x08..=0x0d | 0x1b)) || *byte == 0x7f;
    !sample.starts_with(b"#!") && !sample.iter().any(odd)
}

/// What a program needs that is not there, as far as it can be told: the interpreter of its first line.
pub fn interpreter(program: &str, directory: &Path, path: &[u8]) -> Option<String> {
    let file = locate(program, directory, path)?;
    let opened = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(file)
        .ok()
        .filter(|opened| opened.metadata().is_ok_and(|metadata| metadata.is_file()))?;
    let mut sample = Vec::new();
    opened.take(SAMPLE_BYTES as u64).read_to_end(&mut sample).ok()?;
    let line = sample.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).split_whitespace().next()?.to_owned())
}

/// The first file of that name; only for what is shown.
fn locate(program: &str, directory: &Path, path: &[u8]) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(directory.join(program));
    }
    let path = String::from_utf8_lossy(path);
    path.split(':').map(|entry| directory.join(entry).join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_from_programs_of_other_machines() {
        for script in [&b""[..], b"echo x\n", b"# \xc3\xa4 \xe4\n\techo\r\n", b"\x1b[1m"] {
            assert!(is_plain_text(script), "{script:?}");
        }
        for other in [
            &b"#!/bin/sh\n"[..],
            b"\x7fELF\x02",
            b"\x7fEL",
            b"MZ\x90\0",
            b"\0asm",
            b"\x1f\x8b",
            b"text\0",
            b"PK\x03\x04",
        ] {
            assert!(!is_plain_text(other), "{other:?}");
        }
    }

    #[test]
    fn directories_and_names_are_joined_within_bounds() {
        let mut buffer = [0; PATH_BYTES];
        assert_eq!(join(&mut buffer, b"/bin", b"ls"), Some(c"/bin/ls"));
        assert_eq!(join(&mut buffer, b"", b"ls"), Some(c"./ls"));
        assert_eq!(join(&mut buffer, &[b'a'; PATH_BYTES], b"ls"), None);
        assert_eq!(
            join(&mut buffer, &[b'a'; PATH_BYTES - 3], b"b").map(|path| path.to_bytes().len()),
            Some(PATH_BYTES - 1)
        );
        assert_eq!(join(&mut buffer, &[b'a'; PATH_BYTES - 2], b"b"), None);
        assert_eq!(join(&mut buffer, b"/bin", &[b'b'; 2 * PATH_BYTES]), None);
    }

    #[test]
    fn failures_pass_through_a_number() {
        let other = [Errno::NOEXEC, Errno::ACCESS, Errno::TOOBIG].map(Failure::Other);
        for failure in [Failure::NotFound, Failure::NoInterpreter, Failure::NoShell, Failure::IsDirectory]
            .into_iter()
            .chain(other)
        {
            assert_eq!(Failure::from_raw(failure.to_raw()), failure);
        }
    }
}
