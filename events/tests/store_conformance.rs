//! What every event store must do, run against real SQLite and real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says where it is"
)]

#[path = "store_conformance/facts.rs"]
mod facts;
#[path = "store_conformance/scenario.rs"]
mod scenario;
mod support;

use std::sync::Arc;

use events::{EventStore, Position, open_store};

/// A fresh, empty store, and ways around its interface.
pub struct Subject {
    url: String,
}

impl Subject {
    async fn open(&self) -> Arc<dyn EventStore> {
        open_store(&self.url).await.unwrap()
    }

    /// Runs SQL behind the store's back.
    async fn raw(&self, sql: &str) -> Result<(), sqlx::Error> {
        use sqlx::Connection;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
        }
        Ok(())
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }
}

macro_rules! conformance {
    ($($fact:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", directory.path().join("a/b/events.db").display());
                super::facts::$fact(&super::Subject { url }).await;
            })+
        }

        /// All facts on one server, each in a database of its own.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres() {
            let postgres = support::Postgres::start();
            $({
                println!("{}", stringify!($fact));
                let url = postgres.database(stringify!($fact));
                facts::$fact(&Subject { url }).await;
            })+
        }
    };
}

conformance! {
    an_empty_store_is_at_zero,
    positions_are_dense_and_bytes_exact,
    an_append_after_another_position_conflicts_and_leaves_no_trace,
    one_of_two_concurrent_appends_wins,
    a_recorded_id_is_refused_and_known,
    a_batch_without_events_moves_only_the_mark,
    output_is_read_from_any_offset,
    filters_select_exactly,
    events_cannot_be_changed_or_deleted,
    bodies_come_back_however_they_are_kept,
    everything_is_there_after_reopening,
    read_models_follow_the_events,
    templates_are_saved_and_deleted,
    big_batches_are_one_append,
    hostile_text_is_only_text,
    readers_see_whole_batches_only,
    the_chain_verifies_and_names_the_first_change,
    states_are_true_at_their_head,
}

#[tokio::test]
async fn a_url_that_names_no_store_is_an_error_without_secrets() {
    for url in
        ["", "mysql://user:secret@host/db", "sqlite:", "sqlite::memory:", "postgres://user:secret@host:bad/x"]
    {
        let error = open_store(url).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_postgres_has_everything_that_was_acknowledged() {
    let mut postgres = support::Postgres::start();
    let url = postgres.database("crash");
    let store = open_store(&url).await.unwrap();
    let mut log = scenario::Recorder::default();
    let first = log.batch(scenario::short_exec(1, b"hello"));
    store.append(&first).await.unwrap();
    postgres.crash_and_restart();
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    assert_eq!(store.head().await.unwrap().position, Position(3));
    // Broken connections are an error that says so, and are replaced.
    let second = log.batch(scenario::short_exec(2, b"again"));
    let mut tries = 0;
    while let Err(error) = store.append(&second).await {
        assert!(error.is_retryable(), "{error:?}");
        tries += 1;
        assert!(tries < 100, "{error:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(events::recorder::verify(&*store).await.unwrap(), second.end());
}
