//! Whether requests can be carried out: proven by a message that goes the way of all events and comes back.

use std::sync::Arc;
use std::time::Duration;

use api_types::{Open, UnreadyCause, UnreadyReason};
use events::ProviderName;
use feed::{Feed, View};
use policy::DiskFloor;
use record::EventStore;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use transport::{Log, ProbeError, TransportTrouble};

/// How long a proof is good; and the finding that there is none, so that the end of a trouble shows soon.
const PROVEN: Duration = Duration::from_secs(1);
const UNPROVEN: Duration = Duration::from_millis(300);
/// How long each leg of the way may take: to the transport, and from there to the record and back.
const LEG: Duration = Duration::from_millis(1_200);
/// The recorder speaks every second. After so long without a word nothing is being recorded, and so nothing answered.
const SILENCE: Duration = Duration::from_millis(3_500);
/// How long nothing can be recorded before who waits for the record is told.
const HOPELESS: Duration = Duration::from_millis(500);
const HOPELESS_FOR_BEGUN: Duration = Duration::from_secs(30);
/// For how long the recorder may say that it cannot write before requests are refused: a database changes its place now and
/// then.
const TROUBLE: Duration = Duration::from_millis(1_500);

/// One thing that is wrong.
fn cause(code: impl Into<Open<UnreadyReason>>, message: impl ToString) -> UnreadyCause {
    UnreadyCause { code: code.into(), message: message.to_string() }
}

/// Looks at all that requests go through.
pub struct Readiness {
    log: Log,
    feed: Feed,
    store: Arc<dyn EventStore>,
    disk: DiskFloor,
    max_lag: Duration,
    closing: CancellationToken,
    /// What was found last. Whoever asks while somebody looks waits for what that one finds.
    found: Mutex<Option<(Instant, Vec<UnreadyCause>)>>,
}

impl Readiness {
    /// Over these ports. New work is refused below `disk`, changes while the recorder is behind by more than `max_lag`.
    pub fn new(
        (log, feed, store): (Log, Feed, Arc<dyn EventStore>),
        disk: DiskFloor,
        max_lag: Duration,
        closing: CancellationToken,
    ) -> Self {
        Self { log, feed, store, disk, max_lag, closing, found: Mutex::default() }
    }

    /// All that is wrong; nothing when requests can be carried out.
    pub async fn check(&self) -> Vec<UnreadyCause> {
        let mut reasons = self.at_hand();
        let mut found = self.found.lock().await;
        let proof = match &*found {
            Some((at, proof)) if at.elapsed() < if proof.is_empty() { PROVEN } else { UNPROVEN } => {
                proof.clone()
            }
            _ => {
                let proof = self.prove().await;
                *found = Some((Instant::now(), proof.clone()));
                proof
            }
        };
        drop(found);
        for reason in proof {
            if !reasons.iter().any(|known| known.code == reason.code) {
                reasons.push(reason);
            }
        }
        reasons
    }

    /// Why nothing can be changed at the moment, by what is known without asking anybody.
    pub fn refusal(&self) -> Option<UnreadyCause> {
        if let Some(trouble) = self.log.refusal() {
            return Some(cause(Open::read(trouble.code()), trouble));
        }
        if let Some(trouble) =
            self.feed.recorder_trouble().filter(|trouble| trouble.since.elapsed() > TROUBLE)
        {
            return Some(cause(Open::read(trouble.failure.code()), "nothing can be written to the database"));
        }
        self.lag()
    }

    /// Waits until nothing can be recorded and that does not pass at once: what is not recorded by then need not be waited for.
    pub async fn hopeless(&self) {
        self.refused_for(HOPELESS).await;
    }

    /// The same for what is recorded to have begun: its end is worth more patience.
    pub async fn hopeless_for_begun(&self) {
        self.refused_for(HOPELESS_FOR_BEGUN).await;
    }

    /// Waits until nothing could be recorded for so long without a break.
    async fn refused_for(&self, patience: Duration) {
        let mut since: Option<Instant> = None;
        loop {
            tokio::time::sleep(HOPELESS / 6).await;
            match (self.refusal(), since) {
                (None, _) => since = None,
                (Some(_), None) => since = Some(Instant::now()),
                (Some(_), Some(at)) if at.elapsed() >= patience => return,
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Why no new work is taken though all is well.
    pub fn disk_low(&self) -> Option<UnreadyCause> {
        self.disk.low().map(|low| cause(UnreadyReason::DiskLow, low))
    }

    fn lag(&self) -> Option<UnreadyCause> {
        let lag = self.feed.recorder_lag();
        let seconds = lag.age.as_secs();
        (lag.age > self.max_lag).then(|| {
            cause(
                UnreadyReason::RecorderLag,
                format!("the recorder is {seconds} s behind, with {} messages", lag.messages),
            )
        })
    }

    fn at_hand(&self) -> Vec<UnreadyCause> {
        let mut reasons = Vec::new();
        if self.closing.is_cancelled() {
            reasons.push(cause(UnreadyReason::Stopping, "the gateway stops"));
        }
        reasons.extend(self.disk_low());
        let silent = self.feed.silent_for();
        if silent > SILENCE {
            reasons.push(cause(
                UnreadyReason::RecorderSilent,
                format!("the recorder has said nothing for {} s", silent.as_secs()),
            ));
        }
        reasons.extend(self.lag());
        reasons
    }

    /// Publishes something that is no event and waits until it is committed; reads the head of the record.
    async fn prove(&self) -> Vec<UnreadyCause> {
        let head = self.feed.head();
        let (probe, read) = tokio::join!(self.log.probe(LEG), timeout(2 * LEG, self.store.head()));
        let mut reasons = Vec::new();
        match probe {
            Ok(()) => {}
            Err(ProbeError::Transport(trouble)) => reasons.push(cause(Open::read(trouble.code()), trouble)),
            Err(error @ ProbeError::Full) => {
                reasons.push(cause(Open::read(TransportTrouble::Stuck.code()), error))
            }
            Err(error @ ProbeError::Unrecorded(failure)) => {
                reasons.push(cause(Open::read(failure.code()), error))
            }
            // Much is under way and the probe waits in line: as long as the line moves that is no failure.
            Err(ProbeError::Unanswered) if self.feed.head() > head => {}
            Err(error @ ProbeError::Unanswered) => reasons.push(match self.feed.recorder_trouble() {
                Some(trouble) => {
                    cause(Open::read(trouble.failure.code()), "the recorder cannot write to the database")
                }
                None => cause(UnreadyReason::RecorderStalled, error),
            }),
        }
        match read {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %events::ErrorChain(&error), "the head of the record cannot be read");
                reasons.push(cause(UnreadyReason::DatabaseUnavailable, "the event store cannot be read"));
            }
            Err(_) => {
                reasons.push(cause(UnreadyReason::DatabaseUnavailable, "the event store does not answer"))
            }
        }
        reasons
    }
}

/// Why no sandbox of a provider is made: on each node that has it, a disk that its sandboxes write on has too little room.
pub fn disk_low_of(view: &View, provider: &ProviderName) -> Option<UnreadyCause> {
    let mut found = None;
    for node in view.nodes().iter().filter(|node| !node.heartbeat.draining) {
        for report in node.heartbeat.providers.iter().filter(|report| report.name == *provider) {
            let low = report.error.as_deref().and_then(|error| error.strip_prefix("disk_low: "))?;
            found = Some(cause(UnreadyReason::DiskLow, low));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use transport::ProbeFailure;

    use super::*;

    #[test]
    fn what_the_log_says_is_a_word_of_the_api() {
        let transport = [
            TransportTrouble::Unreachable,
            TransportTrouble::Leaderless,
            TransportTrouble::Off,
            TransportTrouble::Stuck,
        ];
        let record = [ProbeFailure::Unavailable, ProbeFailure::Refused, ProbeFailure::Conflict];
        let codes = transport.map(TransportTrouble::code).into_iter().chain(record.map(ProbeFailure::code));
        for code in codes {
            assert!(Open::<UnreadyReason>::read(code).known().is_some(), "{code}");
        }
    }
}
