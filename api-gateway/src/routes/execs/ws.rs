//! `GET /sandboxes/{id}/exec/ws`

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use events::{EventData, ExecEvent, ExecId, NodeId, OutputStream, SandboxState};
use feed::{After, FeedReader, Topic};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use transport::LinkOp;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::{Input, InputQueue, Target};
use crate::exec::start::start_fresh;
use crate::extract::SandboxPath;
use crate::gateway::Gateway;
use crate::stream::exec::{ExecRecord, ExecRecords};
use crate::stream::socket::{First, Listener, Socket, Speaker, Terms, Upgrade, Word};
use crate::stream::ws_frame::{ClientFrame, Framing, Opening, opening};
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
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade?;
    let place = gateway.placed_sandbox(&caller, id).await?;
    let sessions = gateway.sessions().clone();
    Ok(upgrade.accept(&sessions, None, MAX_FRAME_BYTES, move |socket| {
        serve(gateway, caller, place, unread, socket)
    }))
}

async fn serve(
    gateway: Gateway,
    caller: Caller,
    place: (Arc<SandboxState>, NodeId),
    unread: Unread,
    socket: Socket,
) {
    let terms = Terms::of(&gateway);
    let (first, socket) = match socket.first(OPENING_PATIENCE, gateway.closing()).await {
        First::Message(frame, socket) => (opening(&frame, &gateway.config().execs, &unread), socket),
        First::Nothing(socket) => (Err(ApiError::bad_request("no exec request came")), socket),
        First::Stopping(socket) => (Err(ApiError::unavailable("the gateway stops")), socket),
        First::Closed => return,
    };
    let Opening { framing, runnable } = match first {
        Ok(opening) => opening,
        Err(failure) => return socket.refuse(&terms, failure).await,
    };
    let exec = ExecId::new();
    let started = gateway.feed().subscribe(Topic::Exec(exec), After::Now);
    let (output, asked) = match start_fresh(&gateway, &caller, (&place.0, &place.1), exec, runnable).await {
        Ok(started) => started,
        Err(failure) => return socket.refuse(&terms, failure).await,
    };
    let closing = gateway.closing().clone();
    let records = ExecRecords::new(exec, output, gateway.config().heartbeat, closing).asked_for(Some(asked));
    let speaker = Records { framing, records, next: [0, 0], is_announced: false, last: Word::Done };
    let target = Target { gateway, caller, sandbox: place.0.id, exec };
    let (failures, _) = mpsc::channel(1);
    let started = Some(started);
    let listener = Typist { framing, target, started, failures, input: None, is_over: false, unread };
    // That the gateway stops is said by the records, as their last one.
    let terms = Terms { stop: None, ..terms };
    let (_, no_asides) = mpsc::channel(1);
    socket.converse(terms, speaker, listener, no_asides).await;
}

/// Says the records of an exec. The reader falls back to the record, so a slow client costs no memory.
struct Records {
    framing: Framing,
    records: ExecRecords,
    /// What follows on what was said of stdout and of stderr.
    next: [u64; 2],
    is_announced: bool,
    /// What to say when there are no more.
    last: Word,
}

impl Speaker for Records {
    async fn next(&mut self) -> Word {
        if !std::mem::replace(&mut self.is_announced, true)
            && let Some(started) = self.framing.started(self.records.exec())
        {
            return Word::Say(started);
        }
        match self.records.next().await {
            Some(ExecRecord::Output(stream, chunk)) => {
                self.next[index(stream)] = chunk.next_offset();
                Word::Say(self.framing.output(stream, &chunk))
            }
            Some(ExecRecord::Gone(gone)) => {
                self.next[usize::from(gone.stream == api_types::OutputStream::Stderr)] = gone.next_offset;
                Word::Say(Framing::gone(&gone))
            }
            Some(ExecRecord::Silence) => Word::Say(Message::Ping(Bytes::new())),
            Some(ExecRecord::End(end)) => {
                if end.is_interruption() {
                    self.last = Word::Stopping;
                }
                Word::Say(self.framing.end(*end))
            }
            None => std::mem::replace(&mut self.last, Word::Done),
        }
    }

    fn cursor(&self) -> String {
        let [stdout, stderr] = self.next;
        format!(
            "{{\"exec_id\":\"{}\",\"stdout_offset\":{stdout},\"stderr_offset\":{stderr}}}",
            self.records.exec()
        )
    }
}

/// Takes what the client types.
struct Typist {
    framing: Framing,
    target: Target,
    /// Until it is known that the exec has started.
    started: Option<FeedReader>,
    failures: mpsc::Sender<ErrorBody>,
    input: Option<InputQueue>,
    /// It ended before it started.
    is_over: bool,
    unread: Unread,
}

impl Listener for Typist {
    async fn hear(&mut self, message: Message) -> Result<(), ApiError> {
        if self.framing == Framing::Plain {
            return Ok(());
        }
        if let Some(mut started) = self.started.take() {
            // The first event of an exec is one or the other.
            let first = started.next().await;
            self.is_over = !first
                .is_ok_and(|recorded| matches!(recorded.event.data, EventData::Exec(ExecEvent::Started(_))));
        }
        let frame = if let Message::Text(text) = message {
            ClientFrame::read(&text, &self.unread)?
        } else {
            ClientFrame::Stdin(message.into_data())
        };
        if self.is_over {
            return Ok(());
        }
        let exec = self.target.exec;
        match frame {
            ClientFrame::Stdin(bytes) => self.input().push(Input::Bytes(bytes)).await,
            ClientFrame::StdinClose => self.input().push(Input::Close).await,
            ClientFrame::Resize(size) => self.forward(LinkOp::Resize { exec, size }).await,
            ClientFrame::Signal(signal) => self.forward(LinkOp::Signal { exec, signal }).await,
        }
        Ok(())
    }

    async fn settle(self) {
        if let Some(input) = self.input {
            input.finish().await;
        }
    }
}

impl Typist {
    fn input(&mut self) -> &InputQueue {
        self.input.get_or_insert_with(|| {
            let (_, started) = watch::channel(true);
            InputQueue::open(self.target.clone(), started, self.failures.clone())
        })
    }

    /// A resize without a terminal and a signal to a process that has just ended are no reason to give up.
    async fn forward(&self, op: LinkOp) {
        if let Err(error) = self.target.gateway.call(&self.target.caller, self.target.sandbox, op).await {
            tracing::debug!(error = %error, "not delivered to the exec");
        }
    }
}

const fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}
