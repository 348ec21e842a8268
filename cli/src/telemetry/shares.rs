//! How many log lines whoever may write: what a client or a sandbox can cause, it can cause for ever. Each place in the code
//! has so many lines at once and so many a second, and within them each sandbox, exec or tenant that a line names; of what is
//! left out it is said how much it was. Nobody's flood hides another's line, and the first lines of each come through.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place in the code.
const SITE: Rate = Rate { at_once: 200.0, each_second: 10.0 };
/// Lines of one place that name the same sandbox, exec or tenant.
const SUBJECT: Rate = Rate { at_once: 10.0, each_second: 0.1 };
/// Subjects that are remembered. Beyond them only the places count.
const MOST_SUBJECTS: usize = 16_384;
/// How often is said what was left out.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// The target of what is said here, which is never left out.
const TARGET: &str = "stacyvm::log";
/// Fields that say whom a line is about.
const SUBJECTS: [&str; 5] = ["sandbox.id", "exec.id", "tenant", "template", "webhook.id"];

/// A layer that leaves lines out. Clones share what they count.
#[derive(Clone, Default)]
pub struct Shares {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    sites: HashMap<Identifier, Site>,
    subjects: HashMap<(Identifier, u64), Bucket>,
}

struct Site {
    bucket: Bucket,
    metadata: &'static Metadata<'static>,
    left_out: u64,
}

struct Rate {
    at_once: f64,
    each_second: f64,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: &Rate, now: Instant) -> Self {
        Self { tokens: rate.at_once, at: now }
    }

    fn fill(&mut self, rate: &Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens, self.at) = ((self.tokens + passed * rate.each_second).min(rate.at_once), now);
        self.tokens
    }

    fn take(&mut self, rate: &Rate, now: Instant) -> bool {
        let has_one = self.fill(rate, now) >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

impl Shares {
    /// Says every few seconds what was left out, for as long as the process lives.
    pub fn tell(&self) -> io::Result<()> {
        let shares = self.clone();
        let thread = std::thread::Builder::new().name("log-shares".to_owned());
        thread.spawn(move || {
            loop {
                std::thread::sleep(TELL_EVERY);
                shares.tell_once();
            }
        })?;
        Ok(())
    }

    fn tell_once(&self) {
        let mut state = self.hold();
        let mut left_out = Vec::new();
        for site in state.sites.values_mut().filter(|site| site.left_out > 0) {
            left_out.push((site.metadata, std::mem::take(&mut site.left_out)));
        }
        drop(state);
        for (site, lines) in left_out {
            let place = format!("{}:{}", site.file().unwrap_or_default(), site.line().unwrap_or_default());
            tracing::warn!(
                target: TARGET,
                { log.lines = lines, log.level = %site.level(), log.place = place },
                "log lines were left out: there were too many like them"
            );
        }
    }

    fn admits(&self, site: &'static Metadata<'static>, subject: Option<u64>, now: Instant) -> bool {
        let (id, mut state) = (site.callsite(), self.hold());
        let state = &mut *state;
        let own = subject.is_none_or(|subject| {
            if state.subjects.len() >= MOST_SUBJECTS && !state.subjects.contains_key(&(id.clone(), subject)) {
                state.subjects.retain(|_, bucket| bucket.fill(&SUBJECT, now) < SUBJECT.at_once);
                if state.subjects.len() >= MOST_SUBJECTS {
                    return true;
                }
            }
            let bucket = state.subjects.entry((id.clone(), subject));
            bucket.or_insert_with(|| Bucket::full(&SUBJECT, now)).take(&SUBJECT, now)
        });
        let site = match state.sites.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(Site { bucket: Bucket::full(&SITE, now), metadata: site, left_out: 0 })
            }
        };
        let admitted = own && site.bucket.take(&SITE, now);
        if !admitted {
            site.left_out += 1;
        }
        admitted
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Shares {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let site = event.metadata();
        // What only an operator who looks for something asks for is all wanted.
        if *site.level() > Level::INFO || site.target() == TARGET {
            return true;
        }
        let mut subject = Subject::default();
        event.record(&mut subject);
        self.admits(site, subject.hash, Instant::now())
    }
}

/// Whom a line is about.
#[derive(Default)]
struct Subject {
    hash: Option<u64>,
}

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SUBJECTS.contains(&field.name()) {
            let mut hasher = DefaultHasher::new();
            (self.hash, field.name(), format!("{value:?}")).hash(&mut hasher);
            self.hash = Some(hasher.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(shares: &Shares, say: impl FnOnce()) -> String {
        let written = Written::default();
        let out = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || out.clone())
            .finish()
            .with(shares.clone());
        tracing::subscriber::with_default(subscriber, say);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_flood_is_cut_off_and_said_to_be_and_hides_nothing_else() {
        let shares = Shares::default();
        let text = written(&shares, || {
            for number in 0..10_000 {
                tracing::warn!(sandbox.id = "sb-red", number, "flood");
                tracing::debug!(sandbox.id = "sb-red", "asked for");
            }
            tracing::warn!(sandbox.id = "sb-blue", "not a flood");
            for sandbox in 0..10_000 {
                tracing::error!(sandbox.id = sandbox, "each of them");
            }
            tracing::error!("this matters");
            shares.tell_once();
            shares.tell_once();
        });
        let count = |what: &str| text.matches(what).count();
        assert!((10..100).contains(&count("sb-red\" number=")), "{}", count("number="));
        assert_eq!((count("asked for"), count("not a flood"), count("this matters")), (10_000, 1, 1));
        assert!((200..2_000).contains(&count("each of them")), "{}", count("each of them"));
        assert_eq!(count("were left out"), 2, "{text}");
        let told = |line: &str| line.split("log.lines=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
        let told: usize = text.lines().filter_map(told).sum();
        assert_eq!(told + count("flood") - 1 + count("each of them"), 20_000);
    }

    #[test]
    fn what_was_left_out_comes_again_later() {
        let now = Instant::now();
        let mut bucket = Bucket::full(&SUBJECT, now);
        while bucket.take(&SUBJECT, now) {}
        assert!(!bucket.take(&SUBJECT, now + Duration::from_secs(5)));
        assert!(bucket.take(&SUBJECT, now + Duration::from_secs(11)));
        assert!(!bucket.take(&SUBJECT, now + Duration::from_secs(12)));
    }
}
