//! The clock of a replay: when the next thing is due, at a speed, with pauses cut short. It reads no clock itself.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// How fast a recording is played back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// As fast as the client takes it.
    Max,
}

impl Speed {
    /// The slowest and the fastest that is not `max`.
    pub const RANGE: std::ops::RangeInclusive<f64> = 0.1..=1000.0;

    /// Reads `0.1` to `1000`, or `max`.
    pub fn read(text: &str) -> Option<Self> {
        if text == "max" {
            return Some(Self::Max);
        }
        text.parse().ok().filter(|times| Self::RANGE.contains(times)).map(Self::Times)
    }

    fn real(self, recorded: Duration) -> Duration {
        match self {
            Self::Times(times) => recorded.div_f64(times),
            Self::Max => Duration::ZERO,
        }
    }

    fn recorded(self, real: Duration) -> Duration {
        match self {
            Self::Times(times) => real.mul_f64(times),
            Self::Max => Duration::MAX,
        }
    }
}

/// Says when the next thing is due.
#[derive(Debug, Clone)]
pub struct Pacer {
    speed: Speed,
    idle_limit: Option<Duration>,
    paused: bool,
    /// The recorded time of what was played last.
    last: Option<DateTime<Utc>>,
    /// How much recorded time is left before what comes next, as of `since`.
    left: Duration,
    since: Instant,
}

impl Pacer {
    /// A clock that runs from `now` on.
    pub const fn new(speed: Speed, idle_limit: Option<Duration>, now: Instant) -> Self {
        Self { speed, idle_limit, paused: false, last: None, left: Duration::ZERO, since: now }
    }

    /// What comes next happened at `time`. The first thing is due at once.
    pub fn expect(&mut self, time: DateTime<Utc>) {
        let gap = self.last.map_or(Duration::ZERO, |last| (time - last).to_std().unwrap_or_default());
        self.left = self.idle_limit.map_or(gap, |limit| gap.min(limit));
        // What happened by another clock a little earlier than the thing before it is due at once, and holds nothing up.
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
    }

    /// When that is due; `None` while paused.
    pub fn due(&self) -> Option<Instant> {
        // Further away than anybody waits.
        let far = Duration::from_secs(365 * 24 * 3600);
        (!self.paused).then(|| self.since + self.speed.real(self.left).min(far))
    }

    /// It was due, and it is out. Being late is made up for, up to a quarter of a second: a client that did not read for a
    /// while gets what follows at its pace.
    pub fn played(&mut self, now: Instant) {
        let due = self.due().unwrap_or(now);
        let late = now.saturating_duration_since(due);
        self.since = if late > Duration::from_millis(250) { now } else { due };
        self.left = Duration::ZERO;
    }

    /// Goes on at another speed, also with the wait that is under way.
    pub fn set_speed(&mut self, speed: Speed, now: Instant) {
        self.settle(now);
        self.speed = speed;
    }

    /// Stops the clock.
    pub fn pause(&mut self, now: Instant) {
        self.settle(now);
        self.paused = true;
    }

    /// Lets it go on.
    pub fn resume(&mut self, now: Instant) {
        self.settle(now);
        self.paused = false;
    }

    /// What comes next has nothing to do with what was before, and is due at once.
    pub fn jump(&mut self, now: Instant) {
        self.last = None;
        self.left = Duration::ZERO;
        self.since = now;
    }

    fn settle(&mut self, now: Instant) {
        if !self.paused {
            let gone = self.speed.recorded(now.saturating_duration_since(self.since));
            self.left = self.left.saturating_sub(gone);
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::milliseconds(ms)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When things of these times are played, in milliseconds from the beginning.
    fn schedule(speed: Speed, idle_limit: Option<Duration>, times: &[i64]) -> Vec<u128> {
        let begin = Instant::now();
        let mut pacer = Pacer::new(speed, idle_limit, begin);
        times
            .iter()
            .map(|time| {
                pacer.expect(at(*time));
                let due = pacer.due().unwrap();
                pacer.played(due);
                (due - begin).as_millis()
            })
            .collect()
    }

    #[test]
    fn speed_divides_and_idle_limit_cuts() {
        let times = [5000, 5100, 9100, 9100, 9000, 9300];
        assert_eq!(schedule(Speed::Times(1.0), None, &times), [0, 100, 4100, 4100, 4100, 4300]);
        assert_eq!(schedule(Speed::Times(4.0), None, &times), [0, 25, 1025, 1025, 1025, 1075]);
        assert_eq!(schedule(Speed::Times(0.5), Some(ms(1000)), &times), [0, 200, 2200, 2200, 2200, 2600]);
        assert_eq!(schedule(Speed::Max, None, &times), [0; 6]);
    }

    #[test]
    fn a_pause_adds_its_length_and_nothing_else() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(2.0), None, begin);
        pacer.expect(at(0));
        pacer.played(begin);
        pacer.expect(at(1000));
        pacer.pause(begin + ms(200));
        assert_eq!(pacer.due(), None);
        pacer.resume(begin + ms(700));
        assert_eq!(pacer.due(), Some(begin + ms(1000)));
        // A second resume changes nothing.
        pacer.resume(begin + ms(800));
        assert_eq!(pacer.due(), Some(begin + ms(1000)));
    }

    #[test]
    fn another_speed_holds_for_the_wait_under_way() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(1.0), None, begin);
        pacer.expect(at(0));
        pacer.played(begin);
        pacer.expect(at(1000));
        pacer.set_speed(Speed::Times(10.0), begin + ms(500));
        assert_eq!(pacer.due(), Some(begin + ms(550)));
        pacer.set_speed(Speed::Max, begin + ms(510));
        assert_eq!(pacer.due(), Some(begin + ms(510)));
    }

    #[test]
    fn a_little_lateness_is_made_up_for_and_much_is_not() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(1.0), None, begin);
        pacer.expect(at(0));
        pacer.played(begin + ms(100));
        pacer.expect(at(1000));
        assert_eq!(pacer.due(), Some(begin + ms(1000)));
        pacer.played(begin + ms(5000));
        pacer.expect(at(1500));
        assert_eq!(pacer.due(), Some(begin + ms(5500)));
    }

    #[test]
    fn after_a_jump_the_next_thing_is_due_at_once() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(1.0), None, begin);
        pacer.expect(at(0));
        pacer.played(begin);
        pacer.jump(begin + ms(10));
        pacer.expect(at(90_000));
        assert_eq!(pacer.due(), Some(begin + ms(10)));
    }

    #[test]
    fn a_speed_is_a_number_in_its_range_or_max() {
        assert_eq!(Speed::read("4"), Some(Speed::Times(4.0)));
        assert_eq!(Speed::read("0.1"), Some(Speed::Times(0.1)));
        assert_eq!(Speed::read("max"), Some(Speed::Max));
        for bad in ["", "0", "0.05", "1001", "-1", "nan", "inf", "fast"] {
            assert_eq!(Speed::read(bad), None, "{bad}");
        }
    }
}
