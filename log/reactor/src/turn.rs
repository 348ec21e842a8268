//! What time it is, for one decision.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::Clock;

/// What time it is, for one decision about one entity.
#[derive(Debug)]
pub struct Turn<'a> {
    now: DateTime<Utc>,
    since_boot: Duration,
    instants: &'a mut Instants,
}

/// The instants that an entity waits for, on the boot clock. As many as its last decision asked for.
#[derive(Debug, Default)]
pub(crate) struct Instants(Vec<Instant>);

#[derive(Debug)]
struct Instant {
    /// As the log says it.
    said: DateTime<Utc>,
    /// When that is.
    since_boot: Duration,
    used: bool,
}

impl Instants {
    /// Forgets what the last decision did not ask for.
    pub fn prune(&mut self) {
        self.0.retain_mut(|instant| std::mem::take(&mut instant.used));
    }
}

impl<'a> Turn<'a> {
    pub(crate) fn new(clock: &dyn Clock, instants: &'a mut Instants) -> Self {
        Self { now: clock.now(), since_boot: clock.since_boot(), instants }
    }

    /// The time of day. It may jump: lengths of time are measured by the other methods.
    pub const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// How long the machine has run: what a reactor measures its own pauses on.
    pub const fn since_boot(&self) -> Duration {
        self.since_boot
    }

    /// How long ago an instant passed that the log names; `None` while it is still to come. It is measured on the boot clock
    /// from when this entity first asked for it, so a clock that is set in between changes nothing.
    pub fn passed(&mut self, said: DateTime<Utc>) -> Option<Duration> {
        self.since_boot.checked_sub(self.on_boot_clock(said))
    }

    /// How long it is until then; nothing when it has passed.
    pub fn left(&mut self, said: DateTime<Utc>) -> Duration {
        self.on_boot_clock(said).saturating_sub(self.since_boot)
    }

    fn on_boot_clock(&mut self, said: DateTime<Utc>) -> Duration {
        if let Some(known) = self.instants.0.iter_mut().find(|instant| instant.said == said) {
            known.used = true;
            return known.since_boot;
        }
        let since_boot = match (said - self.now).to_std() {
            Ok(left) => self.since_boot.saturating_add(left),
            Err(_) => self.since_boot.saturating_sub((self.now - said).to_std().unwrap_or_default()),
        };
        self.instants.0.push(Instant { said, since_boot, used: true });
        since_boot
    }
}

/// For the unit tests of a reactor's decisions: turns of one entity, without a runtime.
#[derive(Debug, Default)]
pub struct Turns(Instants);

impl Turns {
    /// The next turn, at what the clock says.
    pub fn turn(&mut self, clock: &dyn Clock) -> Turn<'_> {
        self.0.prune();
        Turn::new(clock, &mut self.0)
    }
}
