//! What verification finds in a database that somebody changed.

use audit::{
    AuditKey, AuditQuery, Fault, FileStatement, PublicKeys, Report, Signable, StoreSource, key_changed, link,
    list,
};
use events::*;
use record::*;

use super::Subject;
use super::scenario::*;

/// A log with a checkpoint in its middle, and the checkpoint as it stands in the file.
struct Evidence {
    key: AuditKey,
    file: Vec<FileStatement>,
}

/// Positions 1 to 3 an exec, 4 the checkpoint of them, 5 to 7 an exec, 8 the checkpoint of all.
async fn record(subject: &Subject) -> (Record, Evidence) {
    let store = subject.open().await;
    let key = AuditKey::from_bytes([5; 32]);
    let mut log = Recorder::default();
    let mut file: Vec<AuditCheckpoint> = Vec::new();
    for exec in 1..=2 {
        store.append(&log.batch(short_exec(exec, b"some output"))).await.unwrap();
        let after = file.last().map_or(Position::ZERO, |newest| newest.statement.up_to);
        let (up_to, mut chains) = store.chain_points().await.unwrap();
        chains.retain(|point| point.position > after);
        let previous = file.last().map_or(ChainHash::GENESIS, |newest| newest.statement.digest());
        let checkpoint = CheckpointStatement { up_to, at: at(9), chains, previous }.sign(&key);
        file.push(checkpoint.clone());
        let mut event = event(None, checkpoint);
        event.tenant = TenantId::system();
        store.append(&log.batch(vec![event])).await.unwrap();
    }
    (store, Evidence { key, file: file.into_iter().map(FileStatement::from).collect() })
}

impl Evidence {
    async fn verify(&self, store: &Record) -> Report {
        self.check(store, false).await
    }

    /// The same without the read models, which nobody changed along with the events.
    async fn verify_quickly(&self, store: &Record) -> Report {
        self.check(store, true).await
    }

    async fn check(&self, store: &Record, quick: bool) -> Report {
        let keys = PublicKeys::new(vec![self.key.public()]);
        let mut source = StoreSource::open(store, None).await.unwrap().quick(quick);
        let file = self.file.iter().cloned().zip(1..).map(|(statement, line)| Ok((line, statement)));
        audit::verify(&mut source, &keys, file).await.unwrap()
    }

    async fn fault(&self, store: &Record) -> (u64, Fault) {
        let finding = self.verify(store).await.finding.expect("a finding");
        (finding.position.0, finding.fault)
    }
}

pub async fn unguard(subject: &Subject) {
    let triggers = if subject.is_sqlite() {
        "DROP TRIGGER events_refuse_update; DROP TRIGGER events_refuse_delete; DROP TRIGGER bodies_refuse_update;
         DROP TRIGGER bodies_refuse_delete"
    } else {
        "DROP TRIGGER events_refuse_change ON events; DROP TRIGGER bodies_refuse_change ON bodies"
    };
    subject.raw(triggers).await.unwrap();
}

/// Computes all links from a position on again, as whoever can write the whole database would.
async fn rebuild(subject: &Subject, store: &Record, from: u64) {
    let literal = |bytes: &[u8]| {
        if subject.is_sqlite() {
            format!("x'{}'", hex::encode(bytes))
        } else {
            format!("'\\x{}'", hex::encode(bytes))
        }
    };
    let mut links = std::collections::HashMap::new();
    for frame in store.evidence.read_chain(None, Position::ZERO, Position(1_000), 1_000).await.unwrap() {
        let previous = links.get(&frame.tenant).copied().unwrap_or(ChainHash::GENESIS);
        let body_hash = frame.body.as_ref().map(StoredBody::hash).or(frame.body_hash);
        let hash = link(&previous, frame.position, &frame.header, body_hash.as_ref());
        if frame.position.0 >= from {
            let body = body_hash.map_or("NULL".to_owned(), |hash| literal(&hash));
            let sql = format!(
                "UPDATE events SET hash = {}, body_hash = {body} WHERE position = {};
                 UPDATE chain_heads SET hash = {}, position = {} WHERE tenant = '{}'",
                literal(&hash.0),
                frame.position,
                literal(&hash.0),
                frame.position,
                frame.tenant
            );
            subject.raw(&sql).await.unwrap();
        }
        links.insert(frame.tenant.clone(), hash);
    }
}

pub async fn an_untouched_log_verifies_with_its_checkpoints(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    let report = evidence.verify(&store).await;
    assert!(report.ok, "{:?}", report.finding);
    assert_eq!((report.events, report.tenants, report.bodies, report.bodies_absent), (8, 2, 2, 0));
    let counts = &report.checkpoints;
    assert_eq!((counts.recorded, counts.in_file, counts.signatures_checked), (2, 2, 4));
    assert_eq!((counts.newest_up_to, report.events_after_checkpoint), (Some(Position(7)), 1));
}

pub async fn one_tenant_verifies_its_own_chain_alone(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    let keys = PublicKeys::new(vec![evidence.key.public()]);
    let mut source = StoreSource::open(&store, Some(tenant("default"))).await.unwrap();
    let report = audit::verify(&mut source, &keys, std::iter::empty()).await.unwrap();
    assert!(report.ok, "{:?}", report.finding);
    assert_eq!((report.events, report.tenants), (6, 1));
    assert_eq!((report.checkpoints.recorded, report.checkpoints.signatures_checked), (2, 2));
    unguard(subject).await;
    subject.raw("DELETE FROM events WHERE position = 5").await.unwrap();
    let mut source = StoreSource::open(&store, Some(tenant("default"))).await.unwrap();
    let finding = audit::verify(&mut source, &keys, std::iter::empty()).await.unwrap().finding.unwrap();
    assert_eq!((finding.position, finding.fault), (Position(6), Fault::Hash));
}

pub async fn a_flipped_byte_is_named(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    unguard(subject).await;
    let flipped = if subject.is_sqlite() {
        "UPDATE events SET header = CAST(replace(CAST(header AS TEXT), 'node-1', 'node-2') AS BLOB) WHERE position = 3"
    } else {
        "UPDATE events SET header = convert_to(replace(convert_from(header, 'UTF8'), 'node-1', 'node-2'), 'UTF8')
         WHERE position = 3"
    };
    subject.raw(flipped).await.unwrap();
    assert_eq!(evidence.fault(&store).await, (3, Fault::Hash));
    // Of what was already found wrong, the first is told: a body before it comes first.
    let body = if subject.is_sqlite() { "x'00'" } else { "'\\x00'" };
    subject.raw(&format!("UPDATE bodies SET body = {body} WHERE position = 2")).await.unwrap();
    assert_eq!(evidence.fault(&store).await, (2, Fault::Body));
}

pub async fn a_body_that_vanished_without_a_reason_is_named(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    unguard(subject).await;
    subject.raw("DELETE FROM bodies WHERE position = 6").await.unwrap();
    assert_eq!(evidence.fault(&store).await, (6, Fault::BodyMissing));
}

pub async fn a_swapped_pair_is_named(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    unguard(subject).await;
    let swap = "UPDATE events SET position = -1 WHERE position = 5;
                UPDATE events SET position = 5 WHERE position = 7;
                UPDATE events SET position = 7 WHERE position = -1";
    subject.raw(swap).await.unwrap();
    assert_eq!(evidence.fault(&store).await, (5, Fault::Hash));
}

pub async fn a_deleted_event_is_named(subject: &Subject) {
    let (store, evidence) = record(subject).await;
    unguard(subject).await;
    subject.raw("DELETE FROM events WHERE position = 3").await.unwrap();
    assert_eq!(evidence.fault(&store).await, (3, Fault::Missing));
    subject.raw("DELETE FROM events WHERE position < 3").await.unwrap();
    assert_eq!(evidence.fault(&store).await, (1, Fault::Trimmed));
}

pub async fn a_cut_off_tail_is_contradicted_by_the_checkpoint_file(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    unguard(subject).await;
    subject
        .raw("DELETE FROM events WHERE position > 4; DELETE FROM bodies WHERE position > 4")
        .await
        .unwrap();
    assert_eq!(evidence.fault(&store).await, (5, Fault::Missing));
    // Whoever cuts knows of the head.
    subject.raw("UPDATE head SET position = 4").await.unwrap();
    assert_eq!(evidence.fault(&store).await, (5, Fault::Beyond));
    rebuild(subject, &store, 1).await;
    assert_eq!(evidence.fault(&store).await, (5, Fault::Beyond));
    // The file is what knows of it, and the read models, if they are left as they are: nothing else does.
    evidence.file.clear();
    assert_eq!(evidence.fault(&store).await.1, Fault::ReadModel);
    assert_eq!(evidence.verify_quickly(&store).await.finding, None);
}

pub async fn a_rebuilt_chain_is_contradicted_by_a_checkpoint(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    unguard(subject).await;
    let body = if subject.is_sqlite() { "x'00'" } else { "'\\x00'" };
    let change = format!(
        "UPDATE bodies SET body = {body}, encoding = 0, length = 1 WHERE position = 2;
         UPDATE events SET body_length = 1 WHERE position = 2"
    );
    subject.raw(&change).await.unwrap();
    rebuild(subject, &store, 1).await;
    // Every link is right again; the checkpoint at 4 states another for 3.
    let report = evidence.verify(&store).await;
    let finding = report.finding.unwrap();
    assert_eq!((finding.position, finding.fault), (Position(3), Fault::Contradiction));
    assert!(finding.explanation.contains("the checkpoint at position 4"), "{}", finding.explanation);
    // Another key is another signer.
    evidence.key = AuditKey::from_bytes([6; 32]);
    assert_eq!(evidence.fault(&store).await, (3, Fault::UnknownKey));
}

pub async fn a_forged_checkpoint_is_not_signed(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    let FileStatement::Checkpoint(checkpoint) = &mut evidence.file[1] else { panic!("no checkpoint") };
    checkpoint.statement.chains[0].hash = ChainHash([9; 32]);
    assert_eq!(evidence.fault(&store).await.1, Fault::Signature);
}

/// A copy of the first four events took the log's place, and the log went on: what the file says of the fifth to the
/// seventh is of another life.
pub async fn a_restored_copy_verifies_and_says_what_is_lost(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    unguard(subject).await;
    subject
        .raw("DELETE FROM events WHERE position > 4; DELETE FROM bodies WHERE position > 4")
        .await
        .unwrap();
    subject.raw("UPDATE head SET position = 4").await.unwrap();
    rebuild(subject, &store, 1).await;
    assert_eq!(evidence.fault(&store).await, (5, Fault::Beyond));

    let statement = RestoreStatement { up_to: Position(4), lost_to: Position(8), at: at(10) };
    let signed = statement.sign(&evidence.key);
    let restored = |signed: LogRestored| FileStatement::Restored(signed);
    evidence.file.push(restored(signed.clone()));
    let report = evidence.verify_quickly(&store).await;
    assert!(report.ok, "{:?}", report.finding);
    assert_eq!((report.restored.clone(), report.superseded), (vec![statement], 1));
    assert!(
        report.does_not_prove.iter().any(|text| text.contains("positions 5 to 8")),
        "{:?}",
        report.does_not_prove
    );

    // One that nobody signed, that was made up, that is of another time or does not speak of so much, excuses nothing.
    let mut forged = signed.clone();
    forged.statement.up_to = Position(3);
    let stranger = statement.sign(&AuditKey::from_bytes([7; 32]));
    let early = RestoreStatement { at: at(8), ..statement }.sign(&evidence.key);
    let short = RestoreStatement { lost_to: Position(6), ..statement }.sign(&evidence.key);
    for (line, fault) in [
        (forged, Fault::Signature),
        (stranger, Fault::UnknownKey),
        (early, Fault::Beyond),
        (short, Fault::Beyond),
    ] {
        evidence.file[2] = restored(line);
        assert_eq!(evidence.fault(&store).await.1, fault);
    }

    // The log goes on, and says so itself: a file that was kept elsewhere fits too.
    evidence.file.truncate(2);
    let mut log = Recorder::going_on(&store).await;
    let mut told = event(None, signed);
    told.tenant = TenantId::system();
    store.append(&log.batch(vec![told])).await.unwrap();
    store.append(&log.batch(short_exec(9, b"after"))).await.unwrap();
    let report = evidence.verify_quickly(&store).await;
    assert!(report.ok, "{:?}", report.finding);
    assert_eq!((report.events, report.restored.len(), report.superseded), (8, 1, 1));
    // What is before the copy is held against it as ever.
    let FileStatement::Checkpoint(first) = evidence.file[0].clone() else { panic!("no checkpoint") };
    let mut lie = first.statement;
    lie.chains[0].hash = ChainHash([9; 32]);
    evidence.file.push(lie.sign(&evidence.key).into());
    assert_eq!(evidence.fault(&store).await, (3, Fault::Contradiction));
}

pub async fn a_key_that_the_one_before_vouches_for_is_trusted(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    let next = AuditKey::from_bytes([6; 32]);
    let mut log = Recorder::going_on(&store).await;
    let mut changed =
        event(None, key_changed(&next, evidence.key.public().id(), Some(&evidence.key), at(11)));
    changed.tenant = TenantId::system();
    store.append(&log.batch(vec![changed])).await.unwrap();
    let (up_to, chains) = store.chain_points().await.unwrap();
    let newest = CheckpointStatement { up_to, at: at(12), chains, previous: ChainHash::GENESIS }.sign(&next);
    evidence.file.push(newest.clone().into());
    let report = evidence.verify_quickly(&store).await;
    assert!(report.ok && report.keys_changed_at.is_empty(), "{:?}", report.finding);
    assert_eq!(report.checkpoints.signatures_checked, 5);
    // Without its word the new one is a stranger.
    let mut changed = event(None, key_changed(&next, evidence.key.public().id(), None, at(13)));
    changed.tenant = TenantId::system();
    store.append(&log.batch(vec![changed])).await.unwrap();
    let report = evidence.verify(&store).await;
    assert_eq!(report.keys_changed_at, [Position(10)]);
}

pub async fn a_page_of_the_audit_log_goes_on_where_it_ended(subject: &Subject) {
    let (store, _) = record(subject).await;
    let positions = async |query: &AuditQuery| {
        let page = list(&*store, query).await.unwrap();
        (page.events.iter().map(|(row, _)| row.position.0).collect::<Vec<_>>(), page.next_after)
    };
    let mut query = AuditQuery { limit: 3, ..AuditQuery::default() };
    assert_eq!(positions(&query).await, (vec![1, 2, 3], Some(Position(3))));
    query.after = Some(Position(6));
    assert_eq!(positions(&query).await, (vec![7, 8], None));
    query = AuditQuery { limit: 3, backwards: true, ..AuditQuery::default() };
    assert_eq!(positions(&query).await, (vec![8, 7, 6], Some(Position(6))));
    query.after = Some(Position(3));
    assert_eq!(positions(&query).await, (vec![2, 1], None));
    query = AuditQuery { limit: 10, actor: Some("executor:*".to_owned()), ..AuditQuery::default() };
    query.filter.types = ["exec.exited", "audit.checkpoint"].map(str::to_owned).to_vec();
    assert_eq!(positions(&query).await, (vec![3, 4, 7, 8], None));
    query.filter.tenant = Some(tenant("default"));
    assert_eq!(positions(&query).await, (vec![3, 7], None));
    query = AuditQuery { limit: 10, user: Some("nobody".to_owned()), ..AuditQuery::default() };
    assert_eq!(positions(&query).await, (vec![], None));
    query.filter.to = Some(at(0));
    assert_eq!(positions(&query).await, (vec![], None));
}

/// No hash covers the tables beside the events: what is forged there is found, or named as not compared.
pub async fn what_stands_beside_the_events_is_compared_or_named(subject: &Subject) {
    let (store, mut evidence) = record(subject).await;
    // Which would speak of what the head leaves out.
    evidence.file.clear();
    let literal = |bytes: &[u8]| {
        if subject.is_sqlite() {
            format!("x'{}'", hex::encode(bytes))
        } else {
            format!("'\\x{}'", hex::encode(bytes))
        }
    };
    let named = |report: &Report, what: &str| report.does_not_prove.iter().any(|line| line.contains(what));
    let report = evidence.verify(&store).await;
    assert!(report.ok && named(&report, "`head`"), "{report:?}");
    assert!(!named(&report, "`data_keys`") && !named(&report, "`chain_heads`"), "{report:?}");

    subject.raw("UPDATE head SET position = 6").await.unwrap();
    assert_eq!(evidence.fault(&store).await, (7, Fault::Head));
    subject.raw("UPDATE head SET position = 8").await.unwrap();

    let (_, points) = store.chain_points().await.unwrap();
    let hash = literal(&points[0].hash.0);
    let ghost = async |position: u64| {
        let sql = format!(
            "DELETE FROM chain_heads WHERE tenant = 'ghost'; INSERT INTO chain_heads VALUES ('ghost', {position}, {hash})"
        );
        subject.raw(&sql).await.unwrap();
    };
    for position in [0, 3, 7, 99] {
        ghost(position).await;
        assert_eq!(evidence.fault(&store).await, (position, Fault::Head));
    }
    subject.raw("DELETE FROM chain_heads WHERE tenant = 'ghost'").await.unwrap();

    let key = format!("INSERT INTO data_keys VALUES ({}, 'default', NULL, 1)", literal(&[9; 16]));
    subject.raw(&key).await.unwrap();
    let report = evidence.verify(&store).await;
    assert!(report.ok && named(&report, "`data_keys`"), "{report:?}");
    let keys = PublicKeys::new(vec![evidence.key.public()]);
    let mut source = StoreSource::open(&store, Some(tenant("default"))).await.unwrap();
    let report = audit::verify(&mut source, &keys, std::iter::empty()).await.unwrap();
    assert!(report.ok && named(&report, "`retention`") && named(&report, "`data_keys`"), "{report:?}");

    // What the log itself says of its floors is what they have to be.
    let mut log = Recorder::going_on(&store).await;
    let mut trim = async |class| {
        let mut trimmed =
            event(None, LogTrimmed { class, up_to: Position(3), checkpoint: EventId::from_bytes([4; 16]) });
        trimmed.tenant = TenantId::system();
        store.append(&log.batch(vec![trimmed])).await.unwrap();
        while store.upkeep.drop_some(class).await.unwrap() > 0 {}
    };
    trim(RetentionClass::Output).await;
    trim(RetentionClass::Lifecycle).await;
    assert!(evidence.verify(&store).await.ok);
    // Of a chain whose events are all gone nothing is left to compare its head with.
    ghost(2).await;
    let report = evidence.verify(&store).await;
    assert!(report.ok && named(&report, "the heads of 1 chains in `chain_heads`"), "{report:?}");
    let other = format!("UPDATE retention SET checkpoint = {} WHERE class = 'lifecycle'", literal(&[5; 16]));
    subject.raw(&other).await.unwrap();
    assert_eq!(evidence.fault(&store).await, (3, Fault::Trimmed));
    subject.raw(&other.replace(&literal(&[5; 16]), &literal(&[4; 16]))).await.unwrap();
    assert!(evidence.verify(&store).await.ok);
    let unguarded = if subject.is_sqlite() {
        "DROP TRIGGER retention_only_rises"
    } else {
        "DROP TRIGGER retention_only_rises ON retention"
    };
    subject.raw(unguarded).await.unwrap();
    for (class, forged, named_at) in
        [("lifecycle", 5, 4), ("lifecycle", 2, 4), ("output", 5, 4), ("output", 2, 4)]
    {
        subject.raw(&format!("UPDATE retention SET floor = {forged} WHERE class = '{class}'")).await.unwrap();
        let finding = evidence.verify(&store).await.finding.expect("a finding");
        assert_eq!(
            (finding.position, finding.fault),
            (Position(named_at), Fault::Trimmed),
            "{class} {forged}"
        );
        assert!(finding.explanation.contains(class), "{}", finding.explanation);
        subject.raw(&format!("UPDATE retention SET floor = 3 WHERE class = '{class}'")).await.unwrap();
    }
    assert!(evidence.verify(&store).await.ok);
}
