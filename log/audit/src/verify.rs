//! Walks a log and checks it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    AuditEvent, ChainHash, ChainPoint, DecodeError, Event, EventData, Frame, LogEvent, LogRestored, Position,
    Registry, RestoreStatement, SandboxEvent, SandboxId, TenantId,
};
use record::{ChainedFrame, Floor, Record, StoreError};

use super::beside::{self, Read, Trims};
use super::checkpoint_file::{CheckpointFileError, FileStatement};
use super::claim::{Claim, ClaimSource};
use super::columns::differs;
use super::keys::PublicKeys;
use super::link::link;
use super::refold::refold;
use super::report::{Fault, Finding, Refolded, Report};
use super::restored::{check_signature, excuses, vouched};
use super::source::{ChainItem, ChainSource, RecentLinks, StoreSource};

/// Why a log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file failed.
    #[error("cannot read {path}")]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Format {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The checkpoint file failed.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointFileError),
}

/// Checks everything that a source has: that nothing is missing, that every event is the one that was chained, that
/// bodies are what was chained, that chains end where they should, and that every checkpoint, in the log and in `file`,
/// is signed by one of `keys` and agrees.
///
/// Stops at the first thing that is wrong, which is then in the report. Memory grows with the number of tenants and of
/// sandboxes whose bodies are gone, not with the length of the log.
pub async fn verify(
    source: &mut dyn ChainSource,
    keys: &PublicKeys,
    file: impl Iterator<Item = Result<(u64, FileStatement), CheckpointFileError>> + Send,
) -> Result<Report, VerifyError> {
    let mut walk = Walk::new(source.tenant().cloned(), source.has_bodies(), keys);
    match walk.run(source, file).await {
        Ok(()) => {}
        Err(Stop::Found(finding)) => walk.report.finding = Some(finding),
        Err(Stop::Failed(error)) => return Err(error),
    }
    Ok(walk.finish())
}

/// The same for all that a store has, without a file.
pub async fn verify_store(store: &Record, keys: &PublicKeys) -> Result<Report, VerifyError> {
    let mut source = StoreSource::open(store, None).await?;
    verify(&mut source, keys, std::iter::empty()).await
}

enum Stop {
    Found(Finding),
    Failed(VerifyError),
}

impl From<VerifyError> for Stop {
    fn from(error: VerifyError) -> Self {
        Self::Failed(error)
    }
}

fn found(position: Position, fault: Fault) -> Stop {
    told(position, fault, fault.to_string())
}

fn told(position: Position, fault: Fault, explanation: String) -> Stop {
    Stop::Found(Finding { position, fault, explanation })
}

/// The first event of a chain that begins after what was dropped, until something states what it follows from.
struct Loose {
    position: Position,
    header: Bytes,
    body_hash: Option<[u8; 32]>,
    hash: ChainHash,
}

/// What lines of the checkpoint file are at odds with the log about.
struct Doubted {
    /// The first thing that is wrong.
    finding: Finding,
    /// The first event and the last that they speak of, and when the newest of them was made.
    first: Position,
    last: Position,
    at: DateTime<Utc>,
}

struct Walk {
    keys: PublicKeys,
    /// The kinds of things whose events are found by them.
    registry: Registry,
    /// Held until the end of the file: a later line may say that a copy took the log's place in between.
    doubted: Option<Doubted>,
    tenant: Option<TenantId>,
    has_bodies: bool,
    report: Report,
    /// The newest event that was read.
    at: Position,
    /// Up to where events are not there from the beginning on.
    floor: Position,
    /// Up to where the source says so.
    said_floor: Position,
    chains: HashMap<TenantId, ChainPoint>,
    loose: HashMap<TenantId, Loose>,
    recent: RecentLinks,
    /// The first and the last event without its body, by sandbox.
    absent: HashMap<Option<SandboxId>, (Position, Position)>,
    erased: HashSet<SandboxId>,
    /// What the log says was dropped.
    trims: Trims,
    /// Heads of chains that have grown past what was read.
    grown: Vec<ChainPoint>,
    /// How many chains have a head and no event any more.
    dropped_chains: u64,
    /// Whether there are sealed bodies.
    sealed: bool,
    /// What stands beside the events and was not compared.
    uncompared: Vec<String>,
}

impl Walk {
    fn new(tenant: Option<TenantId>, has_bodies: bool, keys: &PublicKeys) -> Self {
        let report = Report {
            ok: false,
            finding: None,
            first: Position::ZERO,
            last: Position::ZERO,
            events: 0,
            tenants: 0,
            bodies: 0,
            bodies_absent: 0,
            unanchored: 0,
            checkpoints: super::report::CheckpointCounts::default(),
            refolded: None,
            restored: Vec::new(),
            superseded: 0,
            keys_changed_at: Vec::new(),
            events_after_checkpoint: 0,
            proves: Vec::new(),
            does_not_prove: Vec::new(),
        };
        Self {
            keys: keys.clone(),
            registry: Registry::default(),
            doubted: None,
            tenant,
            has_bodies,
            report,
            at: Position::ZERO,
            floor: Position::ZERO,
            said_floor: Position::ZERO,
            chains: HashMap::new(),
            loose: HashMap::new(),
            recent: RecentLinks::default(),
            absent: HashMap::new(),
            erased: HashSet::new(),
            trims: Trims::default(),
            grown: Vec::new(),
            dropped_chains: 0,
            sealed: false,
            uncompared: Vec::new(),
        }
    }

    async fn run(
        &mut self,
        source: &mut dyn ChainSource,
        file: impl Iterator<Item = Result<(u64, FileStatement), CheckpointFileError>> + Send,
    ) -> Result<(), Stop> {
        self.said_floor = source.floor();
        loop {
            let items = source.next().await?;
            if items.is_empty() {
                break;
            }
            for item in items {
                match item {
                    ChainItem::Event(event) => {
                        if let Some(claim) = self.event(event)? {
                            self.claim(claim, source).await?;
                        }
                    }
                    ChainItem::Claim(claim) => self.claim(claim, source).await?,
                    ChainItem::Damaged(why) => {
                        return Err(told(self.at.next(), Fault::Unreadable, why));
                    }
                    ChainItem::CutOff => return Err(found(self.at.next(), Fault::CutOff)),
                }
            }
        }
        if self.tenant.is_none() && self.at < source.end() {
            return Err(found(self.at.next(), Fault::Missing));
        }
        self.heads(source).await?;
        for line in file {
            let (number, statement) = line.map_err(VerifyError::from)?;
            let checkpoint = match statement {
                FileStatement::Checkpoint(checkpoint) => checkpoint,
                FileStatement::Restored(restored) => {
                    self.restored(&restored, self.at, &format!("line {number} of the checkpoint file"))?;
                    continue;
                }
            };
            let mut claim = Claim::of_checkpoint(&checkpoint, ClaimSource::File(number));
            if let Some(tenant) = &self.tenant {
                claim = claim.only(tenant);
            }
            self.claim(claim, source).await?;
        }
        if let Some(doubted) = self.doubted.take() {
            return Err(Stop::Found(doubted.finding));
        }
        self.close()?;
        let end = source.end();
        if let Some((store, floors)) = source.store() {
            self.beside(store, floors, end).await?;
        }
        if let Some(store) = source.read_models() {
            let mut counts = Refolded::default();
            let floor = self.floor.max(self.said_floor);
            if let Some(finding) = refold(store, floor, &mut counts).await.map_err(VerifyError::from)? {
                return Err(Stop::Found(finding));
            }
            self.report.refolded = Some(counts);
        }
        Ok(())
    }

    /// Checks one event; gives back what it claims if it is a checkpoint.
    fn event(&mut self, chained: ChainedFrame) -> Result<Option<Claim>, Stop> {
        let ChainedFrame { position, tenant, header, body_hash, body, hash, columns } = chained;
        if self.report.events == 0 {
            self.report.first = position;
            if self.tenant.is_none() {
                self.floor = Position(position.0.saturating_sub(1));
            }
        } else if position <= self.at {
            return Err(found(position, Fault::Order));
        } else if self.tenant.is_none() && position != self.at.next() {
            return Err(found(self.at.next(), Fault::Missing));
        }
        self.link(&tenant, position, &header, body_hash, hash)?;
        let frame = Frame { position, header, body: Bytes::new(), missing: None };
        let event = match frame.decode() {
            Ok(event) if event.tenant != tenant => return Err(found(position, Fault::Tenant)),
            Ok(event) => Some(event),
            // Written by a newer build; its bytes are what they were.
            Err(DecodeError::UnknownType(_)) => None,
            Err(DecodeError::Frame(_) | DecodeError::Header(_) | DecodeError::Id(_)) => {
                return Err(found(position, Fault::Unreadable));
            }
        };
        match (&body, body_hash) {
            (Some(body), stated) if stated != Some(body.hash()) => {
                return Err(found(position, Fault::Body));
            }
            (Some(body), _) => {
                self.report.bodies += 1;
                self.sealed |= body.encoding.is_sealed();
            }
            (None, Some(_)) => {
                self.report.bodies_absent += 1;
                let sandbox = event.as_ref().and_then(|event| event.sandbox);
                self.absent.entry(sandbox).or_insert((position, position)).1 = position;
            }
            (None, None) => {}
        }
        if let (Some(columns), Some(event)) = (&columns, &event)
            && let Some(name) = differs(columns, event, body.as_ref(), &self.registry)
        {
            let fault = Fault::Column;
            return Err(told(position, fault, format!("{fault}: {name}")));
        }
        self.at = position;
        self.report.events += 1;
        self.report.last = position;
        self.recent.add(position, hash);
        self.chains.insert(tenant.clone(), ChainPoint { tenant: tenant.clone(), position, hash });
        match event {
            Some(event) => self.note(event, position),
            None => Ok(None),
        }
    }

    fn link(
        &mut self,
        tenant: &TenantId,
        position: Position,
        header: &Bytes,
        body_hash: Option<[u8; 32]>,
        hash: ChainHash,
    ) -> Result<(), Stop> {
        let before = self.chains.get(tenant);
        let previous = before.map_or(ChainHash::GENESIS, |point| point.hash);
        if link(&previous, position, header, body_hash.as_ref()) == hash {
            return Ok(());
        }
        // What one tenant's chain follows from may have been dropped, without a hole that would show it.
        let dropped =
            self.floor > Position::ZERO || (self.tenant.is_some() && self.said_floor > Position::ZERO);
        if before.is_some() || !dropped {
            return Err(found(position, Fault::Hash));
        }
        let loose = Loose { position, header: header.clone(), body_hash, hash };
        self.loose.insert(tenant.clone(), loose);
        Ok(())
    }

    /// Takes in what the log says about itself.
    fn note(&mut self, event: Event, position: Position) -> Result<Option<Claim>, Stop> {
        if let EventData::Sandbox(SandboxEvent::Erased(_)) = event.data {
            self.erased.extend(event.sandbox);
            return Ok(None);
        }
        // Anybody else could only say it about nothing.
        if event.tenant != TenantId::system() {
            return Ok(None);
        }
        if let EventData::Log(LogEvent::Trimmed(trimmed)) = &event.data {
            self.trims.note(trimmed);
            return Ok(None);
        }
        if let EventData::Log(LogEvent::Restored(restored)) = &event.data {
            self.restored(restored, position, &format!("the event at position {position}"))?;
            return Ok(None);
        }
        if let EventData::Audit(AuditEvent::KeyChanged(changed)) = &event.data {
            match vouched(changed, &self.keys) {
                Some(key) => self.keys.add(key),
                None => self.report.keys_changed_at.push(position),
            }
            return Ok(None);
        }
        let EventData::Audit(AuditEvent::Checkpoint(checkpoint)) = &event.data else {
            return Ok(None);
        };
        let claim = Claim::of_checkpoint(checkpoint, ClaimSource::Event(position));
        Ok(Some(match &self.tenant {
            Some(tenant) => claim.only(tenant),
            None => claim,
        }))
    }

    /// Takes in that a copy took the log's place.
    fn restored(&mut self, restored: &LogRestored, position: Position, source: &str) -> Result<(), Stop> {
        match check_signature(restored, &self.keys) {
            Ok(true) => self.report.checkpoints.signatures_checked += 1,
            Ok(false) => {}
            Err(fault) => return Err(told(position, fault, format!("{source}, log.restored: {fault}"))),
        }
        let statement = restored.statement;
        let excused = |doubted: &Doubted| {
            excuses(&statement, doubted.first, doubted.at) && excuses(&statement, doubted.last, doubted.at)
        };
        if self.doubted.as_ref().is_some_and(excused) {
            self.doubted = None;
        }
        // It is an event and a line of the file.
        if !self.report.restored.contains(&statement) {
            self.report.restored.push(statement);
        }
        Ok(())
    }

    async fn claim(&mut self, claim: Claim, source: &mut dyn ChainSource) -> Result<(), Stop> {
        let whole = if let ClaimSource::Event(position) = claim.source { position } else { self.at };
        match claim.source {
            ClaimSource::Event(_) | ClaimSource::Export(_) => self.report.checkpoints.recorded += 1,
            ClaimSource::File(_) => self.report.checkpoints.in_file += 1,
        }
        let named = |fault: Fault| {
            let position = claim.points.iter().map(|point| point.position).min();
            told(position.unwrap_or(whole), fault, format!("{}: {fault}", claim.source))
        };
        match claim.check_signature(&self.keys) {
            Ok(true) => self.report.checkpoints.signatures_checked += 1,
            Ok(false) => {}
            Err(fault) => return Err(named(fault)),
        }
        let mut points: Vec<&ChainPoint> = claim.points.iter().collect();
        points.sort_by_key(|point| point.position);
        for point in points {
            if point.position > claim.signed.up_to {
                return Err(named(Fault::Contradiction));
            }
            let Err(stop) = self.point(&claim, point, source).await else { continue };
            let Stop::Found(finding) = stop else { return Err(stop) };
            if !matches!(claim.source, ClaimSource::File(_)) {
                return Err(Stop::Found(finding));
            }
            // What was stated of the log that a copy took the place of is not held against the copy.
            let (first, last, at) = (point.position, claim.signed.up_to, claim.signed.at);
            let excused =
                |restored: &RestoreStatement| excuses(restored, first, at) && excuses(restored, last, at);
            self.report.superseded += 1;
            if !self.report.restored.iter().any(excused) {
                self.doubt(Doubted { finding, first, last, at });
            }
            return Ok(());
        }
        if self.report.checkpoints.newest_up_to.is_none_or(|newest| newest < claim.signed.up_to) {
            self.report.checkpoints.newest_up_to = Some(claim.signed.up_to);
            self.report.checkpoints.newest_at = Some(claim.signed.at);
        }
        Ok(())
    }

    fn doubt(&mut self, new: Doubted) {
        self.doubted = Some(match self.doubted.take() {
            None => new,
            Some(old) => Doubted {
                first: old.first.min(new.first),
                last: old.last.max(new.last),
                at: old.at.max(new.at),
                finding: if new.finding.position < old.finding.position { new.finding } else { old.finding },
            },
        });
    }

    async fn point(
        &mut self,
        claim: &Claim,
        point: &ChainPoint,
        source: &mut dyn ChainSource,
    ) -> Result<(), Stop> {
        self.anchor(point);
        if point.position <= self.floor {
            return Ok(());
        }
        let stored = match self.recent.get(point.position) {
            Some(hash) => Some(hash),
            None => source.link_at(point.position).await?,
        };
        let agreed = match self.report.checkpoints.newest_up_to {
            Some(up_to) => format!("; the log agrees with checkpoints up to position {up_to}"),
            None => String::new(),
        };
        let made = claim.signed.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        match stored {
            Some(hash) if hash == point.hash => Ok(()),
            Some(hash) => Err(told(
                point.position,
                Fault::Contradiction,
                format!(
                    "{}, made {made}, states the hash {} here, and the log has {hash}: something at or before this position was rewritten{agreed}",
                    claim.source, point.hash
                ),
            )),
            None if point.position > self.at => Err(told(
                self.at.next(),
                Fault::Beyond,
                format!(
                    "{}, made {made}, speaks of position {}, and the log ends at {}{agreed}",
                    claim.source, point.position, self.at
                ),
            )),
            // What one tenant has before its first event may have been dropped.
            None if self.tenant.is_some() && point.position <= self.said_floor => Ok(()),
            None => Err(told(
                point.position,
                Fault::Contradiction,
                format!("{}, made {made}, speaks of an event here, and there is none", claim.source),
            )),
        }
    }

    /// Whether the point is what the first event of its chain follows from.
    fn anchor(&mut self, point: &ChainPoint) {
        let fits = self.loose.get(&point.tenant).is_some_and(|first| {
            point.position < first.position
                && link(&point.hash, first.position, &first.header, first.body_hash.as_ref()) == first.hash
        });
        if fits {
            self.loose.remove(&point.tenant);
        }
    }

    async fn heads(&mut self, source: &mut dyn ChainSource) -> Result<(), Stop> {
        let Some(heads) = source.heads().await? else {
            return Ok(());
        };
        let end = source.end();
        let mut seen = HashSet::new();
        let mut first_bad: Option<Position> = None;
        for head in heads {
            // The log has grown since: a later verification sees to it.
            let grown = head.position > end;
            let fits = match self.chains.get(&head.tenant) {
                Some(point) => *point == head,
                None if self.tenant.is_some() => true,
                None => head.position > Position::ZERO && head.position <= self.floor,
            };
            self.dropped_chains +=
                u64::from(fits && self.tenant.is_none() && !self.chains.contains_key(&head.tenant));
            if grown {
                self.grown.push(head.clone());
            }
            if !grown && !fits {
                let known = self.chains.get(&head.tenant).map_or(head.position, |point| point.position);
                let bad = Position(known.0.min(head.position.0));
                first_bad = Some(first_bad.map_or(bad, |first| first.min(bad)));
            }
            seen.insert(head.tenant);
        }
        let headless = self.chains.values().filter(|point| !seen.contains(&point.tenant));
        let first_bad = headless.map(|point| point.position).chain(first_bad).min();
        first_bad.map_or(Ok(()), |position| Err(found(position, Fault::Head)))
    }

    /// Compares what stands beside the events of a store.
    async fn beside(&mut self, store: &Record, floors: &[Floor], end: Position) -> Result<(), Stop> {
        if self.tenant.is_none() {
            let read = Read { end, trims: &self.trims, floors, grown: &self.grown };
            if let Some(finding) = beside::compare(store, &read).await.map_err(VerifyError::from)? {
                return Err(Stop::Found(finding));
            }
        }
        let uncompared = beside::uncompared(store, self.tenant.as_ref(), self.sealed, self.dropped_chains);
        self.uncompared = uncompared.await.map_err(VerifyError::from)?;
        Ok(())
    }

    /// What can only be judged when everything was read.
    fn close(&mut self) -> Result<(), Stop> {
        let (events_dropped, bodies_dropped) = (self.trims.events(), self.trims.bodies());
        if self.floor > events_dropped {
            return Err(found(events_dropped.next(), Fault::Trimmed));
        }
        self.report.unanchored = self.loose.len() as u64;
        // Whether a sandbox was erased, and what was dropped, is told to a tenant in its own chain or not at all.
        if !self.has_bodies || self.tenant.is_some() {
            return Ok(());
        }
        let unexplained = self
            .absent
            .iter()
            .filter(|(sandbox, _)| sandbox.is_none_or(|sandbox| !self.erased.contains(&sandbox)))
            .filter(|(_, (_, last))| *last > bodies_dropped)
            .map(|(_, (first, last))| if *first > bodies_dropped { *first } else { *last })
            .min();
        unexplained.map_or(Ok(()), |position| Err(found(position, Fault::BodyMissing)))
    }

    fn finish(mut self) -> Report {
        self.report.tenants = self.chains.len() as u64;
        let newest = self.report.checkpoints.newest_up_to.unwrap_or(Position::ZERO);
        self.report.events_after_checkpoint = if self.tenant.is_none() {
            self.report.last.0.saturating_sub(newest.0).min(self.report.events)
        } else {
            u64::from(self.report.last > newest)
        };
        self.report.explain(std::mem::take(&mut self.uncompared));
        self.report
    }
}
