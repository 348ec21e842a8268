use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use agent::protocol::KillCause;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use super::exec::Exec;
use super::processes::{self, Process};

/// How long what is killed may take to go. It takes milliseconds, unless a disk hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that one chase holds everything else up.
const CHASE: Duration = Duration::from_millis(20);

/// SIGTERM to an exec's process tree, SIGKILL to what is left of it after the grace.
pub async fn kill(exec: Rc<Exec>, cause: KillCause, grace: Duration) {
    exec.mark_killed(cause);
    // Remembered: when a parent ends first, its children are no longer to be found through it.
    let tree = tree(&exec, &[]);
    if !grace.is_zero() {
        for signal in [Signal::TERM, Signal::CONT] {
            // The second, because a stopped process acts on nothing until it goes on.
            signal_group(&exec, signal);
            tree.iter().for_each(|process| process.signal(signal));
        }
        let over_at = Instant::now() + grace;
        while Instant::now() < over_at && (tree.iter().any(Process::is_alive) || !exec.has_exited()) {
            sleep(Duration::from_millis(10)).await;
        }
    }
    kill_hard(&exec, tree).await;
}

/// SIGKILL to an exec's process tree, with what is known of it from before, until nobody is left of it.
pub async fn kill_hard(exec: &Exec, mut known: Vec<Process>) {
    let give_up_at = Instant::now() + PATIENCE;
    // First everything is stopped, so that nothing forks, or loses its parent, while it is looked for. What forks
    // faster than it is found comes to its end when the processes of the box are used up.
    while Instant::now() < give_up_at {
        let found = tree(exec, &known);
        let names: HashSet<_> = known.iter().map(Process::name).collect();
        let fresh: Vec<_> = found.into_iter().filter(|it| !names.contains(&it.name())).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|process| process.signal(Signal::STOP));
        known.extend(fresh);
        tokio::task::yield_now().await;
    }
    while Instant::now() < give_up_at {
        // The group too: that needs no `/proc`.
        signal_group(exec, Signal::KILL);
        let met = chase(exec);
        let found = tree(exec, &known);
        if !met && found.is_empty() {
            return;
        }
        found.iter().for_each(|process| process.signal(Signal::KILL));
        sleep(Duration::from_millis(5)).await;
    }
}

/// SIGKILL to whoever wears the mark of the exec, each in the moment in which it is seen. Whether anybody was.
///
/// What goes from process to process is gone before a list of all is complete. `/proc` is read in the order of pids, and what
/// forks is found again under a greater one: the reading does not end before it.
fn chase(exec: &Exec) -> bool {
    let give_up_at = Instant::now() + CHASE;
    let mut met = false;
    for pid in processes::pids() {
        if exec.mark.is_worn_by(pid) {
            met = true;
            processes::kill(pid);
        }
        // The agent has other things to do: the next round goes on.
        if met && Instant::now() >= give_up_at {
            break;
        }
    }
    met
}

/// Signals the process group, as a terminal would.
pub fn signal_group(exec: &Exec, signal: Signal) {
    if let Some(leader) = leader(exec) {
        let _ = kill_process_group(leader, signal);
    }
}

/// Living processes of the exec: its session, whoever wears its mark, what descends from those, and what is known from
/// before.
fn tree(exec: &Exec, known: &[Process]) -> Vec<Process> {
    let leader = leader(exec).map(|leader| leader.as_raw_nonzero().get());
    let known: HashSet<_> = known.iter().map(Process::name).collect();
    processes::tree(|process| {
        let is_known = leader == Some(process.session) || known.contains(&process.name());
        is_known || exec.mark.is_worn_by(process.pid)
    })
}

/// The exec's first process: leader of its session and group, whose number stays taken while any member
/// lives. Of an exec that is over nobody may be signalled: the number may be another's.
fn leader(exec: &Exec) -> Option<Pid> {
    if exec.is_finished() {
        return None;
    }
    // Once the leader is reaped, a process of its number means that the session is empty and the number
    // was given out anew.
    if exec.has_exited() && std::fs::exists(format!("/proc/{}", exec.pid)).unwrap_or(true) {
        return None;
    }
    Pid::from_raw(i32::try_from(exec.pid).ok()?)
}
