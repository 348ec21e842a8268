//! Values of environment variables and secrets, looked for wherever they must not be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use support::eventually;
use support::process::stacyvm;
use support::serve::Serve;

const ENV: &str = "plain-env-value-5d1f";
const SECRET: &str = "sandbox-secret-93ab71";
const EXEC_ENV: &str = "exec-env-value-77c0";
const EXEC_SECRET: &str = "exec-secret-e2f48d";
const TEMPLATE_ENV: &str = "template-env-value-b8";
const TEMPLATE_SECRET: &str = "template-secret-41aa";
/// What the rule of the test matches.
const TOKEN: &str = "tok_1234567890abcdef";
const ALL: [&str; 7] = [ENV, SECRET, EXEC_ENV, EXEC_SECRET, TEMPLATE_ENV, TEMPLATE_SECRET, TOKEN];

const CONFIG: &str = r#"
redaction:
  rules:
    - name: tokens
      pattern: 'tok_[0-9a-f]{16}'
audit:
  record_input: true
"#;

/// A client that keeps every answer.
struct Asker<'a> {
    serve: &'a Serve,
    answers: Vec<(String, String)>,
}

impl Asker<'_> {
    async fn post(&mut self, path: &str, body: Value) -> (u16, String) {
        let request = self.serve.api.http.post(self.serve.api.url(path)).json(&body);
        self.keep(&format!("POST {path}"), request).await
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        let request = self.serve.api.http.get(self.serve.api.url(path));
        self.keep(&format!("GET {path}"), request).await
    }

    async fn keep(&mut self, what: &str, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = format!("{:?}", answer.headers());
        let text = answer.text().await.unwrap();
        self.answers.push((what.to_owned(), headers + &text));
        (status, text)
    }
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

fn stdout(answer: &(u16, String)) -> String {
    assert_eq!(answer.0, 200, "{}", answer.1);
    let reply: Value = serde_json::from_str(&answer.1).unwrap();
    reply["stdout"].as_str().unwrap().to_owned()
}

/// Which of these are in the files below a directory, and in which file.
fn found_below(directory: &Path, values: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(found_below(&path, values));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let held = values.iter().filter(|value| contains(&bytes, value.as_bytes()));
            found.extend(held.map(|value| format!("{value} in {}", path.display())));
        }
    }
    found
}

fn contains(bytes: &[u8], value: &[u8]) -> bool {
    bytes.windows(value.len()).any(|window| window == value)
}

/// An event that has a body, and the body.
fn body(line: &str) -> Option<(Value, String)> {
    let event: Value = serde_json::from_str(line).unwrap();
    let body = event.get("body_base64")?.as_str()?.to_owned();
    let body = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    Some((event, String::from_utf8(body).unwrap()))
}

fn inspect(serve: &Serve) -> String {
    let filter = format!("label=stacyvm.deployment={}", serve.installation());
    let list = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let ids: Vec<&str> = list.lines().collect();
    assert!(!ids.is_empty());
    let output = Command::new("docker").arg("inspect").args(ids).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn values_of_variables_are_nowhere_but_in_the_sandbox() {
    let serve = Serve::with_config("docker", &[("STACYVM_LOGGING_LEVEL", "debug")], CONFIG).await;
    let mut asker = Asker { serve: &serve, answers: Vec::new() };
    let spawn = json!({
        "image": "alpine:latest", "ttl": "5m", "env": {"PLAIN": ENV}, "secrets": {"SECRET": SECRET},
        "metadata": {"note": format!("with {SECRET} and {TOKEN}")},
    });
    let request =
        serve.api.http.post(serve.api.url("/sandboxes")).json(&spawn).header("idempotency-key", "once");
    let (status, answer) = asker.keep("POST /sandboxes", request).await;
    assert_eq!(status, 201, "{answer}");
    let sandbox: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(sandbox["metadata"]["note"], format!("with {} and {}", stars(SECRET), stars(TOKEN)));
    let sandbox = sandbox["id"].as_str().unwrap().to_owned();
    let exec = format!("/sandboxes/{sandbox}/exec");

    // The process has them, and what it writes is masked.
    let script =
        format!(r#"[ "$PLAIN" = {ENV} ] && [ "$SECRET" = {SECRET} ] && echo "is $SECRET" && echo {TOKEN}"#);
    let masked = format!("is {}\n{}\n", stars(SECRET), stars(TOKEN));
    let own_script = r#"[ ${#PLAIN} = 20 ] && echo "$SECRET/$OWN" && echo "$OWN" >&2 && [ ${#OTHER} = 19 ]"#;
    let own = json!({"command": own_script, "env": {"OTHER": EXEC_ENV}, "secrets": {"OWN": EXEC_SECRET}});
    let answer = asker.post(&exec, own).await;
    assert_eq!(stdout(&answer), format!("{}/{}\n", stars(SECRET), stars(EXEC_SECRET)));
    assert!(answer.1.contains("\"exit_code\":0"), "{}", answer.1);
    // What clients write into the command line in clear is in the log, unless it is a secret or a rule knows it.
    let answer = asker.post(&exec, json!({"command": script.replace(ENV, "$PLAIN")})).await;
    assert_eq!(stdout(&answer), masked);
    // In two writes, with the bound in the middle.
    let split =
        r#"printf 'a%s' "${SECRET%??????}"; sleep 0.05; printf '%s' "${SECRET#???????????????}"; echo b"#;
    let answer = asker.post(&exec, json!({"command": split})).await;
    assert_eq!(stdout(&answer), format!("a{}b\n", stars(SECRET)));

    // Errors.
    for (body, status) in [
        (json!({"command": "true", "workdir": format!("/{SECRET}")}), 400),
        (
            json!({"command": "true", "workdir": format!("/{EXEC_SECRET}"), "secrets": {"OWN": EXEC_SECRET}}),
            400,
        ),
        (json!({"command": format!("/{SECRET}"), "mode": "argv"}), 200),
        (json!({"command": "true", "user": "nobody-there", "secrets": {"OWN": EXEC_SECRET}}), 400),
        (json!({"command": "true", "env": {"A=": EXEC_ENV}}), 400),
        (json!({"command": "true", "secrets": {"OWN": [EXEC_SECRET]}}), 400),
        (json!({"command": "true", "env": {"OWN": EXEC_ENV}, "secrets": {"OWN": EXEC_SECRET}}), 400),
        (json!({"command": "sleep 5", "timeout": "100ms", "secrets": {"OWN": EXEC_SECRET}}), 408),
    ] {
        let answer = asker.post(&exec, body.clone()).await;
        assert_eq!(answer.0, status, "{body} {}", answer.1);
    }
    let wrong = json!({"image": "no/such:image", "secrets": {"SECRET": SECRET}, "env": {"PLAIN": ENV}});
    assert_eq!(asker.post("/sandboxes", wrong).await.0, 400);
    let again = json!({"image": "alpine:latest", "secrets": {"SECRET": SECRET}, "env": {"PLAIN": ENV}});
    let request =
        serve.api.http.post(serve.api.url("/sandboxes")).json(&again).header("idempotency-key", "once");
    assert_eq!(asker.keep("POST /sandboxes", request).await.0, 409);

    // Detached: the first event is the gateway's, which does not know the secrets of the sandbox.
    let detached = json!({
        "command": format!("echo {SECRET} {EXEC_SECRET}"), "detach": true, "secrets": {"OWN": EXEC_SECRET},
        "env": {"OTHER": EXEC_ENV},
    });
    assert_eq!(asker.post(&exec, detached).await.0, 202);

    // Files: paths are masked, contents are nobody's business.
    let file = json!({"path": format!("/tmp/{SECRET}"), "content": "x"});
    assert_eq!(asker.post(&format!("/sandboxes/{sandbox}/files"), file).await.0, 200);

    let missing = format!("/sandboxes/{sandbox}/files?path=/none/{TOKEN}");
    assert_eq!(serve.api.get(&missing).await.0, 404);

    // Templates.
    let template = json!({
        "name": "t", "image": "alpine:latest", "description": format!("for {TEMPLATE_SECRET}"),
        "env": {"PLAIN": TEMPLATE_ENV}, "secrets": {"SECRET": TEMPLATE_SECRET},
    });
    // To its owner alone the values of `env` are shown.
    let saved = serve.api.post("/templates", template).await;
    assert_eq!(
        (saved.0, &saved.1["env"]["PLAIN"], &saved.1["secret_names"]),
        (201, &json!(TEMPLATE_ENV), &json!(["SECRET"]))
    );
    assert!(!saved.1.to_string().contains(TEMPLATE_SECRET));
    let shown = serve.api.get("/templates/t").await.1;
    assert_eq!(shown["env"]["PLAIN"], TEMPLATE_ENV);
    assert_eq!(shown["description"], format!("for {}", stars(TEMPLATE_SECRET)));
    assert!(!shown.to_string().contains(TEMPLATE_SECRET));
    let made: Value = serde_json::from_str(&asker.post("/templates/t/spawn", json!({})).await.1).unwrap();
    let made = made["id"].as_str().unwrap().to_owned();
    let checks = json!({"command": format!("[ ${{#PLAIN}} = {} ] && echo $SECRET", TEMPLATE_ENV.len())});
    let answer = asker.post(&format!("/sandboxes/{made}/exec"), checks).await;
    assert_eq!(stdout(&answer), format!("{}\n", stars(TEMPLATE_SECRET)));

    // What is typed.
    let mut child = stacyvm()
        .env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1"))
        .args(["exec", "-i", &sandbox, "--", "sh", "-c", "read line; [ \"$line\" = \"$SECRET\" ]"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for piece in [&SECRET[..5], &SECRET[5..], "\n"] {
        stdin.write_all(piece.as_bytes()).unwrap();
        stdin.flush().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stdin);
    assert!(child.wait().unwrap().success(), "the process did not get what was typed");

    let inspected = inspect(&serve);
    for path in [
        format!("/sandboxes/{sandbox}"),
        "/sandboxes".to_owned(),
        format!("/sandboxes/{sandbox}/logs"),
        format!("/sandboxes/{sandbox}/execs"),
        format!("/events?from=1&follow=false&format=ndjson&sandbox={sandbox}"),
        "/health".to_owned(),
        "/metrics".to_owned(),
        "/providers".to_owned(),
    ] {
        let (status, answer) = asker.get(&path).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let events = eventually("the input is recorded", Duration::from_secs(10), async || {
        let text = serve
            .api
            .http
            .get(serve.api.url("/events?from=1&follow=false&format=ndjson&bodies=true"))
            .send()
            .await
            .ok()?
            .text()
            .await
            .ok()?;
        text.contains("exec.input").then_some(text)
    })
    .await;
    assert!(events.contains("\"env_names\":[\"PLAIN\",\"SECRET\"]"), "{events}");
    assert!(events.contains("\"secret_names\":[\"OWN\"]"), "{events}");
    assert!(events.contains("\"env_hmac\":{\"OTHER\":\""), "{events}");
    let bodies: Vec<(Value, String)> = events.lines().filter_map(body).collect();
    let input = bodies.iter().filter(|(event, _)| event["type"] == "exec.input");
    assert_eq!(input.map(|(_, body)| &body[..]).collect::<String>(), format!("{}\n", stars(SECRET)));
    assert!(bodies.iter().filter(|(event, _)| event["type"] == "exec.output").count() > 5);
    let bodies: String = bodies.into_iter().map(|(_, body)| body + "\n").collect();
    asker.answers.push(("the bodies of events".to_owned(), bodies));
    asker.answers.push(("the events".to_owned(), events));

    for id in [&sandbox, &made] {
        assert_eq!(serve.api.destroy(id).await, 200);
    }
    for (what, answer) in &asker.answers {
        for value in ALL {
            assert!(!answer.contains(value), "{value} in the answer to {what}: {answer}");
        }
    }
    for value in ALL {
        assert!(!inspected.contains(value), "{value} in the configuration of a container");
        assert!(!serve.process.log_text().contains(value), "{value} in the log lines");
    }
    // Commands are on JetStream's disk until they are acknowledged; when all are, so is the file gone that held them.
    let clean = eventually("nothing is left on disk", Duration::from_secs(15), async || {
        found_below(serve.dir.path(), &ALL).is_empty().then_some(())
    });
    clean.await;
    let control = [sandbox.as_str(), "secret_names"];
    assert!(
        found_below(serve.dir.path(), &control).len() >= 2,
        "the database is not where it was looked for"
    );
}

#[tokio::test]
async fn whoever_takes_over_masks_as_before() {
    let mut serve = Serve::start().await;
    let spawn = json!({"image": "alpine:latest", "ttl": "5m", "secrets": {"SECRET": SECRET}});
    let sandbox = serve.api.spawn(spawn).await;
    // Every write ends in the middle of a secret.
    let script = r#"i=0; while [ $i -lt 60 ]; do printf '%s' "${OWN#???????}$SECRET${OWN%???????????}"; i=$((i+1)); sleep 0.1; done"#;
    let body = json!({"command": script, "stream": true, "secrets": {"OWN": EXEC_SECRET}});
    let url = serve.api.url(&format!("/sandboxes/{sandbox}/exec"));
    let answer = serve.api.http.post(url).json(&body).send().await.unwrap();
    let exec = answer.headers()["x-exec-id"].to_str().unwrap().to_owned();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        serve.kill_and_restart().await;
    }
    let output = eventually("the exec ends", Duration::from_secs(60), async || {
        let (status, state) = serve.api.get(&format!("/execs/{exec}")).await;
        if status != 200 || state["exit_code"] != 0 {
            return None;
        }
        let mut output = Vec::new();
        serve.api.follow(&exec, "stdout", 0, &mut output).await.map(|()| output)
    })
    .await;
    let one = format!("{}{}{}", &EXEC_SECRET[7..], SECRET, &EXEC_SECRET[..7]);
    let expected = one.repeat(60).replace(SECRET, &stars(SECRET)).replace(EXEC_SECRET, &stars(EXEC_SECRET));
    // It ends where a secret goes on.
    let expected = format!("{}*******", &expected[..expected.len() - 7]);
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.len(), expected.len());
    assert!(!output.contains(SECRET) && !output.contains(EXEC_SECRET), "{output}");
    assert_eq!(output, expected);
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}
