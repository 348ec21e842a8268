//! What retention asks of a database.

use events::{EventId, Position, RetentionClass};
use record::{Floor, StoreError};

use super::asking::Cells;
use super::rows::hint;
use super::sql::{Dialect, SqlStore, class_name, damaged, failed};
use super::statement::Statement;

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

impl<DB: Dialect> SqlStore<DB> {
    pub(super) async fn risen_floors(&self) -> Result<Vec<Floor>, StoreError> {
        const OPERATION: &str = "read the floors of the log";
        let failed = failed::<DB>(OPERATION);
        let risen = "SELECT class, floor, checkpoint FROM retention WHERE floor > 0";
        let rows = self.all(OPERATION, Statement::new(risen, [])).await?;
        rows.iter()
            .map(|row| {
                let name = row.text(0).map_err(&failed)?;
                let class = [RetentionClass::Output, RetentionClass::Lifecycle]
                    .into_iter()
                    .find(|class| class_name(*class) == name)
                    .ok_or_else(|| damaged(OPERATION, "an unknown class"))?;
                let checkpoint = row.bytes(2).map_err(&failed)?;
                let checkpoint =
                    checkpoint.try_into().map_err(|_| damaged(OPERATION, "an id is not 16 bytes long"))?;
                Ok(Floor {
                    class,
                    up_to: Position(row.number(1).map_err(&failed)?.unsigned_abs()),
                    checkpoint: EventId::from_bytes(checkpoint),
                })
            })
            .collect()
    }

    pub(super) async fn first_of_the_living(&self) -> Result<Option<Position>, StoreError> {
        const OPERATION: &str = "find the oldest live sandbox";
        let row = self.only(OPERATION, Statement::new(first_live_sql(DB::HINTS), [])).await?;
        let first = row.maybe_number(0).map_err(failed::<DB>(OPERATION))?;
        Ok(first.map(|first| Position(first.unsigned_abs())))
    }
}
