//! The client library against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use client::{
    AdmissionReason, AttachInput, AttachRequest, AttachUpdate, AuditQuery, Client, ClientError,
    DestroyReason, Destroyed, EventCategory, EventStream, EventUpdate, EventsQuery, ExecRequest, ExecStream,
    ExecUpdate, ExecsQuery, FeedEvent, Offsets, OutputStream, ProbeAnswer, ReadOptions, ReplayQuery,
    SandboxState, SpawnRequest, TemplateRequest, TerminalSize, WebhookRequest, WebhookState, WorkerState,
    WriteOptions,
};
use support::serve::Serve;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

fn library(serve: &Serve) -> Client {
    Client::new(serve.api.base.trim_end_matches("/api/v1")).unwrap()
}

async fn spawned(client: &Client) -> String {
    let request = SpawnRequest { ttl: Some("10m".to_owned()), ..SpawnRequest::image("alpine:latest") };
    let sandbox = client.spawn(&request).await.unwrap();
    assert_eq!(sandbox.state, SandboxState::Running);
    sandbox.id
}

/// Takes updates until this many bytes of stdout have come, and gives back how the exec ended if it did.
async fn read(
    stream: &mut ExecStream,
    stdout: &mut Vec<u8>,
    until: usize,
    breaks: &mut u32,
) -> Option<Option<i32>> {
    while stdout.len() < until {
        match tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap() {
            ExecUpdate::Output { stream: OutputStream::Stdout, offset, bytes } => {
                assert_eq!(offset, stdout.len() as u64, "a byte is missing or comes twice");
                stdout.extend_from_slice(&bytes);
            }
            ExecUpdate::Interrupted(_) => *breaks += 1,
            ExecUpdate::Started(_) => {}
            ExecUpdate::Ended(end) => return Some(end.exit_code),
            other @ (ExecUpdate::Output { .. } | ExecUpdate::Gone { .. }) => panic!("{other:?}"),
        }
    }
    None
}

async fn next_event(events: &mut EventStream, breaks: &mut u32) -> FeedEvent {
    loop {
        match tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
            EventUpdate::Event(event) => return event,
            EventUpdate::Interrupted { may_miss, .. } => {
                assert!(!may_miss, "its position is known");
                *breaks += 1;
            }
        }
    }
}

#[tokio::test]
async fn streams_go_on_where_they_stood_when_the_server_is_killed() {
    let mut serve = Serve::start().await;
    let client = library(&serve);
    let sandbox = spawned(&client).await;
    let query = EventsQuery {
        after: Some(0),
        sandbox: Some(sandbox.clone()),
        follow: true,
        ..EventsQuery::default()
    };
    let mut events = client.events(query.clone()).await.unwrap();
    let (mut feed, mut feed_breaks) = (Vec::new(), 0);
    while feed.last().is_none_or(|event: &FeedEvent| event.event.r#type != "sandbox.running") {
        feed.push(next_event(&mut events, &mut feed_breaks).await);
    }

    let script = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); [ $((i % 500)) = 0 ] && sleep 0.05; done; exit 9";
    let mut exec = client.exec_stream(&sandbox, ExecRequest::shell(script)).await.unwrap();
    let (mut stdout, mut breaks) = (Vec::new(), 0);
    // In the middle of the output, which lasts for seconds.
    assert_eq!(read(&mut exec, &mut stdout, 10_000, &mut breaks).await, None);
    serve.kill_and_restart().await;
    let code = read(&mut exec, &mut stdout, usize::MAX, &mut breaks).await.unwrap();
    let expected: String = (0..40000).map(|i| format!("line {i}\n")).collect();
    assert!(stdout == expected.as_bytes(), "lines are missing or double");
    assert_eq!(code, Some(9));
    assert!(breaks > 0, "the stream was not broken at all");
    assert!(exec.next().await.is_none(), "nothing comes after the end");

    while feed.last().is_none_or(|event| event.event.r#type != "exec.exited") {
        feed.push(next_event(&mut events, &mut feed_breaks).await);
    }
    assert!(feed_breaks > 0, "the feed was not broken at all");
    // What the record has now is what the feed told, once and in order, over both servers.
    let mut all = client.events(EventsQuery { follow: false, ..query }).await.unwrap();
    for told in &feed {
        let recorded = next_event(&mut all, &mut feed_breaks).await;
        assert_eq!((recorded.position, &recorded.json), (told.position, &told.json));
    }
    let positions: BTreeSet<u64> = feed.iter().map(|event| event.position).collect();
    assert_eq!(positions.len(), feed.len());

    // Days later, from the middle of a line.
    let ended = client.execs(&sandbox, ExecsQuery::default()).await.unwrap().remove(0);
    assert!(ended.has_ended());
    assert_eq!((ended.exit_code, ended.stdout_bytes), (Some(9), stdout.len() as u64));
    let mut again = client.follow_exec(&ended.id, Offsets { stdout: 7777, stderr: 0 }).await.unwrap();
    let mut rest = stdout[..7777].to_vec();
    assert_eq!(read(&mut again, &mut rest, usize::MAX, &mut 0).await, Some(Some(9)));
    assert!(rest == stdout);
    assert_eq!(client.destroy(&sandbox).await.unwrap(), Destroyed::Gone);
    assert!(client.sandbox(&sandbox).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_attachment_outlives_the_server() {
    let mut serve = Serve::start().await;
    let client = library(&serve);
    let sandbox = spawned(&client).await;
    let request = ExecRequest::argv(["sh"]).terminal(TerminalSize { rows: 30, cols: 90 });
    let exec = client.start_exec(&sandbox, &request).await.unwrap();
    let mut attachment = client.attach(AttachRequest::to_new(&exec)).await.unwrap();
    let mut shown = Vec::new();
    let mut breaks = 0;
    for (line, answer) in [("stty size\n", "30 90"), ("echo $((6 * 7))\n", "42\r\n"), ("exit 3\n", "")] {
        if line.starts_with("echo") {
            serve.kill_and_restart().await;
        }
        let mut input = Some(AttachInput::Stdin(line.into()));
        let code = loop {
            if input.is_none() && !answer.is_empty() && String::from_utf8_lossy(&shown).contains(answer) {
                break None;
            }
            let update = attachment.next(input.is_some(), true);
            match tokio::time::timeout(PATIENCE, update).await.unwrap().unwrap() {
                // What is given to a connection that is broken already may be lost: only after a word from the server.
                AttachUpdate::Room if line.starts_with("echo") && breaks == 0 => {
                    tokio::task::yield_now().await
                }
                AttachUpdate::Room => assert!(attachment.send(input.take().unwrap())),
                AttachUpdate::Output { offset, bytes, .. } => {
                    assert_eq!(offset, shown.len() as u64);
                    shown.extend_from_slice(&bytes);
                }
                AttachUpdate::Interrupted(_) => breaks += 1,
                AttachUpdate::Attached(known) => assert_eq!(known.id, exec),
                AttachUpdate::Reconnected => {}
                AttachUpdate::Ended(end) => break end.exit_code,
                other @ (AttachUpdate::Gone { .. } | AttachUpdate::Refused(_)) => panic!("{other:?}"),
            }
        };
        assert_eq!(code, answer.is_empty().then_some(3), "{}", String::from_utf8_lossy(&shown));
    }
    assert!(breaks > 0, "the connection was not broken at all");
}

#[tokio::test]
async fn files_and_refusals_are_typed() {
    let serve = Serve::start().await;
    let client = library(&serve);
    let sandbox = spawned(&client).await;
    let contents: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 5) as u8).collect();
    let parts: Vec<Result<bytes::Bytes, std::io::Error>> =
        contents.chunks(100_000).map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
    let options = WriteOptions { mode: Some(0o751), length: Some(contents.len() as u64) };
    client.upload_file(&sandbox, "/tmp/a b/data", options, futures::stream::iter(parts)).await.unwrap();
    let file = client.stat_file(&sandbox, "/tmp/a b/data").await.unwrap();
    assert_eq!((file.size, file.mode.as_str(), file.is_dir), (3_000_000, "0751", false));
    let names: Vec<String> =
        client.list_files(&sandbox, "/tmp/a b").await.unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["data"]);
    let read = client.read_file(&sandbox, "/tmp/a b/data").await.unwrap().bytes().await.unwrap();
    assert!(read == contents);
    let middle = ReadOptions { offset: 1_000_000, length: Some(70_000), version: None };
    let part = client.read_file_part(&sandbox, "/tmp/a b/data", &middle).await.unwrap();
    let version = part.version().map(str::to_owned);
    assert_eq!((part.offset(), version.is_some()), (1_000_000, true));
    assert!(part.bytes().await.unwrap() == contents[1_000_000..1_070_000]);
    client.write_file(&sandbox, "/tmp/a b/data", "another file").await.unwrap();
    let rest = ReadOptions { offset: 3, length: None, version };
    let whole = client.read_file_part(&sandbox, "/tmp/a b/data", &rest).await.unwrap();
    assert_eq!((whole.offset(), whole.bytes().await.unwrap().as_ref()), (0, &b"another file"[..]));
    client.write_file(&sandbox, "note", "hello").await.unwrap();
    let reply = client.run(&sandbox, &ExecRequest::argv(["cat", "/workspace/note"])).await.unwrap();
    assert_eq!((reply.stdout.as_str(), reply.exit_code), ("hello", 0));

    let Err(ClientError::Refused(refusal)) = client.stat_file(&sandbox, "/nowhere").await else {
        panic!("there is no such file");
    };
    assert_eq!((refusal.status, refusal.code.as_str()), (404, "NOT_FOUND"));
    let wrong = client.run(&sandbox, &ExecRequest::shell("true").timeout("soon")).await.unwrap_err();
    assert_eq!((wrong.status(), wrong.is_passing()), (Some(400), false));

    let exec = client.start_exec(&sandbox, &ExecRequest::shell("exec sleep 60")).await.unwrap();
    let mut stream = client.follow_exec(&exec, Offsets::default()).await;
    while stream.as_ref().is_err_and(ClientError::is_not_found) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream = client.follow_exec(&exec, Offsets::default()).await;
    }
    client.signal_exec(&exec, "KILL").await.unwrap();
    assert_eq!(read_to_end(&mut stream.unwrap()).await, Some(137));
    assert!(client.signal_exec(&exec, "9").await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn what_the_server_says_of_itself_and_keeps_is_read() {
    let serve = Serve::start().await;
    let client = library(&serve);
    let sandbox = spawned(&client).await;
    assert_eq!(client.health().await.unwrap().status, ProbeAnswer::Ok);
    assert_eq!(client.live().await.unwrap().status, ProbeAnswer::Alive);
    assert_eq!(client.ready().await.unwrap().status, ProbeAnswer::Ready);
    assert_eq!(client.metrics().await.unwrap().sandboxes_live, 1);
    assert!(client.prometheus().await.unwrap().contains("stacyvm_"));
    let diagnostics = client.diagnostics().await.unwrap();
    assert_eq!(diagnostics.workers.unwrap().items[0].status, WorkerState::Online);
    assert!(client.providers().await.unwrap().iter().any(|provider| provider.name == "docker"));
    assert_eq!(client.provider("docker").await.unwrap().sandbox_count, 1);
    assert_eq!(client.quota_usage("ada").await.unwrap().active_sandboxes, 0);
    let admission = client.admission(&SpawnRequest::image("alpine:latest")).await.unwrap();
    assert_eq!((admission.allowed, admission.reason), (true, AdmissionReason::None.into()));

    let request = TemplateRequest {
        name: Some("small".to_owned()),
        image: Some("alpine:latest".to_owned()),
        env: Some([("A", "1")].into_iter().collect()),
        ..TemplateRequest::default()
    };
    let template = client.save_template(&request).await.unwrap();
    assert_eq!((template.env["A"].as_str(), template.version), ("1", 1));
    assert_eq!(client.templates().await.unwrap(), [template]);
    client.delete_template("small").await.unwrap();

    let request = WebhookRequest { url: Some("https://a.example/".to_owned()), ..WebhookRequest::default() };
    let webhook = client.create_webhook(&request).await.unwrap();
    assert_eq!((&webhook.state, webhook.secret.is_some()), (&WebhookState::Active.into(), true));
    client.delete_webhook(&webhook.id).await.unwrap();

    client.run(&sandbox, &ExecRequest::shell("echo hello")).await.unwrap();
    let timeline = client.timeline(&sandbox, None, None).await.unwrap();
    assert_eq!(timeline.entries[0].category, EventCategory::Sandbox);
    assert!(timeline.entries.iter().any(|entry| entry.category == EventCategory::Exec));
    let page = client.audit(&AuditQuery { sandbox: Some(sandbox.clone()), ..AuditQuery::default() }).await;
    assert_eq!(page.unwrap().events[0].r#type, "sandbox.requested");
    let query = ReplayQuery { speed: Some("max".to_owned()), ..ReplayQuery::default() };
    let mut replay = client.replay(&sandbox, &query).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, replay.next()).await.unwrap().unwrap().is_some());
    client.destroy(&sandbox).await.unwrap();
    let ended = client.timeline(&sandbox, None, None).await.unwrap();
    assert_eq!(ended.reason, Some(DestroyReason::User.into()));
}

async fn read_to_end(stream: &mut ExecStream) -> Option<i32> {
    read(stream, &mut Vec::new(), usize::MAX, &mut 0).await.unwrap()
}
