//! Execs over a WebSocket.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::world::{BLUE, RED, World};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn dial(world: &World, sandbox: &str, key: &str, origin: Option<&str>) -> Result<Socket, u16> {
    let url = world.url(&format!("/sandboxes/{sandbox}/exec/ws")).replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", key.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// All JSON frames, and how it was closed.
async fn frames(socket: &mut Socket) -> (Vec<Value>, Option<CloseCode>) {
    let mut frames = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(close))) => return (frames, close.map(|close| close.code)),
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => return (frames, None),
        }
    }
}

async fn say(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

#[tokio::test]
async fn the_first_frame_chooses_between_two_framings() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut plain = dial(&world, &sandbox, RED, None).await.unwrap();
    say(&mut plain, json!({"command": "hello"})).await;
    let (got, close) = frames(&mut plain).await;
    assert_eq!(close, Some(CloseCode::Normal));
    assert_eq!(got[0], json!({"stream": "stdout", "data": "hello\n", "offset": 0, "next_offset": 6}));
    assert_eq!((&got[2]["type"], &got[2]["exit_code"], got.len()), (&json!("done"), &json!(3), 3));

    let mut documented = dial(&world, &sandbox, RED, None).await.unwrap();
    say(&mut documented, json!({"type": "start", "command": "hello"})).await;
    let (got, _) = frames(&mut documented).await;
    let types: Vec<&Value> = got.iter().map(|frame| &frame["type"]).collect();
    assert_eq!(json!(types), json!(["started", "stdout", "stderr", "exit"]));
    assert_eq!(got[3]["exit_code"], 3);
}

#[tokio::test]
async fn what_cannot_be_run_is_told_in_a_frame() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (first, code) in [
        (json!({"command": null}), "BAD_REQUEST"),
        (json!({"type": "stop"}), "BAD_REQUEST"),
        (json!([]), "BAD_REQUEST"),
        (json!({"command": "fail"}), "BAD_REQUEST"),
        (json!({"type": "start", "command": "vanish"}), "CONFLICT"),
    ] {
        let mut socket = dial(&world, &sandbox, RED, None).await.unwrap();
        say(&mut socket, first.clone()).await;
        let (got, _) = frames(&mut socket).await;
        let last = got.last().unwrap();
        assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!(code)), "{first}");
    }
    let mut socket = dial(&world, &sandbox, RED, None).await.unwrap();
    say(&mut socket, json!({"type": "start", "command": "hang"})).await;
    say(&mut socket, json!({"type": "resize", "rows": 1, "cols": 1})).await;
    say(&mut socket, json!({"type": "nonsense"})).await;
    let (got, close) = frames(&mut socket).await;
    assert_eq!((&got.last().unwrap()["type"], close), (&json!("error"), Some(CloseCode::Policy)));
}

#[tokio::test]
async fn the_door_is_as_narrow_as_for_everything_else() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (key, origin, status) in [
        ("wrong", None, 401),
        (BLUE, None, 404),
        (RED, Some("https://evil.example"), 403),
        (RED, Some("null"), 403),
    ] {
        assert_eq!(dial(&world, &sandbox, key, origin).await.err(), Some(status), "{key} {origin:?}");
    }
    let own = format!("http://{}", world.address);
    assert!(dial(&world, &sandbox, RED, Some(&own)).await.is_ok());
}

#[tokio::test]
async fn a_gateway_that_stops_closes_with_1012() {
    let mut world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut waiting = dial(&world, &sandbox, RED, None).await.unwrap();
    let mut socket = dial(&world, &sandbox, RED, None).await.unwrap();
    say(&mut socket, json!({"command": "hang"})).await;
    let first = socket.next().await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("up"));
    world.stop.cancel();
    let (got, close) = frames(&mut socket).await;
    assert_eq!((&got.last().unwrap()["outcome"], close), (&json!("interrupted"), Some(CloseCode::Restart)));
    assert_eq!(frames(&mut waiting).await.0[0]["code"], "UNAVAILABLE");
    drop((socket, waiting));
    world.serving.take().unwrap().await.unwrap().unwrap();
}
