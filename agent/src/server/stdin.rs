use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::watch::Watched;
use agent::protocol::{ExecRefusal, STDIN_WINDOW, WriterId};
use bytes::{Buf, Bytes};
use tokio::sync::Notify;

/// Ends input on a terminal in its usual mode, as ^D does.
const END_OF_TRANSMISSION: &[u8] = &[4];

/// Writers of one exec that are remembered. One that was forgotten, because so many others came after it, cannot go on.
const WRITERS: usize = 256;

/// Bytes on their way to a process's stdin.
pub struct Stdin {
    state: RefCell<State>,
    /// For the feeding task.
    filled: Notify,
    /// For writers that wait for room.
    drained: Notify,
}

struct State {
    queue: VecDeque<Bytes>,
    /// One past the last byte ever queued.
    accepted: u64,
    /// One past the last byte that the process's pipe took.
    taken: u64,
    closing: bool,
    /// Nothing reads any more; what still comes is dropped, as a process that has closed its stdin would.
    ended: bool,
    /// Who writes, the one that came last at the end.
    writers: VecDeque<Writer>,
    /// Counts openings.
    openings: u64,
}

struct Writer {
    id: WriterId,
    /// Which opening of it is the newest; only that one has a say.
    opening: u64,
    /// Bytes of it that were queued.
    taken: u64,
}

/// One connection of a writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    id: WriterId,
    number: u64,
}

/// Where stdin goes.
pub enum Sink {
    Pipe(Watched),
    Terminal(Rc<Watched>),
}

impl Stdin {
    pub fn new(open: bool) -> Self {
        let state = State {
            queue: VecDeque::new(),
            accepted: 0,
            taken: 0,
            closing: !open,
            ended: !open,
            writers: VecDeque::new(),
            openings: 0,
        };
        Self { state: RefCell::new(state), filled: Notify::new(), drained: Notify::new() }
    }

    pub fn accepted(&self) -> u64 {
        self.state.borrow().accepted
    }

    pub fn taken(&self) -> u64 {
        self.state.borrow().taken
    }

    /// For the attached caller, who keeps to its window. False if it does not.
    #[must_use]
    pub fn push(&self, bytes: Bytes) -> bool {
        let mut state = self.state.borrow_mut();
        // Windows of callers cut off earlier may be queued too.
        if state.accepted - state.taken + bytes.len() as u64 > 4 * STDIN_WINDOW {
            return false;
        }
        state.accepted += bytes.len() as u64;
        if state.closing {
            state.taken = state.accepted;
        } else {
            state.queue.push_back(bytes);
        }
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Waits for room, skips what was written before, and queues the rest.
    pub async fn write(&self, offset: Option<u64>, mut bytes: Bytes) -> Result<(), ExecRefusal> {
        loop {
            let drained = self.drained.notified();
            {
                let mut state = self.state.borrow_mut();
                if let Some(offset) = offset {
                    let Some(known) = state.accepted.checked_sub(offset) else {
                        return Err(ExecRefusal::StdinGap { taken: state.accepted });
                    };
                    bytes.advance(usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len()));
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                if state.closing {
                    return Err(ExecRefusal::StdinClosed);
                }
                if state.accepted - state.taken < STDIN_WINDOW {
                    state.accepted += bytes.len() as u64;
                    state.queue.push_back(bytes);
                    self.filled.notify_one();
                    return Ok(());
                }
            }
            drained.await;
        }
    }

    /// A writer comes, or comes again: then the connection that it had before has no say any more. Tells how much of it was taken.
    pub fn open(&self, id: WriterId) -> (Opening, u64) {
        let mut state = self.state.borrow_mut();
        state.openings += 1;
        let number = state.openings;
        let known = state.writers.iter().position(|writer| writer.id == id);
        let taken = known.and_then(|at| state.writers.remove(at)).map_or(0, |writer| writer.taken);
        state.writers.push_back(Writer { id, opening: number, taken });
        if state.writers.len() > WRITERS {
            state.writers.pop_front();
        }
        drop(state);
        self.drained.notify_waiters();
        (Opening { id, number }, taken)
    }

    /// Waits for room and queues bytes of a writer. Tells how much of it was taken; nothing where a newer connection of it has come.
    pub async fn write_as(&self, opening: Opening, bytes: Bytes) -> Result<Option<u64>, ExecRefusal> {
        loop {
            let drained = self.drained.notified();
            {
                let mut state = self.state.borrow_mut();
                let State { queue, accepted, taken, closing, writers, .. } = &mut *state;
                let writer = writers.iter_mut().find(|writer| writer.id == opening.id);
                let Some(writer) = writer.filter(|writer| writer.opening == opening.number) else {
                    return Ok(None);
                };
                if *closing {
                    return Err(ExecRefusal::StdinClosed);
                }
                if *accepted - *taken < STDIN_WINDOW {
                    *accepted += bytes.len() as u64;
                    writer.taken += bytes.len() as u64;
                    queue.push_back(bytes);
                    self.filled.notify_one();
                    return Ok(Some(writer.taken));
                }
            }
            drained.await;
        }
    }

    /// End of input, after what is queued.
    pub fn close(&self) {
        self.state.borrow_mut().closing = true;
        self.filled.notify_one();
    }

    /// The process reads no more.
    pub fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.queue.clear();
        state.taken = state.accepted;
        (state.closing, state.ended) = (true, true);
        drop(state);
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Feeds the process until input ends or nobody reads. `progress` is told whenever bytes were taken.
    pub async fn feed(&self, sink: Sink, progress: impl Fn()) {
        loop {
            let next = {
                let mut state = self.state.borrow_mut();
                if state.ended {
                    return;
                }
                match state.queue.pop_front() {
                    None if state.closing => break,
                    next => next,
                }
            };
            let Some(bytes) = next else {
                self.filled.notified().await;
                continue;
            };
            let count = bytes.len() as u64;
            if sink.write_all(&bytes).await.is_err() {
                self.end();
                progress();
                return;
            }
            let mut state = self.state.borrow_mut();
            // `end` may have counted it already.
            state.taken = (state.taken + count).min(state.accepted);
            drop(state);
            self.drained.notify_waiters();
            progress();
        }
        if let Sink::Terminal(_) = &sink {
            let _ = sink.write_all(END_OF_TRANSMISSION).await;
        }
        self.end();
    }
}

impl Sink {
    async fn write_all(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        let descriptor = match self {
            Self::Pipe(pipe) => pipe,
            Self::Terminal(terminal) => terminal.as_ref(),
        };
        while !bytes.is_empty() {
            let mut guard = descriptor.writable().await?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }
}
