use std::collections::{HashMap, HashSet};
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// One line of `/proc/PID/stat`.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    pub zombie: bool,
    /// Clock ticks after boot: with the pid, names a process for good.
    pub started: u64,
    /// In clock ticks.
    pub cpu_ticks: u64,
    pub rss_pages: u64,
}

impl Process {
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // One that has gone meanwhile needs no signal.
            let _ = kill_process(pid, signal);
        }
    }

    /// What no other process is ever called.
    pub fn name(&self) -> (i32, u64) {
        (self.pid, self.started)
    }

    pub fn is_alive(&self) -> bool {
        one(self.pid).is_some_and(|now| self.name() == now.name() && !now.zombie)
    }
}

/// All processes that can be seen; none where `/proc` is not mounted.
pub fn all() -> Vec<Process> {
    pids().filter_map(one).collect()
}

/// The numbers of all processes that can be seen, in their order, as the kernel tells them while they are taken.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
}

/// Ends a process. One that has gone meanwhile needs no signal.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn one(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses too.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Counted as in proc(5): the state is field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = |number: usize| field(number)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        zombie: matches!(field(3)?, "Z" | "X"),
        started: ticks(22)?,
        cpu_ticks: ticks(14)? + ticks(15)?,
        rss_pages: ticks(24)?,
    })
}

/// Signals everything in the sandbox but the agent.
pub fn signal_everything(signal: Signal) {
    if getpid().is_init() {
        // Reaches all of the pid namespace at once, with no race against a fork.
        signal_namespace(signal);
    } else {
        for process in offspring() {
            process.signal(signal);
        }
    }
}

pub fn any_left() -> bool {
    !offspring().is_empty()
}

fn offspring() -> Vec<Process> {
    let me = getpid().as_raw_nonzero().get();
    tree(|process| process.parent == me)
}

/// The living processes that are roots or descend from one; never the agent.
pub fn tree(is_root: impl Fn(&Process) -> bool) -> Vec<Process> {
    let processes = all();
    let me = getpid().as_raw_nonzero().get();
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in &processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut open: Vec<&Process> = processes.iter().filter(|process| is_root(process)).collect();
    let mut selected = HashSet::new();
    while let Some(process) = open.pop() {
        if process.pid != me && selected.insert(process.pid) {
            open.extend(children.get(&process.pid).into_iter().flatten());
        }
    }
    processes.into_iter().filter(|process| !process.zombie && selected.contains(&process.pid)).collect()
}

#[allow(unsafe_code)]
fn signal_namespace(signal: Signal) {
    // As anybody but the init of a pid namespace this would reach far beyond the sandbox.
    if getpid().is_init() {
        // SAFETY: kill has no memory effects.
        unsafe { libc::kill(-1, signal.as_raw()) };
    }
}
