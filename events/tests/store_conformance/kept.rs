//! The facts about how bodies are kept: compressed, sealed, erased, dropped.

use events::recorder::{Sealing, verify};
use events::*;

use super::Subject;
use super::scenario::*;

const STDOUT: OutputStream = OutputStream::Stdout;

/// Whatever is compressed comes back as it was, and noise does not grow.
pub async fn bodies_come_back_however_they_are_kept(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let text: Vec<u8> =
        (0..2_000).flat_map(|line| format!("line {line} of a build\n").into_bytes()).collect();
    let noise = noise(100_000);
    // Looks like text in the beginning, and is noise after that.
    let mixed = [&text[..10_000], &noise[..50_000]].concat();
    let bodies = [b"short".to_vec(), vec![b'a'; 255], vec![b'a'; 256], text.clone(), noise.clone(), mixed];
    let (mut events, mut whole) = (vec![event(Some(1), started(1))], Vec::new());
    for body in &bodies {
        events.push(event(Some(1), output(1, OutputStream::Stdout, whole.len() as u64, body.clone())));
        whole.extend_from_slice(body);
    }
    events.push(event(Some(1), ExecInput::new(exec_id(1), text.clone())));
    let batch = log.batch(events);
    let kept = |index: usize| batch.events[index].body.as_ref().unwrap().stored.as_ref().unwrap();
    assert_eq!(
        [1, 2, 3, 4, 5].map(|index| kept(index).encoding),
        [Encoding::Raw, Encoding::Raw, Encoding::Zstd, Encoding::Zstd, Encoding::Raw]
    );
    assert!(kept(4).bytes.len() * 5 < text.len(), "{}", kept(4).bytes.len());
    for index in 1..=7 {
        assert!(kept(index).bytes.len() <= batch.events[index].frame.body.len());
    }
    store.append(&batch).await.unwrap();
    assert_eq!(read_all(&*store).await, frames(&[&batch]));
    let chunks = store.output(exec_id(1), OutputStream::Stdout, 3, usize::MAX).await.unwrap();
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
    assert_eq!(bytes, whole[3..]);
    let chained = store.read_chained(Position::ZERO, 100).await.unwrap();
    assert_eq!(chained[4].body.as_ref(), Some(kept(4)));
    assert_eq!(chained[0].body_hash, None);
    assert_eq!(verify(&*store).await.unwrap(), batch.end());
}

fn erased(sandbox: u8) -> Event {
    event(Some(sandbox), SandboxErased {})
}

fn sealing(master_key: &MasterKey, enabled: bool) -> Sealing {
    Sealing { enabled, master_key: Some(master_key.clone()) }
}

async fn stdout(store: &dyn EventStore, exec: u8, offset: u64) -> Result<Vec<u8>, StoreError> {
    let chunks = store.output(exec_id(exec), STDOUT, offset, usize::MAX).await?;
    Ok(chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect())
}

fn missing(frames: &[Frame]) -> Vec<Option<MissingBody>> {
    frames.iter().map(|frame| frame.missing).collect()
}

pub async fn sealed_output_is_read_with_the_master_key_only(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    let text = b"the secret of the sandbox ".repeat(100);
    let first = log.batch(short_exec(1, &text));
    store.append(&first).await.unwrap();
    let mut more = short_exec(2, b"short secret");
    more.insert(1, event(Some(1), ExecInput::new(exec_id(2), b"typed".to_vec())));
    more.extend([event(Some(2), started(3)), event(Some(2), output(3, STDOUT, 0, text.clone()))]);
    let second = log.batch(more);
    store.append(&second).await.unwrap();
    assert_eq!(read_all(&*store).await, frames(&[&first, &second]));
    assert_eq!(stdout(&*store, 1, 4).await.unwrap(), text[4..]);
    assert_eq!(stdout(&*store, 2, 0).await.unwrap(), b"short secret");
    let keys = store.data_keys(&[sandbox_id(1), sandbox_id(2), sandbox_id(3)]).await.unwrap();
    assert_eq!(keys.len(), 2, "a key for each sandbox");
    let chained = store.read_chained(Position::ZERO, 100).await.unwrap();
    let encodings: Vec<Encoding> =
        chained.iter().filter_map(|frame| Some(frame.body.as_ref()?.encoding)).collect();
    use Encoding::{SealedRaw, SealedZstd};
    assert_eq!(encodings, [SealedZstd, SealedRaw, SealedRaw, SealedZstd]);
    assert!(!chained.iter().any(|frame| {
        frame.body.as_ref().is_some_and(|body| body.bytes.windows(6).any(|window| window == b"secret"))
    }));
    assert_eq!(verify(&*store).await.unwrap(), second.end());
    // Without the master key there is an error and not a byte; the chain verifies all the same.
    for other in [subject.open().await, subject.open_with(&MasterKey::random().unwrap()).await] {
        assert!(matches!(stdout(&*other, 1, 0).await, Err(StoreError::Damaged { .. })));
        let read = other.read(&EventFilter::default(), Position::ZERO, 10).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })));
        assert_eq!(verify(&*other).await.unwrap(), second.end());
    }
    assert_eq!(store.protection(sandbox_id(1)).await.unwrap(), Protection::Sealed);
    assert_eq!(store.protection(sandbox_id(3)).await.unwrap(), Protection::None);
}

pub async fn what_is_erased_is_gone_for_everybody_at_once(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let other = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    store.append(&log.batch(short_exec(1, b"secret"))).await.unwrap();
    let mut theirs = short_exec(2, b"theirs");
    theirs.iter_mut().for_each(|event| event.sandbox = Some(sandbox_id(2)));
    store.append(&log.batch(theirs)).await.unwrap();
    assert_eq!(stdout(&*other, 1, 0).await.unwrap(), b"secret");
    let key = store.data_keys(&[sandbox_id(1)]).await.unwrap().remove(0).sealed.unwrap();
    assert!(!subject.is_sqlite() || subject.is_on_disk(&key));
    // It lives on, and writes before and after its key is destroyed.
    let batch = log.batch(vec![
        event(Some(1), started(3)),
        event(Some(1), output(3, STDOUT, 0, "before")),
        erased(1),
        event(Some(1), output(3, STDOUT, 6, "after")),
    ]);
    assert!(batch.events[3].frame.body.is_empty(), "what comes too late is not announced either");
    store.append(&batch).await.unwrap();
    store.tidy().await.unwrap();
    for store in [&*store, &*other] {
        let gone = |why, next_offset| move |error: &StoreError| matches!(error, StoreError::Gone { why: w, next_offset: n } if (*w, *n) == (why, next_offset));
        for (exec, offset, end) in [(1, 0, 6), (1, 5, 6), (3, 0, 11), (3, 6, 11), (3, 10, 11)] {
            let error = stdout(store, exec, offset).await.unwrap_err();
            assert!(gone(Gone::Erased, end)(&error), "{exec} {offset} {error:?}");
        }
        assert_eq!(stdout(store, 3, 11).await.unwrap(), b"");
        assert_eq!(stdout(store, 2, 0).await.unwrap(), b"theirs");
        let filter = EventFilter { sandbox: Some(sandbox_id(1)), ..EventFilter::default() };
        let read = store.read(&filter, Position::ZERO, 100).await.unwrap();
        let erased = |length| Some(MissingBody { why: Gone::Erased, length });
        assert_eq!(missing(&read), [None, erased(6), None, None, erased(6), None, erased(5)]);
        assert!(read.iter().all(|frame| frame.body.is_empty()));
        assert_eq!(store.protection(sandbox_id(1)).await.unwrap(), Protection::Erased);
        assert_eq!(verify(store).await.unwrap(), batch.end());
    }
    if subject.is_sqlite() {
        assert!(!subject.is_on_disk(&key), "the key is still in a file");
    }
    // Another recorder, to whom nothing is said of encryption, keeps nothing of it either.
    log.restart_encoder(&*store, sealing(&master_key, false)).await;
    let late = log.batch(vec![event(Some(1), output(3, STDOUT, 11, "late")), erased(1)]);
    store.append(&late).await.unwrap();
    assert!(stdout(&*store, 3, 11).await.is_err());
    assert_eq!(verify(&*store).await.unwrap(), late.end());
}

pub async fn a_sandbox_that_is_erased_early_never_has_a_key(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    store.append(&log.batch(vec![event(Some(1), requested(None)), erased(1)])).await.unwrap();
    store.append(&log.batch(short_exec(1, b"secret"))).await.unwrap();
    assert!(matches!(
        stdout(&*store, 1, 0).await,
        Err(StoreError::Gone { why: Gone::Erased, next_offset: 6 })
    ));
    // Made and destroyed in one batch.
    let mut events = vec![event(Some(2), started(2)), event(Some(2), output(2, STDOUT, 0, "secret"))];
    events.push(erased(2));
    store.append(&log.batch(events)).await.unwrap();
    let keys = store.data_keys(&[sandbox_id(1), sandbox_id(2)]).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.sealed.clone()).collect::<Vec<_>>(), [None, None]);
    assert!(stdout(&*store, 2, 0).await.is_err());
}

pub async fn output_from_before_the_key_is_not_called_sealed(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"plain"))).await.unwrap();
    log.restart_encoder(&*store, sealing(&master_key, true)).await;
    store.append(&log.batch(short_exec(2, b"sealed"))).await.unwrap();
    assert_eq!(store.protection(sandbox_id(1)).await.unwrap(), Protection::Partial);
    assert_eq!(stdout(&*store, 1, 0).await.unwrap(), b"plain");
    assert_eq!(stdout(&*store, 2, 0).await.unwrap(), b"sealed");
    // Once a sandbox has a key it stays that way, whatever the configuration says.
    log.restart_encoder(&*store, sealing(&master_key, false)).await;
    let batch = log.batch(short_exec(3, b"still sealed"));
    assert_eq!(batch.events[1].body.as_ref().unwrap().stored.as_ref().unwrap().encoding, Encoding::SealedRaw);
    store.append(&batch).await.unwrap();
    assert_eq!(stdout(&*store, 3, 0).await.unwrap(), b"still sealed");
}
