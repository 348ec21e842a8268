//! What readers ask of a record, said in terms of things and not of rows. Written once, for every store.

use events::{
    Aggregate, ChainHash, ChainPoint, ExecId, ExecState, Frame, Key, Kind, Position, SandboxId, SandboxState,
    Slot, Template, TemplateState, TenantId,
};

use crate::{
    AuditFilter, AuditRow, EventFilter, EventQuery, EventStore, ExecPage, FoundEvent, Order, RowQuery,
    StoreError, StoredRow,
};

/// The states in rows.
fn states<A: Aggregate>(rows: Vec<StoredRow>) -> Result<Vec<A>, StoreError> {
    let read = |row: StoredRow| row.state.map(|state| read_state(&state));
    rows.into_iter().filter_map(read).collect()
}

fn read_state<A: Aggregate>(state: &str) -> Result<A, StoreError> {
    serde_json::from_str(state).map_err(damaged)
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { operation: "read what is known of a thing", source: error.into() }
}

impl dyn EventStore {
    /// What is known of one thing, ended or not.
    pub async fn get<A: Aggregate>(&self, key: impl Into<Key> + Send) -> Result<Option<A>, StoreError> {
        let keys = Some(vec![key.into()]);
        Ok(self.list::<A>(RowQuery { keys, ..RowQuery::default() }).await?.pop())
    }

    /// The same, if it is the tenant's. What is another's is looked for as long as what is nobody's, and not found.
    pub async fn get_of<A: Aggregate>(
        &self,
        tenant: &TenantId,
        key: impl Into<Key> + Send,
    ) -> Result<Option<A>, StoreError> {
        let (keys, tenant) = (Some(vec![key.into()]), Some(tenant.clone()));
        Ok(self.list::<A>(RowQuery { keys, tenant, ..RowQuery::default() }).await?.pop())
    }

    /// What is known of many.
    pub async fn list<A: Aggregate>(&self, query: RowQuery) -> Result<Vec<A>, StoreError> {
        states(self.rows(&RowQuery { kind: A::KIND, ..query }).await?)
    }

    /// What is known of many things of a kind that the caller need not know.
    pub async fn slots(
        &self,
        kind: &Kind,
        keys: Vec<Key>,
    ) -> Result<Vec<(&'static str, Key, Slot)>, StoreError> {
        let rows = self.rows(&RowQuery { kind: kind.name, keys: Some(keys), ..RowQuery::default() }).await?;
        let read = |row: StoredRow| {
            let slot = kind.read(&row.state?).map_err(damaged);
            Some(slot.map(|slot| (kind.name, row.key, slot)))
        };
        rows.into_iter().filter_map(read).collect()
    }

    /// All things of a kind that have not ended, and the head that this is true at.
    pub async fn live_slots(&self, kind: &Kind) -> Result<(Position, Vec<(Key, Slot)>), StoreError> {
        let (head, rows) = self.live_rows(kind.name).await?;
        let read = |row: StoredRow| {
            let slot = kind.read(&row.state?).map_err(damaged);
            Some(slot.map(|slot| (row.key, slot)))
        };
        Ok((head, rows.into_iter().filter_map(read).collect::<Result<_, _>>()?))
    }

    /// All of a tenant's that are no part of something else, by their keys.
    pub async fn of_tenant<A: Aggregate>(&self, tenant: &TenantId) -> Result<Vec<A>, StoreError> {
        self.list::<A>(RowQuery { tenant: Some(tenant.clone()), ..RowQuery::default() }).await
    }

    /// All that have not ended, and the head that this is true at.
    pub async fn live<A: Aggregate>(&self) -> Result<(Position, Vec<A>), StoreError> {
        let (head, rows) = self.live_rows(A::KIND).await?;
        Ok((head, states(rows)?))
    }

    /// One sandbox, terminal or not.
    pub async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxState>, StoreError> {
        self.get(id).await
    }

    /// The same, if it is the tenant's.
    pub async fn sandbox_of(
        &self,
        tenant: &TenantId,
        id: SandboxId,
    ) -> Result<Option<SandboxState>, StoreError> {
        self.get_of(tenant, id).await
    }

    /// A tenant's sandboxes, ended ones too, by falling id: at most `limit` of those below `before`.
    pub async fn sandboxes(
        &self,
        tenant: &TenantId,
        before: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxState>, StoreError> {
        let order = Order::FallingKey(before.map(Key::from));
        let (tenant, limit) = (Some(tenant.clone()), Some(limit));
        self.list(RowQuery { tenant, order, limit, ..RowQuery::default() }).await
    }

    /// All sandboxes that are not terminal, and the head that this is true at.
    pub async fn live_sandboxes(&self) -> Result<(Position, Vec<SandboxState>), StoreError> {
        self.live().await
    }

    /// One exec, ended or not.
    pub async fn exec(&self, id: ExecId) -> Result<Option<ExecState>, StoreError> {
        self.get(id).await
    }

    /// The same, if it is the tenant's.
    pub async fn exec_of(&self, tenant: &TenantId, id: ExecId) -> Result<Option<ExecState>, StoreError> {
        self.get_of(tenant, id).await
    }

    /// The execs of a sandbox, the newest first.
    pub async fn execs(&self, sandbox: SandboxId, page: &ExecPage) -> Result<Vec<ExecState>, StoreError> {
        let before = page.before.map(|(at, id)| (at.timestamp_micros(), Key::from(id)));
        let parents = Some(vec![sandbox.into()]);
        let (order, ended, limit) = (Order::Newest(before), page.ended, Some(page.limit));
        self.list(RowQuery { parents, order, ended, limit, ..RowQuery::default() }).await
    }

    /// The execs of these sandboxes of which more may come.
    pub async fn live_execs_of(&self, sandboxes: &[SandboxId]) -> Result<Vec<ExecState>, StoreError> {
        let parents = Some(sandboxes.iter().copied().map(Key::from).collect());
        self.list(RowQuery { parents, ended: Some(false), ..RowQuery::default() }).await
    }

    /// All execs of which more may come: those that have not ended, and those whose output is open.
    pub async fn live_execs(&self) -> Result<Vec<ExecState>, StoreError> {
        Ok(self.live().await?.1)
    }

    /// Up to `limit` events after a position, in order. Events without their body where that is not kept any more; an error
    /// where events themselves are not ([`StoreError::Trimmed`]), so that nothing is left out in silence.
    pub async fn read(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let query = EventQuery { after, limit, bodies: true, ..EventQuery::whole(filter) };
        Ok(frames(self.events(&query).await?))
    }

    /// The same without bodies, which is quicker.
    pub async fn read_headers(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let query = EventQuery { after, limit, ..EventQuery::whole(filter) };
        Ok(frames(self.events(&query).await?))
    }

    /// Up to `limit` events after a position and up to another, without their bodies; from the last one on backwards if
    /// `backwards`. What is trimmed is left out in silence.
    pub async fn read_audit(
        &self,
        filter: &AuditFilter,
        after: Position,
        up_to: Position,
        backwards: bool,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let (filter, up_to) = (filter.clone(), Some(up_to));
        let query = EventQuery { filter, after, up_to, backwards, limit, ..EventQuery::default() };
        let row = |found: FoundEvent| AuditRow {
            position: found.frame.position,
            header: found.frame.header,
            body_length: found.body_length,
        };
        Ok(self.events(&query).await?.into_iter().map(row).collect())
    }

    /// Up to `limit` events of these types after a position, of all tenants, in order and without bodies. What is trimmed is left
    /// out in silence.
    pub async fn headers_of_types(
        &self,
        types: &[&str],
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let types = types.iter().map(|name| (*name).to_owned()).collect();
        let filter = AuditFilter { types, ..AuditFilter::default() };
        Ok(frames(self.events(&EventQuery { filter, after, limit, ..EventQuery::default() }).await?))
    }

    /// Up to `limit` events of type `audit.checkpoint` after a position, in order.
    pub async fn checkpoints_after(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        self.headers_of_types(&["audit.checkpoint"], after, limit).await
    }

    /// Up to `limit` events that make or revoke viewer links after a position, in order, of all tenants. What is trimmed is left
    /// out in silence.
    pub async fn links_after(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        self.headers_of_types(&["access.granted", "access.revoked"], after, limit).await
    }

    /// A tenant's templates, by name.
    pub async fn templates(&self, tenant: &TenantId) -> Result<Vec<Template>, StoreError> {
        let states = self.of_tenant::<TemplateState>(tenant).await?;
        Ok(states.into_iter().map(|state| state.template).collect())
    }

    /// The ends of all chains, and the head that this is true at.
    pub async fn chain_points(&self) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        self.chain_ends(None).await
    }

    /// The newest link of a tenant's hash chain; [`ChainHash::GENESIS`] before the first event.
    pub async fn chain_head(&self, tenant: &TenantId) -> Result<ChainHash, StoreError> {
        let (_, points) = self.chain_ends(Some(tenant)).await?;
        Ok(points.first().map_or(ChainHash::GENESIS, |point| point.hash))
    }
}

impl EventQuery {
    /// All that a filter wants, and an error where some of it was dropped.
    pub fn whole(filter: &EventFilter) -> Self {
        Self { filter: filter.clone().into(), whole: true, ..Self::default() }
    }
}

fn frames(found: Vec<FoundEvent>) -> Vec<Frame> {
    found.into_iter().map(|found| found.frame).collect()
}
