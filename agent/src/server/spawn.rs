use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::watch::{Watched, watch};
use agent::protocol::{StartErrorKind, StartExec, StartRefusal};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::child::{Child, Step};
use super::environment::{self, Circumstances};
use super::launch::launch;
use super::mark::Mark;
use super::program::{self, Failure, Program};
use super::terminal::Terminal;
use super::users::{self, User};
use super::{Agent, directory, stdin::Sink};

const PIPE_BYTES: usize = 1024 * 1024;

/// A process and the agent's ends of its streams.
pub struct Spawned {
    pub pid: u32,
    pub mark: Mark,
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

/// Whom an exec runs as, and where: what the files of the sandbox say of it.
pub struct Who {
    /// Nobody else than the agent when absent.
    user: Option<User>,
    home: String,
    directory: PathBuf,
}

/// Who was looked up last: most execs of a sandbox run as the same user.
pub struct Known {
    named: Option<String>,
    user: Option<User>,
    home: String,
    stamp: users::Stamp,
}

impl Known {
    /// The same, if the files that say so have not changed, and nothing has to be made.
    fn who(&self, agent: &Agent, start: &StartExec) -> Option<Who> {
        if self.named != start.user || users::stamp() != Some(self.stamp) {
            return None;
        }
        let workspace = &agent.options.workspace;
        let directory = match &start.cwd {
            Some(cwd) => workspace.join(cwd),
            None => workspace.is_dir().then(|| workspace.clone())?,
        };
        Some(Who { user: self.user.clone(), home: self.home.clone(), directory })
    }
}

/// Looks it up on another thread: these files are the sandbox's, and may be as large and on disks as slow as it likes. What
/// is known needs no other thread: that it is the same is seen without reading.
pub async fn look_up(agent: &Agent, start: &StartExec) -> Result<Who, SpawnError> {
    let known = agent.known.borrow().as_ref().and_then(|known| known.who(agent, start));
    if let Some(who) = known {
        return Ok(who);
    }
    // Before they are read: what changes meanwhile is another one.
    let stamp = users::stamp();
    let who = look_up_aside(agent, start).await?;
    *agent.known.borrow_mut() = stamp.map(|stamp| Known {
        named: start.user.clone(),
        user: who.user.clone(),
        home: who.home.clone(),
        stamp,
    });
    Ok(who)
}

async fn look_up_aside(agent: &Agent, start: &StartExec) -> Result<Who, SpawnError> {
    let named = start.user.clone();
    let default_user = agent.options.default_user.clone();
    let (workspace, cwd) = (agent.options.workspace.clone(), start.cwd.clone());
    let work = move || {
        let user = user_of(named, default_user.clone())?;
        let directory = match cwd {
            Some(cwd) => workspace.join(cwd),
            None => directory::default(&workspace, default_user.as_deref())
                .map_err(|error| refused(StartErrorKind::WorkingDirectory, error.to_string()))?,
        };
        let home = match &user {
            Some(user) => user.home.clone(),
            None => users::home_of(rustix::process::geteuid().as_raw()),
        };
        Ok(Who { user, home, directory })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(who) => who,
        Err(_) => Err(refused(StartErrorKind::Other, "the sandbox is ending".to_owned())),
    }
}

pub fn spawn(agent: &Agent, start: &StartExec, who: Who) -> Result<Spawned, SpawnError> {
    if start.argv.first().is_none_or(String::is_empty) {
        return Err(refused(StartErrorKind::InvalidArgument, "nothing to run".to_owned()));
    };
    check_environment(start)?;
    let Who { user, home, directory } = who;
    let circumstances =
        Circumstances { home: &home, user_was_named: start.user.is_some(), terminal: start.tty.is_some() };
    let environment::Complete { variables, path } =
        environment::complete(&start.env, &agent.image_environment, &circumstances);
    let invalid = |error: io::Error| refused(StartErrorKind::InvalidArgument, error.to_string());
    let executed = Program::new(&start.argv, variables, path.clone()).map_err(invalid)?;
    let resources = |error: io::Error| refused(StartErrorKind::Resources, format!("open streams: {error}"));
    let streams = match start.tty {
        Some(size) => on_terminal(size)
            .map_err(|error| refused(StartErrorKind::Terminal, format!("open a terminal: {error}")))?,
        None => on_pipes(start.stdin).map_err(resources)?,
    };
    let mark = Mark::new();
    let child = Child {
        directory: CString::new(directory.as_os_str().as_bytes()).map_err(|_| {
            refused(StartErrorKind::WorkingDirectory, "working directory has a NUL byte".to_owned())
        })?,
        user,
        terminal: start.tty.is_some(),
        descriptors: agent.descriptor_limit,
        program: executed,
        mark,
    };
    let Streams { of_child, stdin, outputs, terminal } = streams;
    let pid = agent
        .watchdog
        .over(|| launch(child, of_child))
        .map_err(|error| explain(&error, &directory, &path, start))?;
    // The child is reaped by pid, with all others.
    Ok(Spawned { pid, mark, stdin, outputs, terminal })
}

/// Whom it runs as; nothing for the agent's own user.
fn user_of(named: Option<String>, default_user: Option<String>) -> Result<Option<User>, SpawnError> {
    let unknown = |message: String| refused(StartErrorKind::UnknownUser, message);
    match (named, default_user) {
        (Some(name), _) => match User::find(&name) {
            Some(user) => Ok(Some(user)),
            None => Err(unknown(format!("no user {name:?} in the sandbox"))),
        },
        (None, Some(name)) => match User::find(&name) {
            Some(user) => Ok(Some(user)),
            None => Err(unknown(format!(
                "the image's user {name:?} is not in its account files; name another user"
            ))),
        },
        (None, None) => Ok(None),
    }
}

/// The streams of a child: its ends of them, and the agent's.
struct Streams {
    of_child: [OwnedFd; 3],
    stdin: Option<Sink>,
    outputs: Vec<(agent::protocol::Stream, Output)>,
    terminal: Option<Terminal>,
}

fn on_terminal(size: agent::protocol::TerminalSize) -> io::Result<Streams> {
    let (terminal, peer) = Terminal::open(size)?;
    let of_child = [peer.try_clone()?, peer.try_clone()?, peer];
    let stdin = Some(Sink::Terminal(terminal.master()));
    let outputs = vec![(agent::protocol::Stream::Stdout, terminal.master())];
    Ok(Streams { of_child, stdin, outputs, terminal: Some(terminal) })
}

fn on_pipes(stdin: bool) -> io::Result<Streams> {
    use agent::protocol::Stream;
    let (sink, input) = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (Some(Sink::Pipe(watch(write)?)), read)
    } else {
        (None, nothing()?)
    };
    let (stdout, stdout_end) = output_pipe()?;
    let (stderr, stderr_end) = output_pipe()?;
    let outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
    Ok(Streams { of_child: [input, stdout_end, stderr_end], stdin: sink, outputs, terminal: None })
}

/// What has nothing to read: `/dev/null`, or an empty pipe where the workload has put something else there, or taken it away.
fn nothing() -> io::Result<OwnedFd> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    if let Ok(file) = open(c"/dev/null", flags, Mode::empty())
        && let Ok(stat) = fstat(&file)
        && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
    {
        return Ok(file);
    }
    Ok(pipe_with(PipeFlags::CLOEXEC)?.0)
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

fn explain(error: &io::Error, directory: &Path, path: &[u8], start: &StartExec) -> SpawnError {
    let program = start.argv.first().map_or("", String::as_str);
    let Some((step, number)) = Step::of(error) else {
        return refused(StartErrorKind::InvalidArgument, format!("{program}: {error}"));
    };
    let reason = io::Error::from_raw_os_error(number);
    match step {
        Step::Directory => {
            let directory = directory.display();
            refused(StartErrorKind::WorkingDirectory, format!("working directory {directory}: {reason}"))
        }
        Step::User => {
            let user = start.user.as_deref().unwrap_or_default();
            refused(StartErrorKind::UserNotPermitted, format!("run as user {user:?}: {reason}"))
        }
        Step::Terminal => refused(StartErrorKind::Terminal, format!("take the terminal: {reason}")),
        Step::Program => not_executed(Failure::from_raw(number), directory, path, start),
        // Setting up the child, the fork itself: nothing of it is the caller's doing.
        Step::Other => match number {
            libc::E2BIG => too_big(program),
            _ => refused(StartErrorKind::Resources, format!("{program}: {reason}")),
        },
    }
}

/// What a shell would say, with its exit code.
fn not_executed(failure: Failure, directory: &Path, path: &[u8], start: &StartExec) -> SpawnError {
    let program = start.argv.first().map_or("", String::as_str);
    let says =
        |code: i32, what: &str| SpawnError::NotExecutable { code, message: format!("{program}: {what}\n") };
    match failure {
        Failure::NotFound if is_shell(start) => refused(
            StartErrorKind::InvalidArgument,
            "the image has no shell (/bin/sh): run a program with mode argv".to_owned(),
        ),
        Failure::NotFound if program.contains('/') => says(127, "No such file or directory"),
        Failure::NotFound => says(127, "command not found"),
        Failure::NoInterpreter => match program::interpreter(program, directory, path) {
            Some(interpreter) => {
                says(126, &format!("{interpreter}: bad interpreter: No such file or directory"))
            }
            None => says(126, "cannot execute: its dynamic loader or interpreter is not in the image"),
        },
        Failure::NoShell => says(126, "cannot execute: a script for /bin/sh, which is not in the image"),
        Failure::IsDirectory => says(126, "Is a directory"),
        Failure::Other(error) => match error.raw_os_error() {
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE => {
                refused(StartErrorKind::Resources, format!("{program}: {error}"))
            }
            libc::E2BIG => too_big(program),
            libc::EACCES => says(126, "Permission denied"),
            libc::ENOEXEC => says(126, "Exec format error"),
            libc::ELOOP => says(126, "Too many levels of symbolic links"),
            libc::ETXTBSY => says(126, "Text file busy"),
            libc::ENAMETOOLONG => says(126, "File name too long"),
            _ => says(126, &error.to_string()),
        },
    }
}

fn too_big(program: &str) -> SpawnError {
    let program: String = program.chars().take(100).collect();
    refused(
        StartErrorKind::InvalidArgument,
        format!("{program}: the arguments and the environment are larger than Linux takes"),
    )
}

/// Whether this is how a line of shell is run.
fn is_shell(start: &StartExec) -> bool {
    matches!(start.argv.as_slice(), [shell, option, ..] if shell == "/bin/sh" && option == "-c")
}

fn refused(kind: StartErrorKind, message: String) -> SpawnError {
    SpawnError::Refused(StartRefusal::NotStarted { kind, message })
}
