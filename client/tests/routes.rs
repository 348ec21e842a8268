//! The client asks for every route of the API's description, and for no other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};

use client::{
    AttachRequest, AuditQuery, BatchRequest, Client, ClientError, EventsQuery, ExecRequest, ExecsQuery,
    JobRequest, JobsQuery, Offsets, OutputStream, ReadOptions, ReplayQuery, ScheduleRequest, SpawnRequest,
    TemplateRequest, TerminalSize, WebhookRequest,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DESCRIPTION: &str =
    include_str!("../../api-gateway/src/snapshots/api_gateway__openapi__tests__the_document_is_frozen.snap");

/// Routes that a client reaches in another way.
const ELSEWHERE: [(&str, &str); 2] = [
    // The same events as those of `/events`, which `Client::events` reads.
    ("GET", "/events/ws"),
    // `Client::start_exec` and `Client::attach` survive a connection; a command that is started by one does not.
    ("GET", "/sandboxes/{id}/exec/ws"),
];

type Routes = BTreeSet<(String, String)>;

fn described() -> Routes {
    let (_, json) = DESCRIPTION.split_once("\n---\n").unwrap();
    let document: Value = serde_json::from_str(json).unwrap();
    let mut routes = Routes::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            routes.insert((method.to_ascii_uppercase(), path));
        }
    }
    routes
}

/// Which route a request is for. `ID` stands in the place of any parameter, so a fixed word is never taken for one.
fn route_of(method: &str, path: &str, described: &Routes) -> (String, String) {
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template
                .iter()
                .zip(&path)
                .all(|(of, word)| (of.starts_with('{') && *word == "ID") || of == word)
    };
    let known = described.iter().find(|(of, template)| of == method && fits(template));
    known.cloned().unwrap_or_else(|| (method.to_owned(), path.to_owned()))
}

/// Refuses everything, and remembers what it was asked for.
async fn refusing(described: Routes) -> (Client, Arc<Mutex<Routes>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Routes::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (seen, described) = (Arc::clone(&seen), described.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let mut words = text.split_whitespace();
                let (method, target) = (words.next().unwrap(), words.next().unwrap());
                let path = target.split('?').next().unwrap().strip_prefix("/api/v1").unwrap();
                seen.lock().unwrap().insert(route_of(method, path, &described));
                let body = r#"{"code":"FORBIDDEN","message":"not here"}"#;
                let answer = format!(
                    "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
                // Until the client has read it: closing on what was not read would reset the connection.
                let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
            });
        }
    });
    (Client::new(format!("http://127.0.0.1:{port}")).unwrap(), asked)
}

async fn refused<T>(call: impl Future<Output = Result<T, ClientError>>) {
    match call.await {
        Ok(_) => panic!("nothing is allowed here"),
        Err(error) => assert_eq!(error.status(), Some(403), "{error}"),
    }
}

#[tokio::test]
async fn every_route_is_asked_for() {
    let described = described();
    assert!(described.len() > 60, "the description was misread");
    let (client, asked) = refusing(described.clone()).await;
    let c = &client;
    let audit = AuditQuery::default();

    refused(c.spawn(&SpawnRequest::default())).await;
    refused(c.sandbox("ID")).await;
    refused(c.sandboxes()).await;
    refused(c.destroy("ID")).await;
    refused(c.extend("ID", "1h")).await;
    refused(c.admission(&SpawnRequest::default())).await;
    refused(c.sandbox_stats("ID")).await;
    refused(c.prune()).await;
    refused(c.erase("ID")).await;
    refused(c.timeline("ID", None, None)).await;
    refused(c.logs("ID", None)).await;
    refused(c.replay("ID", &ReplayQuery::default())).await;

    refused(c.run("ID", &ExecRequest::shell("true"))).await;
    refused(c.execs("ID", ExecsQuery::default())).await;
    refused(c.exec("ID")).await;
    refused(c.follow_exec("ID", Offsets::default())).await;
    refused(c.attach(AttachRequest::to("ID"))).await;
    refused(c.output("ID", OutputStream::Stdout, 0, false)).await;
    refused(c.recording("ID", "asciicast-v3")).await;
    refused(c.signal_exec("ID", "TERM")).await;
    refused(c.resize_exec("ID", TerminalSize { rows: 24, cols: 80 })).await;
    refused(c.write_stdin("ID", "x", true)).await;
    refused(c.kill_exec("ID")).await;
    refused(c.share_exec("ID", None)).await;
    refused(c.viewers("ID")).await;
    refused(c.revoke_viewer("ID", "ID")).await;

    refused(c.read_file("ID", "/a")).await;
    refused(c.read_file_part("ID", "/a", &ReadOptions { offset: 3, ..ReadOptions::default() })).await;
    refused(c.write_file("ID", "/a", "x")).await;
    refused(c.write_text("ID", "/a", "x")).await;
    refused(c.delete_file("ID", "/a", false)).await;
    refused(c.list_files("ID", "/a")).await;
    refused(c.stat_file("ID", "/a")).await;
    refused(c.glob_files("ID", "*")).await;
    refused(c.move_file("ID", "/a", "/b")).await;
    refused(c.change_mode("ID", "/a", "0644")).await;

    refused(c.artifacts("ID")).await;
    refused(c.archive_artifacts("ID")).await;
    refused(c.read_artifact("ID", "ID", &ReadOptions::default())).await;

    refused(c.templates()).await;
    refused(c.template("ID")).await;
    refused(c.save_template(&TemplateRequest::default())).await;
    refused(c.replace_template("ID", &TemplateRequest::default())).await;
    refused(c.delete_template("ID")).await;
    refused(c.spawn_template("ID", &SpawnRequest::default())).await;

    refused(c.webhooks()).await;
    refused(c.webhook("ID")).await;
    refused(c.create_webhook(&WebhookRequest::default())).await;
    refused(c.update_webhook("ID", &WebhookRequest::default())).await;
    refused(c.delete_webhook("ID")).await;
    refused(c.redeliver("ID", None)).await;
    refused(c.ping_webhook("ID")).await;

    refused(c.submit_job(&JobRequest::default())).await;
    refused(c.submit_jobs(&BatchRequest::default())).await;
    refused(c.jobs(&JobsQuery::default())).await;
    refused(c.job("ID")).await;
    refused(c.job_ended("ID", "1s")).await;
    refused(c.job_attempts("ID")).await;
    refused(c.job_output("ID", &[])).await;
    refused(c.job_timeline("ID", 0)).await;
    refused(c.cancel_job("ID", None)).await;
    refused(c.retry_job("ID")).await;

    refused(c.schedules()).await;
    refused(c.schedule("ID")).await;
    refused(c.create_schedule(&ScheduleRequest::default())).await;
    refused(c.update_schedule("ID", &ScheduleRequest::default())).await;
    refused(c.delete_schedule("ID")).await;
    refused(c.pause_schedule("ID")).await;
    refused(c.resume_schedule("ID")).await;
    refused(c.trigger_schedule("ID")).await;

    refused(c.events(EventsQuery::default())).await;
    refused(c.ticket()).await;
    refused(c.audit(&audit)).await;
    refused(c.export("ndjson", true, &audit)).await;
    refused(c.verify::<Value>(None, false)).await;
    refused(c.checkpoints(None)).await;

    refused(c.health()).await;
    refused(c.live()).await;
    refused(c.ready()).await;
    refused(c.diagnostics()).await;
    refused(c.host_stats()).await;
    refused(c.metrics()).await;
    refused(c.prometheus()).await;
    refused(c.providers()).await;
    refused(c.provider("ID")).await;
    refused(c.test_providers()).await;
    refused(c.pool_status()).await;
    refused(c.snapshots()).await;
    refused(c.quotas()).await;
    refused(c.quota_summary()).await;
    refused(c.quota("ID")).await;
    refused(c.quota_usage("ID")).await;

    let mut covered = asked.lock().unwrap().clone();
    covered.extend(ELSEWHERE.map(|(method, path)| (method.to_owned(), path.to_owned())));
    let missing: Vec<_> = described.difference(&covered).collect();
    let unknown: Vec<_> = covered.difference(&described).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not asked for: {missing:#?}; not described: {unknown:#?}"
    );
}
