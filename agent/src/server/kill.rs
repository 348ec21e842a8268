use std::rc::Rc;
use std::time::Duration;

use agent::protocol::KillCause;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

use super::exec::Exec;
use super::processes::{self, Process};

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

/// SIGKILL to an exec's process tree, with what is known of it from before.
pub async fn kill_hard(exec: &Exec, mut known: Vec<Process>) {
    // First everything is stopped, so that nothing forks, or loses its parent, while it is looked for.
    for _ in 0..100 {
        let found = tree(exec, &known);
        let fresh: Vec<_> = found.into_iter().filter(|it| !known.iter().any(|old| old.is_same(it))).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|process| process.signal(Signal::STOP));
        known.extend(fresh);
    }
    for _ in 0..100 {
        // The group too: that needs no `/proc`.
        signal_group(exec, Signal::KILL);
        let found = tree(exec, &known);
        if found.is_empty() {
            return;
        }
        found.iter().for_each(|process| process.signal(Signal::KILL));
        sleep(Duration::from_millis(5)).await;
    }
}

/// Signals the process group, as a terminal would.
pub fn signal_group(exec: &Exec, signal: Signal) {
    if let Some(leader) = leader(exec) {
        let _ = kill_process_group(leader, signal);
    }
}

/// Living processes of the exec: its session, what descends from that, and what is known from before.
fn tree(exec: &Exec, known: &[Process]) -> Vec<Process> {
    let leader = leader(exec).map(|leader| leader.as_raw_nonzero().get());
    processes::tree(|process| leader == Some(process.session) || known.iter().any(|old| old.is_same(process)))
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
