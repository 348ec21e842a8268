//! How any of the databases is asked and what its rows hold. What sqlx wants to know of a database for that is said here, once.

use futures::TryStreamExt;
use futures::stream::BoxStream;
use record::StoreError;
use sqlx::{AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Pool, Row, Type};

use super::sql::{Dialect, SqlStore, failed};
use super::statement::{Statement, Value};

/// A database that takes statements with values of ours.
pub(super) trait Asks: Database {
    /// The rows that answer a statement.
    fn rows<'s>(
        pool: &'s Pool<Self>,
        statement: Statement<'s>,
    ) -> BoxStream<'s, Result<Self::Row, sqlx::Error>>;
}

impl<DB> Asks for DB
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> i16: Encode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Type<DB>,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
{
    fn rows<'s>(
        pool: &'s Pool<Self>,
        statement: Statement<'s>,
    ) -> BoxStream<'s, Result<Self::Row, sqlx::Error>> {
        let mut query = sqlx::query::<DB>(AssertSqlSafe(statement.sql));
        for value in statement.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Number(number) => query.bind(number),
                Value::Small(number) => query.bind(number),
            };
        }
        query.fetch(pool)
    }
}

/// A row, by the numbers of its columns.
pub(super) trait Cells {
    /// A number.
    fn number(&self, column: usize) -> Result<i64, sqlx::Error>;
    /// A number, if there is one.
    fn maybe_number(&self, column: usize) -> Result<Option<i64>, sqlx::Error>;
    /// A number of a column that holds small ones, if there is one.
    fn maybe_small(&self, column: usize) -> Result<Option<i16>, sqlx::Error>;
    /// Bytes.
    fn bytes(&self, column: usize) -> Result<&[u8], sqlx::Error>;
    /// Bytes, if there are any.
    fn maybe_bytes(&self, column: usize) -> Result<Option<&[u8]>, sqlx::Error>;
    /// Text.
    fn text(&self, column: usize) -> Result<&str, sqlx::Error>;
    /// Text, if there is any.
    fn maybe_text(&self, column: usize) -> Result<Option<&str>, sqlx::Error>;
}

impl<R> Cells for R
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'q> i64: Decode<'q, R::Database> + Type<R::Database>,
    for<'q> i16: Decode<'q, R::Database> + Type<R::Database>,
    for<'q> &'q [u8]: Decode<'q, R::Database> + Type<R::Database>,
    for<'q> &'q str: Decode<'q, R::Database> + Type<R::Database>,
    for<'q> Option<i64>: Decode<'q, R::Database>,
    for<'q> Option<i16>: Decode<'q, R::Database>,
    for<'q> Option<&'q [u8]>: Decode<'q, R::Database>,
    for<'q> Option<&'q str>: Decode<'q, R::Database>,
{
    fn number(&self, column: usize) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_number(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_small(&self, column: usize) -> Result<Option<i16>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_bytes(&self, column: usize) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }

    fn text(&self, column: usize) -> Result<&str, sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_text(&self, column: usize) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(column)
    }
}

impl<DB: Dialect> SqlStore<DB> {
    /// All rows that answer a statement. `operation` is what an error says could not be done.
    pub(super) async fn all(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
    ) -> Result<Vec<DB::Row>, StoreError> {
        DB::rows(&self.readers, statement).try_collect().await.map_err(failed::<DB>(operation))
    }

    /// The first row that answers a statement, if any does.
    pub(super) async fn first(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
    ) -> Result<Option<DB::Row>, StoreError> {
        DB::rows(&self.readers, statement).try_next().await.map_err(failed::<DB>(operation))
    }

    /// The only row that answers a statement, of which there always is one.
    pub(super) async fn only(
        &self,
        operation: &'static str,
        statement: Statement<'_>,
    ) -> Result<DB::Row, StoreError> {
        let row = self.first(operation, statement).await?;
        row.ok_or_else(|| failed::<DB>(operation)(sqlx::Error::RowNotFound))
    }
}
