use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::watch::{Watched, watch};
use agent::protocol::{StartErrorKind, StartExec, StartRefusal};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, Rlimit};

use super::terminal::Terminal;
use super::users::{self, User};
use super::{Agent, stdin::Sink};

const PIPE_BYTES: usize = 1024 * 1024;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Above the agent's own: when memory runs out the workload goes first.
const OOM_SCORE: &[u8] = b"100";

/// The child tells which step failed by adding this to the error number.
const STEP: i32 = 1 << 16;
const STEP_DIRECTORY: i32 = 1;
const STEP_USER: i32 = 2;
const STEP_TERMINAL: i32 = 3;

/// A process and the agent's ends of its streams.
pub struct Spawned {
    pub pid: u32,
    pub stdin: Option<Sink>,
    pub outputs: Vec<(agent::protocol::Stream, Output)>,
    pub terminal: Option<Terminal>,
}

pub type Output = std::rc::Rc<Watched>;

pub enum SpawnError {
    Refused(StartRefusal),
    /// The program could not be executed: the exit code and message of a shell.
    NotExecutable {
        code: i32,
        message: String,
    },
}

pub fn spawn(agent: &Agent, start: &StartExec) -> Result<Spawned, SpawnError> {
    let Some((program, arguments)) = start.argv.split_first().filter(|(program, _)| !program.is_empty())
    else {
        return Err(refused(StartErrorKind::InvalidArgument, "nothing to run".to_owned()));
    };
    check_environment(start)?;
    let user = match &start.user {
        None => None,
        Some(name) => Some(User::find(name).ok_or_else(|| {
            refused(StartErrorKind::UnknownUser, format!("no user {name:?} in the sandbox"))
        })?),
    };
    let directory = agent.options.workspace.join(start.cwd.as_deref().unwrap_or(""));
    let directory_shown = directory.display().to_string();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(start.env.iter().map(|(name, value)| (name, value)));
    let has = |name: &str| start.env.iter().any(|(given, _)| given == name);
    if !has("PATH") {
        command.env("PATH", DEFAULT_PATH);
    }
    if !has("HOME") {
        let home = user
            .as_ref()
            .map_or_else(|| users::home_of(rustix::process::geteuid().as_raw()), |user| user.home.clone());
        command.env("HOME", home);
    }
    if start.tty.is_some() && !has("TERM") {
        command.env("TERM", "xterm-256color");
    }
    let resources = |error: io::Error| refused(StartErrorKind::Resources, format!("open streams: {error}"));
    let streams = match start.tty {
        Some(size) => on_terminal(&mut command, size)
            .map_err(|error| refused(StartErrorKind::Terminal, format!("open a terminal: {error}")))?,
        None => on_pipes(&mut command, start.stdin).map_err(resources)?,
    };
    let directory = CString::new(directory.as_os_str().as_bytes()).map_err(|_| {
        refused(StartErrorKind::WorkingDirectory, "working directory has a NUL byte".to_owned())
    })?;
    // The default workspace may be missing (read-only root); one that was asked for may not.
    let required = start.cwd.is_some();
    prepare_child(
        &mut command,
        Child {
            directory,
            required,
            user,
            terminal: start.tty.is_some(),
            descriptors: agent.descriptor_limit,
        },
    );
    let child = command.spawn().map_err(|error| explain(&error, program, &directory_shown, start))?;
    let (stdin, outputs, terminal) = streams;
    // The child is reaped by pid, with all others.
    Ok(Spawned { pid: child.id(), stdin, outputs, terminal })
}

type Streams = (Option<Sink>, Vec<(agent::protocol::Stream, Output)>, Option<Terminal>);

fn on_terminal(command: &mut Command, size: agent::protocol::TerminalSize) -> io::Result<Streams> {
    let (terminal, peer) = Terminal::open(size)?;
    command
        .stdin(Stdio::from(peer.try_clone()?))
        .stdout(Stdio::from(peer.try_clone()?))
        .stderr(Stdio::from(peer));
    let sink = Sink::Terminal(terminal.master());
    let output = (agent::protocol::Stream::Stdout, terminal.master());
    Ok((Some(sink), vec![output], Some(terminal)))
}

fn on_pipes(command: &mut Command, stdin: bool) -> io::Result<Streams> {
    let sink = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        command.stdin(Stdio::from(read));
        rustix::io::ioctl_fionbio(&write, true)?;
        Some(Sink::Pipe(watch(write)?))
    } else {
        command.stdin(Stdio::null());
        None
    };
    let (stdout, stdout_end) = output_pipe()?;
    let (stderr, stderr_end) = output_pipe()?;
    command.stdout(Stdio::from(stdout_end)).stderr(Stdio::from(stderr_end));
    use agent::protocol::Stream;
    Ok((sink, vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)], None))
}

fn output_pipe() -> io::Result<(Output, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Refused beyond the user's limit on pipe memory: then it is only slower.
    let _ = fcntl_setpipe_size(&read, PIPE_BYTES);
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((std::rc::Rc::new(watch(read)?), write))
}

fn check_environment(start: &StartExec) -> Result<(), SpawnError> {
    let invalid = |what: &str| Err(refused(StartErrorKind::InvalidArgument, what.to_owned()));
    if start.argv.iter().any(|argument| argument.contains('\0')) {
        return invalid("an argument has a NUL byte");
    }
    for (name, value) in &start.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(refused(StartErrorKind::InvalidArgument, format!("{name:?} cannot name a variable")));
        }
        if value.contains('\0') {
            return invalid("a variable has a NUL byte");
        }
    }
    Ok(())
}

/// What the child does to itself between fork and exec.
struct Child {
    directory: CString,
    required: bool,
    user: Option<User>,
    terminal: bool,
    descriptors: Rlimit,
}

#[allow(unsafe_code)]
fn prepare_child(command: &mut Command, child: Child) {
    let groups: Vec<_> =
        child.user.iter().flat_map(|user| &user.groups).map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
    let prepare = move || child.prepare(&groups);
    // SAFETY: `prepare` makes system calls only: no allocation, no locks.
    unsafe { command.pre_exec(prepare) };
}

impl Child {
    fn prepare(&self, groups: &[rustix::fs::Gid]) -> io::Result<()> {
        use rustix::fs::{Gid, Uid};
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        unblock_signals();
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(standard_input()).map_err(|error| at(STEP_TERMINAL, error))?;
        }
        rustix::process::setrlimit(Resource::Nofile, self.descriptors)?;
        raise_oom_score();
        if let Some(user) = &self.user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            set_thread_groups(groups)
                .and_then(|()| set_thread_res_gid(gid, gid, gid))
                .and_then(|()| set_thread_res_uid(uid, uid, uid))
                .map_err(|error| at(STEP_USER, error))?;
        }
        match rustix::process::chdir(self.directory.as_c_str()) {
            Err(error) if self.required => Err(at(STEP_DIRECTORY, error)),
            Err(_) => Ok(rustix::process::chdir(c"/")?),
            Ok(()) => Ok(()),
        }
    }
}

#[allow(unsafe_code)]
fn standard_input() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 was just set up and stays open until exec.
    unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) }
}

#[allow(unsafe_code)]
fn unblock_signals() {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; both calls are async-signal-safe.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Best effort: `/proc` may be missing or not ours.
fn raise_oom_score() {
    use rustix::fs::{Mode, OFlags, open};
    if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, OOM_SCORE);
    }
}

fn at(step: i32, error: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(step * STEP + error.raw_os_error())
}

fn explain(error: &io::Error, program: &str, directory: &str, start: &StartExec) -> SpawnError {
    let Some(code) = error.raw_os_error() else {
        return refused(StartErrorKind::InvalidArgument, format!("{program}: {error}"));
    };
    let (step, number) = (code / STEP, code % STEP);
    let reason = io::Error::from_raw_os_error(number);
    match step {
        STEP_DIRECTORY => {
            refused(StartErrorKind::WorkingDirectory, format!("working directory {directory}: {reason}"))
        }
        STEP_USER => {
            let user = start.user.as_deref().unwrap_or_default();
            refused(StartErrorKind::UserNotPermitted, format!("run as user {user:?}: {reason}"))
        }
        STEP_TERMINAL => refused(StartErrorKind::Terminal, format!("take the terminal: {reason}")),
        _ => match number {
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE => {
                refused(StartErrorKind::Resources, format!("{program}: {reason}"))
            }
            libc::ENOENT | libc::ENOTDIR => {
                let message =
                    if program.contains('/') { "No such file or directory" } else { "command not found" };
                SpawnError::NotExecutable { code: 127, message: format!("{program}: {message}\n") }
            }
            libc::EACCES => {
                SpawnError::NotExecutable { code: 126, message: format!("{program}: Permission denied\n") }
            }
            libc::ENOEXEC => {
                SpawnError::NotExecutable { code: 126, message: format!("{program}: Exec format error\n") }
            }
            libc::E2BIG => SpawnError::NotExecutable {
                code: 126,
                message: format!("{program}: Argument list too long\n"),
            },
            _ => SpawnError::NotExecutable { code: 126, message: format!("{program}: {reason}\n") },
        },
    }
}

fn refused(kind: StartErrorKind, message: String) -> SpawnError {
    SpawnError::Refused(StartRefusal::NotStarted { kind, message })
}
