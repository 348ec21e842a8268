use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use agent::protocol::{
    AttachRefusal, ClosedOutput, ExecEnd, ExecId, ExecOutcome, ExecSummary, KillCause, Left, MAX_CHUNK,
    OutputEnd, Stream,
};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock;
use super::execs::Reaped;
use super::mark::Mark;
use super::spool::{Limits, Spool};
use super::stdin::Stdin;
use super::terminal::Terminal;

/// One execution, from its start until its output is acked.
pub struct Exec {
    pub id: ExecId,
    pub pid: u32,
    /// What its processes wear; none that it left behind can hide from it.
    pub mark: Mark,
    /// Processes ended for want of memory when it began.
    pub oom_kills: u64,
    /// Boot clock.
    pub began: Duration,
    pub stdin: Stdin,
    pub terminal: Option<Terminal>,
    limits: Limits,
    state: RefCell<State>,
    /// Something for the attached caller: output, stdin taken, the end, a newer attach.
    changed: Notify,
    /// Something for the readers of output: bytes were acked or sent.
    room: Notify,
    exited: Notify,
    /// Somebody closed the output that it had left open.
    closing: Notify,
    /// Whether the last word about it reached a caller.
    heard: Cell<bool>,
    /// How long its end waits for what it left running, where that is read on from then on. Otherwise it is thrown away.
    pub linger: Option<Duration>,
    /// For whoever takes it over and masks them.
    secrets: RefCell<Vec<String>>,
}

struct State {
    spools: [Spool; 2],
    /// First byte not yet sent to the attached caller.
    sent: [u64; 2],
    /// Counts attaches; only the newest one has a say.
    generation: u64,
    attached: bool,
    timed_out: bool,
    killed: Option<KillCause>,
    exit: Option<Exit>,
    outcome: Option<ExecOutcome>,
    /// It has ended, and its output is still read.
    open: bool,
    /// Why it is not any more.
    closed: Option<OutputEnd>,
}

#[derive(Clone, Copy)]
struct Exit {
    end: ExecEnd,
    at: Instant,
    duration: Duration,
    cpu_time: Duration,
    max_rss_bytes: u64,
}

/// What an attached caller is to be told next.
pub enum Next {
    Output {
        stream: Stream,
        offset: u64,
        bytes: Bytes,
    },
    Exited {
        outcome: ExecOutcome,
        /// More output follows, or followed.
        open: bool,
    },
    Closed(ClosedOutput),
    Nothing,
    Superseded,
    /// The spool file could not be read: the connection ends, the bytes stay for another try.
    Unreadable,
}

impl Exec {
    pub fn new(id: ExecId, pid: u32, limits: Limits, stdin: Stdin, terminal: Option<Terminal>) -> Self {
        Self {
            id,
            pid,
            mark: Mark::new(),
            oom_kills: u64::MAX,
            began: clock::boot(),
            stdin,
            terminal,
            limits,
            state: RefCell::new(State {
                spools: [Spool::new(), Spool::new()],
                sent: [0; 2],
                generation: 0,
                attached: false,
                timed_out: false,
                killed: None,
                exit: None,
                outcome: None,
                open: false,
                closed: None,
            }),
            changed: Notify::new(),
            room: Notify::new(),
            exited: Notify::new(),
            closing: Notify::new(),
            heard: Cell::new(false),
            linger: None,
            secrets: RefCell::default(),
        }
    }

    /// Makes the caller the one who is attached, and fences the one before.
    pub fn attach(&self, offsets: [u64; 2]) -> Result<u64, AttachRefusal> {
        let mut state = self.state.borrow_mut();
        for stream in Stream::BOTH {
            check_offset(stream, offsets[stream.index()], &state.spools[stream.index()])?;
        }
        state.generation += 1;
        state.attached = true;
        state.sent = offsets;
        let generation = state.generation;
        drop(state);
        self.changed.notify_waiters();
        Ok(generation)
    }

    pub fn detach(&self, generation: u64) {
        let mut state = self.state.borrow_mut();
        if state.generation == generation {
            state.attached = false;
            drop(state);
            self.room.notify_waiters();
        }
    }

    pub fn is_current(&self, generation: u64) -> bool {
        self.state.borrow().generation == generation
    }

    /// Resolves after the next change; create it before looking, so that none is missed.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    pub fn notify_changed(&self) {
        self.changed.notify_waiters();
    }

    /// The next word for the caller of `generation`, who has everything below `cursors` and knows of the end if `end_told`.
    pub fn next(&self, generation: u64, cursors: &mut [u64; 2], first: Stream, end_told: bool) -> Next {
        let mut state = self.state.borrow_mut();
        if state.generation != generation {
            return Next::Superseded;
        }
        let order = match first {
            Stream::Stdout => [Stream::Stdout, Stream::Stderr],
            Stream::Stderr => [Stream::Stderr, Stream::Stdout],
        };
        for stream in order {
            let index = stream.index();
            let spool = &state.spools[index];
            // Acks beyond what was sent are the caller's own loss.
            let offset = cursors[index].max(spool.base());
            // What was written after the end comes after the news of it.
            let most = match state.outcome.filter(|_| !end_told) {
                Some(outcome) => length_of(&outcome, stream).saturating_sub(offset),
                None => u64::MAX,
            };
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(MAX_CHUNK);
            if most == 0 {
                continue;
            }
            match spool.read(offset, most) {
                Ok(Some(bytes)) => {
                    cursors[index] = offset + bytes.len() as u64;
                    state.sent[index] = cursors[index];
                    return Next::Output { stream, offset, bytes };
                }
                Ok(None) => {}
                Err(_) => return Next::Unreadable,
            }
        }
        match (state.outcome, state.closed) {
            (Some(outcome), closed) if !end_told => {
                Next::Exited { outcome, open: state.open || closed.is_some() }
            }
            (Some(_), Some(reason)) => {
                let [stdout_len, stderr_len] = [state.spools[0].end(), state.spools[1].end()];
                Next::Closed(ClosedOutput { reason, stdout_len, stderr_len })
            }
            (Some(_) | None, _) => Next::Nothing,
        }
    }

    /// After a chunk went out.
    pub fn notify_sent(&self) {
        self.room.notify_waiters();
    }

    pub fn ack(&self, stream: Stream, offset: u64) {
        self.state.borrow_mut().spools[stream.index()].release(offset);
        self.room.notify_waiters();
    }

    pub fn push_output(&self, stream: Stream, bytes: &[u8], directory: &Path) {
        self.state.borrow_mut().spools[stream.index()].push(bytes, &self.limits, directory);
        self.changed.notify_waiters();
    }

    /// Waits until more output may be read. While somebody is attached who keeps up, reading does not
    /// run far ahead of sending: what is sent from memory need not be read back from the file.
    pub async fn wait_for_room(&self, stream: Stream) {
        const AHEAD: u64 = 2 * MAX_CHUNK as u64;
        const PATIENCE: Duration = Duration::from_millis(20);
        let until = Instant::now() + PATIENCE;
        loop {
            let room = self.room.notified();
            let (has_room, ahead) = {
                let state = self.state.borrow();
                let spool = &state.spools[stream.index()];
                let unsent = spool.end().saturating_sub(state.sent[stream.index()]);
                (spool.has_room(&self.limits), state.attached && unsent >= AHEAD)
            };
            match (has_room, ahead) {
                (true, false) => return,
                (true, true) => {
                    if tokio::time::timeout_at(until, room).await.is_err() {
                        return;
                    }
                }
                (false, _) => room.await,
            }
        }
    }

    /// The main process was reaped. `oom` says whether the kernel ended processes for want of memory meanwhile.
    pub fn set_exit(&self, reaped: &Reaped, oom: bool) {
        let mut state = self.state.borrow_mut();
        let status = reaped.status;
        let left = left(status);
        let end = match (state.timed_out, state.killed, left) {
            (true, _, left) => ExecEnd::TimedOut { left },
            (false, Some(cause), left) => ExecEnd::Killed { cause, left },
            (false, None, left) if oom => ExecEnd::OutOfMemory { left },
            (false, None, Left::Signal(signal)) => ExecEnd::Signaled { signal },
            (false, None, Left::Code(code)) => ExecEnd::Exited { code },
        };
        state.exit = Some(Exit {
            end,
            at: Instant::now(),
            duration: clock::since(self.began),
            cpu_time: reaped.cpu_time,
            max_rss_bytes: reaped.max_rss_bytes,
        });
        drop(state);
        self.exited.notify_waiters();
    }

    pub fn has_exited(&self) -> bool {
        self.state.borrow().exit.is_some()
    }

    pub fn exited_at(&self) -> Option<Instant> {
        self.state.borrow().exit.map(|exit| exit.at)
    }

    pub async fn exited(&self) {
        loop {
            let exited = self.exited.notified();
            if self.has_exited() {
                return;
            }
            exited.await;
        }
    }

    pub fn mark_timed_out(&self) {
        self.state.borrow_mut().timed_out = true;
    }

    /// The first cause counts.
    pub fn mark_killed(&self, cause: KillCause) {
        self.state.borrow_mut().killed.get_or_insert(cause);
    }

    /// The outcome is final. All output was read, or it is `open`: something holds it, and what that writes still belongs to the exec.
    pub fn finish(&self, open: bool) {
        let mut state = self.state.borrow_mut();
        let Some(exit) = state.exit else { return };
        state.open = open;
        state.outcome = Some(ExecOutcome {
            end: exit.end,
            stdout_len: state.spools[0].end(),
            stderr_len: state.spools[1].end(),
            duration: exit.duration,
            cpu_time: exit.cpu_time,
            max_rss_bytes: exit.max_rss_bytes,
        });
        drop(state);
        self.stdin.end();
        self.changed.notify_waiters();
    }

    /// Closes the output that was open; the first reason counts. False where it was not open.
    pub fn close_output(&self, reason: OutputEnd) -> bool {
        let mut state = self.state.borrow_mut();
        if !std::mem::replace(&mut state.open, false) {
            return false;
        }
        state.closed = Some(reason);
        drop(state);
        self.closing.notify_waiters();
        self.changed.notify_waiters();
        true
    }

    pub fn is_open(&self) -> bool {
        self.state.borrow().open
    }

    /// Why the output was closed that had been open.
    pub fn closed(&self) -> Option<OutputEnd> {
        self.state.borrow().closed
    }

    /// Waits until somebody closes the output that is open.
    pub async fn output_closed(&self) {
        loop {
            let closing = self.closing.notified();
            if !self.is_open() {
                return;
            }
            closing.await;
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state.borrow().outcome.is_some()
    }

    /// Ended, and nothing left that somebody might still want to read.
    pub fn is_spent(&self) -> bool {
        let state = self.state.borrow();
        state.outcome.is_some() && !state.open && state.spools.iter().all(Spool::is_empty)
    }

    pub fn keep_secrets(&self, values: Vec<String>) {
        *self.secrets.borrow_mut() = values;
    }

    pub fn secrets(&self) -> Vec<String> {
        self.secrets.borrow().clone()
    }

    pub fn set_heard(&self) {
        self.heard.set(true);
    }

    /// Whether somebody is attached who has yet to hear the end.
    pub fn is_awaited(&self) -> bool {
        self.state.borrow().attached && !self.heard.get()
    }

    pub fn summary(&self) -> ExecSummary {
        let state = self.state.borrow();
        ExecSummary {
            exec_id: self.id,
            pid: self.pid,
            age: clock::since(self.began),
            retained_from: [state.spools[0].base(), state.spools[1].base()],
            produced: [state.spools[0].end(), state.spools[1].end()],
            stdin_offset: self.stdin.accepted(),
            outcome: state.outcome,
        }
    }
}

/// What a wait status says.
pub fn left(status: i32) -> Left {
    if libc::WIFSIGNALED(status) {
        Left::Signal(libc::WTERMSIG(status))
    } else {
        Left::Code(libc::WEXITSTATUS(status))
    }
}

fn length_of(outcome: &ExecOutcome, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => outcome.stdout_len,
        Stream::Stderr => outcome.stderr_len,
    }
}

fn check_offset(stream: Stream, offset: u64, spool: &Spool) -> Result<(), AttachRefusal> {
    if offset < spool.base() {
        Err(AttachRefusal::Released { stream, retained_from: spool.base() })
    } else if offset > spool.end() {
        Err(AttachRefusal::BeyondEnd { stream, produced: spool.end() })
    } else {
        Ok(())
    }
}
