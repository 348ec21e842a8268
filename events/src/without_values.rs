/// What is wrong with input from outside, without the value that is wrong: it may be a secret that stands in the wrong place.
///
/// For errors of serde, of JSON as of queries, wherever they are shown, logged or sent on. Of a value only its kind is told,
/// and what was expected, which is written by us; names of unknown fields are cut out as well: they may be anything.
pub fn without_values(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let begins =
        ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant ", "unknown field "];
    // A path may stand before it.
    let first = begins.iter().filter_map(|begin| Some((text.find(begin)?, *begin))).min();
    let Some((at, begin)) = first else { return text };
    let (path, rest) = (&text[..at], &text[at + begin.len()..]);
    let what = begin.trim_end_matches([':', ' ']);
    let kind = rest.split([' ', ',']).next().filter(|kind| {
        begin.ends_with(": ") && !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase())
    });
    let kind = kind.map(|kind| format!(": {kind}")).unwrap_or_default();
    // The value may say anything, also what follows it.
    match rest.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{path}{what}{kind}, expected {expected}"),
        None => format!("{path}{what}{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::CommandEnvelope;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its errors are wanted")]
    struct Known {
        number: Option<u8>,
        text: Option<String>,
        pair: Option<(u8, u8)>,
        choice: Option<Choice>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        One,
        Two,
    }

    #[test]
    fn only_the_kind_of_a_value_is_told() {
        let told = |json: &str| without_values(&serde_json::from_str::<Known>(json).unwrap_err());
        assert_eq!(told(r#"{"number":"s3cret"}"#), "invalid type: string, expected u8 at line 1 column 18");
        assert_eq!(told(r#"{"number":7777}"#), "invalid value: integer, expected u8 at line 1 column 14");
        assert_eq!(told(r#"{"text":4242}"#), "invalid type: integer, expected a string at line 1 column 12");
        assert_eq!(
            told(r#"{"choice":"s3cret, expected x"}"#),
            "unknown variant, expected `one` or `two` at line 1 column 30"
        );
        assert_eq!(
            told(r#"{"s3cret":1}"#),
            "unknown field, expected one of `number`, `text`, `pair`, `choice` at line 1 column 9"
        );
        assert!(
            told(r#"{"pair":[1]}"#).starts_with("invalid length, expected"),
            "{}",
            told(r#"{"pair":[1]}"#)
        );
        assert_eq!(told("{"), "EOF while parsing an object at line 1 column 1");
    }

    #[test]
    fn a_path_before_it_stays() {
        assert_eq!(
            without_values(&"kind: unknown variant `s3cret`, expected `a` or `b`"),
            "kind: unknown variant, expected `a` or `b`"
        );
    }

    proptest! {
        /// Wherever a secret stands in a command, the error does not tell it.
        #[test]
        fn what_executors_are_told_is_not_repeated(secret in "s3cret[ -~]{0,30}") {
            let value = serde_json::Value::String(secret.clone());
            let messages = [
                serde_json::json!({ "id": value }),
                serde_json::json!({ "id": crate::CommandId::from_bytes([1; 16]), "command": { "env": value } }),
                serde_json::json!({ secret.as_str(): { "secrets": [value] } }),
                serde_json::json!(value),
                serde_json::json!([[value]]),
            ];
            for message in messages {
                let bytes = serde_json::to_vec(&message).unwrap();
                let told = without_values(&serde_json::from_slice::<CommandEnvelope>(&bytes).unwrap_err());
                prop_assert!(!told.contains("s3cret"), "{}", told);
            }
        }
    }
}
