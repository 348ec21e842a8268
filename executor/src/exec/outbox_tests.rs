//! What is sent when, under a clock and a way of the test's own. What comes of that in the record is in `pump_tests.rs`.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use events::{
    Actor, Event, EventId, ExecId, ExecOutput, ExecState, OutputStream, SandboxId, SystemClock, TenantId,
};
use futures::FutureExt;
use tokio::sync::oneshot;
use transport::QueryError;

use super::*;

const EXEC: ExecId = ExecId::from_bytes([2; 16]);

type Ack = oneshot::Sender<Result<(), PublishError>>;

/// A way that takes what it is told to take, when it is told to.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    sent: Vec<(Bytes, Ack)>,
    offered: Vec<Bytes>,
    takes_offers: bool,
    takes_nothing: bool,
}

impl Told {
    /// What was sent since this was asked last.
    fn sent(&self) -> Vec<(Bytes, Ack)> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    fn offered(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.0.lock().unwrap().offered)
    }
}

impl Way for Told {
    async fn begin(&self, _: &Event, batch: Bytes) -> Pending {
        let (ack, acked) = oneshot::channel();
        self.0.lock().unwrap().sent.push((batch, ack));
        async move { acked.await.unwrap_or(Err(PublishError::Full)) }.boxed()
    }

    async fn offer(&self, batch: &Bytes) -> Option<Instant> {
        let mut inside = self.0.lock().unwrap();
        inside.offered.push(batch.clone());
        inside.takes_offers.then(|| Instant::now() + Duration::from_millis(250))
    }

    fn offered_in_vain(&self) {}

    fn takes_nothing(&self) -> bool {
        self.0.lock().unwrap().takes_nothing
    }

    async fn until_writable(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
    }

    async fn mend(&self, _: &PublishError) {}

    async fn exec_record(&self, _: ExecId) -> Result<Option<ExecState>, QueryError> {
        Err(QueryError::NoAnswer)
    }
}

fn piece(offset: u64, bytes: Bytes) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([1; 16])),
        time: events::Clock::now(&SystemClock),
        actor: Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data: ExecOutput::new(EXEC, OutputStream::Stdout, offset, bytes).into(),
    }
}

/// A piece that fills a message.
fn full(number: u64) -> Event {
    piece(number * FULL as u64, Bytes::from(vec![u8::try_from(number).unwrap(); FULL]))
}

fn batch(event: &Event) -> Bytes {
    let mut bytes = BytesMut::new();
    encode_frame(&event.to_frame().unwrap(), &mut bytes);
    bytes.freeze()
}

fn after(pieces: u64) -> ExecProgress {
    ExecProgress { stdout_bytes: pieces * FULL as u64, ..ExecProgress::default() }
}

async fn send(outbox: &mut Outbox<Told>, number: u64) {
    outbox.add(full(number), false).unwrap();
    outbox.send_if_due(after(number + 1), false).await;
}

/// Waits for so long, and is interrupted.
async fn wait(outbox: &mut Outbox<Told>, for_so_long: Duration) -> bool {
    tokio::time::timeout(for_so_long, outbox.durable()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn all_from_the_first_that_failed_is_sent_again_in_order_whoever_gives_up_waiting() {
    let way = Told::default();
    let mut outbox = Outbox::new(&way);
    let pieces: Vec<Event> = (0..4).map(full).collect();
    let batches: Vec<Bytes> = pieces.iter().map(batch).collect();
    for (number, piece) in (1..).zip(&pieces[..3]) {
        assert!(outbox.has_room());
        outbox.add(piece.clone(), false).unwrap();
        outbox.send_if_due(after(number), false).await;
    }
    let sent = way.sent();
    assert!(sent.iter().map(|(batch, _)| batch).eq(&batches[..3]));
    // The first is taken, the second is not, the third is, which is no use.
    for ((_, ack), answer) in sent.into_iter().zip([Ok(()), Err(PublishError::Full), Ok(())]) {
        ack.send(answer).unwrap();
    }
    outbox.durable().await;
    // Whoever waits is interrupted, over and over, in the pause before it is sent again.
    for _ in 0..4 {
        assert!(!wait(&mut outbox, RETRY_PAUSE / 5).await && way.sent().is_empty());
    }
    // Nothing new overtakes what is to be sent again.
    outbox.add(pieces[3].clone(), true).unwrap();
    outbox.send_if_due(after(4), false).await;
    assert!(way.sent().is_empty());
    assert!(!wait(&mut outbox, RETRY_PAUSE).await);
    let again = way.sent();
    assert!(again.iter().map(|(batch, _)| batch).eq(&batches[1..3]));
    for (_, ack) in again {
        ack.send(Ok(())).unwrap();
    }
    outbox.durable().await;
    outbox.durable().await;
    assert!(!outbox.is_under_way());
    outbox.send_if_due(after(4), false).await;
    assert!(way.sent().iter().map(|(batch, _)| batch).eq(&batches[3..]));
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_are_under_way_than_may_be_and_what_has_no_room_is_not_taken() {
    let way = Told::default();
    let mut outbox = Outbox::new(&way);
    for number in 0..WINDOW as u64 {
        send(&mut outbox, number).await;
    }
    assert!(outbox.has_room());
    send(&mut outbox, WINDOW as u64).await;
    assert!(!outbox.has_room());
    let mut sent = way.sent();
    assert_eq!(sent.len(), WINDOW);
    sent.remove(0).1.send(Ok(())).unwrap();
    outbox.durable().await;
    outbox.send_if_due(after(WINDOW as u64 + 1), false).await;
    assert_eq!((way.sent().len(), outbox.has_room()), (1, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_is_not_waited_for_and_not_sent_again() {
    let way = Told::default();
    let mut outbox = Outbox::new(&way);
    for number in 0..3 {
        send(&mut outbox, number).await;
    }
    way.sent().remove(0).1.send(Err(PublishError::Full)).unwrap();
    assert!(!wait(&mut outbox, RETRY_PAUSE / 2).await);
    assert!(!outbox.note(ExecProgress { stdout_bytes: FULL as u64 - 1, ..ExecProgress::default() }));
    // The recorder had it all the same, and the one after it.
    assert!(outbox.note(after(2)) && outbox.is_under_way());
    assert!(!wait(&mut outbox, RETRY_PAUSE).await);
    assert!(way.sent().iter().map(|(batch, _)| batch.len()).eq([batch(&full(2)).len()]));
    assert!(outbox.note(after(3)) && !outbox.is_under_way());
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_is_not_recorded_in_its_time_goes_before_all_that_follows_it() {
    let way = Told::default();
    way.0.lock().unwrap().takes_offers = true;
    let mut outbox = Outbox::new(&way);
    let (first, second) = (piece(0, Bytes::from_static(b"ab")), piece(2, Bytes::from_static(b"cd")));
    let upto = |stdout_bytes| ExecProgress { stdout_bytes, ..ExecProgress::default() };
    outbox.add(first.clone(), false).unwrap();
    outbox.send_if_due(upto(2), true).await;
    assert!(way.offered() == [batch(&first)] && way.sent().is_empty() && outbox.is_under_way());
    // What comes while it is shown is gathered, until somebody waits for it.
    outbox.add(second.clone(), false).unwrap();
    outbox.send_if_due(upto(4), true).await;
    assert!(way.offered().is_empty() && way.sent().is_empty());
    assert!(!wait(&mut outbox, Duration::from_millis(300)).await);
    let mut sent = way.sent();
    assert!(sent.iter().map(|(batch, _)| batch).eq(&[batch(&first)]));
    sent.remove(0).1.send(Ok(())).unwrap();
    outbox.durable().await;
    outbox.send_if_due(upto(4), true).await;
    assert_eq!(way.offered(), [batch(&second)]);
    assert!(outbox.note(upto(4)) && !outbox.is_under_way());
}

#[tokio::test(start_paused = true)]
async fn while_the_transport_takes_nothing_the_recorder_is_shown_the_oldest() {
    let way = Told::default();
    let mut outbox = Outbox::new(&way);
    let only = piece(0, Bytes::from_static(b"ab"));
    outbox.add(only.clone(), true).unwrap();
    way.0.lock().unwrap().takes_nothing = true;
    outbox.send_if_due(ExecProgress { stdout_bytes: 2, ..ExecProgress::default() }, true).await;
    way.offered();
    way.sent().remove(0).1.send(Err(PublishError::Full)).unwrap();
    assert!(!wait(&mut outbox, RETRY_PAUSE + OFFER_AGAIN * 3).await);
    let offered = way.offered();
    assert!(offered.len() >= 3 && offered.iter().all(|shown| *shown == batch(&only)), "{}", offered.len());
    // It is tried all the same, however long it is known to take nothing.
    assert!(way.sent().is_empty());
    assert!(!wait(&mut outbox, WRITABLE + RETRY_PAUSE).await);
    assert!(!way.sent().is_empty());
}
