//! What clients do, and what they hold the deployment to while it is broken under their hands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::{Answer, Client, ONE_TRY, PATIENCE, Violation};
use crate::hold;
use crate::plan::{Deed, TENANTS};

/// What was asked for and answered.
#[derive(Debug, Default)]
pub struct Ledger {
    pub sandboxes: BTreeMap<String, SandboxEntry>,
    /// By the text that only this exec has in its command.
    pub execs: BTreeMap<String, ExecEntry>,
    /// Paths of files whose writing was acknowledged.
    pub files: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct SandboxEntry {
    pub tenant: usize,
    pub expires_at: DateTime<Utc>,
    pub destroyed: bool,
}

#[derive(Debug)]
pub struct ExecEntry {
    pub sandbox: String,
    /// Whether a client was told how it ended.
    pub acknowledged: bool,
    pub id: Option<String>,
    /// Whether it leaves a line in the sandbox.
    pub noted: bool,
}

/// A tenant's clients of one lane.
pub struct World {
    pub clients: Vec<Arc<Client>>,
    pub ledger: Mutex<Ledger>,
    /// Streams that nobody reads.
    pub held: Mutex<Vec<reqwest::Response>>,
}

/// Where deeds are done.
#[derive(Debug, Clone)]
pub struct Scene {
    pub tenant: usize,
    pub sandbox: String,
    /// The sandbox may go away meanwhile.
    pub perilous: bool,
    /// What is unique in this round.
    pub name: String,
}

impl World {
    pub fn client(&self, tenant: usize) -> &Client {
        &self.clients[tenant]
    }

    /// A sandbox that runs.
    pub async fn spawn(&self, tenant: usize, name: &str, ttl: &str) -> Result<String, Violation> {
        let body = json!({"image": "alpine:latest", "ttl": ttl, "memory_mb": 128});
        let client = self.client(tenant);
        let answer = client.post("/sandboxes", &body, Some(&format!("spawn-{name}"))).await?;
        let sandbox = answer.json();
        hold!(answer.status == 201, "a spawn was answered {}", answer.text());
        let id = sandbox["id"].as_str().unwrap_or_default().to_owned();
        let expires_at = sandbox["expires_at"].as_str().and_then(|text| text.parse().ok());
        let Some(expires_at) = expires_at else { return Err(format!("no deadline in {sandbox}")) };
        let entry = SandboxEntry { tenant, expires_at, destroyed: false };
        self.ledger.lock().unwrap().sandboxes.insert(id.clone(), entry);
        let began = Instant::now();
        let mut state = sandbox["state"].as_str().unwrap_or_default().to_owned();
        while state != "running" {
            hold!(state == "creating" && began.elapsed() < PATIENCE, "{id} was acknowledged and is {state}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let answer = client.get(&format!("/sandboxes/{id}")).await?;
            hold!(answer.status == 200, "{id} was acknowledged and is gone: {}", answer.text());
            state = answer.json()["state"].as_str().unwrap_or_default().to_owned();
        }
        Ok(id)
    }

    pub async fn destroy(&self, tenant: usize, sandbox: &str) -> Result<(), Violation> {
        let began = Instant::now();
        loop {
            let path = format!("/sandboxes/{sandbox}");
            let answer = self.client(tenant).call(Method::DELETE, &path, "", None).await?;
            if matches!(answer.status, 200 | 404) {
                break;
            }
            let patient = answer.status == 202 && began.elapsed() < PATIENCE;
            hold!(patient, "the end of {sandbox} was answered {}", answer.text());
        }
        if let Some(entry) = self.ledger.lock().unwrap().sandboxes.get_mut(sandbox) {
            entry.destroyed = true;
        }
        Ok(())
    }

    pub async fn act(&self, scene: &Scene, number: usize, deed: Deed) -> Result<(), Violation> {
        let name = format!("{}-{number}", scene.name);
        let began = Instant::now();
        let done = match deed {
            Deed::Note => self.note(scene, &name).await,
            Deed::Print { lines } => self.print(scene, &name, lines).await,
            Deed::File { bytes } => self.file(scene, &name, bytes).await,
            Deed::Doomed { ttl_seconds, busy } => self.doom(scene, &name, ttl_seconds, busy).await,
            Deed::Garbage { which } => self.garbage(scene, which).await,
            Deed::Foreign => self.foreign(scene).await,
            Deed::Stare => self.stare(scene).await,
            Deed::Destroy { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                self.destroy(scene.tenant, &scene.sandbox).await
            }
        };
        if std::env::var_os("STACYVM_CHAOS_VERBOSE").is_some() {
            eprintln!("  {name} {deed:?} in {:?}", began.elapsed());
        }
        done.map_err(|why| format!("{deed:?} ({name}): {why}"))
    }

    fn enter(&self, scene: &Scene, name: &str, noted: bool) {
        let entry = ExecEntry { sandbox: scene.sandbox.clone(), acknowledged: false, id: None, noted };
        self.ledger.lock().unwrap().execs.insert(name.to_owned(), entry);
    }

    fn acknowledge(&self, name: &str, id: &str) {
        if let Some(entry) = self.ledger.lock().unwrap().execs.get_mut(name) {
            entry.acknowledged = true;
            entry.id = Some(id.to_owned());
        }
    }

    async fn note(&self, scene: &Scene, name: &str) -> Result<(), Violation> {
        self.enter(scene, name, true);
        let body = json!({"command": format!("echo {name} >> /workspace/notes; echo {name}")});
        let path = format!("/sandboxes/{}/exec", scene.sandbox);
        let answer = self.client(scene.tenant).post(&path, &body, Some(name)).await?;
        let reply = answer.json();
        if answer.status == 200 && reply["exit_code"] == 0 {
            hold!(reply["stdout"] == format!("{name}\n"), "its output is {}", reply["stdout"]);
            self.acknowledge(name, reply["exec_id"].as_str().unwrap_or_default());
            return Ok(());
        }
        hold!(scene.perilous && is_end_of_sandbox(&answer), "answered {}", answer.text());
        Ok(())
    }

    /// All notes of a sandbox: what was acknowledged is there, and nothing is there twice.
    pub async fn check_notes(&self, tenant: usize, sandbox: &str) -> Result<(), Violation> {
        let body = json!({"command": "cat /workspace/notes 2>/dev/null; true"});
        let path = format!("/sandboxes/{sandbox}/exec");
        let answer = self.client(tenant).post(&path, &body, None).await?;
        hold!(answer.status == 200, "the notes of {sandbox} cannot be read: {}", answer.text());
        let reply = answer.json();
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for line in reply["stdout"].as_str().unwrap_or_default().lines() {
            *found.entry(line).or_default() += 1;
        }
        for (name, count) in &found {
            hold!(*count == 1, "{name} ran {count} times in {sandbox}");
        }
        let ledger = self.ledger.lock().unwrap();
        for (name, exec) in &ledger.execs {
            let kept = !exec.noted || !exec.acknowledged || exec.sandbox != sandbox;
            hold!(kept || found.contains_key(name.as_str()), "{name} was acknowledged and did not run");
        }
        Ok(())
    }

    async fn print(&self, scene: &Scene, name: &str, lines: u64) -> Result<(), Violation> {
        self.enter(scene, name, false);
        let part = lines / 10;
        let command = format!(
            "i=0; while [ $i -lt 10 ]; do seq -f '{name} %.0f' $((i*{part}+1)) $(((i+1)*{part})); \
             echo \"{name} part $i\" >&2; i=$((i+1)); sleep 0.05; done; exit 7"
        );
        let expected = [
            (1..=part * 10).map(|line| format!("{name} {line}\n")).collect::<String>().into_bytes(),
            (0..10).map(|part| format!("{name} part {part}\n")).collect::<String>().into_bytes(),
        ];
        let body = json!({"command": command, "stream": true});
        let mut read = Read::default();
        let began = Instant::now();
        let state = loop {
            hold!(
                began.elapsed() < PATIENCE,
                "its end is not told: {} {} bytes",
                read.got[0].len(),
                read.last
            );
            if read.exec.is_none() && !self.open(scene, name, &body, &mut read).await? {
                hold!(scene.perilous, "answered {}", read.last);
                return Ok(());
            }
            let Some(exec) = read.exec.clone() else { continue };
            let answer = self.client(scene.tenant).get(&format!("/execs/{exec}")).await?;
            let state = answer.json();
            if answer.status == 404 {
                // Nothing of it is recorded yet: it was not acknowledged, and the same key asks for it again.
                read = Read { last: answer.text(), ..Read::default() };
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            hold!(answer.status == 200, "{exec} cannot be asked for: {}", answer.text());
            let ended = state["state"] != "running";
            for (index, stream) in ["stdout", "stderr"].into_iter().enumerate() {
                self.read_on(scene.tenant, &exec, stream, &mut read.got[index]).await;
            }
            let recorded = [&state["stdout_bytes"], &state["stderr_bytes"]];
            let whole = (0..2).all(|index| recorded[index].as_u64() == Some(read.got[index].len() as u64));
            if ended && whole {
                break state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.judge_print(scene, name, &state, &read, &expected).await
    }

    async fn judge_print(
        &self,
        scene: &Scene,
        name: &str,
        state: &Value,
        read: &Read,
        expected: &[Vec<u8>; 2],
    ) -> Result<(), Violation> {
        let exec = read.exec.as_deref().unwrap_or_default();
        let whole = state["state"] == "exited" && state["exit_code"] == 7;
        hold!(whole || scene.perilous, "it ended as {state}");
        for index in 0..2 {
            let (got, wanted) = (&read.got[index], &expected[index]);
            let good = if whole { got == wanted } else { wanted.starts_with(got) };
            hold!(good, "stream {index} has {} of {} bytes, or others: {state}", got.len(), wanted.len());
            let stream = ["stdout", "stderr"][index];
            let answer =
                self.client(scene.tenant).get(&format!("/execs/{exec}/output?stream={stream}")).await?;
            let same = Sha256::digest(&answer.body) == Sha256::digest(got);
            hold!(same, "the replay of {stream} is not what was seen live: {} bytes", answer.body.len());
        }
        if whole {
            self.acknowledge(name, exec);
        }
        Ok(())
    }

    /// Starts the exec, or finds the one of this key, and reads its stream while it lasts. False when it is refused.
    async fn open(
        &self,
        scene: &Scene,
        name: &str,
        body: &Value,
        read: &mut Read,
    ) -> Result<bool, Violation> {
        let path = format!("/sandboxes/{}/exec?records=all", scene.sandbox);
        let request = self.client(scene.tenant).request(Method::POST, &path);
        let request = request.header("idempotency-key", name).body(body.to_string());
        let Ok(Ok(response)) = tokio::time::timeout(ONE_TRY, request.send()).await else {
            return Ok(true);
        };
        let status = response.status().as_u16();
        if status != 200 {
            let answer = Answer { status, body: response.bytes().await.unwrap_or_default() };
            read.last = answer.text();
            tokio::time::sleep(Duration::from_millis(30)).await;
            return Ok(!is_end_of_sandbox(&answer));
        }
        let mut chunks = response.bytes_stream();
        let mut rest = Vec::new();
        // Blank lines come every ten seconds: a stream that says nothing for longer is dead.
        while let Ok(Some(Ok(bytes))) = tokio::time::timeout(Duration::from_secs(12), chunks.next()).await {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.len() > 1 {
                    let record =
                        serde_json::from_slice(&line).map_err(|error| format!("{error}: a broken line"))?;
                    read.take(&record)?;
                }
            }
            if read.lost_patience() {
                break;
            }
        }
        Ok(true)
    }

    /// Output from where the reader is. What breaks is read on later.
    async fn read_on(&self, tenant: usize, exec: &str, stream: &str, got: &mut Vec<u8>) {
        let path = format!("/execs/{exec}/output?stream={stream}&offset={}", got.len());
        let request = self.client(tenant).request(Method::GET, &path).timeout(ONE_TRY);
        let Ok(response) = request.send().await else { return };
        if !response.status().is_success() {
            return;
        }
        let mut chunks = response.bytes_stream();
        while let Some(Ok(bytes)) = chunks.next().await {
            got.extend_from_slice(&bytes);
        }
    }

    async fn file(&self, scene: &Scene, name: &str, bytes: u64) -> Result<(), Violation> {
        let content: Vec<u8> = name.bytes().cycle().take(usize::try_from(bytes).unwrap()).collect();
        let path = format!("/sandboxes/{}/files?path=/workspace/{name}", scene.sandbox);
        let client = self.client(scene.tenant);
        let answer = client.call(Method::PUT, &path, content.clone(), None).await?;
        if answer.status != 200 {
            hold!(scene.perilous && is_end_of_sandbox(&answer), "answered {}", answer.text());
            return Ok(());
        }
        let entry = (scene.sandbox.clone(), format!("/workspace/{name}"));
        self.ledger.lock().unwrap().files.push(entry);
        let answer = client.get(&path).await?;
        let same = answer.status == 200 && answer.body == content;
        hold!(
            same || (scene.perilous && answer.status != 200),
            "read back as {} bytes, {}",
            answer.body.len(),
            answer.status
        );
        Ok(())
    }

    async fn doom(&self, scene: &Scene, name: &str, ttl_seconds: u64, busy: bool) -> Result<(), Violation> {
        let ttl = format!("{ttl_seconds}s");
        let body = json!({"image": "alpine:latest", "ttl": ttl, "memory_mb": 128});
        let client = self.client(scene.tenant);
        let answer = client.post("/sandboxes", &body, Some(&format!("spawn-{name}"))).await?;
        // Its time may be over before it runs, or before the answer comes.
        hold!(matches!(answer.status, 201 | 404 | 409), "answered {}", answer.text());
        let sandbox = answer.json();
        let (Some(id), Some(expires_at)) = (sandbox["id"].as_str(), sandbox["expires_at"].as_str()) else {
            return Ok(());
        };
        let expires_at = expires_at.parse().map_err(|error| format!("{error}: {expires_at}"))?;
        let entry = SandboxEntry { tenant: scene.tenant, expires_at, destroyed: false };
        self.ledger.lock().unwrap().sandboxes.insert(id.to_owned(), entry);
        if busy {
            let exec = format!("{name}-busy");
            self.enter(&Scene { sandbox: id.to_owned(), ..scene.clone() }, &exec, false);
            let body = json!({"command": format!("echo {exec}; trap '' TERM HUP INT; sleep 60")});
            let path = format!("/sandboxes/{id}/exec");
            let answer = client.post(&path, &body, Some(&exec)).await?;
            hold!(answer.status != 200 || answer.json()["exit_code"] != 0, "answered {}", answer.text());
        }
        Ok(())
    }

    async fn garbage(&self, scene: &Scene, which: u64) -> Result<(), Violation> {
        let sandbox = format!("/sandboxes/{}", scene.sandbox);
        let exec = format!("{sandbox}/exec");
        let files = format!("{sandbox}/files");
        let large = "x".repeat((1 << 20) + 1);
        let requests: &[(Method, &str, &str, Option<&str>)] = &[
            (Method::POST, "/sandboxes", "no json", None),
            (Method::POST, "/sandboxes", r#"{"image":5}"#, None),
            (Method::POST, "/sandboxes", r#"{"ttl":"soon"}"#, None),
            (Method::POST, "/sandboxes", r#"{"memory_mb":-1}"#, None),
            (Method::POST, "/sandboxes", &large, None),
            (Method::POST, "/sandboxes", "{}", Some("a key with spaces")),
            (Method::POST, "/sandboxes", r#"{"provider":"no such"}"#, None),
            (Method::POST, "/sandboxes/sb-*/exec", r#"{"command":"true"}"#, None),
            (Method::POST, &exec, "{}", None),
            (Method::POST, &exec, r#"{"command":["a"]}"#, None),
            (Method::POST, &exec, "{\"command\":\"a\u{0}b\"}", None),
            (Method::POST, &exec, "[[[[[[", None),
            (Method::GET, "/events?after=-1", "", None),
            (Method::GET, "/events?after=18446744073709551616", "", None),
            (Method::GET, "/execs/ex-%FF", "", None),
            (Method::GET, "/execs/ex-00000000000000000000000000/output?offset=x", "", None),
            (Method::GET, "/sandboxes/sb-00000000000000000000000000", "", None),
            (Method::GET, &files, "", None),
            (Method::PATCH, "/sandboxes", "", None),
            (Method::DELETE, "/no/such/route", "", None),
        ];
        for offset in 0..4 {
            let (method, path, body, key) =
                &requests[(which.wrapping_add(offset * 7) % requests.len() as u64) as usize];
            let answer =
                self.client(scene.tenant).call(method.clone(), path, (*body).to_owned(), *key).await?;
            let typed = answer.json()["code"].is_string() && answer.json()["message"].is_string();
            let refused = (400..500).contains(&answer.status) && typed;
            hold!(refused, "{method} {path} {:.60} was answered {}", body, answer.text());
        }
        let client = self.client(scene.tenant);
        let stranger = client.http.get(client.url("/sandboxes")).header("x-api-key", "nobody's");
        if let Ok(answer) = stranger.send().await {
            let status = answer.status().as_u16();
            hold!(status == 401, "a wrong key was answered {status}");
        }
        Ok(())
    }

    async fn foreign(&self, scene: &Scene) -> Result<(), Violation> {
        let exec = {
            let ledger = self.ledger.lock().unwrap();
            let of_tenant =
                |sandbox: &str| ledger.sandboxes.get(sandbox).is_some_and(|it| it.tenant == scene.tenant);
            ledger.execs.values().filter(|exec| of_tenant(&exec.sandbox)).find_map(|exec| exec.id.clone())
        };
        let other = self.client((scene.tenant + 1) % TENANTS.len());
        let sandbox = format!("/sandboxes/{}", scene.sandbox);
        let mut requests = vec![
            (Method::GET, sandbox.clone()),
            (Method::DELETE, sandbox.clone()),
            (Method::POST, format!("{sandbox}/exec")),
            (Method::GET, format!("{sandbox}/files?path=/workspace/notes")),
            (Method::GET, format!("/events?sandbox_id={}&follow=false", scene.sandbox)),
        ];
        if let Some(exec) = exec {
            requests.push((Method::GET, format!("/execs/{exec}")));
            requests.push((Method::GET, format!("/execs/{exec}/output?stream=stdout")));
        }
        for (method, path) in requests {
            let body = if method == Method::POST { r#"{"command":"true"}"# } else { "" };
            let answer = other.call(method.clone(), &path, body, None).await?;
            hold!(answer.status == 404, "another tenant's {method} {path} was answered {}", answer.text());
        }
        Ok(())
    }

    async fn stare(&self, scene: &Scene) -> Result<(), Violation> {
        let request = self.client(scene.tenant).request(Method::GET, "/events?after=0");
        if let Ok(Ok(response)) = tokio::time::timeout(ONE_TRY, request.send()).await {
            let mut held = self.held.lock().unwrap();
            held.push(response);
            if held.len() > 10 {
                held.remove(0);
            }
        }
        Ok(())
    }
}

/// What a client has of a printing exec.
#[derive(Default)]
struct Read {
    exec: Option<String>,
    got: [Vec<u8>; 2],
    last: String,
    began: Option<Instant>,
}

impl Read {
    fn take(&mut self, record: &Value) -> Result<(), Violation> {
        if let Some(exec) = record["exec_id"].as_str() {
            self.exec = Some(exec.to_owned());
            self.began.get_or_insert_with(Instant::now);
        }
        let index = match record["stream"].as_str() {
            Some("stdout") => 0,
            Some("stderr") => 1,
            _ => return Ok(()),
        };
        let (offset, data) = (record["offset"].as_u64(), record["data"].as_str().unwrap_or_default());
        let at = self.got[index].len() as u64;
        hold!(offset == Some(at), "the live stream jumps from byte {at} to {offset:?}");
        self.got[index].extend_from_slice(data.as_bytes());
        Ok(())
    }

    /// A stream that has said nothing but its exec's id for long is asked again.
    fn lost_patience(&self) -> bool {
        self.got[0].is_empty() && self.began.is_some_and(|began| began.elapsed() > Duration::from_secs(12))
    }
}

/// What is answered about a sandbox that has gone away.
fn is_end_of_sandbox(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 409) || (answer.status == 200 && answer.json()["exit_code"] == 137)
}
