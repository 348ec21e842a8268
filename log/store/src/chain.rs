//! What verification and audit read.

use bytes::Bytes;
use events::{ChainPoint, Position, TenantId};
use futures::TryStreamExt;
use record::{BodyColumns, ChainedFrame, Columns, StoreError, signed};

use super::asking::Cells;
use super::events::{position, stored};
use super::reads::chain_hash;
use super::sql::{Dialect, SqlStore, damaged, failed};
use super::statement::{Statement, Value};

/// After the first, up to and including the second.
type Range = (Position, Position);

pub(super) async fn read_chain<DB: Dialect>(
    store: &SqlStore<DB>,
    tenant: Option<&TenantId>,
    (after, up_to): Range,
    limit: u32,
) -> Result<Vec<ChainedFrame>, StoreError> {
    let failed = failed::<DB>("read the hash chain");
    let of_tenant = if tenant.is_some() { "AND e.tenant = $4" } else { "" };
    // The bounds on the bodies tell Postgres which partitions it need not look into.
    let sql = format!(
        "SELECT e.position, e.tenant, e.header, e.body_hash, e.hash, b.encoding, b.body,
             e.id, e.type, e.time, e.sandbox, e.exec, e.body_length, e.subject,
             b.exec, CAST(b.stream AS BIGINT), b.byte_offset, CAST(b.length AS BIGINT)
         FROM events e LEFT JOIN bodies b ON b.position = e.position AND b.position > $1 AND b.position <= $2
         WHERE e.position > $1 AND e.position <= $2 {of_tenant} ORDER BY e.position LIMIT $3"
    );
    let bounds = [signed(after.0), signed(up_to.0), i64::from(limit)].map(Value::Number);
    let values = bounds.into_iter().chain(tenant.map(|tenant| Value::Text(tenant.as_str())));
    let mut rows = DB::rows(&store.readers, Statement::new(sql, values.collect::<Vec<_>>()));
    let mut frames = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(&failed)? {
        match chained(&row) {
            Ok(frame) => frames.push(frame),
            // What stands before a damaged row is worth to be seen.
            Err(_) if !frames.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(frames)
}

fn chained(row: &impl Cells) -> Result<ChainedFrame, StoreError> {
    const OPERATION: &str = "read the hash chain";
    let damage = |error: sqlx::Error| damaged(OPERATION, error);
    let tenant = row.text(1).map_err(damage)?;
    let header = row.bytes(2).map_err(damage)?;
    let body_hash = row.maybe_bytes(3).map_err(damage)?;
    Ok(ChainedFrame {
        position: position(row.number(0).map_err(damage)?),
        tenant: tenant.parse().map_err(|error| damaged(OPERATION, error))?,
        header: Bytes::copy_from_slice(header),
        body_hash: body_hash.map(|hash| Ok::<_, StoreError>(chain_hash(hash)?.0)).transpose()?,
        hash: chain_hash(row.bytes(4).map_err(damage)?)?,
        body: stored(row, 5).map_err(damage)?,
        columns: Some(Box::new(columns(row).map_err(damage)?)),
    })
}

/// From the eighth column of the row on.
fn columns(row: &impl Cells) -> Result<Columns, sqlx::Error> {
    let bytes = |column: usize| -> Result<Option<Bytes>, sqlx::Error> {
        Ok(row.maybe_bytes(column)?.map(Bytes::copy_from_slice))
    };
    let type_name = row.text(8)?;
    let body = match bytes(14)? {
        Some(exec) => Some(BodyColumns {
            exec,
            stream: row.number(15)?,
            offset: row.maybe_number(16)?,
            length: row.number(17)?,
        }),
        None => None,
    };
    Ok(Columns {
        id: bytes(7)?.unwrap_or_default(),
        type_name: type_name.to_owned(),
        time_us: row.number(9)?,
        sandbox: bytes(10)?,
        exec: bytes(11)?,
        body_length: row.maybe_number(12)?,
        subject: bytes(13)?,
        body,
    })
}

pub(super) async fn chain_ends<DB: Dialect>(
    store: &SqlStore<DB>,
    tenant: Option<&TenantId>,
) -> Result<(Position, Vec<ChainPoint>), StoreError> {
    const OPERATION: &str = "read the hash chains";
    let failed = failed::<DB>(OPERATION);
    // One statement sees one snapshot: the head belongs to the chains.
    let of_tenant = if tenant.is_some() { "c.tenant = $1" } else { "TRUE" };
    let sql = format!(
        "SELECT h.position, c.tenant, c.position, c.hash FROM head h LEFT JOIN chain_heads c ON {of_tenant}
         ORDER BY c.position"
    );
    let values: Vec<Value<'_>> = tenant.map(|tenant| Value::Text(tenant.as_str())).into_iter().collect();
    let rows = store.all(OPERATION, Statement::new(sql, values)).await?;
    let mut head = Position::ZERO;
    let mut points = Vec::with_capacity(rows.len());
    for row in &rows {
        head = position(row.number(0).map_err(&failed)?);
        let tenant = row.maybe_text(1).map_err(&failed)?;
        let at = row.maybe_number(2).map_err(&failed)?;
        let hash = row.maybe_bytes(3).map_err(&failed)?;
        if let (Some(tenant), Some(at), Some(hash)) = (tenant, at, hash) {
            points.push(ChainPoint {
                tenant: tenant.parse().map_err(|error| damaged(OPERATION, error))?,
                position: position(at),
                hash: chain_hash(hash)?,
            });
        }
    }
    Ok((head, points))
}
