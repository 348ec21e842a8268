//! `GET /sandboxes/{id}/exec/ws`

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use events::{After, EventData, ExecId, FeedReader, LinkOp, NodeId, SandboxId, SandboxState, Topic};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::{Input, InputQueue, Target};
use crate::exec::start::start_fresh;
use crate::extract::SandboxPath;
use crate::gateway::Gateway;
use crate::stream::exec::{ExecRecord, ExecRecords};
use crate::stream::socket::CLOSING_PATIENCE;
use crate::stream::ws_frame::{ClientFrame, Framing, Opening, error, opening};
use crate::strict::Unread;

/// The largest frame that a client may send, in bytes.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// How long a client may take to say what it wants.
const OPENING_PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command over a WebSocket. The first frame is an exec request; with `"type": "start"` in it the connection also
/// takes `stdin`, `stdin_close`, `resize` and `signal`.
///
/// A client that goes away does not end the command: see `/execs/{id}`.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/exec/ws",
    tag = "execs",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket request", body = ErrorBody),
        (status = 403, description = "A foreign origin", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn ws(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    unread: Unread,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let place = gateway.placed_sandbox(&caller.tenant, id).await?;
    let span = tracing::Span::current();
    Ok(upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES).on_upgrade(move |socket| {
        let sessions = gateway.sessions().clone();
        sessions.track_future(serve(gateway, caller, place, unread, socket).instrument(span))
    }))
}

async fn serve(
    gateway: Gateway,
    caller: Caller,
    place: (Arc<SandboxState>, NodeId),
    unread: Unread,
    mut socket: WebSocket,
) {
    let opened = tokio::select! {
        frame = first_frame(&mut socket) => match frame {
            Some(frame) => opening(&frame, &gateway.config().execs, &unread),
            None => return,
        },
        () = tokio::time::sleep(OPENING_PATIENCE) => Err(ApiError::bad_request("no exec request came")),
        () = gateway.closing().cancelled() => Err(ApiError::unavailable("the gateway stops")),
    };
    let Opening { framing, runnable } = match opened {
        Ok(opening) => opening,
        Err(failure) => return refuse(socket, failure).await,
    };
    let exec = ExecId::new();
    let started = gateway.feed().subscribe(Topic::Exec(exec), After::Now);
    let output = match start_fresh(&gateway, &caller, (&place.0, &place.1), exec, runnable).await {
        Ok(output) => output,
        Err(failure) => return refuse(socket, failure).await,
    };
    let records = ExecRecords::new(exec, output, gateway.config().heartbeat, gateway.closing().clone());
    let (sink, stream) = socket.split();
    let session = Session { gateway, caller, sandbox: place.0.id, exec };
    let input =
        AbortOnDropHandle::new(tokio::spawn(session.listen(framing, stream, started).in_current_span()));
    send(sink, framing, records, input).await;
}

async fn first_frame(socket: &mut WebSocket) -> Option<Bytes> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(text.into()),
            Ok(Message::Binary(bytes)) => return Some(bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}

async fn refuse(mut socket: WebSocket, failure: ApiError) {
    let closing = close(close_code::POLICY, "refused");
    // A client that is gone cannot be told.
    if socket.send(error(failure.into_body())).await.is_ok() && socket.send(closing).await.is_ok() {
        let _ =
            tokio::time::timeout(CLOSING_PATIENCE, async { while let Some(Ok(_)) = socket.recv().await {} })
                .await;
    }
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

/// Sends records as the socket takes them. The reader falls back to the record, so a slow client costs no memory.
async fn send(
    mut sink: SplitSink<WebSocket, Message>,
    framing: Framing,
    mut records: ExecRecords,
    mut input: AbortOnDropHandle<Result<(), ApiError>>,
) {
    if let Some(started) = framing.started(records.exec())
        && sink.send(started).await.is_err()
    {
        return;
    }
    let mut last = close_code::NORMAL;
    loop {
        let record = tokio::select! {
            biased;
            record = records.next() => record,
            listened = &mut input => {
                // The client is gone, or talks nonsense. The command goes on.
                if let Ok(Err(failure)) = listened {
                    let _ = sink.send(error(failure.into_body())).await;
                    let _ = sink.send(close(close_code::POLICY, "a frame that cannot be read")).await;
                }
                return;
            }
        };
        let sent = match record {
            Some(ExecRecord::Output(stream, chunk)) => sink.send(framing.output(stream, &chunk)).await,
            Some(ExecRecord::Gone(gone)) => sink.send(Framing::gone(&gone)).await,
            Some(ExecRecord::Silence) => sink.send(Message::Ping(Bytes::new())).await,
            Some(ExecRecord::End(end)) => {
                if end.is_interrupted() {
                    last = close_code::RESTART;
                }
                sink.send(framing.end(*end)).await
            }
            None => break,
        };
        if sent.is_err() {
            return;
        }
    }
    if sink.send(close(last, "")).await.is_ok() {
        // Closing with unread frames would reset the connection, and the client could lose what it has not read yet.
        let _ = tokio::time::timeout(CLOSING_PATIENCE, input).await;
    }
}

struct Session {
    gateway: Gateway,
    caller: Caller,
    sandbox: SandboxId,
    exec: ExecId,
}

impl Session {
    /// Takes what the client says, until it goes.
    async fn listen(
        self,
        framing: Framing,
        mut stream: SplitStream<WebSocket>,
        mut started: FeedReader,
    ) -> Result<(), ApiError> {
        if framing == Framing::Documented && !self.wait_until_started(&mut started).await {
            return self.drain(stream).await;
        }
        drop(started);
        let (failures, _) = mpsc::channel(1);
        let (_, started) = watch::channel(true);
        let queue = InputQueue::open(self.target(), started, failures);
        while let Some(Ok(message)) = stream.next().await {
            let frame = match message {
                Message::Text(_) | Message::Binary(_) if framing == Framing::Plain => continue,
                Message::Text(text) => ClientFrame::read(&text)?,
                Message::Binary(bytes) => ClientFrame::Stdin(bytes),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => break,
            };
            match frame {
                ClientFrame::Stdin(bytes) => queue.push(Input::Bytes(bytes)).await,
                ClientFrame::StdinClose => queue.push(Input::Close).await,
                ClientFrame::Resize(size) => self.tell(LinkOp::Resize { exec: self.exec, size }).await,
                ClientFrame::Signal(signal) => self.tell(LinkOp::Signal { exec: self.exec, signal }).await,
            }
        }
        Ok(())
    }

    fn target(&self) -> Target {
        Target {
            gateway: self.gateway.clone(),
            caller: self.caller.clone(),
            sandbox: self.sandbox,
            exec: self.exec,
        }
    }

    /// False: it ended before it started. The first event of an exec is one or the other.
    async fn wait_until_started(&self, events: &mut FeedReader) -> bool {
        let first = events.next().await;
        first.is_ok_and(|recorded| matches!(recorded.event.data, EventData::ExecStarted(_)))
    }

    async fn drain(&self, mut stream: SplitStream<WebSocket>) -> Result<(), ApiError> {
        while let Some(Ok(_)) = stream.next().await {}
        Ok(())
    }

    /// A resize without a terminal and a signal to a process that has just ended are no reason to give up.
    async fn tell(&self, op: LinkOp) {
        if let Err(error) = self.gateway.call(&self.caller, self.sandbox, op).await {
            tracing::debug!(error = %error, "not delivered to the exec");
        }
    }
}
