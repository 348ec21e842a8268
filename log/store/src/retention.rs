//! What retention asks of a database.

use bytes::Bytes;
use events::{EventId, Frame, Position, RetentionClass};
use record::{Floor, StoreError, signed};
use sqlx::{ColumnIndex, Decode, Encode, Executor, IntoArguments, Row, Type};

use super::sql::{Dialect, SqlStore, class_name, damaged, failed};

/// Where the first event of the oldest thing is that still lives.
const FIRST_LIVE: &str = "
SELECT min(first) FROM (
    SELECT (SELECT min(e.position) FROM events e WHERE e.sandbox = s.id) AS first
    FROM sandboxes s WHERE s.ended = 0
    UNION ALL
    SELECT (SELECT min(e.position) FROM events e WHERE e.exec = x.id) AS first
    FROM execs x WHERE x.ended = 0
) AS firsts";

impl<DB> SqlStore<DB>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> &'q str: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    pub(super) async fn risen_floors(&self) -> Result<Vec<Floor>, StoreError> {
        const OPERATION: &str = "read the floors of the log";
        let failed = failed::<DB>(OPERATION);
        let rows = sqlx::query::<DB>("SELECT class, floor, checkpoint FROM retention WHERE floor > 0")
            .fetch_all(&self.readers)
            .await
            .map_err(&failed)?;
        rows.iter()
            .map(|row| {
                let name: &str = row.try_get(0).map_err(&failed)?;
                let class = [RetentionClass::Output, RetentionClass::Lifecycle]
                    .into_iter()
                    .find(|class| class_name(*class) == name)
                    .ok_or_else(|| damaged(OPERATION, "an unknown class"))?;
                let checkpoint: &[u8] = row.try_get(2).map_err(&failed)?;
                let checkpoint =
                    checkpoint.try_into().map_err(|_| damaged(OPERATION, "an id is not 16 bytes long"))?;
                Ok(Floor {
                    class,
                    up_to: Position(row.try_get::<i64, _>(1).map_err(&failed)?.unsigned_abs()),
                    checkpoint: EventId::from_bytes(checkpoint),
                })
            })
            .collect()
    }

    pub(super) async fn first_of_the_living(&self) -> Result<Option<Position>, StoreError> {
        let failed = failed::<DB>("find the oldest live sandbox");
        let row = sqlx::query::<DB>(FIRST_LIVE).fetch_one(&self.readers).await.map_err(&failed)?;
        let first: Option<i64> = row.try_get(0).map_err(&failed)?;
        Ok(first.map(|first| Position(first.unsigned_abs())))
    }

    pub(super) async fn checkpoints(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        const SQL: &str =
            "SELECT position, header FROM events WHERE type = 'audit.checkpoint' AND position > $1
             ORDER BY position LIMIT $2";
        self.headers(SQL, "read checkpoints", after, limit).await
    }

    pub(super) async fn links(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        const SQL: &str =
            "SELECT position, header FROM events WHERE type IN ('access.granted', 'access.revoked')
             AND position > $1 ORDER BY position LIMIT $2";
        self.headers(SQL, "read viewer links", after, limit).await
    }

    /// Events of a kind that has an index of its own, without bodies.
    async fn headers(
        &self,
        sql: &'static str,
        operation: &'static str,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let failed = failed::<DB>(operation);
        let rows = sqlx::query::<DB>(sql)
            .bind(signed(after.0))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(&failed)?;
        rows.iter()
            .map(|row| {
                let header: &[u8] = row.try_get(1).map_err(&failed)?;
                Ok(Frame {
                    position: Position(row.try_get::<i64, _>(0).map_err(&failed)?.unsigned_abs()),
                    header: header.to_vec().into(),
                    body: Bytes::new(),
                    missing: None,
                })
            })
            .collect()
    }
}
