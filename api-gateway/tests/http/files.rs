use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, error};

#[tokio::test]
async fn a_listing_of_any_length_comes_whole() {
    let world = World::start().await;
    let base = format!("/sandboxes/{}/files", world.sandbox().await);
    // Some 25 MB, where a message of NATS holds 1 MiB.
    let listed = world.get(&format!("{base}/list?path=/many")).await;
    let entries = listed.as_array().unwrap();
    assert_eq!(entries.len(), 80_000);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry["name"], format!("{index:05}-{}", "n".repeat(100)));
    }
    assert_eq!(entries[0]["is_symlink"], false);
    // What is no listing is our fault, and said before anything is sent.
    assert_eq!(
        error(world.ask(Method::GET, &format!("{base}/list?path=/broken")), 500).await,
        "INTERNAL_ERROR"
    );
    for name in ["/g/b", "/g/a \"\n\u{2028}"] {
        world.post(&base, json!({"path": name, "content": ""}), 200).await;
    }
    let found = world.get(&format!("{base}/glob?pattern=/g")).await;
    assert_eq!(found, json!(["/g/a \"\n\u{2028}", "/g/b"]));
    assert_eq!(world.get(&format!("{base}/glob?pattern=/none")).await, json!([]));
}

#[tokio::test]
async fn a_file_is_emptied_only_by_who_says_so() {
    let world = World::start().await;
    let base = format!("/sandboxes/{}/files", world.sandbox().await);
    world.post(&base, json!({"path": "/f", "content": "old"}), 200).await;
    for body in [
        json!({"path": "/f", "contents": "new"}),
        json!({"path": "/f"}),
        json!({"path": "/f", "content": null}),
    ] {
        assert_eq!(error(world.ask(Method::POST, &base).json(&body), 400).await, "BAD_REQUEST", "{body}");
    }
    assert_eq!(world.get(&format!("{base}/stat?path=/f")).await["size"], 3);
    // To many clients an empty body and none are the same.
    for length in [None, Some("0")] {
        world.post(&base, json!({"path": "/f", "content": "old"}), 200).await;
        let put = world.ask(Method::PUT, &format!("{base}?path=/f"));
        let put = length.into_iter().fold(put, |put, length| put.header("content-length", length));
        assert_eq!(put.send().await.unwrap().status(), 200);
        assert_eq!(world.get(&format!("{base}/stat?path=/f")).await["size"], 0);
    }
    world.post(&base, json!({"path": "/f", "content": ""}), 200).await;
}

#[tokio::test]
async fn a_body_that_is_not_the_file_is_not_stored_as_it() {
    let world = World::start().await;
    let base = format!("/sandboxes/{}/files", world.sandbox().await);
    world.post(&base, json!({"path": "/f", "content": "old"}), 200).await;
    let put = || world.ask(Method::PUT, &format!("{base}?path=/f")).body("newer");
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-encoding", "identity, zstd"),
        ("content-type", "multipart/form-data; boundary=x"),
    ] {
        let code = error(put().header(name, value), 415).await;
        assert_eq!(code, "UNSUPPORTED_MEDIA_TYPE", "{name}: {value}");
    }
    let form = json!({"path": "/f", "content": "newer"});
    let post = world.ask(Method::POST, &base).header("content-encoding", "br").json(&form);
    assert_eq!(error(post, 415).await, "UNSUPPORTED_MEDIA_TYPE");
    let size = async || world.get(&format!("{base}/stat?path=/f")).await["size"].clone();
    assert_eq!(size().await, 3);
    assert_eq!(put().header("content-encoding", "identity").send().await.unwrap().status(), 200);
    assert_eq!(size().await, Value::from(5));
}

#[tokio::test]
async fn a_part_of_a_file_is_sent_to_who_asks_for_one() {
    let world = World::start().await;
    let base = format!("/sandboxes/{}/files", world.sandbox().await);
    world.post(&base, json!({"path": "/f", "content": "0123456789"}), 200).await;
    world.post(&base, json!({"path": "/empty", "content": ""}), 200).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let request = world.ask(method, &format!("{base}?path={path}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let told = (answer.status().as_u16(), header("content-range"), header("content-length"));
        assert!(told.0 >= 400 || header("accept-ranges").as_deref() == Some("bytes"), "{told:?}");
        (told, answer.text().await.unwrap())
    };
    let get = async |path: &str, range: &str| ask(Method::GET, path, &[("range", range)]).await;
    for (range, content_range, bytes) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=7-99999999999999999999999", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-99", "bytes 0-9/10", "0123456789"),
    ] {
        let length = Some(bytes.len().to_string());
        assert_eq!(
            get("/f", range).await,
            ((206, Some(content_range.to_owned()), length), bytes.to_owned()),
            "{range}"
        );
    }
    // What is no single range of bytes is passed over.
    for range in ["bytes=4-2", "bytes=1-2,4-5", "lines=1-2", "bytes=", "bytes=-", "bytes=x-2", "bytes 1-2"] {
        assert_eq!(get("/f", range).await, ((200, None, None), "0123456789".to_owned()), "{range}");
    }
    for (path, range, size) in [
        ("/f", "bytes=10-", 10),
        ("/f", "bytes=99-100", 10),
        ("/f", "bytes=-0", 10),
        ("/empty", "bytes=0-", 0),
        ("/empty", "bytes=-1", 0),
    ] {
        let ((status, content_range, _), body) = get(path, range).await;
        assert_eq!((status, content_range), (416, Some(format!("bytes */{size}"))), "{path} {range}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["code"], "RANGE_NOT_SATISFIABLE");
    }
    assert_eq!(ask(Method::HEAD, "/f", &[("range", "bytes=2-4")]).await.0.0, 200);
    assert_eq!(get("/none", "bytes=2-4").await.0.0, 404);
    // A version that is not that of the file has the whole sent.
    for version in ["\"x\"", "W/\"x\"", "*", "Fri, 02 Jan 2026 03:04:05 GMT"] {
        let answer = ask(Method::GET, "/f", &[("range", "bytes=2-4"), ("if-range", version)]).await;
        assert_eq!(answer, ((200, None, None), "0123456789".to_owned()), "{version}");
    }
}
