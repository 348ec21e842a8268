//! What an event says, in a few words.

use std::time::Duration;

use serde_json::Value;
use spelling::format_go_duration;

/// The longest line of details, in characters.
const MAX_CHARS: usize = 160;

/// The details of an event of a type. Types that this build does not know show their plain fields.
pub fn details(kind: &str, data: &Value) -> String {
    let fields = Fields(data);
    let words = match kind {
        "sandbox.requested" => {
            let spec = Fields(data.get("spec").unwrap_or(&Value::Null));
            vec![spec.text("image"), "on".to_owned(), spec.text("provider")]
        }
        "sandbox.starting" | "node.draining" => vec![fields.text("node")],
        "sandbox.pulling" => {
            vec![
                fields.text("image"),
                format!("{}/{} bytes", fields.text("fetched_bytes"), fields.text("total_bytes")),
            ]
        }
        "sandbox.running" => {
            vec![format!("on {}", fields.text("node")), format!("after {}", fields.duration("took_us"))]
        }
        "sandbox.failed" => vec![format!("{}:", fields.text("code")), fields.text("message")],
        "sandbox.ttl_extended" => vec![format!("until {}", fields.text("expires_at"))],
        "sandbox.destroying" | "sandbox.destroyed" => vec![fields.text("reason")],
        "sandbox.erased" => Vec::new(),
        "exec.requested" | "exec.started" => vec![fields.text("exec"), words_of(data.get("argv"))],
        "exec.input" => vec![fields.text("exec")],
        "exec.resized" => {
            vec![fields.text("exec"), format!("to {} x {}", fields.text("cols"), fields.text("rows"))]
        }
        "exec.signaled" => vec![fields.text("exec"), format!("signal {}", fields.text("signal"))],
        "exec.output" => {
            vec![fields.text("exec"), fields.text("stream"), format!("at {}", fields.text("offset"))]
        }
        "exec.exited" => {
            vec![
                fields.text("exec"),
                format!("code {}", fields.text("code")),
                format!("after {}", fields.duration("duration_us")),
            ]
        }
        "exec.output_closed" => vec![fields.text("exec"), fields.text("reason")],
        "exec.timed_out" => vec![fields.text("exec"), format!("after {}", fields.duration("duration_us"))],
        "exec.killed" => vec![fields.text("exec"), format!("signal {}", fields.text("signal"))],
        "exec.attached" => {
            vec![fields.text("exec"), fields.text("attachment"), format!("from {}", fields.text("source"))]
        }
        "exec.detached" => {
            vec![fields.text("exec"), fields.text("attachment"), fields.text("reason")]
        }
        "access.denied" => {
            vec![fields.text("route"), fields.text("reason"), format!("from {}", fields.text("source"))]
        }
        "exec.failed" | "exec.outcome_unknown" => vec![fields.text("exec"), fields.text("message")],
        "file.written" | "file.read" => vec![fields.text("path"), format!("{} bytes", fields.text("size"))],
        "file.deleted" => vec![fields.text("path")],
        "file.moved" => vec![fields.text("from"), "to".to_owned(), fields.text("to")],
        "file.mode_changed" => vec![
            fields.text("path"),
            data.get("mode").and_then(Value::as_u64).map_or_else(String::new, |mode| format!("{mode:04o}")),
        ],
        "template.saved" => vec![Fields(data.get("template").unwrap_or(&Value::Null)).text("name")],
        "template.deleted" => vec![fields.text("name")],
        "node.joined" => vec![
            fields.text("node"),
            words_of(data.get("providers")),
            format!("capacity {}", fields.text("capacity")),
        ],
        "access.granted" => {
            vec![fields.text("exec"), format!("until {}", fields.text("expires_at"))]
        }
        "access.revoked" => vec![fields.text("exec"), fields.text("viewer")],
        "audit.checkpoint" => vec![format!("up to {}", fields.text("up_to"))],
        "log.trimmed" => vec![fields.text("class"), format!("up to {}", fields.text("up_to"))],
        "webhook.saved" => vec![Fields(data.get("webhook").unwrap_or(&Value::Null)).text("url")],
        "webhook.deleted" | "webhook.pinged" => vec![fields.text("webhook")],
        "webhook.ping_ended" => vec![fields.text("webhook"), fields.text("status"), fields.text("message")],
        "webhook.advanced" | "webhook.rewound" => {
            vec![fields.text("webhook"), format!("to {}", fields.text("cursor"))]
        }
        "webhook.suspended" | "webhook.failed" => vec![fields.text("webhook"), fields.text("message")],
        "schedule.created" | "schedule.updated" => {
            vec![Fields(data.get("schedule").unwrap_or(&Value::Null)).text("name")]
        }
        "schedule.ticked" => {
            vec![fields.text("schedule"), fields.text("at"), fields.text("outcome"), fields.text("job")]
        }
        "job.submitted" | "job.queued" | "job.admitted" | "job.attempt_started" | "job.attempt_running" => {
            vec![fields.text("job")]
        }
        "job.retry_scheduled" => vec![fields.text("job"), format!("at {}", fields.text("due_at"))],
        "job.artifact_stored" => vec![fields.text("job"), fields.text("path")],
        "job.attempt_ended" => vec![fields.text("job"), fields.text("outcome"), fields.text("message")],
        "job.held"
        | "job.progressed"
        | "job.cancel_requested"
        | "job.succeeded"
        | "job.failed"
        | "job.cancelled"
        | "job.timed_out"
        | "job.outcome_unknown" => {
            vec![fields.text("job"), fields.text("reason"), fields.text("message")]
        }
        "schedule.deleted" | "schedule.paused" | "schedule.resumed" => vec![fields.text("schedule")],
        "schedule.triggered" | "schedule.released" => vec![fields.text("schedule"), fields.text("job")],
        "schedule.missed" => vec![
            fields.text("schedule"),
            format!("{} times", fields.text("count")),
            format!("from {}", fields.text("from")),
            format!("to {}", fields.text("until")),
        ],
        "log.restored" => vec![format!("to {}, lost up to {}", fields.text("up_to"), fields.text("lost_to"))],
        "audit.key_changed" => vec![format!("from {} to {}", fields.text("from"), fields.text("to"))],
        _ => fields.all(),
    };
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn text(&self, name: &str) -> String {
        self.0.get(name).map_or_else(String::new, plain_value)
    }

    fn duration(&self, name: &str) -> String {
        let micros = self.0.get(name).and_then(Value::as_u64).unwrap_or(0);
        format_go_duration(Duration::from_micros(micros))
    }

    fn all(&self) -> Vec<String> {
        let Some(object) = self.0.as_object() else {
            return Vec::new();
        };
        let simple = object.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
        simple.map(|(name, value)| format!("{name}={}", plain_value(value))).collect()
    }
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A command line as a shell would take it, so that one word with a blank is not two.
pub fn words_of(value: Option<&Value>) -> String {
    let Some(words) = value.and_then(Value::as_array) else {
        return String::new();
    };
    self::words(words.iter().map(|word| word.as_str().unwrap_or_default()))
}

/// The same of words.
pub fn words(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&b))
    };
    let quote = |word: &str| {
        if plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_says_what_matters() {
        for (kind, data, expected) in [
            (
                "sandbox.requested",
                json!({"spec": {"image": "alpine", "provider": "docker"}}),
                "alpine on docker",
            ),
            ("sandbox.running", json!({"node": "n1", "took_us": 130_000}), "on n1 after 130ms"),
            ("sandbox.failed", json!({"code": "image_not_found", "message": "no"}), "image_not_found: no"),
            ("exec.started", json!({"exec": "ex-1", "argv": ["sh", "-c", "it's"]}), "ex-1 sh -c 'it'\\''s'"),
            ("exec.output", json!({"exec": "ex-1", "stream": "stdout", "offset": 7}), "ex-1 stdout at 7"),
            ("file.mode_changed", json!({"path": "/a", "mode": 493}), "/a 0755"),
            (
                "node.joined",
                json!({"node": "n", "providers": ["docker"], "capacity": 50}),
                "n docker capacity 50",
            ),
            ("job.new", json!({"a": 1, "b": "x", "c": [1], "d": null}), "a=1 b=x d="),
            ("job.new", json!(5), ""),
            ("exec.exited", json!(null), "code  after 0s"),
        ] {
            assert_eq!(details(kind, &data), expected, "{kind}");
        }
    }

    #[test]
    fn every_type_of_this_build_has_words_of_its_own() {
        let data = json!({"marker_of_a_field_that_no_type_has": 1});
        for kind in events::EventData::TYPES {
            assert!(!details(kind, &data).contains("marker"), "{kind}");
        }
    }

    #[test]
    fn long_ones_are_cut() {
        let cut = details("sandbox.failed", &json!({"message": "é".repeat(500)}));
        assert_eq!(cut.chars().count(), MAX_CHARS + 1);
    }
}
