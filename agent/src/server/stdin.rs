use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::watch::Watched;
use agent::protocol::{ExecRefusal, STDIN_WINDOW};
use bytes::{Buf, Bytes};
use tokio::sync::Notify;

/// Ends input on a terminal in its usual mode, as ^D does.
const END_OF_TRANSMISSION: &[u8] = &[4];

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
}

/// Where stdin goes.
pub enum Sink {
    Pipe(Watched),
    Terminal(Rc<Watched>),
}

impl Stdin {
    pub fn new(open: bool) -> Self {
        let state = State { queue: VecDeque::new(), accepted: 0, taken: 0, closing: !open, ended: !open };
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
