use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use agent::protocol::{
    ClosedOutput, ExecId, ExecRefusal, ExecSummary, KillCause, MAX_OPEN_OUTPUTS, OutputEnd,
};

use super::clock;
use super::exec::{Exec, left};
use super::oom::OomKills;

/// Outcomes remembered after their output was acked.
const REMEMBERED: usize = 4096;
/// Execs that may be live or hold unacked output at once.
const HELD: usize = 4096;

/// A child that has ended.
pub struct Reaped {
    pub pid: u32,
    /// As wait(2) gives it.
    pub status: i32,
    pub cpu_time: Duration,
    pub max_rss_bytes: u64,
}

/// Every exec that the agent knows.
#[derive(Default)]
pub struct Execs {
    table: RefCell<Table>,
}

#[derive(Default)]
struct Table {
    held: HashMap<ExecId, Rc<Exec>>,
    running: HashMap<u32, Rc<Exec>>,
    spent: HashMap<ExecId, Spent>,
    /// The remembered ones, oldest first.
    order: VecDeque<ExecId>,
    /// Those that have ended with their output open, the oldest first.
    open: VecDeque<Rc<Exec>>,
}

/// What is remembered of an exec when nothing is left to read of it.
#[derive(Clone)]
pub struct Spent {
    /// Its age is filled in when asked.
    summary: ExecSummary,
    began: Duration,
    /// Why its output was closed, where that was open after its end.
    closed: Option<OutputEnd>,
}

impl Spent {
    pub fn summary(&self) -> ExecSummary {
        ExecSummary { age: clock::since(self.began), ..self.summary }
    }

    pub fn closed(&self) -> Option<ClosedOutput> {
        let [stdout_len, stderr_len] = self.summary.produced;
        self.closed.map(|reason| ClosedOutput { reason, stdout_len, stderr_len })
    }
}

pub enum Known {
    Held(Rc<Exec>),
    Spent(Spent),
}

impl Execs {
    pub fn find(&self, id: ExecId) -> Option<Known> {
        let table = self.table.borrow();
        let held = table.held.get(&id).map(|exec| Known::Held(Rc::clone(exec)));
        held.or_else(|| table.spent.get(&id).cloned().map(Known::Spent))
    }

    /// An exec that has not ended.
    pub fn live(&self, id: ExecId) -> Result<Rc<Exec>, ExecRefusal> {
        match self.find(id) {
            Some(Known::Held(exec)) if !exec.is_finished() => Ok(exec),
            Some(Known::Held(_) | Known::Spent(_)) => Err(ExecRefusal::Ended),
            None => Err(ExecRefusal::UnknownExec(id)),
        }
    }

    pub fn is_full(&self) -> bool {
        self.table.borrow().held.len() >= HELD
    }

    /// Must come before the next reaping, so that the child's end finds it.
    pub fn insert(&self, exec: &Rc<Exec>) {
        let mut table = self.table.borrow_mut();
        table.held.insert(exec.id, Rc::clone(exec));
        if exec.pid != 0 {
            table.running.insert(exec.pid, Rc::clone(exec));
        }
    }

    pub fn reaped(&self, reaped: &Reaped, oom: &OomKills) {
        let exec = self.table.borrow_mut().running.remove(&reaped.pid);
        if let Some(exec) = exec {
            // It was killed, or something that it waited for was.
            let killed = left(reaped.status).exit_code() == 128 + libc::SIGKILL;
            exec.set_exit(reaped, killed && oom.any_since(exec.oom_kills));
        }
    }

    /// Keeps only the outcome of an exec that has ended and been read.
    pub fn retire_if_spent(&self, exec: &Exec) {
        if !exec.is_spent() {
            return;
        }
        let mut table = self.table.borrow_mut();
        if table.held.remove(&exec.id).is_none() {
            return;
        }
        table
            .spent
            .insert(exec.id, Spent { summary: exec.summary(), began: exec.began, closed: exec.closed() });
        table.order.push_back(exec.id);
        while table.order.len() > REMEMBERED {
            if let Some(oldest) = table.order.pop_front() {
                table.spent.remove(&oldest);
            }
        }
    }

    /// One more has ended with its output open. Where that makes too many, the oldest is closed.
    pub fn note_open(&self, exec: &Rc<Exec>) {
        let mut table = self.table.borrow_mut();
        table.open.push_back(Rc::clone(exec));
        let oldest = if table.open.len() > MAX_OPEN_OUTPUTS { table.open.pop_front() } else { None };
        drop(table);
        if let Some(oldest) = oldest {
            oldest.close_output(OutputEnd::TooMany);
        }
    }

    /// The output is closed of an exec that had left it open.
    pub fn note_closed(&self, exec: &Rc<Exec>) {
        self.table.borrow_mut().open.retain(|open| !Rc::ptr_eq(open, exec));
    }

    pub fn summaries(&self) -> Vec<ExecSummary> {
        let table = self.table.borrow();
        let spent = table.spent.values().map(Spent::summary);
        table.held.values().map(|exec| exec.summary()).chain(spent).collect()
    }

    pub fn mark_killed(&self, cause: KillCause) {
        for exec in self.table.borrow().running.values() {
            exec.mark_killed(cause);
        }
    }

    /// Waits until every attached caller has heard how its exec ended.
    pub async fn all_heard(&self) {
        while self.table.borrow().held.values().any(|exec| exec.is_awaited()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
