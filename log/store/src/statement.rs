//! A statement that is put together with its values.

use events::Key;

/// A value of a condition.
pub(super) enum Value<'q> {
    Text(&'q str),
    Bytes(&'q [u8]),
    Number(i64),
    Small(i16),
}

/// A statement that grows, with its values.
pub(super) struct Statement<'q> {
    pub sql: String,
    pub values: Vec<Value<'q>>,
}

impl<'q> Statement<'q> {
    /// A statement with its first values.
    pub fn new(sql: impl Into<String>, values: impl Into<Vec<Value<'q>>>) -> Self {
        Self { sql: sql.into(), values: values.into() }
    }

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
}

impl<'q> From<&'q Key> for Value<'q> {
    fn from(key: &'q Key) -> Self {
        Self::Bytes(key.as_bytes())
    }
}
