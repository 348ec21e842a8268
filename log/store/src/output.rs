//! What execs wrote, and how it is kept.

use events::{Aggregate, ExecId, ExecState, Gone, Key, OutputStream, Position, SandboxId};
use record::{OutputChunk, Protection, RowQuery, StoreError, signed};

use super::asking::Cells;
use super::events::{position, stored};
use super::keys::Kept;
use super::rows::hint;
use super::sql::{Dialect, SqlStore, damaged, failed, stream_code};
use super::statement::{Statement, Value};

/// The greatest number of pieces that one read of output returns.
const OUTPUT_PIECES: i64 = 4_096;

impl<DB: Dialect> SqlStore<DB> {
    /// See [`record::OutputBytes::start`].
    pub(super) async fn find_output_start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError> {
        const OPERATION: &str = "find output";
        // Both streams in one statement: what is recorded between two of them would be missed in the first, and not in the second.
        let offsets = [stdout_offset, stderr_offset].map(|offset| Value::Number(signed(offset)));
        let [stdout, stderr] = offsets;
        let wanted = Statement::new(OUTPUT_START, [Value::Bytes(exec.as_bytes()), stdout, stderr]);
        let row = self.only(OPERATION, wanted).await?;
        let first = row.maybe_number(0).map_err(failed::<DB>(OPERATION))?;
        Ok(first.map(position))
    }

    /// See [`record::OutputBytes::read`].
    pub(super) async fn read_output(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        let kept = self.kept_output(exec, stream, offset, max_bytes).await?;
        if !kept.is_empty() {
            return Ok(kept);
        }
        let Some(state) = self.recorded_exec(exec).await?.filter(|state| offset < state.recorded(stream))
        else {
            return Ok(kept);
        };
        // Recorded between the two looks, or gone.
        let kept = self.kept_output(exec, stream, offset, max_bytes).await?;
        if kept.is_empty() { Err(self.gone(&state, stream, offset).await?) } else { Ok(kept) }
    }

    async fn kept_output(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        const OPERATION: &str = "read output";
        let failed = failed::<DB>(OPERATION);
        // Output has no holes and no overlaps, so the offsets alone say which events hold the wanted bytes.
        let end = offset.saturating_add(max_bytes.max(1) as u64);
        let wanted = [
            Value::Bytes(exec.as_bytes()),
            Value::Small(stream_code(stream)),
            Value::Number(signed(offset)),
            Value::Number(signed(end)),
            Value::Number(OUTPUT_PIECES),
        ];
        let rows = self.all(OPERATION, Statement::new(OUTPUT, wanted)).await?;
        let mut starts = Vec::with_capacity(rows.len());
        let mut kept = Vec::with_capacity(rows.len());
        let mut sandbox = None;
        for row in &rows {
            let at = position(row.number(0).map_err(&failed)?);
            let stored = stored(row, 3).map_err(&failed)?;
            if sandbox.is_none() && stored.as_ref().is_some_and(|stored| stored.encoding.is_sealed()) {
                sandbox = self.recorded_exec(exec).await?.map(|state| state.sandbox);
            }
            starts.push((at, position(row.number(1).map_err(&failed)?).0));
            let length = position(row.number(2).map_err(&failed)?).0;
            kept.push(Kept { position: at, sandbox, length, stored });
        }
        let mut chunks: Vec<OutputChunk> = Vec::with_capacity(rows.len());
        let mut next = offset;
        for ((at, start), body) in starts.into_iter().zip(self.open_bodies(kept).await?) {
            let gone = match body {
                Ok(body) if start <= next => {
                    let within = |goal: u64| {
                        usize::try_from(goal.saturating_sub(start)).unwrap_or(usize::MAX).min(body.len())
                    };
                    let (skip, stop) = (within(offset), within(end));
                    next = start + stop as u64;
                    let bytes = body.slice(skip..stop);
                    chunks.push(OutputChunk { offset: start + skip as u64, bytes, position: at });
                    continue;
                }
                Ok(_) => StoreError::Gone { why: Gone::Expired, next_offset: start },
                Err(why) => {
                    // Nothing of what follows can be read either: it is the same key.
                    let recorded = self.recorded_exec(exec).await?.map(|state| state.recorded(stream));
                    StoreError::Gone { why, next_offset: recorded.unwrap_or_default().max(next) }
                }
            };
            if chunks.is_empty() {
                return Err(gone);
            }
            break;
        }
        Ok(chunks)
    }

    /// See [`record::DataKeys::protection`].
    pub(super) async fn find_protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError> {
        let Some(key) = self.find_data_keys(&[sandbox]).await?.pop() else {
            return Ok(Protection::None);
        };
        // Whatever came after the key was made is sealed under it.
        let wanted = Statement::new(open_output_sql(DB::HINTS), [Value::Bytes(sandbox.as_bytes())]);
        let open = self.first("look for output that is not sealed", wanted).await?;
        Ok(match (key.sealed, open) {
            (None, _) => Protection::Erased,
            (Some(_), Some(_)) => Protection::Partial,
            (Some(_), None) => Protection::Sealed,
        })
    }

    /// What to say of bytes that were recorded and have no row any more.
    async fn gone(
        &self,
        state: &ExecState,
        stream: OutputStream,
        offset: u64,
    ) -> Result<StoreError, StoreError> {
        const OPERATION: &str = "find output";
        let erased = self.find_data_keys(&[state.sandbox]).await?.iter().any(|key| key.sealed.is_none());
        if erased {
            return Ok(StoreError::Gone { why: Gone::Erased, next_offset: state.recorded(stream) });
        }
        let wanted = [
            Value::Bytes(state.id.as_bytes()),
            Value::Small(stream_code(stream)),
            Value::Number(signed(offset)),
        ];
        let row = self.first(OPERATION, Statement::new(NEXT_OUTPUT, wanted)).await?;
        let next_offset = match row {
            Some(row) => position(row.number(0).map_err(failed::<DB>(OPERATION))?).0,
            None => state.recorded(stream),
        };
        Ok(StoreError::Gone { why: Gone::Expired, next_offset })
    }

    async fn recorded_exec(&self, id: ExecId) -> Result<Option<ExecState>, StoreError> {
        let keys = Some(vec![Key::from(id)]);
        let rows = self.find(&RowQuery { kind: ExecState::KIND, keys, ..RowQuery::default() }).await?;
        let state = rows.into_iter().find_map(|row| row.state);
        let read =
            |state: String| serde_json::from_str(&state).map_err(|error| damaged("read an exec", error));
        state.map(read).transpose()
    }
}

/// Some output of a sandbox's execs that is under no key.
pub(super) fn open_output_sql(hints: bool) -> String {
    let hint = hint("aggregates_of_parent", hints);
    format!(
        "SELECT 1 FROM aggregates x {hint} JOIN bodies b ON b.exec = x.id
         WHERE x.kind = 'exec' AND x.parent = $1 AND b.byte_offset IS NOT NULL AND b.encoding < 2 LIMIT 1"
    )
}

/// The first bytes of a stream that are there after an offset.
const NEXT_OUTPUT: &str = "
SELECT byte_offset FROM bodies WHERE exec = $1 AND stream = $2 AND byte_offset > $3 ORDER BY byte_offset LIMIT 1";

/// The first event of a stream that ends after an offset: either the last that begins at or before it, or the one after
/// that.
/// 1 is stdout, 2 is stderr: see `stream_code`.
const OUTPUT_START: &str = "
SELECT min(position) FROM (
    SELECT position FROM (
        SELECT position FROM bodies
        WHERE exec = $1 AND stream = 1
          AND byte_offset >= COALESCE((
              SELECT byte_offset FROM bodies
              WHERE exec = $1 AND stream = 1 AND byte_offset <= $2
              ORDER BY byte_offset DESC LIMIT 1), 0)
          AND byte_offset + length > $2
        ORDER BY byte_offset LIMIT 1) AS stdout
    UNION ALL
    SELECT position FROM (
        SELECT position FROM bodies
        WHERE exec = $1 AND stream = 2
          AND byte_offset >= COALESCE((
              SELECT byte_offset FROM bodies
              WHERE exec = $1 AND stream = 2 AND byte_offset <= $3
              ORDER BY byte_offset DESC LIMIT 1), 0)
          AND byte_offset + length > $3
        ORDER BY byte_offset LIMIT 1) AS stderr
) AS found";

const OUTPUT: &str = "
SELECT position, byte_offset, length, encoding, body FROM bodies
WHERE exec = $1 AND stream = $2
  AND byte_offset >= COALESCE((
      SELECT byte_offset FROM bodies
      WHERE exec = $1 AND stream = $2 AND byte_offset <= $3
      ORDER BY byte_offset DESC LIMIT 1), 0)
  AND byte_offset < $4
  AND byte_offset + length > $3
ORDER BY byte_offset LIMIT $5";
