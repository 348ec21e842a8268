//! An agent that has been busy should be as small again as one that never was.

use std::rc::Rc;
use std::time::Duration;

use super::Agent;

/// How long after the last connection the memory is given back: one burst of calls, one trim.
const SETTLE: Duration = Duration::from_secs(1);

/// One heap for all threads: the few that do file work would each keep their own.
#[allow(unsafe_code)]
pub fn share_one_heap() {
    // SAFETY: mallopt has no preconditions; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives memory back to the kernel whenever things have calmed down.
pub async fn trim_when_quiet(agent: Rc<Agent>) {
    loop {
        agent.calmed.notified().await;
        tokio::time::sleep(SETTLE).await;
        agent.scratch.take();
        trim();
    }
}

#[allow(unsafe_code)]
fn trim() {
    // SAFETY: malloc_trim has no preconditions.
    unsafe { libc::malloc_trim(0) };
}
