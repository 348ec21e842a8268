//! An attachment to an exec: its output comes, input goes, over as many connections as that takes.

use std::time::Duration;

use api_types::{EndRecord, ErrorBody, Exec, OutputStream};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::error::ClientError;
use crate::frames::{AttachInput, Frame};
use crate::offsets::Offsets;
use crate::patience::{Patience, Reopening};
use crate::websocket::{Connection, Received};

/// How long an exec that was just started may be unknown.
const NEW: Duration = Duration::from_secs(10);
/// Codes of a close, RFC 6455 and its registry.
const ABNORMAL: u16 = 1006;
const POLICY: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;

/// How to attach to an exec.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// The exec.
    pub exec: String,
    /// From where on its output is wanted.
    pub offsets: Offsets,
    /// Whether to watch only.
    pub read_only: bool,
    /// Whether it was just started: then a server may not know it for a moment.
    pub is_new: bool,
}

/// What comes of an attachment.
#[derive(Debug, Clone, PartialEq)]
pub enum AttachUpdate {
    /// A connection is there, the first one or another. What the record says of the exec.
    Attached(Box<Exec>),
    /// It wrote something. Each byte comes once.
    Output {
        /// To which stream.
        stream: OutputStream,
        /// Where the first byte stands in the stream.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// These bytes are not in the record any more.
    Gone {
        /// Of which stream.
        stream: OutputStream,
        /// The first one that is missing.
        from: u64,
        /// The first one that is there.
        to: u64,
    },
    /// Something that was sent was not done.
    Refused(ErrorBody),
    /// The connection broke, for this reason, or because too much had not been taken from it. The attachment goes on by
    /// itself: output is not lost, but nobody can say how much of the input that was under way has arrived.
    Interrupted(Option<String>),
    /// There is a connection again. What the server says of the exec comes next.
    Reconnected,
    /// There is room for something to be sent.
    Room,
    /// The exec is over.
    Ended(EndRecord),
}

/// A connection to an exec that is made again when it breaks. Dropping it leaves the exec running.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
/// use client::{AttachInput, AttachRequest, AttachUpdate, ExecRequest};
///
/// let exec = client.start_exec("sb-1", &ExecRequest::argv(["cat"]).stdin()).await?;
/// let mut attachment = client.attach(AttachRequest::to_new(exec)).await?;
/// let mut input = vec![AttachInput::StdinClose, AttachInput::Stdin("hello\n".into())];
/// loop {
///     match attachment.next(!input.is_empty(), true).await? {
///         AttachUpdate::Room => {
///             if let Some(next) = input.pop() {
///                 attachment.send(next);
///             }
///         }
///         AttachUpdate::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(&bytes)),
///         AttachUpdate::Ended(end) => break println!("{:?}", end.exit_code),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Attachment {
    client: Client,
    request: AttachRequest,
    link: Link,
    reopening: Reopening,
}

enum Link {
    Up(Connection),
    /// The next update says so.
    Broken(String),
    Down(BoxFuture<'static, (Result<Connection, ClientError>, Reopening)>),
    Over,
}

impl AttachRequest {
    /// To an exec that is known, from its first byte on.
    pub fn to(exec: impl Into<String>) -> Self {
        Self { exec: exec.into(), offsets: Offsets::default(), read_only: false, is_new: false }
    }

    /// To an exec that was just started.
    pub fn to_new(exec: impl Into<String>) -> Self {
        Self { is_new: true, ..Self::to(exec) }
    }
}

impl Client {
    /// Attaches to an exec. The first connection must succeed.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, ClientError> {
        let mut patience = Patience::new(NEW);
        let connection = loop {
            match connect(self, &request).await {
                Err(error) if request.is_new && (error.is_not_found() || error.is_passing()) => {
                    if !patience.again().await {
                        return Err(error);
                    }
                }
                outcome => break outcome?,
            }
        };
        let mut reopening = Reopening::new(self.patience());
        reopening.opened();
        let client = self.clone();
        Ok(Attachment { client, request, link: Link::Up(connection), reopening })
    }
}

impl Attachment {
    /// What comes next. With `wants_room` also that something can be sent; without `takes_output` the server is made to
    /// wait with what it has to say. An error is the end. Cancel safe.
    pub async fn next(&mut self, wants_room: bool, takes_output: bool) -> Result<AttachUpdate, ClientError> {
        loop {
            match &mut self.link {
                Link::Up(connection) => match connection.next(wants_room, takes_output).await {
                    Ok(None) => return Ok(AttachUpdate::Room),
                    Ok(Some(Received::Message(message))) => {
                        if let Some(update) = self.take(message)? {
                            return Ok(update);
                        }
                    }
                    Ok(Some(Received::Closed(words))) => {
                        let (code, reason) = match words {
                            Some(words) => (u16::from(words.code), words.reason.to_string()),
                            None => (ABNORMAL, String::new()),
                        };
                        return match code {
                            // A viewer's link that has expired, say.
                            POLICY => {
                                self.link = Link::Over;
                                Err(ClientError::Closed(reason))
                            }
                            TRY_AGAIN_LATER => Ok(self.interrupt(None)),
                            _ => Ok(self.interrupt(Some("the server closed the connection".to_owned()))),
                        };
                    }
                    Err(error) => return Ok(self.interrupt(Some(error.to_string()))),
                },
                Link::Broken(why) => {
                    let why = std::mem::take(why);
                    return Ok(self.interrupt(Some(why)));
                }
                Link::Down(attempt) => {
                    let (outcome, reopening) = attempt.await;
                    self.reopening = reopening;
                    return match outcome {
                        Ok(connection) => {
                            self.link = Link::Up(connection);
                            Ok(AttachUpdate::Reconnected)
                        }
                        Err(error) => {
                            self.link = Link::Over;
                            Err(error)
                        }
                    };
                }
                Link::Over => return Err(ClientError::Closed("the attachment is over".to_owned())),
            }
        }
    }

    /// Sends something. It is taken where the last update was [`AttachUpdate::Room`]; without a connection it is not.
    pub fn send(&mut self, input: AttachInput) -> bool {
        let Link::Up(connection) = &mut self.link else {
            return false;
        };
        if let Err(error) = connection.send(input.into_message()) {
            self.link = Link::Broken(error.to_string());
        }
        true
    }

    /// Where the reading of its output stands.
    pub const fn offsets(&self) -> Offsets {
        self.request.offsets
    }

    /// Says farewell to the server. Takes half a second at most.
    pub async fn close(&mut self) {
        if let Link::Up(connection) = &mut self.link {
            connection.close().await;
        }
        self.link = Link::Over;
    }

    fn take(&mut self, message: Message) -> Result<Option<AttachUpdate>, ClientError> {
        let frame = match message {
            Message::Binary(frame) => Frame::read(frame)?,
            Message::Text(text) => Frame::control(text.as_bytes())?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Frame::Other,
        };
        Ok(match frame {
            Frame::Attached(attached) => Some(AttachUpdate::Attached(attached.exec)),
            Frame::Output { stream, offset, bytes } => {
                self.reopening.progressed();
                let (offset, bytes) = self.request.offsets.take(stream, offset, bytes)?;
                (!bytes.is_empty()).then_some(AttachUpdate::Output { stream, offset, bytes })
            }
            Frame::Gone { stream, to } => {
                let from = self.request.offsets.pass_over(stream, to);
                from.map(|from| AttachUpdate::Gone { stream, from, to })
            }
            Frame::Refused(error) => Some(AttachUpdate::Refused(error)),
            Frame::Ended(end) => Some(AttachUpdate::Ended(end)),
            Frame::Other => None,
        })
    }

    fn interrupt(&mut self, why: Option<String>) -> AttachUpdate {
        let (client, request) = (self.client.clone(), self.request.clone());
        let mut reopening = std::mem::replace(&mut self.reopening, Reopening::new(client.patience()));
        self.link = Link::Down(Box::pin(async move {
            if !reopening.broke().await {
                let error = ClientError::Broken("each time that it is opened it ends at once".into());
                return (Err(error), reopening);
            }
            loop {
                match connect(&client, &request).await {
                    Err(error) if error.is_passing() || request.is_new && error.is_not_found() => {
                        if !reopening.failed().await {
                            return (Err(error), reopening);
                        }
                    }
                    outcome => {
                        reopening.opened();
                        return (outcome, reopening);
                    }
                }
            }
        }));
        AttachUpdate::Interrupted(why)
    }
}

async fn connect(client: &Client, request: &AttachRequest) -> Result<Connection, ClientError> {
    let mut url = client.url(&["execs", &request.exec, "attach"]);
    url.query_pairs_mut()
        .append_pair("mode", if request.read_only { "ro" } else { "rw" })
        .append_pair("stdout_offset", &request.offsets.stdout.to_string())
        .append_pair("stderr_offset", &request.offsets.stderr.to_string());
    Connection::open(client, url).await
}
