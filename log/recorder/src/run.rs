use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use events::{Clock, ErrorChain, ExecState, Frame, Position, Registry, StreamMark, SystemClock};
use futures::future::try_join_all;
use record::{AppendBatch, AppendError, EventStore, Head, Record, StoreError};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{ProbeFailure, PublishError, RecorderLag, SourceError, SourceMessage};

use super::appending::{Appended, Appending, Drafted, ended};
use super::encoder::{EncodeError, Encoder, Sealing};
use super::gathered::Gathered;
use super::numberer::{Draft, DraftError, Known, Missing, Numberer};

/// A batch is full when it has this many events or bytes. What is ready is taken at once: the recorder never waits for a
/// batch to fill.
const BATCH_EVENTS: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
/// How often listeners are told how far the log goes while nothing happens, and how often the transport is told what it
/// may forget.
const BEAT: Duration = Duration::from_secs(1);
/// How often the log says that executors speak of what is not their own.
const FOREIGN_PAUSE: Duration = Duration::from_secs(10);
/// How often publishers are told up to where the transport is recorded, while much happens.
const MARKS: Duration = Duration::from_millis(200);
/// Pauses after failures: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// How long the batch at hand may take when it is time to stop. What is not committed then is read again by the next one.
const GRACE: Duration = Duration::from_secs(5);
/// How often one message alone may be refused by a healthy database before it is put aside for a person.
const REFUSALS: u32 = 3;

/// After the store has refused one duplicate, others may follow: for so many batches everything is looked up in the store before it is
/// taken for new.
const WARY_BATCHES: u32 = 1_000;

/// Messages of the transport, in order and without holes; and between them what is only offered, which may be left out, and may come
/// again through the stream.
#[async_trait]
pub trait Messages: Send {
    /// Which stream the sequences count in.
    fn incarnation(&self) -> &str;
    /// The first message that there is, where those before it that were asked for are forgotten already.
    fn gap(&self) -> Option<u64>;
    /// The next message. Cancel safe. After an error this reader is of no more use.
    async fn next(&mut self) -> Result<SourceMessage, SourceError>;
    /// The next message, if it is here already.
    fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>>;
}

/// What the recorder is connected to.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Its messages.
    type Messages: Messages;

    /// Reads what the head of the log says is not recorded yet. Messages may come again; none may be left out.
    async fn messages(&self, head: &Head) -> Result<Self::Messages, SourceError>;
    /// Tells listeners what was recorded. They can do without: they fill holes from the store.
    async fn announce(&self, frames: &[Frame]);
    /// Tells listeners how far the log goes, and how far behind that is.
    async fn announce_head(&self, head: Position, lag: RecorderLag);
    /// Tells publishers up to which message the transport is recorded. They hear it again soon.
    async fn announce_mark(&self, mark: &StreamMark);
    /// Tells executors how far these execs are recorded. They ask when they miss it.
    async fn announce_progress(&self, execs: &[ExecState]);
    /// Tells those who wait for it that a message without events is committed, or could not be.
    async fn answer(&self, probes: &[String], outcome: Result<(), ProbeFailure>);
    /// Keeps a message that cannot be recorded, for a person to look at. Durable on return.
    async fn bury(&self, payload: Bytes) -> Result<(), PublishError>;
    /// Everything up to and including this message of this stream is recorded. Of another stream nothing is, though it
    /// may have taken this one's place.
    async fn forget(&self, mark: &StreamMark) -> Result<(), SourceError>;
}

/// Records until `stop`. Never loses a message: what is not committed is read again. Whatever fails is tried again for
/// as long as it takes, from the head that the store has. Two recorders may run at once: of each batch one wins, and
/// what the other had is found to be recorded.
pub async fn run<T: Transport>(transport: T, record: Record, stop: CancellationToken) {
    run_with(transport, record, RecorderConfig::default(), stop).await;
}

/// What a recorder is set to.
#[derive(Debug, Clone, Default)]
pub struct RecorderConfig {
    /// Which bodies are sealed.
    pub sealing: Sealing,
}

/// The same, with a configuration.
pub async fn run_with<T: Transport>(
    transport: T,
    record: Record,
    config: RecorderConfig,
    stop: CancellationToken,
) {
    let mut recorder = Recorder {
        transport: Arc::new(transport),
        record,
        config,
        stop,
        refusals: 0,
        wary: 0,
        caught_up: false,
        keyed: true,
        suspect_until: 0,
        failures: 0,
        trouble: None,
        head: Position::ZERO,
        behind_since_us: None,
        clocks_differ_us: 0,
        forgetting: None,
        forgotten: (false, Instant::now()),
        mark: (StreamMark::default(), Instant::now()),
        foreign: (0, None),
    };
    loop {
        let stop = recorder.stop.clone();
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let ended = tokio::select! {
            () = overdue => return,
            ended = recorder.session() => ended,
        };
        let Err(error) = ended else { return };
        recorder.note(&error);
        if let Some(failure) = error.of_database() {
            recorder.trouble = Some(failure);
            recorder.transport.announce_head(recorder.head, recorder.lag(0)).await;
        }
        let pause = PAUSES.0.saturating_mul(1 << recorder.failures.min(6)).min(PAUSES.1);
        recorder.failures += 1;
        tokio::select! {
            () = recorder.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("another recorder was faster")]
    Overtaken,
    #[error("cannot append")]
    Append(#[from] AppendError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot put an unreadable message aside")]
    Bury(#[from] PublishError),
    #[error("cannot draft a batch")]
    Draft(#[from] DraftError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("an append broke off")]
    Broken(#[from] tokio::task::JoinError),
}

/// Whether more was recorded since the record was asked for its head.
fn is_overtaken(asked: &Head, now: &Head) -> bool {
    now.position != asked.position
        || now.incarnation != asked.incarnation
        || now.stream_sequence != asked.stream_sequence
}

/// What is told of an append that failed to those who wait for it.
fn failure_of(error: &AppendError) -> ProbeFailure {
    match error {
        AppendError::Conflict => ProbeFailure::Conflict,
        AppendError::Store(error) => trouble_of(error),
    }
}

fn trouble_of(error: &StoreError) -> ProbeFailure {
    if error.is_retryable() { ProbeFailure::Unavailable } else { ProbeFailure::Refused }
}

impl SessionError {
    /// What the database does, if that is what is wrong.
    fn of_database(&self) -> Option<ProbeFailure> {
        match self {
            Self::Append(AppendError::Store(error)) | Self::Store(error) => Some(trouble_of(error)),
            Self::Append(AppendError::Conflict)
            | Self::Overtaken
            | Self::Source(_)
            | Self::Bury(_)
            | Self::Draft(_)
            | Self::Encode(_)
            | Self::Broken(_) => None,
        }
    }
}

struct Recorder<T: Transport> {
    transport: Arc<T>,
    record: Record,
    config: RecorderConfig,
    stop: CancellationToken,
    /// How often in a row a healthy database refused one message.
    refusals: u32,
    /// Batches for which nothing is taken for new without a look.
    wary: u32,
    /// Whether all was read that the stream held when this session began. Some of that may have been offered before, and be recorded.
    caught_up: bool,
    /// Whether any sandbox may have a key.
    keyed: bool,
    /// Up to this message, messages are recorded one by one, because a batch that held them was refused.
    suspect_until: u64,
    /// Sessions in a row that recorded nothing.
    failures: u32,
    /// What the database does instead of recording, until it records again.
    trouble: Option<ProbeFailure>,
    /// Where the log stands, as far as known.
    head: Position,
    /// When the oldest message was published that was read and is not recorded, or that must be waiting.
    behind_since_us: Option<i64>,
    /// By how much our clock is ahead of the transport's, in microseconds.
    clocks_differ_us: i64,
    forgetting: Option<JoinHandle<()>>,
    /// Whether more was recorded since the transport was last told what it may forget, and when that was.
    forgotten: (bool, Instant),
    /// Up to where the transport is recorded, and when that was last said.
    mark: (StreamMark, Instant),
    /// How many events were put aside since that was last said, and when that was.
    foreign: (usize, Option<Instant>),
}

/// One session's state.
struct Work<M> {
    messages: M,
    numberer: Numberer,
    encoder: Encoder,
    /// Up to where the stream was read.
    read: StreamMark,
    appending: Option<Appending>,
}

impl<T: Transport> Recorder<T> {
    /// Records from the present head on until something fails, or until it is told to stop.
    async fn session(&mut self) -> Result<(), SessionError> {
        let head = self.record.head().await?;
        self.head = head.position;
        // Whoever committed this may have died, or lost the connection, before saying so.
        self.transport.announce_head(head.position, self.lag(0)).await;
        let messages = self.transport.messages(&head).await?;
        if let Some(first) = messages.gap() {
            // Asked again: another recorder may have gone on between the two questions.
            let now = self.record.head().await?;
            if is_overtaken(&head, &now) {
                return Err(SessionError::Overtaken);
            }
            tracing::error!(
                recorded = head.stream_sequence,
                first,
                "the database is older than the stream of events: what lies between them is lost"
            );
        }
        let incarnation = messages.incarnation().to_owned();
        let sequence = if incarnation == head.incarnation { head.stream_sequence } else { 0 };
        self.mark.0 = StreamMark { sequence, incarnation };
        self.say_mark().await;
        let mut work = Work {
            messages,
            numberer: Numberer::new(&head),
            encoder: Encoder::with(self.config.sealing.clone())?,
            read: self.mark.0.clone(),
            appending: None,
        };
        self.caught_up = false;
        // As long as no sandbox has a key and none gets one, nobody needs to be asked.
        self.keyed = self.config.sealing.enabled || self.record.keys.any().await?;
        let outcome = self.work(&mut work).await;
        if work.appending.is_none() {
            return outcome;
        }
        // What went wrong first is what counts; what was appended is said all the same.
        let last = match ended(&mut work.appending).await {
            Ok(appended) => self.committed(appended).await,
            Err(error) => Err(error.into()),
        };
        outcome.and(last)
    }

    /// While one batch is being appended the next is gathered, and drafted as soon as that is worth it.
    async fn work(&mut self, work: &mut Work<T::Messages>) -> Result<(), SessionError> {
        let beat = tokio::time::sleep(BEAT);
        tokio::pin!(beat);
        let (mut idle, mut heard) = (false, Instant::now());
        loop {
            let mut gathered = Gathered { mark: work.read.clone(), ..Gathered::default() };
            let mut failed = None;
            while failed.is_none() && !gathered.is_due(work.appending.is_some()) {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    appended = ended(&mut work.appending), if work.appending.is_some() => {
                        self.committed(appended?).await?;
                        self.note_waiting(&gathered);
                    }
                    message = work.messages.next(), if !self.is_full(&gathered) => {
                        heard = Instant::now();
                        if let Ok(SourceMessage { place: Some(place), .. }) = &message
                            && std::mem::take(&mut idle)
                        {
                            // It was waited for, so it is new: what it seems to be old is by how much the clocks differ.
                            self.clocks_differ_us = now_us().saturating_sub(place.published_us);
                        }
                        let mut next = Some(message);
                        while let Some(message) = next {
                            match message {
                                Ok(message) => gathered.add(message),
                                Err(error) => failed = Some(error),
                            }
                            let goes_on = failed.is_none() && !self.is_full(&gathered);
                            next = if goes_on { work.messages.next_ready() } else { None };
                        }
                        self.note_waiting(&gathered);
                    }
                    () = &mut beat => {
                        if work.appending.is_none() && gathered.messages == 0 && heard.elapsed() >= BEAT {
                            idle = true;
                            heard = Instant::now();
                            self.beat(work.numberer.head()).await;
                        }
                        beat.as_mut().reset(heard + BEAT);
                    }
                }
            }
            if gathered.messages > 0 {
                work.read = gathered.mark.clone();
                let drafted = self.draft(work, gathered).await;
                if work.appending.is_some() {
                    self.committed(ended(&mut work.appending).await?).await?;
                }
                if let Some(drafted) = drafted? {
                    work.appending = Some(Appending::start(&self.record.store, drafted));
                }
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
    }

    /// Nothing happens.
    async fn beat(&mut self, head: Position) {
        self.caught_up = true;
        self.behind_since_us = None;
        self.trouble = None;
        self.transport.announce_head(head, RecorderLag::default()).await;
        self.say_mark().await;
        self.forget();
        self.tidy().await;
    }

    /// What was read and is not recorded is how far this is behind.
    fn note_waiting(&mut self, gathered: &Gathered) {
        if self.behind_since_us.is_none() {
            self.behind_since_us = gathered.oldest_us;
        }
    }

    /// Whether no more may be gathered.
    fn is_full(&self, gathered: &Gathered) -> bool {
        let suspect = gathered.newest.is_some() && gathered.mark.sequence <= self.suspect_until;
        suspect || gathered.events.len() >= BATCH_EVENTS || gathered.bytes >= BATCH_BYTES
    }

    /// What is to be appended. Nothing, where nothing of it is news and the stream is not recorded any further by it.
    async fn draft(
        &mut self,
        work: &mut Work<T::Messages>,
        gathered: Gathered,
    ) -> Result<Option<Drafted>, SessionError> {
        let Gathered { events, mark, unreadable, probes, only, newest, .. } = gathered;
        for payload in unreadable {
            self.transport.bury(payload).await?;
        }
        let missing = work.numberer.missing(&events, self.wary == 0 && self.caught_up);
        let unknown_keys = if self.keyed { work.encoder.missing(&events) } else { Vec::new() };
        let (known, keys) =
            tokio::try_join!(load(&*self.record, work.numberer.registry(), &missing), async {
                if unknown_keys.is_empty() {
                    Ok(Vec::new())
                } else {
                    self.record.keys.of(&unknown_keys).await
                }
            })?;
        work.numberer.learn(missing, known);
        work.encoder.learn(&unknown_keys, keys)?;
        let ids = if mark.sequence > self.suspect_until {
            Numberer::ids_to_check(&events)
        } else {
            // Something here breaks a rule of the database: trust no shortcut.
            events.iter().map(|incoming| incoming.event.id).collect()
        };
        let mut recorded = HashSet::new();
        if !ids.is_empty() {
            recorded.extend(self.record.known_ids(&ids).await?);
            // What is being appended may not be there yet.
            recorded.extend(work.appending.iter().flat_map(|appending| appending.ids.iter().copied()));
        }
        let of_stream = newest.is_some();
        let Draft { batch, dropped, foreign, execs } =
            work.numberer.draft(events, &recorded, mark, &mut work.encoder)?;
        for (id, reason) in &dropped {
            tracing::debug!(event.id = %id, reason = ?reason, "an event is not recorded");
        }
        if !foreign.is_empty() {
            self.put_aside(&foreign).await?;
        }
        let is_news = of_stream || !batch.events.is_empty();
        Ok(is_news.then_some(Drafted { batch, execs, probes, only, newest }))
    }

    /// Says what became of a batch to everybody whom it concerns.
    async fn committed(&mut self, appended: Appended) -> Result<(), SessionError> {
        let Appended { drafted: Drafted { batch, execs, probes, only, newest }, outcome } = appended;
        if let Err(error) = outcome {
            self.transport.answer(&probes, Err(failure_of(&error))).await;
            return self.refused(error, batch.after, batch.stream, only).await;
        }
        if !batch.data_keys.is_empty() {
            self.keyed = true;
            self.tidy().await;
        }
        let head = batch.end();
        let frames: Vec<Frame> = batch.events.into_iter().map(|event| event.frame).collect();
        self.forgotten.0 |= newest.is_some();
        self.mark.0 = batch.stream;
        let pending = newest.map_or(0, |place| place.pending);
        if let Some(newest) = newest {
            // Whatever comes next is not older than what was recorded last.
            self.behind_since_us = (pending > 0).then_some(newest.published_us);
            self.caught_up |= pending == 0;
        }
        (self.trouble, self.head) = (None, head);
        let lag = self.lag(pending);
        self.transport.answer(&probes, Ok(())).await;
        if !frames.is_empty() {
            self.transport.announce(&frames).await;
        }
        // Also when all of it was recorded already: silence would be taken for standing still.
        self.transport.announce_head(head, lag).await;
        self.transport.announce_progress(&execs).await;
        (self.failures, self.refusals) = (0, 0);
        self.wary = self.wary.saturating_sub(1);
        if self.mark.1.elapsed() >= MARKS {
            self.say_mark().await;
        }
        self.forget();
        Ok(())
    }

    /// After a failed append. A message that can never be recorded must not hold up all others for ever. That the store
    /// cannot record anything now says nothing about a message.
    async fn refused(
        &mut self,
        error: AppendError,
        after: Position,
        stream: StreamMark,
        only: Option<Bytes>,
    ) -> Result<(), SessionError> {
        if !matches!(error, AppendError::Store(StoreError::Unfit { .. })) {
            return Err(error.into());
        }
        // Most likely an exec was taken for new that was not: look first, before suspecting the messages themselves.
        if std::mem::replace(&mut self.wary, WARY_BATCHES) == 0 {
            return Err(error.into());
        }
        self.suspect_until = self.suspect_until.max(stream.sequence);
        let Some(payload) = only else {
            return Err(error.into());
        };
        self.refusals += 1;
        if self.refusals <= REFUSALS {
            return Err(error.into());
        }
        tracing::error!(error = %ErrorChain(&error), stream.sequence, "the database refuses a message: put aside");
        self.transport.bury(payload).await?;
        let empty = AppendBatch { after, stream, ..AppendBatch::default() };
        self.record.append(&empty).await?;
        self.refusals = 0;
        // The numberer assumed that the events were recorded.
        Err(error.into())
    }

    /// Keeps what an executor said and had no business to. Said in the log now and then: it may say a lot.
    async fn put_aside(&mut self, foreign: &[Frame]) -> Result<(), SessionError> {
        self.foreign.0 += foreign.len();
        if self.foreign.1.is_none_or(|said| said.elapsed() >= FOREIGN_PAUSE) {
            let events = std::mem::take(&mut self.foreign.0);
            tracing::error!(events, "an executor speaks of sandboxes that are not its own: put aside");
            self.foreign.1 = Some(Instant::now());
        }
        Ok(self.transport.bury(events::encode_batch(foreign)).await?)
    }

    /// What is left undone is tried again when there is nothing else to do.
    async fn tidy(&self) {
        if let Err(error) = self.record.keys.sweep().await {
            tracing::warn!(error = %ErrorChain(&error), "destroyed keys are not swept away yet");
        }
    }

    /// How far this is behind, with so many messages waiting.
    fn lag(&self, messages: u64) -> RecorderLag {
        let age_us = |since_us: i64| now_us().saturating_sub(since_us).saturating_sub(self.clocks_differ_us);
        let age = self.behind_since_us.map_or(0, age_us);
        let age = Duration::from_micros(u64::try_from(age).unwrap_or_default());
        RecorderLag { age, messages, trouble: self.trouble }
    }

    fn note(&self, error: &SessionError) {
        if matches!(error, SessionError::Append(AppendError::Conflict) | SessionError::Overtaken) {
            tracing::info!("another recorder is at work");
        } else {
            tracing::warn!(error = %ErrorChain(error), "the recorder goes back to the head of the log");
        }
    }

    async fn say_mark(&mut self) {
        self.transport.announce_mark(&self.mark.0).await;
        self.mark.1 = Instant::now();
    }

    /// Tells the transport what it may forget, now and then and beside the work.
    fn forget(&mut self) {
        let (recorded, at) = self.forgotten;
        let busy = self.forgetting.as_ref().is_some_and(|task| !task.is_finished());
        if !recorded || busy || at.elapsed() < BEAT {
            return;
        }
        self.forgotten = (false, Instant::now());
        let (transport, mark) = (Arc::clone(&self.transport), self.mark.0.clone());
        self.forgetting = Some(tokio::spawn(async move {
            if let Err(error) = transport.forget(&mark).await {
                tracing::warn!(error = %ErrorChain(&error), "recorded messages could not be purged");
            }
        }));
    }
}

impl<T: Transport> Drop for Recorder<T> {
    fn drop(&mut self) {
        if let Some(task) = self.forgetting.take() {
            task.abort();
        }
    }
}

fn now_us() -> i64 {
    SystemClock.now().timestamp_micros()
}

async fn load(store: &dyn EventStore, registry: &Registry, missing: &Missing) -> Result<Known, StoreError> {
    let wanted = registry.kinds().iter().filter_map(|kind| Some((kind, missing.things.get(kind.name)?)));
    let things = try_join_all(wanted.map(|(kind, keys)| store.slots(kind, keys.iter().cloned().collect())));
    let links = try_join_all(missing.tenants.iter().map(|tenant| store.chain_head(tenant)));
    let (things, links) = tokio::try_join!(things, links)?;
    Ok(Known {
        things: things.into_iter().flatten().map(|(kind, key, slot)| ((kind, key), slot)).collect(),
        links: missing.tenants.iter().cloned().zip(links).collect(),
    })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
