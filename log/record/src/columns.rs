//! What rows are found by: written by the store, and compared with the events by whoever verifies it.

use events::Fields;

/// The columns of a row that every kind has, in the order of [`row_columns`].
pub const ROW_COLUMNS: [&str; 10] =
    ["tenant", "owner", "parent", "place", "status", "label", "ended", "rank", "sort_at", "due_at"];

/// What the columns of a row must be, as text.
pub fn row_columns(fields: &Fields) -> Vec<Option<String>> {
    vec![
        Some(fields.tenant.as_str().to_owned()),
        fields.owner.clone(),
        fields.parent.as_ref().map(ToString::to_string),
        fields.place.clone(),
        Some(fields.status.to_owned()),
        fields.label.clone(),
        Some(i16::from(fields.ended).to_string()),
        Some(fields.rank.to_string()),
        Some(fields.sort_us.to_string()),
        fields.due_us.map(|at| at.to_string()),
    ]
}

/// SQL has no unsigned numbers. Nothing real comes near the limit; a hostile offset becomes one past every byte.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
