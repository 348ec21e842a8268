//! A clock that a jump of the machine's clock does not move.
//!
//! Deadlines, retention and permits are instants of the day, and the machine's clock may be set: by hours, by mistake, and
//! back again two minutes later. What was destroyed meanwhile stays destroyed. So the time is kept on the boot clock, which
//! nobody can set, along the course that the machine's clock was last believed to have; small differences are followed, as a
//! clock that is being disciplined drifts. After a jump time goes on as before it, and the doubt is said: in the log, and to
//! whoever asks. A machine's clock that then keeps its new course is believed after a while.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use events::Clock;
use serde::{Deserialize, Serialize};

/// Differences up to this are followed at once: corrections of a clock that is kept in step.
const TOLERANCE: TimeDelta = TimeDelta::seconds(5);
/// How long a clock must keep a new course before it is believed.
const SETTLING: Duration = Duration::from_secs(15 * 60);
/// Two looks that are less than this apart are one.
const AT_ONCE: Duration = Duration::from_millis(50);
/// How often somebody looks who keeps watch.
const EVERY: Duration = Duration::from_secs(1);
/// By how much the course may change before it is written down again.
const WORTH_KEEPING: TimeDelta = TimeDelta::seconds(1);

/// Keeps the time on the boot clock. Cheap to ask.
pub struct SteadyClock {
    machine: Arc<dyn Clock>,
    course: Mutex<Course>,
    kept: Option<Kept>,
}

#[derive(Debug, Clone, Copy)]
struct Course {
    /// The instant that the boot clock counts from, as it is believed.
    origin: DateTime<Utc>,
    doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// By how much the machine is ahead of the course.
    ahead: TimeDelta,
    /// Since when, on the boot clock.
    since: Duration,
}

/// Where the course outlives the process: one that is started while the clock is wrong knows what was believed before.
struct Kept {
    path: PathBuf,
    boot_id: String,
    written: Mutex<Option<DateTime<Utc>>>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    /// Which run of the machine.
    boot_id: String,
    origin: DateTime<Utc>,
}

impl SteadyClock {
    /// A clock that believes what the machine says now.
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        let course = Course { origin: origin(&*machine), doubt: None };
        Self { machine, course: Mutex::new(course), kept: None }
    }

    /// The same, but where a process of this run of the machine left its course in this file, that is believed.
    pub fn kept_in(machine: Arc<dyn Clock>, path: PathBuf, boot_id: String) -> Self {
        let mut clock = Self::new(machine);
        let note = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
        let believed = note.filter(|note| note.boot_id == boot_id).map(|note| note.origin);
        if let Some(origin) = believed {
            clock.course.get_mut().unwrap_or_else(PoisonError::into_inner).origin = origin;
        }
        clock.kept = Some(Kept { path, boot_id, written: Mutex::new(believed) });
        clock
    }

    /// Looks every second, so that a jump is noticed while nobody asks. For a thread of its own; ends with the process.
    pub fn keep_watch(&self) -> ! {
        loop {
            self.look();
            std::thread::sleep(EVERY);
        }
    }

    /// Compares the clocks, and writes down what is believed.
    pub fn look(&self) {
        let course = self.follow();
        if let Some(kept) = &self.kept {
            kept.keep(course.origin);
        }
    }

    /// Compares the machine's two clocks, and says how they stand.
    fn follow(&self) -> Course {
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: an older look must not undo a newer one.
        let (found, boot) = (origin(&*self.machine), self.machine.since_boot());
        let ahead = found - course.origin;
        if ahead.abs() <= TOLERANCE {
            if course.doubt.take().is_some() {
                tracing::warn!("the machine's clock is back on its course");
            }
            course.origin = found;
            return *course;
        }
        let seconds = ahead.as_seconds_f64();
        match course.doubt {
            Some(doubt) if (ahead - doubt.ahead).abs() <= TOLERANCE => {
                if boot.saturating_sub(doubt.since) >= SETTLING {
                    tracing::error!(
                        clock.ahead_s = seconds,
                        "the machine's clock keeps the course that it jumped to: it is believed from here on"
                    );
                    *course = Course { origin: found, doubt: None };
                }
            }
            Some(_) | None => {
                tracing::error!(
                    clock.ahead_s = seconds,
                    settling_s = SETTLING.as_secs(),
                    "the machine's clock jumped: time goes on as before, and nothing old is dropped, until it is back or \
                     has kept its new course"
                );
                course.doubt = Some(Doubt { ahead, since: boot });
            }
        }
        *course
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> DateTime<Utc> {
        let course = self.follow();
        (course.origin + delta(self.machine.since_boot())).trunc_subsecs(6)
    }

    fn since_boot(&self) -> Duration {
        self.machine.since_boot()
    }

    fn doubt(&self) -> Option<TimeDelta> {
        self.follow().doubt.map(|doubt| doubt.ahead)
    }
}

impl Kept {
    fn keep(&self, origin: DateTime<Utc>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_some_and(|written| (origin - written).abs() < WORTH_KEEPING) {
            return;
        }
        let note = Note { boot_id: self.boot_id.clone(), origin };
        let mut partial = self.path.clone().into_os_string();
        partial.push(format!(".{}", std::process::id()));
        let kept = serde_json::to_vec(&note)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&partial, bytes))
            .and_then(|()| std::fs::rename(&partial, &self.path));
        match kept {
            Ok(()) => *written = Some(origin),
            // Without it a restart believes whatever the machine says then.
            Err(error) => tracing::debug!(error = %error, "the course of the clock is not written down"),
        }
    }
}

/// When the boot clock was at zero, if the machine's clock is right.
fn origin(machine: &dyn Clock) -> DateTime<Utc> {
    let mut tries = 0;
    loop {
        let before = machine.since_boot();
        let now = machine.now();
        // A process that was frozen between the two has not seen the clock jump.
        if machine.since_boot().saturating_sub(before) < AT_ONCE || tries == 10 {
            return now - delta(before);
        }
        tries += 1;
    }
}

fn delta(length: Duration) -> TimeDelta {
    TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::ManualClock;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
    }

    fn hours(hours: i64) -> TimeDelta {
        TimeDelta::hours(hours)
    }

    fn steady() -> (Arc<ManualClock>, SteadyClock) {
        let machine = Arc::new(ManualClock::new(at(0)));
        (Arc::clone(&machine), SteadyClock::new(machine))
    }

    #[test]
    fn a_jump_and_back_changes_nothing() {
        for jump in [hours(2), hours(-1), hours(24 * 365)] {
            let (machine, clock) = steady();
            machine.advance(TimeDelta::seconds(10));
            assert_eq!((clock.now(), clock.doubt()), (at(10), None));
            machine.jump(jump);
            assert_eq!((clock.now(), clock.doubt()), (at(10), Some(jump)));
            machine.advance(TimeDelta::seconds(150));
            assert_eq!((clock.now(), clock.doubt()), (at(160), Some(jump)));
            machine.jump(-jump);
            assert_eq!((clock.now(), clock.doubt()), (at(160), None));
        }
    }

    #[test]
    fn small_corrections_are_followed() {
        let (machine, clock) = steady();
        for _ in 0..100 {
            machine.advance(TimeDelta::seconds(1));
            machine.jump(TimeDelta::milliseconds(-400));
            assert_eq!((clock.now(), clock.doubt()), (machine.now(), None));
        }
    }

    #[test]
    fn a_new_course_is_believed_only_when_it_is_kept() {
        let (machine, clock) = steady();
        let settling = TimeDelta::from_std(SETTLING).unwrap();
        machine.jump(hours(1));
        assert!(clock.doubt().is_some());
        machine.advance(settling - TimeDelta::seconds(1));
        assert_eq!(clock.doubt(), Some(hours(1)));
        // Another jump: the doubt begins anew.
        machine.jump(hours(1));
        assert_eq!(clock.doubt(), Some(hours(2)));
        machine.advance(settling - TimeDelta::seconds(1));
        assert_eq!(clock.doubt(), Some(hours(2)));
        machine.advance(TimeDelta::seconds(1));
        clock.look();
        assert_eq!((clock.now(), clock.doubt()), (machine.now(), None));
    }

    #[test]
    fn a_process_that_starts_on_a_wrong_clock_knows_what_was_believed_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clock.json");
        let machine = Arc::new(ManualClock::new(at(0)));
        let start = |boot: &str| {
            SteadyClock::kept_in(Arc::clone(&machine) as Arc<dyn Clock>, path.clone(), boot.to_owned())
        };
        start("one").look();
        machine.advance(TimeDelta::seconds(60));
        machine.jump(hours(2));
        let next = start("one");
        next.look();
        assert_eq!((next.now(), next.doubt()), (at(60), Some(hours(2))));
        // After the machine itself was started again there is nothing to compare with.
        assert_eq!(start("two").doubt(), None);
    }
}
