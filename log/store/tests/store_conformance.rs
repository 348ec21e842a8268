//! What every event store must do, run against real SQLite and real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says where it is"
)]

#[path = "store_conformance/evidence.rs"]
mod evidence;
#[path = "store_conformance/facts.rs"]
mod facts;
#[path = "store_conformance/kept.rs"]
mod kept;
#[path = "store_conformance/scenario.rs"]
mod scenario;
#[path = "store_conformance/subjects.rs"]
mod subjects;
#[allow(dead_code, reason = "each suite uses a part of it")]
mod support;
#[path = "store_conformance/toy.rs"]
mod toy;
#[path = "store_conformance/upgrade.rs"]
mod upgrade;

use events::Position;
use record::Record;
use secrets::MasterKey;
use store::{StoreOptions, open_store, open_store_with};

/// A fresh, empty store, and ways around its interface.
pub struct Subject {
    url: String,
}

impl Subject {
    async fn open(&self) -> Record {
        open_store(&self.url).await.unwrap()
    }

    async fn open_with(&self, master_key: &MasterKey) -> Record {
        let options = StoreOptions { master_key: Some(master_key.clone()) };
        open_store_with(&self.url, &options).await.unwrap()
    }

    /// Whether these bytes are anywhere in the files of the database.
    fn is_on_disk(&self, bytes: &[u8]) -> bool {
        let path = self.url.strip_prefix("sqlite:").unwrap();
        [String::new(), "-wal".to_owned(), "-journal".to_owned()].iter().any(|suffix| {
            let file = std::fs::read(format!("{path}{suffix}")).unwrap_or_default();
            file.windows(bytes.len()).any(|window| window == bytes)
        })
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

    /// The one number that a statement gives.
    async fn number(&self, sql: &str) -> i64 {
        use sqlx::Connection;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
        }
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }
}

macro_rules! conformance {
    ($($module:ident::$fact:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", directory.path().join("a/b/events.db").display());
                super::$module::$fact(&super::Subject { url }).await;
            })+
        }

        /// All facts on one server, each in a database of its own.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres() {
            let postgres = support::Postgres::start();
            $({
                println!("{}", stringify!($fact));
                let url = postgres.database(stringify!($fact));
                $module::$fact(&Subject { url }).await;
            })+
        }
    };
}

conformance! {
    facts::an_empty_store_is_at_zero,
    facts::positions_are_dense_and_bytes_exact,
    facts::an_append_after_another_position_conflicts_and_leaves_no_trace,
    facts::one_of_two_concurrent_appends_wins,
    facts::a_recorded_id_is_refused_and_known,
    facts::a_batch_without_events_moves_only_the_mark,
    facts::output_is_read_from_any_offset,
    facts::filters_select_exactly,
    facts::events_cannot_be_changed_or_deleted,
    kept::bodies_come_back_however_they_are_kept,
    facts::everything_is_there_after_reopening,
    facts::read_models_follow_the_events,
    facts::viewer_links_are_found_among_all_events,
    facts::templates_are_saved_and_deleted,
    facts::webhooks_are_what_their_events_make_of_them,
    facts::big_batches_are_one_append,
    facts::hostile_text_is_only_text,
    facts::readers_see_whole_batches_only,
    facts::the_chain_verifies_and_names_the_first_change,
    facts::states_are_true_at_their_head,
    kept::sealed_output_is_read_with_the_master_key_only,
    kept::what_is_erased_is_gone_for_everybody_at_once,
    kept::a_sandbox_that_is_erased_early_never_has_a_key,
    kept::output_from_before_the_key_is_not_called_sealed,
    kept::old_output_is_dropped_after_a_checkpoint_and_its_events_stay,
    kept::an_old_log_is_dropped_up_to_the_newest_checkpoint_while_nothing_happens,
    kept::old_events_are_dropped_up_to_what_lives,
    kept::nothing_is_dropped_while_the_clocks_disagree,
    kept::a_million_positions_of_output_are_one_partition,
    evidence::an_untouched_log_verifies_with_its_checkpoints,
    evidence::one_tenant_verifies_its_own_chain_alone,
    evidence::a_flipped_byte_is_named,
    evidence::a_body_that_vanished_without_a_reason_is_named,
    evidence::a_swapped_pair_is_named,
    evidence::a_deleted_event_is_named,
    evidence::a_cut_off_tail_is_contradicted_by_the_checkpoint_file,
    evidence::a_rebuilt_chain_is_contradicted_by_a_checkpoint,
    evidence::a_forged_checkpoint_is_not_signed,
    evidence::a_restored_copy_verifies_and_says_what_is_lost,
    evidence::a_key_that_the_one_before_vouches_for_is_trusted,
    evidence::what_stands_beside_the_events_is_compared_or_named,
    evidence::a_page_of_the_audit_log_goes_on_where_it_ended,
    toy::a_new_kind_of_thing_is_recorded_listed_checked_and_seen_as_it_was,
    subjects::the_events_of_one_thing_are_found_by_it_and_not_among_all_of_its_kind,
    subjects::an_event_that_is_found_by_what_it_is_not_about_is_named,
    subjects::what_waits_is_found_in_the_order_of_its_turn,
    upgrade::a_database_of_before_comes_along_whole,
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
    assert_eq!(scenario::verify(&store).await.unwrap(), second.end());
}
