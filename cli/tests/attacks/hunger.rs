//! Clients that want all of the server's memory.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::serve::Serve;

/// What the server may need more than before, in KiB.
const MORE_KIB: u64 = 200 << 10;

/// Samples the memory of a server while something is done to it. Gives the most that it needed more than before, in KiB.
async fn needed<T>(serve: &Serve, deed: impl Future<Output = T>) -> (u64, T) {
    let before = serve.process.rss_kib();
    let mut most = before;
    tokio::pin!(deed);
    loop {
        tokio::select! {
            done = &mut deed => return (most.max(serve.process.rss_kib()).saturating_sub(before), done),
            () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(serve.process.rss_kib()),
        }
    }
}

async fn connect(serve: &Serve) -> TcpStream {
    let address = serve.api.base.strip_prefix("http://").unwrap().split('/').next().unwrap();
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn bodies_and_outputs_do_not_fill_the_memory() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    serve.api.exec(&sandbox, "true").await;
    // Ten bodies of 60 MB, of which the last byte never comes.
    const BODY: usize = 60_000_000;
    let body = async |declared: bool| {
        let mut stream = connect(&serve).await;
        let length = if declared {
            format!("Content-Length: {BODY}")
        } else {
            "Transfer-Encoding: chunked".to_owned()
        };
        let head =
            format!("POST /api/v1/sandboxes/{sandbox}/files HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut piece = vec![b' '; 100_000];
        if !declared {
            piece = [b"186a0\r\n", &piece[..], b"\r\n"].concat();
        }
        let sending = async {
            for _ in 0..BODY / 100_000 - 1 {
                if stream.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        // Whoever is refused, or not read, is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(4), sending).await;
        stream
    };
    let bodies = futures::future::join_all((0..10).map(|n| body(n % 2 == 0)));
    let (more, held) = needed(&serve, bodies).await;
    assert!(more < MORE_KIB, "ten bodies need {more} KiB");
    assert!(serve.api.ready().await);
    serve.api.exec(&sandbox, "true").await;
    drop(held);

    // Each byte is six characters of the reply.
    const BYTES: usize = 12_000_000;
    let output = async || {
        let body = json!({"command": format!("head -c {BYTES} /dev/zero")});
        let url = serve.api.url(&format!("/sandboxes/{sandbox}/exec"));
        let answer = serve.api.http.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut length = 0;
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            length += piece.unwrap().len();
        }
        length
    };
    let (more, lengths) = needed(&serve, futures::future::join_all((0..4).map(|_| output()))).await;
    assert!(lengths.iter().all(|length| *length > BYTES * 6), "{lengths:?}");
    assert!(more < MORE_KIB, "four outputs need {more} KiB");
}

#[tokio::test]
async fn a_box_larger_than_the_machine_is_refused() {
    let serve = Serve::with_config(
        "bubblewrap",
        &[],
        "limits:\n  max_memory_mb: 4000000000\n  tenant:\n    memory_mb: 0\n",
    )
    .await;
    let (status, answer) = serve.api.post("/sandboxes", json!({"memory_mb": 3_900_000_000u32})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("3900000000"), "{answer}");
    let (status, answer) = serve.api.post("/sandboxes", json!({"vcpus": 65})).await;
    assert_eq!(status, 400, "{answer}");
    serve.api.spawn(json!({"image": "alpine:latest"})).await;
}
