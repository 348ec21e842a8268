//! A command that takes input: the documented framing of the WebSocket endpoint.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use events::RequestId;
use futures::stream::{self, SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::header::HeaderValue;
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::task::AbortOnDropHandle;

use super::api::{Api, REQUEST_ID};
use super::command::ExecRequest;
use super::error::ClientError;
use super::ndjson::Records;
use super::record::Record;
use super::stdin::read_stdin;
use super::terminal::{self, Size};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server pings at least every 15 s or so. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(90);

/// Starts a command that gets our stdin.
pub async fn start(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    terminal: Option<Size>,
) -> Result<Records, ClientError> {
    let mut socket = connect(api, sandbox).await?;
    socket.send(Message::text(first_frame(request, terminal)?)).await.map_err(broken)?;
    let (sink, stream) = socket.split();
    let input = read_stdin().map_err(ClientError::local("cannot start a thread"))?;
    let resizes = match terminal {
        Some(_) => Some(terminal::resizes().map_err(ClientError::local("cannot catch signals"))?),
        None => None,
    };
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(input, resizes, sink)));
    Ok(records(stream, pump))
}

fn first_frame(request: &ExecRequest, terminal: Option<Size>) -> Result<String, ClientError> {
    #[derive(serde::Serialize)]
    struct Start<'a> {
        r#type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        tty: Option<Size>,
        #[serde(flatten)]
        request: &'a ExecRequest,
    }
    serde_json::to_string(&Start { r#type: "start", tty: terminal, request })
        .map_err(|error| ClientError::Unexpected(error.to_string()))
}

async fn connect(api: &Api, sandbox: &str) -> Result<Socket, ClientError> {
    let mut url = api.url(&["sandboxes", sandbox, "exec", "ws"]);
    url.set_scheme("ws")
        .map_err(|()| ClientError::Usage("the server's address is not one of HTTP".to_owned()))?;
    let mut request =
        url.as_str().into_client_request().map_err(|error| ClientError::Usage(error.to_string()))?;
    let headers = request.headers_mut();
    headers.extend(api.key_header());
    if let Ok(id) = HeaderValue::from_str(RequestId::new().as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let (parts, body) = response.into_parts();
            let id = parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("unknown");
            Err(ClientError::refused(parts.status, id, &body.unwrap_or_default()))
        }
        Err(tungstenite::Error::Io(error)) => Err(api.unreachable(error.into())),
        Err(error) => Err(ClientError::Broken(error.into())),
    }
}

fn broken(error: tungstenite::Error) -> ClientError {
    ClientError::Broken(error.into())
}

/// Carries input to the server, then its end; and new sizes of the terminal.
async fn pump(
    mut input: mpsc::Receiver<io::Result<Bytes>>,
    mut resizes: Option<Signal>,
    mut sink: SplitSink<Socket, Message>,
) {
    let mut open = true;
    while open || resizes.is_some() {
        let resized = async {
            match &mut resizes {
                Some(resizes) => resizes.recv().await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            bytes = input.recv(), if open => match bytes {
                Some(Ok(bytes)) => Message::Binary(bytes),
                // Input that cannot be read is over for the command too.
                Some(Err(_)) | None => {
                    open = false;
                    Message::text(r#"{"type":"stdin_close"}"#)
                }
            },
            Some(()) = resized => {
                let Size { rows, cols } = terminal::size();
                Message::text(format!(r#"{{"type":"resize","rows":{rows},"cols":{cols}}}"#))
            }
            else => return,
        };
        if sink.send(message).await.is_err() {
            // The reading side gets to know why.
            return;
        }
    }
}

fn records(stream: SplitStream<Socket>, pump: AbortOnDropHandle<()>) -> Records {
    stream::try_unfold((stream, pump), |(mut stream, pump)| async move {
        loop {
            let message = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Some(message)) => message.map_err(broken)?,
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(ClientError::Broken(
                        format!("nothing came for {} s", SILENCE.as_secs()).into(),
                    ));
                }
            };
            let record = match message {
                Message::Text(text) => Record::read(text.as_bytes())?,
                Message::Binary(bytes) => Record::read(&bytes)?,
                Message::Close(_) => return Ok(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
            };
            if let Some(record) = record {
                return Ok(Some((record, (stream, pump))));
            }
        }
    })
    .boxed()
}
