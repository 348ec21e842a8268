mod attach;
mod child;
mod clock;
mod directory;
mod ending;
mod environment;
mod exec;
mod execs;
mod files;
mod kill;
mod launch;
mod listen;
mod mark;
mod memory;
mod oom;
mod oom_score;
mod options;
mod processes;
mod program;
mod session;
mod signals;
mod spawn;
mod spool;
mod stats;
mod stdin;
mod supervise;
mod terminal;
mod tunnel;
mod users;
mod watch;
mod watchdog;

pub use ending::Ending;
pub use options::{Options, USAGE};

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use agent::protocol::MAX_CHUNK;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// For work that may wait for a disk.
const BLOCKING_THREADS: usize = 8;

/// What all tasks of the agent share. Everything runs on one thread; blocking file work goes to a few more.
struct Agent {
    options: Options,
    /// Boot clock at start.
    began: Duration,
    execs: execs::Execs,
    oom: oom::OomKills,
    ending: ending::Control,
    deadline: ending::Deadline,
    watchdog: watchdog::Watchdog,
    /// What execs get beneath their own environment.
    environment: RefCell<Vec<(String, String)>>,
    /// And beneath that.
    image_environment: environment::ImageEnvironment,
    /// Whom the last exec ran as.
    known: RefCell<Option<spawn::Known>>,
    /// Every read of output goes through this one buffer: an idle exec needs none of its own.
    scratch: RefCell<Vec<u8>>,
    /// On the disk, for the output of all execs.
    spool_room: Rc<spool::Room>,
    /// Told whenever a connection ends.
    calmed: Notify,
    /// What children get back; the agent raises its own.
    descriptor_limit: Rlimit,
}

impl Agent {
    /// Puts the sandbox's own environment beneath that of an exec.
    fn complete_environment(&self, env: &mut Vec<(String, String)>) {
        for (name, value) in &*self.environment.borrow() {
            if !env.iter().any(|(given, _)| given == name) {
                env.push((name.clone(), value.clone()));
            }
        }
    }

    fn with_scratch<T>(&self, read: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut scratch = self.scratch.borrow_mut();
        if scratch.is_empty() {
            scratch.resize(MAX_CHUNK, 0);
        }
        read(&mut scratch)
    }
}

pub fn run(options: Options) -> Result<Ending, RunError> {
    close_inherited();
    memory::share_one_heap();
    // Bound before all else: whoever started the sandbox may connect the moment it runs.
    let listener = listen::bind(&options.socket).map_err(RunError::Bind)?;
    let descriptor_limit = rustix::process::getrlimit(Resource::Nofile);
    prepare_process(&options, descriptor_limit).map_err(RunError::Prepare)?;
    let signal_mask = signals::block().map_err(RunError::Prepare)?;
    let watchdog = watchdog::Watchdog::start(options.deadline).map_err(RunError::Prepare)?;
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        // Kept, and the first one made now: when the processes of the box are used up no other can be had, and
        // without any the runtime panics.
        .thread_keep_alive(Duration::from_secs(365 * 24 * 60 * 60))
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(RunError::Prepare)?;
    let _made = runtime.spawn_blocking(|| ());
    LocalSet::new().block_on(&runtime, async move {
        let listener = listen::Listener::new(listener, options.any_peer).map_err(RunError::Prepare)?;
        let signals = signals::Signals::new(&signal_mask).map_err(RunError::Prepare)?;
        let deadline = ending::Deadline::new(options.deadline).map_err(RunError::Prepare)?;
        let image_environment =
            if options.keep_environment { environment::ImageEnvironment::own() } else { Default::default() };
        let agent = Rc::new(Agent {
            image_environment,
            spool_room: spool::Room::new(options.spool_total_bytes),
            options,
            began: clock::boot(),
            execs: execs::Execs::default(),
            oom: oom::OomKills::find(),
            ending: ending::Control::default(),
            deadline,
            watchdog,
            environment: RefCell::default(),
            known: RefCell::default(),
            scratch: RefCell::default(),
            calmed: Notify::new(),
            descriptor_limit,
        });
        tokio::task::spawn_local(listener.serve(Rc::clone(&agent)));
        tokio::task::spawn_local(memory::trim_when_quiet(Rc::clone(&agent)));
        tokio::task::spawn_local(oom_score::keep_up(Rc::clone(&agent)));
        tokio::task::spawn_local(signals.serve(Rc::clone(&agent)));
        Ok(ending::wait(&agent).await)
    })
}

/// Whatever the agent's starter left open must not reach the workload.
#[allow(unsafe_code)]
fn close_inherited() {
    // SAFETY: nothing of this process has opened a descriptor yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

fn prepare_process(options: &Options, limit: Rlimit) -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_child_subreaper, set_dumpable_behavior, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    oom_score::lower_own();
    // Nobody in the sandbox may trace the agent or look at its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Where something else is PID 1, orphans still come here to be reaped and killed.
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Without it the agent serves fewer execs at once; no reason not to start.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    make_directories(options);
    Ok(())
}

/// What cannot be made now is complained about when somebody wants to work there.
fn make_directories(options: &Options) {
    let user = options.default_user.as_deref();
    let made = match &options.give {
        Some(path) if path.exists() => directory::hand_over(path, user),
        Some(path) => directory::make(path, user),
        None => Ok(()),
    };
    let workspace = &options.workspace;
    let made = made.and_then(|()| if workspace.exists() { Ok(()) } else { directory::make(workspace, user) });
    if let Err(error) = made {
        eprintln!("stacyvm-agent: make the directories to work in: {error}");
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("bind the socket: {0}")]
    Bind(io::Error),
    #[error("prepare the process: {0}")]
    Prepare(io::Error),
}
