//! Bodies that are too large.

use reqwest::{Body, Method};
use serde_json::json;

use super::world::{World, error};

#[tokio::test]
async fn a_body_over_the_limit_is_told_even_while_it_is_being_sent() {
    let world = World::with(|config| config.max_file_body_bytes = 2 << 20, true).await;
    let sandbox = world.sandbox().await;
    let huge = || "x".repeat(30 << 20);
    for path in
        ["/sandboxes".to_owned(), format!("/sandboxes/{sandbox}/exec"), format!("/sandboxes/{sandbox}/files")]
    {
        let request = world.ask(Method::POST, &path).body(format!("{{\"content\":\"{}\"}}", huge()));
        assert_eq!(error(request, 413).await, "TOO_LARGE", "{path}");
        let parts = futures::stream::iter((0..30).map(|_| Ok::<_, std::io::Error>("{".repeat(1 << 20))));
        let request = world.ask(Method::POST, &path).body(Body::wrap_stream(parts));
        assert_eq!(error(request, 413).await, "TOO_LARGE", "{path} in pieces");
    }
    // The answer to an upload that is refused for another reason arrives too.
    let upload = world.ask(Method::PUT, "/sandboxes/sb-none/files?path=/a").body(huge());
    assert_eq!(error(upload, 404).await, "NOT_FOUND");
    let upload = world.ask_bare(Method::PUT, "/sandboxes/sb-none/files?path=/a").body(huge());
    assert_eq!(error(upload, 401).await, "UNAUTHORIZED");
}

#[tokio::test]
async fn an_upload_may_have_a_limit_of_its_own() {
    let world = World::with(|config| config.max_upload_bytes = Some(1000), true).await;
    let sandbox = world.sandbox().await;
    let upload = || world.ask(Method::PUT, &format!("/sandboxes/{sandbox}/files?path=/a"));
    assert_eq!(error(upload().body("x".repeat(1001)), 413).await, "TOO_LARGE");
    let parts = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>("x".repeat(400))));
    assert_eq!(error(upload().body(Body::wrap_stream(parts)), 413).await, "TOO_LARGE");
    let missing = world.ask(Method::GET, &format!("/sandboxes/{sandbox}/files/stat?path=/a"));
    assert_eq!(error(missing, 404).await, "NOT_FOUND");
    assert_eq!(super::world::json(upload().body("x".repeat(1000)), 200).await, json!({"status": "written"}));
}
