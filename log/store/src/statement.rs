//! A statement that is put together with its values.

use events::Key;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, Type};

use super::sql::Dialect;

/// A value of a condition.
pub(super) enum Value<'q> {
    Text(&'q str),
    Bytes(&'q [u8]),
    Number(i64),
}

/// A statement that grows, with its values.
pub(super) struct Statement<'q> {
    pub sql: String,
    pub values: Vec<Value<'q>>,
}

impl<'q> Statement<'q> {
    /// Adds a value, and gives its placeholder.
    pub fn value(&mut self, value: Value<'q>) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    /// Adds a condition on one value.
    pub fn and(&mut self, condition: &str, value: Value<'q>) {
        let placeholder = self.value(value);
        self.sql.push_str(&format!(" AND {condition} {placeholder}"));
    }

    /// Adds the condition that a column is one of these.
    pub fn and_one_of(&mut self, column: &str, values: impl Iterator<Item = Value<'q>>) {
        let values: Vec<String> = values.map(|value| self.value(value)).collect();
        self.sql.push_str(&format!(" AND {column} IN ({})", values.join(",")));
    }

    /// The query with its values.
    pub fn query<DB>(self) -> Query<'q, DB, DB::Arguments>
    where
        DB: Dialect,
        for<'v> i64: Encode<'v, DB> + Type<DB>,
        for<'v> &'v [u8]: Encode<'v, DB> + Type<DB>,
        for<'v> &'v str: Encode<'v, DB> + Type<DB>,
    {
        let mut query = sqlx::query::<DB>(AssertSqlSafe(self.sql));
        for value in self.values {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Number(number) => query.bind(number),
            };
        }
        query
    }
}

impl<'q> From<&'q Key> for Value<'q> {
    fn from(key: &'q Key) -> Self {
        Self::Bytes(key.as_bytes())
    }
}
