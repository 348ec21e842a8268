//! What retention asks of a database.

use events::{EventId, Position, RetentionClass};
use record::{Floor, StoreError};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Executor, IntoArguments, Row, Type};

use super::rows::hint;
use super::sql::{Dialect, SqlStore, class_name, damaged, failed};

/// Where the first event of the oldest thing is that still lives.
pub(super) fn first_live_sql(hints: bool) -> String {
    let hint = hint("aggregates_live", hints);
    format!(
        "SELECT min(first) FROM (
             SELECT (SELECT min(e.position) FROM events e WHERE e.sandbox = s.id) AS first
             FROM aggregates s {hint} WHERE s.kind = 'sandbox' AND s.ended = 0
             UNION ALL
             SELECT (SELECT min(e.position) FROM events e WHERE e.exec = x.id) AS first
             FROM aggregates x {hint} WHERE x.kind = 'exec' AND x.ended = 0
         ) AS firsts"
    )
}

impl<DB> SqlStore<DB>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Decode<'q, DB> + Type<DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    for<'q> &'q [u8]: Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> &'q str: Decode<'q, DB> + Type<DB>,
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
        let row = sqlx::query::<DB>(AssertSqlSafe(first_live_sql(DB::HINTS)))
            .fetch_one(&self.readers)
            .await
            .map_err(&failed)?;
        let first: Option<i64> = row.try_get(0).map_err(&failed)?;
        Ok(first.map(|first| Position(first.unsigned_abs())))
    }
}
