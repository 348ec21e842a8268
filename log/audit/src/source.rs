//! Where verification reads from.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use events::{
    AuditEvent, ChainHash, ChainPoint, Event, EventData, Frame, Position, RetentionClass, TenantId,
};
use record::{AuditFilter, ChainedFrame, Floor, Record, StoreError};

use super::claim::{Claim, ClaimSource};
use super::verify::VerifyError;

/// Events that are read at once. Few, because each may have a large body.
const PAGE: u32 = 64;
/// How many positions one read looks through.
const WINDOW: u64 = 50_000;

/// One thing to be checked.
#[derive(Debug)]
pub enum ChainItem {
    /// An event, as it is stored.
    Event(ChainedFrame),
    /// A checkpoint that is no event of what is read.
    Claim(Claim),
    /// Something that should have been one of them: where, and why it is not.
    Damaged(String),
    /// There should be more, and there is not.
    CutOff,
}

/// Chained events from somewhere, in the order of their positions.
#[async_trait]
pub trait ChainSource: Send {
    /// The tenant, where there are only the events of one: then positions have holes.
    fn tenant(&self) -> Option<&TenantId>;
    /// Whether bodies are among it.
    fn has_bodies(&self) -> bool;
    /// The next ones; empty at the end.
    async fn next(&mut self) -> Result<Vec<ChainItem>, VerifyError>;
    /// The link that is stored at a position.
    async fn link_at(&mut self, position: Position) -> Result<Option<ChainHash>, VerifyError>;
    /// The ends of the chains, asked after the last event was read; `None` when they are not known.
    async fn heads(&mut self) -> Result<Option<Vec<ChainPoint>>, VerifyError>;
    /// How far it claims to go.
    fn end(&self) -> Position;
    /// Up to where it says that whole events were dropped.
    fn floor(&self) -> Position;
    /// The store that it is read from, where it is one, and the floors that it had before [`end`](Self::end) was known.
    fn store(&self) -> Option<(&Record, &[Floor])> {
        None
    }
    /// Whose read models are to be made again, if any are.
    fn read_models(&self) -> Option<&Record> {
        None
    }
}

/// A store as it is now.
#[derive(Debug)]
pub struct StoreSource<'s> {
    store: &'s Record,
    tenant: Option<TenantId>,
    at: Position,
    end: Position,
    floor: Position,
    floors: Vec<Floor>,
    /// From where to look for checkpoints, once the events of the one tenant have been read.
    checkpoints_after: Option<Position>,
    quick: bool,
}

impl<'s> StoreSource<'s> {
    /// Everything, or what one tenant may see.
    pub async fn open(store: &'s Record, tenant: Option<TenantId>) -> Result<Self, VerifyError> {
        // In this order: what a floor says, an event up to the end says too.
        let floors = store.floors().await?;
        let end = store.head().await?.position;
        let floor = floors.iter().find(|floor| floor.class == RetentionClass::Lifecycle);
        let floor = floor.map_or(Position::ZERO, |floor| floor.up_to);
        let checkpoints_after = tenant.is_some().then_some(Position::ZERO);
        Ok(Self { store, tenant, at: Position::ZERO, end, floor, floors, checkpoints_after, quick: false })
    }

    /// Leaves the read models out, which take as long again as the log.
    #[must_use]
    pub fn quick(self, quick: bool) -> Self {
        Self { quick, ..self }
    }

    /// The checkpoints that speak of the tenant: they are events of the system, which it does not see.
    async fn checkpoints(&mut self, tenant: &TenantId) -> Result<Vec<ChainItem>, VerifyError> {
        let filter = AuditFilter {
            tenant: Some(TenantId::system()),
            types: vec!["audit.checkpoint".to_owned()],
            ..AuditFilter::default()
        };
        while let Some(after) = self.checkpoints_after {
            let rows = self.store.read_audit(&filter, after, self.end, false, PAGE).await?;
            self.checkpoints_after = rows.last().map(|row| row.position);
            let claims = rows.into_iter().filter_map(|row| {
                let position = row.position;
                let frame = Frame { position, header: row.header, body: Bytes::new(), missing: None };
                let Ok(Event { data: EventData::Audit(AuditEvent::Checkpoint(checkpoint)), .. }) =
                    frame.decode()
                else {
                    return None;
                };
                let claim = Claim::of_checkpoint(&checkpoint, ClaimSource::Event(position)).only(tenant);
                (!claim.points.is_empty()).then_some(ChainItem::Claim(claim))
            });
            let claims: Vec<ChainItem> = claims.collect();
            if !claims.is_empty() {
                return Ok(claims);
            }
        }
        Ok(Vec::new())
    }
}

#[async_trait]
impl ChainSource for StoreSource<'_> {
    fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    fn has_bodies(&self) -> bool {
        true
    }

    async fn next(&mut self) -> Result<Vec<ChainItem>, VerifyError> {
        while self.at < self.end {
            let up_to = Position(self.at.0.saturating_add(WINDOW).min(self.end.0));
            let frames =
                match self.store.evidence.read_chain(self.tenant.as_ref(), self.at, up_to, PAGE).await {
                    Ok(frames) => frames,
                    Err(StoreError::Damaged { source, .. }) => {
                        return Ok(vec![ChainItem::Damaged(format!("the event cannot be read: {source}"))]);
                    }
                    Err(error) => return Err(error.into()),
                };
            self.at = frames.last().map_or(up_to, |last| last.position);
            if !frames.is_empty() {
                return Ok(frames.into_iter().map(ChainItem::Event).collect());
            }
        }
        match self.tenant.clone() {
            Some(tenant) => self.checkpoints(&tenant).await,
            None => Ok(Vec::new()),
        }
    }

    async fn link_at(&mut self, position: Position) -> Result<Option<ChainHash>, VerifyError> {
        let Some(before) = position.0.checked_sub(1) else {
            return Ok(None);
        };
        let frames =
            self.store.evidence.read_chain(self.tenant.as_ref(), Position(before), position, 1).await?;
        Ok(frames.first().map(|frame| frame.hash))
    }

    async fn heads(&mut self) -> Result<Option<Vec<ChainPoint>>, VerifyError> {
        let (_, mut points) = self.store.chain_points().await?;
        if let Some(tenant) = &self.tenant {
            points.retain(|point| point.tenant == *tenant);
        }
        Ok(Some(points))
    }

    fn end(&self) -> Position {
        self.end
    }

    fn store(&self) -> Option<(&Record, &[Floor])> {
        Some((self.store, &self.floors))
    }

    /// Those of one tenant cannot be told from those of others without reading all of them.
    fn read_models(&self) -> Option<&Record> {
        (!self.quick && self.tenant.is_none()).then_some(self.store)
    }

    fn floor(&self) -> Position {
        self.floor
    }
}

/// The newest links, so that most checkpoints need no read.
#[derive(Debug, Default)]
pub(super) struct RecentLinks(VecDeque<(Position, ChainHash)>);

impl RecentLinks {
    const MOST: usize = 1 << 16;

    pub(super) fn add(&mut self, position: Position, hash: ChainHash) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((position, hash));
    }

    pub(super) fn get(&self, position: Position) -> Option<ChainHash> {
        let at = self.0.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.0.get(at).map(|(_, hash)| *hash)
    }
}
