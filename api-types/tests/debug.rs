//! No request and no answer prints what it hides.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

use std::fmt::Debug;

use api_types::{
    ExecRequest, JobRequest, ScheduleRequest, SpawnRequest, Template, TemplateRequest, Ticket, ViewerLink,
    Webhook, WebhookRequest, WriteRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SECRET: &str = "hunter2-and-more";

/// Prints it in both forms. What is hidden must be on the wire as it came, and in neither form.
fn hides<T: Debug + Serialize + DeserializeOwned>(json: Value, shown: &[&str]) {
    let value: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&value).unwrap(), json, "the wire is the same");
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains(SECRET), "{text}");
        for name in shown {
            assert!(text.contains(name), "{name} is missing: {text}");
        }
    }
}

#[test]
fn debug_shows_names_and_no_values() {
    let variables = json!({"LANG": SECRET, "TOKEN": SECRET});
    let names = &["LANG", "TOKEN"];
    hides::<SpawnRequest>(json!({"image": "alpine", "env": variables, "secrets": variables}), names);
    hides::<ExecRequest>(json!({"command": "make", "env": variables, "secrets": variables}), names);
    hides::<TemplateRequest>(json!({"name": "t", "env": variables, "secrets": variables}), names);
    hides::<Template>(json!({"name": "t", "image": "i", "version": 1, "env": variables}), names);

    hides::<WriteRequest>(json!({"path": "/workspace/.env", "content": SECRET}), &["/workspace/.env"]);
    hides::<WebhookRequest>(json!({"url": "https://a.example/", "secret": SECRET}), &["a.example"]);
    hides::<ScheduleRequest>(json!({"name": "a", "job": {"command": SECRET}}), &["command"]);
    hides::<JobRequest>(
        json!({"command": "make", "env": variables, "secrets": variables, "stdin": SECRET,
            "files": [{"path": "/a", "content": SECRET}, {"path": "/b", "content_b64": SECRET}],
            "callback": {"url": "https://a.example/", "token": SECRET, "headers": {"X-A": SECRET}}}),
        &["LANG", "TOKEN", "/b", "X-A"],
    );
    hides::<Webhook>(
        json!({"id": "wh-1", "url": "https://a.example/", "types": [], "state": "active", "cursor": 0, "lag": 0,
            "created_at": "2026-01-02T03:04:05Z", "attempts": 0, "secret": SECRET}),
        &["wh-1"],
    );
    let expires_at = "2026-01-02T03:04:05Z";
    hides::<ViewerLink>(
        json!({"id": "vw-1", "url": format!("/attach?viewer={SECRET}"), "token": SECRET, "expires_at": expires_at}),
        &["vw-1"],
    );
    hides::<Ticket>(json!({"ticket": SECRET, "expires_at": expires_at}), &["2026"]);
}

/// A field of such a name that is a plain text would be printed: whoever adds one hides it.
#[test]
fn no_field_that_sounds_like_a_secret_is_a_plain_text() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut fields = 0;
    for entry in std::fs::read_dir(sources).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
            let Some((name, of)) = line.split_once(": ") else { continue };
            if ["env", "secrets", "secret", "token", "ticket", "content", "key", "password"].contains(&name) {
                fields += 1;
                assert!(of.contains("Environment") || of.contains("Hidden"), "{name} is printed: {line}");
            }
        }
    }
    assert!(fields >= 10, "only {fields} fields were found");
}
