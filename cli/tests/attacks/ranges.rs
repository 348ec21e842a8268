//! Files that change while a part of them is on its way, and files that are larger than anybody could read.

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use serde_json::json;

use crate::in_both;
use crate::support::serve::Serve;

/// More than lies in buffers between a file and its reader, in bytes.
const BIG: usize = 24 << 20;

async fn open(serve: &Serve, sandbox: &str, range: &str) -> reqwest::Response {
    let url = serve.api.url(&format!("/sandboxes/{sandbox}/files?path=/tmp/file"));
    serve.api.http.get(url).header(RANGE, range).send().await.unwrap()
}

fn told(answer: &reqwest::Response) -> (u16, Option<&str>, Option<&str>) {
    let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
    (answer.status().as_u16(), header(CONTENT_RANGE), header(CONTENT_LENGTH))
}

in_both!(files_that_change_while_they_are_read);

async fn files_that_change_while_they_are_read(provider: &str) {
    let serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let run = async |line: &str| {
        let done = serve.api.exec(&sandbox, line).await;
        assert_eq!(done["exit_code"], 0, "{provider}: {line}: {done}");
    };
    // The end of what would take weeks to read.
    run("truncate -s 1T /tmp/file && printf end >> /tmp/file").await;
    let end = open(&serve, &sandbox, "bytes=-4").await;
    let all = 1_u64 << 40;
    let range = format!("bytes {}-{}/{}", all - 1, all + 2, all + 3);
    assert_eq!(told(&end), (206, Some(range.as_str()), Some("4")), "{provider}");
    assert_eq!(end.bytes().await.unwrap(), &b"\0end"[..]);

    // What is appended meanwhile is not of the size that was promised.
    run(&format!("truncate -s {BIG} /tmp/file")).await;
    let range = format!("bytes 1-{}/{BIG}", BIG - 1);
    let grows = open(&serve, &sandbox, "bytes=1-").await;
    assert_eq!(told(&grows), (206, Some(range.as_str()), Some((BIG - 1).to_string().as_str())));
    run("echo more >> /tmp/file").await;
    let read = grows.bytes().await.unwrap();
    assert!(read.len() == BIG - 1 && read.iter().all(|byte| *byte == 0), "{provider}: {}", read.len());

    // What is cut off meanwhile is missing, and nobody takes the rest for the whole.
    run(&format!("truncate -s {BIG} /tmp/file")).await;
    let mut shrinks = open(&serve, &sandbox, "bytes=1-").await;
    assert_eq!(told(&shrinks).0, 206);
    run("truncate -s 100 /tmp/file").await;
    let mut read = 0;
    let broke = loop {
        match shrinks.chunk().await {
            Ok(Some(bytes)) => read += bytes.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke && read < BIG - 1, "{provider}: {read} bytes");
    let end = open(&serve, &sandbox, "bytes=100-").await;
    assert_eq!(told(&end), (416, Some("bytes */100"), told(&end).2), "{provider}");
    // Nothing that waits for an agent has been left behind.
    run("true").await;
}
