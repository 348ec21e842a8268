//! The recorder without NATS, and what it is measured against.

mod floor;
mod ours;
mod stored;
pub(super) mod workload;

use std::time::Duration;

use anyhow::Context;

use crate::report::{Row, Target, per_second};
use crate::rig::Rig;
use crate::stats::Samples;
use floor::Table;
use workload::Workload;

#[path = "../../../../log/store/tests/support/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared with tests, which panic")]
pub(super) mod services;

/// How many rows one transaction of the floor has: as many as the recorder puts into one.
const ROWS: usize = 2_000;

/// Events a second through the recorder as it is (messages taken apart, judged, numbered, chained, folded, appended,
/// encoded for the announcement), fed from memory; beside inserting the same bytes into a table with the same columns.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let mut rows = sqlite(rig).await.context("SQLite")?;
    rows.extend(postgres(rig).await.context("Postgres")?);
    rows.push(stored::chain_cost(rig).await.context("the chain")?);
    rows.extend(stored::run(rig).await.context("what is stored")?);
    Ok(rows)
}

#[derive(Default)]
struct Rates {
    ours: Samples,
    plain: Samples,
    indexed: Samples,
}

impl Rates {
    fn rows(&self, database: &str, work: &Workload, rounds: usize) -> [Row; 2] {
        let text = |samples: &Samples| (samples.p50(), per_second(samples.p50()));
        let note = format!(
            "median of {rounds} rounds of {} events (256 B of output and {} B of header each); the floor is one table with the \
             columns and the indexes of the log",
            work.events, work.header_bytes,
        );
        let what = format!("recorder, 256 B output events, {database}");
        [
            Row::compared(&what, Target::Rate(0.5), text(&self.ours), text(&self.indexed)).note(note),
            Row::compared(
                &format!("{what}, floor without indexes"),
                Target::Rate(0.4),
                text(&self.ours),
                text(&self.plain),
            ),
        ]
    }
}

fn rate(events: usize, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

async fn sqlite(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let work = Workload::new(rig.size(200_000, 20_000))?;
    let rounds = rig.size(5, 1);
    let mut rates = Rates::default();
    for _ in 0..rounds {
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-").tempdir()?;
        let url = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
        rates.ours.push(rate(work.events, ours::record(&url("ours.db"), &work).await?));
        rates
            .plain
            .push(rate(work.events, floor::sqlite(&dir.path().join("plain.db"), &work, Table::Plain).await?));
        rates.indexed.push(rate(
            work.events,
            floor::sqlite(&dir.path().join("indexed.db"), &work, Table::Indexed).await?,
        ));
    }
    Ok(rates.rows("SQLite", &work, rounds).into())
}

async fn postgres(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let work = Workload::new(rig.size(100_000, 10_000))?;
    let rounds = rig.size(5, 1);
    let server = tokio::task::spawn_blocking(services::Postgres::start)
        .await
        .context("no Postgres could be started")?;
    let mut rates = Rates::default();
    for round in 0..rounds {
        let database = |kind: &str| {
            let url = server.database(&format!("{kind}{round}"));
            // So that nobody pays for the writes of the one before.
            server.query("CHECKPOINT");
            url
        };
        rates.ours.push(rate(work.events, ours::record(&database("ours"), &work).await?));
        rates.plain.push(rate(work.events, floor::postgres(&database("plain"), &work, Table::Plain).await?));
        rates
            .indexed
            .push(rate(work.events, floor::postgres(&database("indexed"), &work, Table::Indexed).await?));
    }
    tokio::task::spawn_blocking(move || drop(server)).await?;
    Ok(rates.rows("Postgres", &work, rounds).into())
}
