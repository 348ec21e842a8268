use std::rc::Rc;
use std::time::Duration;

use agent::protocol::KillCause;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::exec::Exec;
use super::processes;

/// SIGTERM to an exec's process tree, SIGKILL after the grace.
pub async fn kill(exec: Rc<Exec>, cause: KillCause, grace: Duration) {
    exec.mark_killed(cause);
    if !grace.is_zero() {
        signal_tree(&exec, Signal::TERM);
        // A stopped process acts on nothing but SIGKILL until it goes on.
        signal_tree(&exec, Signal::CONT);
        if tokio::time::timeout(grace, exec.finished()).await.is_ok() {
            return;
        }
    }
    kill_hard(&exec).await;
}

/// SIGKILL until nothing of the tree lives: what forks meanwhile is found by the next look.
pub async fn kill_hard(exec: &Exec) {
    for _ in 0..100 {
        if signal_tree(exec, Signal::KILL) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Signals the process group, as a terminal would.
pub fn signal_group(exec: &Exec, signal: Signal) {
    if let Some(leader) = leader(exec) {
        let _ = kill_process_group(leader, signal);
    }
}

/// How many were signalled.
fn signal_tree(exec: &Exec, signal: Signal) -> usize {
    let Some(leader) = leader(exec) else { return 0 };
    // The group first: it needs no `/proc`.
    let group = kill_process_group(leader, signal).is_ok();
    let members = processes::tree(leader.as_raw_nonzero().get());
    for pid in &members {
        let _ = kill_process(*pid, signal);
    }
    // A group of nothing but zombies still takes signals.
    if members.is_empty() && group && !exec.has_exited() {
        1
    } else {
        members.len()
    }
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
