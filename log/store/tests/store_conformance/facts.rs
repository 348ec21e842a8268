//! The facts, one function each.

use audit::Fault;
use chrono::{DateTime, Utc};
use events::*;
use feed::Links;
use record::*;

use super::Subject;
use super::scenario::*;

pub async fn an_empty_store_is_at_zero(subject: &Subject) {
    let store = subject.open().await;
    assert_eq!(store.head().await.unwrap(), Head::default());
    assert_eq!(read_all(&store).await, []);
    assert_eq!(store.live_sandboxes().await.unwrap(), (Position::ZERO, vec![]));
    assert_eq!(store.chain_head(&tenant("default")).await.unwrap(), ChainHash::GENESIS);
    assert_eq!(store.output.start(exec_id(1), 0, 0).await.unwrap(), None);
    assert_eq!(store.known_ids(&[]).await.unwrap(), []);
    assert_eq!(verify(&store).await.unwrap(), Position::ZERO);
}

pub async fn positions_are_dense_and_bytes_exact(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let every_byte: Vec<u8> = (0..=255).collect();
    let first = log.batch(short_exec(1, &every_byte));
    let second = log.batch(short_exec(2, b"x"));
    store.append(&first).await.unwrap();
    store.append(&second).await.unwrap();
    let read = read_all(&store).await;
    assert_eq!(read, frames(&[&first, &second]));
    let positions: Vec<u64> = read.iter().map(|frame| frame.position.0).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    let head = store.head().await.unwrap();
    assert_eq!(head, Head { position: Position(6), stream_sequence: 2, incarnation: "one".to_owned() });
    let page = store.read(&EventFilter::default(), Position(2), 3).await.unwrap();
    assert_eq!(page, read[2..5]);
}

pub async fn an_append_after_another_position_conflicts_and_leaves_no_trace(subject: &Subject) {
    let store = subject.open().await;
    let (mut log, mut other) = (Recorder::default(), Recorder::default());
    let first = log.batch(short_exec(1, b"a"));
    store.append(&first).await.unwrap();
    let stale = other.batch(vec![event(Some(1), requested(None)), event(Some(1), started(9))]);
    assert!(matches!(store.append(&stale).await, Err(AppendError::Conflict)));
    let mut ahead = log.batch(short_exec(2, b"b"));
    ahead.after = Position(17);
    assert!(matches!(store.append(&ahead).await, Err(AppendError::Conflict)));
    assert_eq!(read_all(&store).await, frames(&[&first]));
    assert_eq!(store.head().await.unwrap().stream_sequence, 1);
    assert_eq!(store.sandbox(sandbox_id(1)).await.unwrap(), None);
    assert_eq!(store.exec(exec_id(9)).await.unwrap(), None);
    assert_eq!(verify(&store).await.unwrap(), Position(3));
}

pub async fn one_of_two_concurrent_appends_wins(subject: &Subject) {
    // Two processes, as far as the database can tell.
    let stores = [subject.open().await, subject.open().await];
    let mut log = Recorder::default();
    for round in 0..20 {
        let batch = log.batch(short_exec(round, b"same"));
        let mut rival = batch.clone();
        for event in &mut rival.events {
            event.id = EventId::new();
        }
        let (one, two) = tokio::join!(
            tokio::spawn(append(&stores[0], batch.clone())),
            tokio::spawn(append(&stores[1], rival)),
        );
        let outcomes = [one.unwrap(), two.unwrap()];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(AppendError::Conflict))), "{outcomes:?}");
        assert_eq!(stores[0].head().await.unwrap().position, batch.end());
    }
    assert_eq!(read_all(&stores[1]).await.len(), 60);
}

fn append(
    store: &Record,
    batch: AppendBatch,
) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
    let store = store.clone();
    async move { store.append(&batch).await }
}

pub async fn a_recorded_id_is_refused_and_known(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let first = log.batch(short_exec(1, b"a"));
    store.append(&first).await.unwrap();
    let mut second = log.batch(short_exec(2, b"b"));
    second.events[2].id = first.events[0].id;
    let error = store.append(&second).await.unwrap_err();
    assert!(matches!(error, AppendError::Store(StoreError::Unfit { .. })), "{error:?}");
    assert!(!error.is_retryable());
    assert_eq!(store.head().await.unwrap().position, Position(3));
    assert_eq!(store.exec(exec_id(2)).await.unwrap(), None);
    // More ids than one statement looks up.
    let mut ids: Vec<EventId> = (0..1000).map(|_| EventId::new()).collect();
    ids.extend(first.events.iter().map(|event| event.id));
    let mut known = store.known_ids(&ids).await.unwrap();
    known.sort();
    // Output is known by its offset instead.
    let mut expected = vec![ids[1000], ids[1002]];
    expected.sort();
    assert_eq!(known, expected);
}

pub async fn a_batch_without_events_moves_only_the_mark(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"a"))).await.unwrap();
    store.append(&log.batch(vec![])).await.unwrap();
    let head = store.head().await.unwrap();
    assert_eq!((head.position, head.stream_sequence), (Position(3), 2));
    assert_eq!(read_all(&store).await.len(), 3);
}

pub async fn output_is_read_from_any_offset(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let stdout: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
    let stderr = b"warning".to_vec();
    let (mut events, mut offset) = (vec![event(Some(1), started(1)), event(Some(1), started(2))], 0);
    for len in [1, 2, 300, 5, 400, 291, 1] {
        let piece = stdout[offset..offset + len].to_vec();
        events.push(event(Some(1), output(1, OutputStream::Stdout, offset as u64, piece)));
        events.push(event(Some(1), output(2, OutputStream::Stdout, offset as u64, vec![0; len])));
        offset += len;
    }
    events.push(event(Some(1), output(1, OutputStream::Stderr, 0, stderr.clone())));
    store.append(&log.batch(events)).await.unwrap();
    for start in 0..=1001u64 {
        let chunks = store.output.read(exec_id(1), OutputStream::Stdout, start, 10_000).await.unwrap();
        let mut next = start;
        let mut bytes = Vec::new();
        for chunk in &chunks {
            assert_eq!(chunk.offset, next);
            assert!(!chunk.bytes.is_empty());
            next += chunk.bytes.len() as u64;
            bytes.extend_from_slice(&chunk.bytes);
        }
        assert_eq!(bytes, stdout.get(start as usize..).unwrap_or_default());
        let first = chunks.first().map(|chunk| chunk.position);
        assert_eq!(store.output.start(exec_id(1), start, 7).await.unwrap(), first);
    }
    let some = store.output.read(exec_id(1), OutputStream::Stdout, 2, 302).await.unwrap();
    let bytes: Vec<u8> = some.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
    assert_eq!(bytes, stdout[2..304]);
    assert_eq!(store.output.read(exec_id(1), OutputStream::Stdout, u64::MAX, 5).await.unwrap(), []);
    let errors = store.output.read(exec_id(1), OutputStream::Stderr, 3, 100).await.unwrap();
    assert_eq!(errors[0].bytes, stderr[3..]);
    // Stderr came last: only it has something to give once stdout is read.
    assert_eq!(store.output.start(exec_id(1), 1000, 6).await.unwrap(), Some(errors[0].position));
    assert_eq!(store.output.start(exec_id(1), 1000, 7).await.unwrap(), None);
    assert_eq!(store.output.start(exec_id(3), 0, 0).await.unwrap(), None);
}

pub async fn filters_select_exactly(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let mut events = vec![
        event(Some(1), requested(None)),
        event(Some(1), running()),
        event(Some(2), requested(None)),
        event(
            None,
            NodeJoined { node: "n".parse().unwrap(), providers: vec![], pools: Vec::new(), capacity: 1 },
        ),
    ];
    events.extend(short_exec(1, b"one"));
    events.extend(short_exec(2, b"two"));
    for event in &mut events[2..6] {
        event.tenant = tenant("other");
    }
    // An exec has one tenant.
    events[6].tenant = tenant("other");
    let batch = log.batch(events);
    store.append(&batch).await.unwrap();
    let all = EventFilter::default;
    let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let filters = [
        all(),
        EventFilter { tenant: Some(tenant("other")), ..all() },
        EventFilter { tenant: Some(tenant("nobody")), ..all() },
        EventFilter { sandbox: Some(sandbox_id(1)), ..all() },
        EventFilter { exec: Some(exec_id(2)), ..all() },
        EventFilter { types: types(&["exec.output", "sandbox.requested"]), ..all() },
        EventFilter { types: types(&["nothing"]), ..all() },
        EventFilter {
            sandbox: Some(sandbox_id(1)),
            exec: Some(exec_id(1)),
            types: types(&["exec.exited"]),
            ..all()
        },
        EventFilter { tenant: Some(tenant("other")), sandbox: Some(sandbox_id(1)), ..all() },
    ];
    for filter in filters {
        for after in [0, 3, 8, 100] {
            let expected: Vec<Frame> = batch
                .events
                .iter()
                .filter(|event| event.frame.position.0 > after)
                .filter(|event| filter.tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant))
                .filter(|event| filter.sandbox.is_none_or(|sandbox| event.sandbox == Some(sandbox)))
                .filter(|event| filter.exec.is_none_or(|exec| event.exec == Some(exec)))
                .filter(|event| {
                    filter.types.is_empty() || filter.types.iter().any(|name| name == event.type_name)
                })
                .map(|event| event.frame.clone())
                .collect();
            let found = store.read(&filter, Position(after), 2).await.unwrap();
            assert_eq!(found, expected[..expected.len().min(2)], "{filter:?}");
            assert_eq!(store.read(&filter, Position(after), 100).await.unwrap(), expected, "{filter:?}");
        }
    }
}

pub async fn events_cannot_be_changed_or_deleted(subject: &Subject) {
    let store = subject.open().await;
    let batch = Recorder::default().batch(short_exec(1, b"a"));
    store.append(&batch).await.unwrap();
    for sql in [
        "UPDATE events SET type = 'x' WHERE position = 1",
        "DELETE FROM events",
        "TRUNCATE events",
        "UPDATE bodies SET stream = 2",
        "DELETE FROM bodies",
        "TRUNCATE bodies",
        "TRUNCATE bodies_0",
    ] {
        let error = subject.raw(sql).await.expect_err(sql);
        if !(subject.is_sqlite() && sql.starts_with("TRUNCATE")) {
            assert!(error.to_string().contains("append-only"), "{error}");
        }
    }
    assert_eq!(read_all(&store).await, frames(&[&batch]));
}

pub async fn everything_is_there_after_reopening(subject: &Subject) {
    let mut log = Recorder::default();
    let batch = log.batch(vec![event(Some(1), requested(Some("ada"))), event(Some(1), started(1))]);
    {
        let store = subject.open().await;
        store.append(&batch).await.unwrap();
    }
    let store = subject.open().await;
    assert_eq!(store.head().await.unwrap().position, Position(2));
    assert_eq!(read_all(&store).await, frames(&[&batch]));
    for kind in [SandboxState::KIND, ExecState::KIND] {
        let (_, live) = store.live_rows(kind).await.unwrap();
        let rows = batch.rows.iter().filter(|row| row.kind == kind);
        let rows: Vec<_> = rows.map(|row| (row.key.clone(), row.state.clone())).collect();
        assert_eq!(live.into_iter().map(|row| (row.key, row.state)).collect::<Vec<_>>(), rows);
        assert_eq!(rows.len(), 1);
    }
    assert_eq!(store.chain_head(&tenant("default")).await.unwrap(), batch.events[1].hash);
    store.append(&log.batch(vec![event(Some(1), exited(1, 0, 0))])).await.unwrap();
}

pub async fn read_models_follow_the_events(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let batch = log.batch(vec![
        event(Some(1), requested(Some("ada"))),
        event(Some(2), requested(None)),
        event(Some(1), running()),
        event(Some(1), started(1)),
        event(Some(1), started(2)),
        event(Some(2), started(3)),
        event(Some(1), output(1, OutputStream::Stdout, 0, "hello")),
    ]);
    store.append(&batch).await.unwrap();
    let (head, live) = store.live_sandboxes().await.unwrap();
    assert_eq!((head, live.len()), (Position(7), 2));
    let first = store.sandbox(sandbox_id(1)).await.unwrap().unwrap();
    assert_eq!(first.node().map(NodeId::as_str), Some("node-1"));
    assert_eq!(first.spec.owner.as_deref(), Some("ada"));
    let exec = store.exec(exec_id(1)).await.unwrap().unwrap();
    assert_eq!(exec.stdout_bytes, 5);
    let (own, another) = (tenant("default"), tenant("another"));
    assert_eq!(store.sandbox_of(&own, sandbox_id(1)).await.unwrap().as_ref(), Some(&first));
    assert_eq!(store.exec_of(&own, exec_id(1)).await.unwrap(), Some(exec));
    assert_eq!(store.sandbox_of(&another, sandbox_id(1)).await.unwrap(), None);
    assert_eq!(store.exec_of(&another, exec_id(1)).await.unwrap(), None);
    assert_eq!(store.sandbox_of(&own, sandbox_id(7)).await.unwrap(), None);
    assert_eq!(store.live_execs().await.unwrap().len(), 3);
    let end = log.batch(vec![
        event(Some(1), exited(1, 5, 0)),
        event(Some(2), SandboxDestroyed { reason: DestroyReason::Ttl }),
    ]);
    store.append(&end).await.unwrap();
    let (head, live) = store.live_sandboxes().await.unwrap();
    assert_eq!(head, Position(9));
    assert_eq!(live, [first]);
    assert!(store.sandbox(sandbox_id(2)).await.unwrap().unwrap().is_terminal());
    let all = async |of: &str, before: Option<SandboxId>, limit| {
        let states = store.sandboxes(&tenant(of), before, limit).await.unwrap();
        states.into_iter().map(|state| state.id).collect::<Vec<_>>()
    };
    assert_eq!(all("default", None, 10).await, [sandbox_id(2), sandbox_id(1)], "ended ones too");
    assert_eq!(all("default", None, 1).await, [sandbox_id(2)]);
    assert_eq!(all("default", Some(sandbox_id(2)), 10).await, [sandbox_id(1)]);
    assert_eq!(all("another", None, 10).await, []);
    assert!(store.exec(exec_id(1)).await.unwrap().unwrap().end.is_some());
    let live: Vec<ExecId> = store.live_execs().await.unwrap().iter().map(|exec| exec.id).collect();
    assert_eq!(live, [exec_id(2), exec_id(3)]);
    let listed = &store;
    let page = |page: ExecPage| async move {
        let execs = listed.execs(sandbox_id(1), &page).await.unwrap();
        execs.into_iter().map(|exec| (exec.started_at, exec.id)).collect::<Vec<_>>()
    };
    let ids = |execs: &[(DateTime<Utc>, ExecId)]| execs.iter().map(|exec| exec.1).collect::<Vec<_>>();
    let all = page(ExecPage { limit: 10, ..ExecPage::default() }).await;
    assert_eq!(ids(&all), [exec_id(2), exec_id(1)]);
    let first = page(ExecPage { limit: 1, ..ExecPage::default() }).await;
    assert_eq!(ids(&first), [exec_id(2)]);
    let second = page(ExecPage { before: Some(first[0]), limit: 1, ..ExecPage::default() }).await;
    assert_eq!(ids(&second), [exec_id(1)]);
    assert_eq!(page(ExecPage { before: Some(second[0]), limit: 1, ..ExecPage::default() }).await, []);
    for (ended, exec) in [(true, exec_id(1)), (false, exec_id(2))] {
        let some = page(ExecPage { ended: Some(ended), limit: 10, ..ExecPage::default() }).await;
        assert_eq!(ids(&some), [exec]);
    }
}

pub async fn viewer_links_are_found_among_all_events(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let granted = |link: &str| {
        let viewer = Some(link.parse().unwrap());
        event(Some(1), AccessGranted { exec: exec_id(1), expires_at: at(60), viewer })
    };
    let revoked = AccessRevoked { exec: exec_id(1), viewer: "vl-1".parse().unwrap() };
    let batch = log.batch(vec![
        event(Some(1), requested(None)),
        granted("vl-1"),
        event(Some(1), started(1)),
        granted("vl-2"),
        event(Some(1), revoked),
    ]);
    store.append(&batch).await.unwrap();
    let positions = |frames: Vec<Frame>| frames.iter().map(|frame| frame.position.0).collect::<Vec<_>>();
    assert_eq!(positions(store.links_after(Position::ZERO, 10).await.unwrap()), [2, 4, 5]);
    assert_eq!(positions(store.links_after(Position(2), 1).await.unwrap()), [4]);
    let links = Links::load(&*store).await.unwrap();
    assert!(links.get(&"vl-1".parse().unwrap()).is_none());
    assert_eq!(links.get(&"vl-2".parse().unwrap()).unwrap().exec, exec_id(1));
}

pub async fn templates_are_saved_and_deleted(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let template = |name: &str, image: &str| Template {
        name: name.to_owned(),
        image: image.to_owned(),
        ..Template::default()
    };
    let saved = |name, image| event(None, TemplateSaved { template: template(name, image) });
    let mut other = saved("a", "theirs");
    other.tenant = tenant("other");
    let batch = log.batch(vec![saved("b", "1"), saved("a", "1"), saved("a", "2"), other]);
    store.append(&batch).await.unwrap();
    let ours = store.templates(&tenant("default")).await.unwrap();
    assert_eq!(ours, [template("a", "2"), template("b", "1")]);
    assert_eq!(store.live::<TemplateState>().await.unwrap().1.len(), 3);
    store.append(&log.batch(vec![event(None, TemplateDeleted { name: "a".to_owned() })])).await.unwrap();
    assert_eq!(store.templates(&tenant("default")).await.unwrap(), [template("b", "1")]);
    assert_eq!(store.templates(&tenant("other")).await.unwrap(), [template("a", "theirs")]);
}

pub async fn webhooks_are_what_their_events_make_of_them(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let id = |n: u8| WebhookId::from_bytes([n; 16]);
    let saved = |n: u8| {
        let webhook = Webhook {
            id: id(n),
            url: "https://a.example/\0".to_owned(),
            types: Vec::new(),
            sandbox: None,
            sealed_secret: "AAAA".to_owned(),
            description: String::new(),
        };
        event(None, WebhookSaved { webhook, cursor: Position(3) })
    };
    let events =
        vec![saved(1), saved(2), event(None, WebhookRewound { webhook: id(1), cursor: Position(7) })];
    let expected = events.iter().filter(|event| event.data.webhook() == Some(id(1)));
    let expected = expected.fold(None, WebhookState::apply).unwrap();
    store.append(&log.batch(events)).await.unwrap();
    assert_eq!(store.get::<WebhookState>(id(1)).await.unwrap().as_ref(), Some(&expected));
    store.append(&log.batch(vec![event(None, WebhookDeleted { webhook: id(2) })])).await.unwrap();
    assert_eq!(store.get::<WebhookState>(id(2)).await.unwrap(), None);
    assert_eq!(store.live::<WebhookState>().await.unwrap(), (Position(4), vec![expected.clone()]));
    // A state that the numberer learns from the store again goes on where it was.
    let failed = WebhookFailed {
        webhook: id(1),
        epoch: expected.epoch,
        position: Position(8),
        attempts: 1,
        message: "refused".to_owned(),
        retry_at: at(5),
    };
    store.append(&log.batch(vec![event(None, failed)])).await.unwrap();
    let state = store.get::<WebhookState>(id(1)).await.unwrap().unwrap();
    assert_eq!((state.cursor, state.failure().map(|failure| failure.attempts)), (Position(7), Some(1)));
}

pub async fn big_batches_are_one_append(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let mut events = vec![];
    for exec in 0..200 {
        events.push(event(Some(exec % 7), started(exec)));
    }
    for n in 0..2_345u64 {
        events.push(event(Some(0), output(0, OutputStream::Stdout, n * 100, vec![n as u8; 100])));
    }
    for n in 0..100u64 {
        events.push(event(Some(0), output(0, OutputStream::Stderr, n * 65_536, vec![n as u8; 65_536])));
    }
    let batch = log.batch(events);
    store.append(&batch).await.unwrap();
    assert_eq!(read_all(&store).await, frames(&[&batch]));
    assert_eq!(store.live_execs().await.unwrap().len(), 200);
    // Reading on from what was read reaches the end, however the reads are cut.
    let mut offset = 0;
    loop {
        let chunks = store.output.read(exec_id(0), OutputStream::Stderr, offset, 1_000_000).await.unwrap();
        let Some(last) = chunks.last() else { break };
        offset = last.offset + last.bytes.len() as u64;
    }
    assert_eq!(offset, 6_553_600);
    assert_eq!(verify(&store).await.unwrap(), batch.end());
}

pub async fn hostile_text_is_only_text(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let owner = "'; DROP TABLE events; --\0\u{10ffff}";
    let template = Template { name: owner.to_owned(), image: "\0".to_owned(), ..Template::default() };
    let batch = log.batch(vec![
        event(Some(1), requested(Some(owner))),
        event(None, TemplateSaved { template: template.clone() }),
    ]);
    store.append(&batch).await.unwrap();
    let state = store.sandbox(sandbox_id(1)).await.unwrap().unwrap();
    assert_eq!(state.spec.owner.as_deref(), Some(owner));
    assert_eq!(store.templates(&tenant("default")).await.unwrap(), [template]);
    let filter = EventFilter { types: vec!["' OR 1=1 --".to_owned()], ..EventFilter::default() };
    assert_eq!(store.read(&filter, Position::ZERO, 10).await.unwrap(), []);
}

pub async fn readers_see_whole_batches_only(subject: &Subject) {
    let store = subject.open().await;
    let reader = {
        let store = subject.open().await;
        tokio::spawn(async move {
            let mut seen = 0;
            while seen < 300 {
                let all = store.read(&EventFilter::default(), Position(seen), u32::MAX).await.unwrap();
                assert_eq!(all.len() % 3, 0, "a part of a batch after {seen}");
                for frame in all {
                    seen += 1;
                    assert_eq!(frame.position, Position(seen));
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let mut log = Recorder::default();
    for exec in 0..100 {
        store.append(&log.batch(short_exec(exec, b"abc"))).await.unwrap();
    }
    reader.await.unwrap();
}

pub async fn the_chain_verifies_and_names_the_first_change(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let mut theirs = event(Some(2), requested(None));
    theirs.tenant = tenant("other");
    let mut events = short_exec(1, b"a");
    events.insert(1, theirs);
    store.append(&log.batch(events)).await.unwrap();
    store.append(&log.batch(short_exec(2, b"b"))).await.unwrap();
    assert_eq!(verify(&store).await.unwrap(), Position(7));
    let drop_trigger = if subject.is_sqlite() {
        "DROP TRIGGER events_refuse_update; DROP TRIGGER events_refuse_delete; DROP TRIGGER bodies_refuse_update;
         DROP TRIGGER bodies_refuse_delete"
    } else {
        "DROP TRIGGER events_refuse_change ON events; DROP TRIGGER bodies_refuse_change ON bodies"
    };
    subject.raw(drop_trigger).await.unwrap();
    // The same text is not the same bytes: the body goes from "b" to "c".
    let literal = if subject.is_sqlite() { "x'63'" } else { "'\\x63'" };
    subject.raw(&format!("UPDATE bodies SET body = {literal} WHERE position = 6")).await.unwrap();
    assert!(matches!(verify(&store).await.unwrap_err(), (Position(6), Fault::Body)));
    subject.raw("UPDATE events SET tenant = 'other' WHERE position = 3").await.unwrap();
    assert!(matches!(verify(&store).await.unwrap_err(), (Position(3), _)));
    subject.raw("DELETE FROM events WHERE position = 2").await.unwrap();
    assert!(matches!(verify(&store).await.unwrap_err(), (Position(2), Fault::Missing)));
}

pub async fn states_are_true_at_their_head(subject: &Subject) {
    let store = subject.open().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut log = Recorder::default();
            for n in 0..100 {
                store.append(&log.batch(vec![event(Some(n), requested(None))])).await.unwrap();
            }
        })
    };
    loop {
        let (head, live) = store.live_sandboxes().await.unwrap();
        assert_eq!(live.len() as u64, head.0);
        if head == Position(100) {
            break;
        }
    }
    writer.await.unwrap();
}
