//! How much an agent may cost its caller. It may have been replaced, or stopped, by what runs in its sandbox: each wait has
//! an end, each answer a size, and all calls to one agent share what they may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::CallError;
use super::connections::{Held, Share};
use crate::protocol::{
    Entry, ExecEnd, ExecOutcome, FileRefusal, Left, MAX_PATH, PassedOver, Refusal, Searched, StartRefusal,
    TunnelRefusal,
};

/// From connecting to the first reply, where the agent answers from its memory.
pub const PROMPT: Duration = Duration::from_secs(10);
/// The same, where it has work to do on files whose number and size only the sandbox knows.
pub const WORK: Duration = Duration::from_secs(300);
/// How long a call waits for a connection of its node's, before the agent is asked.
pub const TURN: Duration = Duration::from_secs(5);
/// How long an agent may keep its caller waiting in the middle of an answer, or not read what it is sent.
pub const STALL: Duration = Duration::from_secs(30);
/// Bytes a second below which an answer counts as stalled, once [`STALL`] is used up.
const SLOWEST: u32 = 16 * 1024;

/// Calls to one agent that are short, at once: the next one waits for its turn.
const MOST_SHORT: usize = 64;
/// Calls to one agent that last as long as an exec, or as what is written to one. One more fails.
const MOST_LONG: usize = 4096 + 512;
/// Bytes of frames of one agent that have come in half.
const MOST_FRAMES: usize = 8 * 1024 * 1024;

/// Longest text of a refusal, in bytes.
const MOST_TEXT: usize = 1024;
/// Longest name of a file, in bytes (`NAME_MAX`), where each may have been no UTF-8 and become three.
const MOST_NAME: usize = 3 * 255;
/// The same for a path: that of a directory and one name more.
const MOST_PATH: usize = 3 * MAX_PATH + MOST_NAME + 1;

/// How long an operation lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Short,
    Long,
    /// Short, and asked by the node itself: whatever else is under way does not keep it from being asked.
    Urgent,
}

/// What a call holds while it is under way.
pub(super) struct Place {
    _agent: Option<OwnedSemaphorePermit>,
    _node: Option<Held>,
}

/// What all calls to one agent share.
pub(super) struct Shares {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    pub(super) frames: Arc<Semaphore>,
    /// Absent where nobody counts.
    node: Option<Arc<Share>>,
}

impl Default for Shares {
    fn default() -> Self {
        Self::with(None)
    }
}

impl Shares {
    /// One agent's, of what its tenant may have on the node.
    pub(super) fn with(node: Option<Arc<Share>>) -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        // Where there are few, an agent that says nothing leaves some to its tenant's others.
        let short = node.as_ref().map_or(MOST_SHORT, |node| (node.most() / 8).clamp(1, MOST_SHORT));
        Self { short: of(short), long: of(MOST_LONG), frames: of(MOST_FRAMES), node }
    }

    /// A place for one call, with the agent before its own limit and that of the node: each is waited for until it is too late.
    pub(super) async fn place<E>(
        &self,
        operation: &'static str,
        kind: Kind,
        limit: Duration,
    ) -> Result<Place, CallError<E>> {
        let agent = match kind {
            Kind::Urgent => None,
            Kind::Short => {
                let place = timeout_at(Instant::now() + limit, Arc::clone(&self.short).acquire_owned()).await;
                // Those that hold them have had no answer for as long.
                place.map_err(|_| CallError::Silent { operation, after: limit })?.ok()
            }
            Kind::Long => {
                let place = Arc::clone(&self.long).try_acquire_owned();
                Some(place.map_err(|_| CallError::Crowded { operation })?)
            }
        };
        let Some(node) = &self.node else { return Ok(Place { _agent: agent, _node: None }) };
        let taken = async {
            match kind {
                Kind::Urgent => node.take_urgently().await,
                Kind::Short | Kind::Long => Some(node.take().await),
            }
        };
        let taken = timeout_at(Instant::now() + limit.min(TURN), taken).await.ok().flatten();
        Ok(Place { _agent: agent, _node: Some(taken.ok_or(CallError::Full { operation })?) })
    }
}

/// How much longer an agent may keep its caller waiting. What it sends earns it time.
#[derive(Default)]
pub(super) struct Pace {
    left: Duration,
    /// Since when it is being waited for: a wait that is given up and taken up again is one.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn until(give_up_at: Instant) -> Self {
        Self { left: give_up_at.saturating_duration_since(Instant::now()), since: None }
    }

    /// Waits, but not for longer than is left; the error is how long it was.
    pub(super) async fn keep<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let outcome = timeout_at(since + self.left, wait).await;
        self.since = None;
        let waited = since.elapsed();
        self.left = self.left.saturating_sub(waited);
        outcome.map_err(|_| waited)
    }

    /// A reply has come.
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / SLOWEST;
        // The first reply may have had more time than those that follow, or less.
        self.left = (self.left + earned).min(STALL);
    }
}

/// A refusal whose texts are of a length that can be passed on, without control characters.
pub(super) fn sane(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Start(StartRefusal::NotStarted { kind, message }) => {
            StartRefusal::NotStarted { kind, message: text(message, MOST_TEXT) }.into()
        }
        Refusal::File(FileRefusal { kind, path, message }) => {
            FileRefusal { kind, path: text(path, MAX_PATH), message: text(message, MOST_TEXT) }.into()
        }
        Refusal::Tunnel(TunnelRefusal::Other { port, message }) => {
            TunnelRefusal::Other { port, message: text(message, MOST_TEXT) }.into()
        }
        other @ (Refusal::Start(StartRefusal::Attach(_))
        | Refusal::Attach(_)
        | Refusal::Exec(_)
        | Refusal::Tunnel(TunnelRefusal::ConnectionRefused { .. })) => other,
    }
}

fn text(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, "\u{fffd}");
    }
    text
}

/// Whether this is how an exec can have ended.
pub(super) fn is_possible(outcome: &ExecOutcome) -> bool {
    let left = |left: Left| match left {
        Left::Code(code) => (0..=255).contains(&code),
        Left::Signal(signal) => (1..=64).contains(&signal),
    };
    let end = match outcome.end {
        ExecEnd::Exited { code } => left(Left::Code(code)),
        ExecEnd::Signaled { signal } => left(Left::Signal(signal)),
        ExecEnd::TimedOut { left: how }
        | ExecEnd::Killed { cause: _, left: how }
        | ExecEnd::OutOfMemory { left: how } => left(how),
    };
    end && outcome.stdout_len.checked_add(outcome.stderr_len).is_some()
}

/// Whether an entry of a directory can be called this. Whoever writes such a tree down elsewhere relies on it: a name is one
/// part of a path, and leads nowhere.
pub(super) fn is_entry(entry: &Entry, asked: &str) -> bool {
    let above = entry.path.strip_suffix(entry.name.as_str()).is_some_and(|above| above.ends_with('/'));
    is_name(&entry.name) && above && is_absolute(&entry.path) && detours(&entry.path) <= detours(asked)
}

/// Whether a file that was named can be called this: its path is as it was asked for, and has a name of its own or none.
pub(super) fn is_file(entry: &Entry) -> bool {
    (is_name(&entry.name) || entry.name == entry.path) && is_absolute(&entry.path)
}

/// Whether this is the path of a match: absolute, without detours.
pub(super) fn is_match(path: &str) -> bool {
    is_absolute(path) && detours(path) == 0
}

/// Whether this is a path below a directory, without detours.
pub(super) fn is_beneath(path: &str) -> bool {
    path.len() <= MAX_PATH && path.split('/').all(is_name)
}

/// What was passed over, of a length that can be passed on.
pub(super) fn sane_end(end: Searched) -> Searched {
    let first = end.first.into_iter().take(Searched::MOST_NAMED);
    let first = first.map(|over| PassedOver { path: text(over.path, MAX_PATH), ..over }).collect();
    Searched { first, ..end }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MOST_NAME && !name.contains(['/', '\0'])
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MOST_PATH && !path.contains('\0')
}

fn detours(path: &str) -> usize {
    path.split('/').filter(|part| matches!(*part, "." | "..")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_is_sent_earns_time_and_what_is_dripped_does_not() {
        let mut pace = Pace::until(Instant::now() + 10 * STEP);
        // A byte at a time: it ends, however many come.
        let mut steps = 0;
        while pace.keep(tokio::time::sleep(STEP)).await.is_ok() {
            pace.earn(1);
            steps += 1;
            assert!(steps < 20);
        }
        // As much as an agent that works sends: it goes on.
        let mut pace = Pace::until(Instant::now() + 1000 * STEP);
        for _ in 0..50 {
            assert!(pace.keep(tokio::time::sleep(STEP)).await.is_ok());
            pace.earn(64 * 1024);
        }
        assert_eq!(pace.left, STALL);
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_and_taken_up_again_is_one() {
        let mut pace = Pace::until(Instant::now() + 10 * STEP);
        let mut kept = None;
        for _ in 0..20 {
            tokio::select! {
                outcome = pace.keep(std::future::pending::<()>()) => {
                    kept = Some(outcome);
                    break;
                }
                () = tokio::time::sleep(STEP) => {}
            }
        }
        assert!(matches!(kept, Some(Err(_))));
    }

    #[test]
    fn names_lead_nowhere() {
        for name in ["a", "...", "a b", "ä", &"x".repeat(255)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/", "a\0", &"x".repeat(1000)] {
            assert!(!is_name(name), "{name}");
        }
        for path in ["/", "/a", "/a/...", "/a b/c"] {
            assert!(is_match(path), "{path}");
        }
        for path in ["", "a", "/a/../b", "/..", "/a/.", "/a\0b", &"/x".repeat(10_000)] {
            assert!(!is_match(path), "{path}");
        }
        for path in ["a", "a/b", ".../x", "a b"] {
            assert!(is_beneath(path), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "../a", "a/..", "./a", "a\0b", &"x/".repeat(5000)] {
            assert!(!is_beneath(path), "{path}");
        }
        let entry = |name: &str, path: &str| Entry {
            name: name.to_owned(),
            path: path.to_owned(),
            size: 0,
            mode: 0,
            is_dir: false,
            is_symlink: false,
            modified_unix_seconds: 0,
            modified_nanos: 0,
        };
        // A path may be as roundabout as it was asked for, and no more.
        assert!(is_entry(&entry("a", "/w/../x/a"), "../x"));
        assert!(is_entry(&entry("a", "/a"), "/"));
        for (name, path) in
            [("a", "/x/../a"), ("a", "/x/b"), ("a", "/xa"), ("a", "a"), ("..", "/.."), ("", "/")]
        {
            assert!(!is_entry(&entry(name, path), "/x"), "{name} {path}");
        }
        assert!(
            is_file(&entry("/", "/")) && is_file(&entry("a", "/x/./a/")) && !is_file(&entry("b/c", "/b/c"))
        );
    }

    #[test]
    fn texts_are_cut_between_characters_and_hold_no_controls() {
        let cut = text("ä".repeat(1000), 1023);
        assert_eq!(cut, format!("{}…", "ä".repeat(511)));
        assert_eq!(text("a\x1b[2Jb\n".to_owned(), 100), "a\u{fffd}[2Jb\u{fffd}");
    }
}
