//! What verification and audit read.

use bytes::Bytes;
use events::{ChainPoint, Position, TenantId};
use futures::TryStreamExt;
use record::{BodyColumns, ChainedFrame, Columns, StoreError, signed};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Encode, Executor, IntoArguments, Row, Type};

use super::events::{position, stored};
use super::reads::chain_hash;
use super::sql::{Dialect, SqlStore, damaged, failed};

/// After the first, up to and including the second.
type Range = (Position, Position);

pub(super) async fn read_chain<DB>(
    store: &SqlStore<DB>,
    tenant: Option<&TenantId>,
    (after, up_to): Range,
    limit: u32,
) -> Result<Vec<ChainedFrame>, StoreError>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> i16: Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> &'q str: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<i16>: Decode<'q, DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    usize: ColumnIndex<DB::Row>,
{
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
    let mut query = sqlx::query::<DB>(AssertSqlSafe(sql))
        .bind(signed(after.0))
        .bind(signed(up_to.0))
        .bind(i64::from(limit));
    if let Some(tenant) = tenant {
        query = query.bind(tenant.as_str());
    }
    let mut rows = query.fetch(&store.readers);
    let mut frames = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(&failed)? {
        match chained::<DB>(&row) {
            Ok(frame) => frames.push(frame),
            // What stands before a damaged row is worth to be seen.
            Err(_) if !frames.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(frames)
}

fn chained<DB>(row: &DB::Row) -> Result<ChainedFrame, StoreError>
where
    DB: Dialect,
    for<'q> i64: Decode<'q, DB> + Type<DB>,
    for<'q> i16: Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Decode<'q, DB> + Type<DB>,
    for<'q> &'q str: Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<i16>: Decode<'q, DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    usize: ColumnIndex<DB::Row>,
{
    const OPERATION: &str = "read the hash chain";
    let damage = |error: sqlx::Error| damaged(OPERATION, error);
    let tenant: &str = row.try_get(1).map_err(damage)?;
    let header: &[u8] = row.try_get(2).map_err(damage)?;
    let body_hash: Option<&[u8]> = row.try_get(3).map_err(damage)?;
    Ok(ChainedFrame {
        position: position(row.try_get(0).map_err(damage)?),
        tenant: tenant.parse().map_err(|error| damaged(OPERATION, error))?,
        header: Bytes::copy_from_slice(header),
        body_hash: body_hash.map(|hash| Ok::<_, StoreError>(chain_hash(hash)?.0)).transpose()?,
        hash: chain_hash(row.try_get(4).map_err(damage)?)?,
        body: stored::<DB>(row, 5).map_err(damage)?,
        columns: Some(Box::new(columns::<DB>(row).map_err(damage)?)),
    })
}

/// From the eighth column of the row on.
fn columns<DB>(row: &DB::Row) -> Result<Columns, sqlx::Error>
where
    DB: Dialect,
    for<'q> i64: Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Decode<'q, DB> + Type<DB>,
    for<'q> &'q str: Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    usize: ColumnIndex<DB::Row>,
{
    let bytes = |column: usize| -> Result<Option<Bytes>, sqlx::Error> {
        Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(Bytes::copy_from_slice))
    };
    let type_name: &str = row.try_get(8)?;
    let body = match bytes(14)? {
        Some(exec) => Some(BodyColumns {
            exec,
            stream: row.try_get(15)?,
            offset: row.try_get(16)?,
            length: row.try_get(17)?,
        }),
        None => None,
    };
    Ok(Columns {
        id: bytes(7)?.unwrap_or_default(),
        type_name: type_name.to_owned(),
        time_us: row.try_get(9)?,
        sandbox: bytes(10)?,
        exec: bytes(11)?,
        body_length: row.try_get(12)?,
        subject: bytes(13)?,
        body,
    })
}

pub(super) async fn chain_ends<DB>(
    store: &SqlStore<DB>,
    tenant: Option<&TenantId>,
) -> Result<(Position, Vec<ChainPoint>), StoreError>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Decode<'q, DB> + Type<DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<&'q str>: Decode<'q, DB>,
    for<'q> &'q [u8]: Type<DB>,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    const OPERATION: &str = "read the hash chains";
    let failed = failed::<DB>(OPERATION);
    // One statement sees one snapshot: the head belongs to the chains.
    let of_tenant = if tenant.is_some() { "c.tenant = $1" } else { "TRUE" };
    let sql = format!(
        "SELECT h.position, c.tenant, c.position, c.hash FROM head h LEFT JOIN chain_heads c ON {of_tenant}
         ORDER BY c.position"
    );
    let mut query = sqlx::query::<DB>(AssertSqlSafe(sql));
    if let Some(tenant) = tenant {
        query = query.bind(tenant.as_str());
    }
    let rows = query.fetch_all(&store.readers).await.map_err(&failed)?;
    let mut head = Position::ZERO;
    let mut points = Vec::with_capacity(rows.len());
    for row in &rows {
        head = position(row.try_get(0).map_err(&failed)?);
        let tenant: Option<&str> = row.try_get(1).map_err(&failed)?;
        let at: Option<i64> = row.try_get(2).map_err(&failed)?;
        let hash: Option<&[u8]> = row.try_get(3).map_err(&failed)?;
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
