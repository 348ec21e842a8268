//! What a value may be, put into its schema.
//!
//! The endpoints read parameters as text and fields as options, so that a refusal can say what would be right. The types
//! alone would let the document allow more than they do.

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// What a value may be: the keywords of its schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limit(Map<String, Value>);

/// What stays of a schema that gets a limit: what the type says for people.
const KEPT: [&str; 4] = ["description", "example", "examples", "deprecated"];

impl Limit {
    fn of(keywords: Value) -> Self {
        match keywords {
            Value::Object(keywords) => Self(keywords),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Self(Map::new())
            }
        }
    }

    /// Text that this regular expression (ECMA 262) describes from its beginning to its end, of at most so many characters.
    pub fn text(most: usize, pattern: &str) -> Self {
        Self::of(json!({"type": "string", "maxLength": most, "pattern": pattern}))
    }

    /// The same, where more must hold than a pattern can say. The name of the format says what.
    pub fn formatted(self, format: &str) -> Self {
        let mut keywords = self.0;
        keywords.insert("format".to_owned(), format.into());
        Self(keywords)
    }

    /// One of these words.
    pub fn words(words: &[&str]) -> Self {
        Self::of(json!({"type": "string", "enum": words}))
    }

    /// `true` or `false`.
    pub fn flag() -> Self {
        Self::of(json!({"type": "boolean"}))
    }

    /// A whole number, the least and the greatest.
    pub fn whole(least: u64, most: u64) -> Self {
        let format = if i32::try_from(most).is_ok() { "int32" } else { "int64" };
        Self::of(json!({"type": "integer", "format": format, "minimum": least, "maximum": most}))
    }

    /// A whole number that may be less than nothing, the least and the greatest.
    pub fn signed(least: i64, most: i64) -> Self {
        Self::of(json!({"type": "integer", "format": "int32", "minimum": least, "maximum": most}))
    }

    /// A number of which parts are allowed.
    pub fn number(least: f64, most: f64) -> Self {
        Self::of(json!({"type": "number", "format": "double", "minimum": least, "maximum": most}))
    }

    /// This, or 0 for the default.
    pub fn or_zero(self) -> Self {
        let zero = json!({"type": self.0.get("type"), "enum": [0]});
        Self::of(json!({"anyOf": [zero, self.0]}))
    }

    /// Either of them.
    pub fn or(self, other: Self) -> Self {
        Self::of(json!({"anyOf": [self.0, other.0]}))
    }

    /// What another schema of the document says.
    pub fn kind(name: &str) -> Self {
        Self::of(json!({"$ref": format!("#/components/schemas/{name}")}))
    }

    /// So many entries at most, each like this.
    pub fn list(most: usize, each: Self) -> Self {
        Self::of(json!({"type": "array", "maxItems": most, "items": each.0}))
    }

    /// So many entries at most, with such names and such values.
    pub fn map(most: usize, names: Self, values: Self) -> Self {
        Self::of(
            json!({"type": "object", "maxProperties": most, "propertyNames": names.0, "additionalProperties": values.0}),
        )
    }

    /// Puts it into a schema in place of what the type said. Whether null stands for nothing stays as it is, unless something
    /// must be there.
    pub fn restrict(&self, schema: &mut RefOr<Schema>, required: bool) {
        let Ok(Value::Object(old)) = serde_json::to_value(&*schema) else { return };
        let nullable = !required && may_be_null(&old);
        let mut new = self.0.clone();
        if nullable {
            or_null(&mut new);
        }
        for keyword in KEPT {
            if let Some(said) = old.get(keyword) {
                new.insert(keyword.to_owned(), said.clone());
            }
        }
        // These keywords are ones that the types of the document know; a test compares what became of them.
        if let Ok(restricted) = serde_json::from_value(Value::Object(new)) {
            *schema = restricted;
        }
    }
}

/// What must be there is not null.
pub(super) fn not_null(schema: &mut RefOr<Schema>) {
    let Ok(Value::Object(mut keywords)) = serde_json::to_value(&*schema) else { return };
    if let Some(Value::Array(types)) = keywords.get("type") {
        let mut types: Vec<Value> = types.iter().filter(|kind| *kind != "null").cloned().collect();
        let only = if types.len() == 1 { types.remove(0) } else { types.into() };
        keywords.insert("type".to_owned(), only);
        if let Ok(restricted) = serde_json::from_value(Value::Object(keywords)) {
            *schema = restricted;
        }
    }
}

fn may_be_null(keywords: &Map<String, Value>) -> bool {
    keywords
        .get("type")
        .and_then(Value::as_array)
        .is_some_and(|types| types.iter().any(|kind| kind == "null"))
}

fn or_null(keywords: &mut Map<String, Value>) {
    if let Some(Value::Array(either)) = keywords.get_mut("anyOf") {
        either.push(json!({"type": "null"}));
    }
    if let Some(kind) = keywords.get("type").filter(|kind| kind.is_string()) {
        let types = json!([kind, "null"]);
        keywords.insert("type".to_owned(), types);
    }
    if let Some(Value::Array(words)) = keywords.get_mut("enum") {
        words.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restricted(limit: &Limit, schema: Value, required: bool) -> Value {
        let mut schema: RefOr<Schema> = serde_json::from_value(schema).unwrap();
        limit.restrict(&mut schema, required);
        serde_json::to_value(schema).unwrap()
    }

    #[test]
    fn a_limit_takes_the_place_of_the_type_and_leaves_what_is_for_people() {
        let schema = json!({"type": ["string", "null"], "description": "d", "example": "0755"});
        assert_eq!(
            restricted(&Limit::words(&["a"]), schema.clone(), false),
            json!({"type": ["string", "null"], "enum": ["a", null], "description": "d", "example": "0755"})
        );
        assert_eq!(
            restricted(&Limit::text(9, "^x$"), schema, true),
            json!({"type": "string", "maxLength": 9, "pattern": "^x$", "description": "d", "example": "0755"})
        );
    }

    #[test]
    fn every_kind_of_limit_survives_the_types_of_the_document() {
        let name = || Limit::text(9, "^x$");
        for limit in [
            name(),
            name().formatted("go-duration"),
            Limit::words(&["a", "b"]),
            Limit::flag(),
            Limit::whole(1, 1000),
            Limit::whole(0, i64::MAX.unsigned_abs()),
            Limit::whole(8, 16).or_zero(),
            Limit::number(0.01, 63.5).or_zero(),
            Limit::list(4, name()),
            Limit::map(4, name(), Limit::whole(1, 2)),
            Limit::whole(1, 2).or(name()),
        ] {
            assert_eq!(restricted(&limit, json!({"type": "string"}), true), Value::Object(limit.0.clone()));
        }
    }
}
