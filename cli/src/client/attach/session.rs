//! An attachment: what comes is written, what is typed is sent, over as many connections as that takes.
//!
//! Output is taken by its offset, so that each byte is written once. Input is given to a connection once and never again:
//! what was under way when a connection broke may be lost, but is never doubled. What is typed while there is no
//! connection is kept and sent after it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::frames::{Attached, Frame, Outgoing};
use super::outage::{self, Change, Outage};
use super::screen::Screen;
use crate::client::api::Api;
use crate::client::error::ClientError;
use crate::client::offsets::Offsets;
use crate::client::record::End;
use crate::client::stdin::read_stdin;
use crate::client::terminal::{self, DetachKeys, Typed, Typing};
use crate::client::websocket::{Connection, Received};
use crate::output::{self, Format, LiveOutput, Target};

/// Input that waits to be sent, in bytes. Beyond that a pipe waits, and a terminal rings its bell.
const MAX_WAITING: usize = 64 << 10;
/// A connection that ends as soon as it is there would be made again and again.
const SHORT_LIVED: Duration = Duration::from_millis(500);
/// Codes of a close, RFC 6455 and its registry.
const ABNORMAL: u16 = 1006;
const POLICY: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;
/// Input that a connection took so long before it broke has arrived.
const ARRIVED: Duration = Duration::from_secs(10);

/// What to do with an exec.
#[derive(Debug)]
pub struct Plan {
    pub target: outage::Target,
    /// From where on its output is wanted.
    pub offsets: Offsets,
    /// Whether the program has a terminal, and ours is lent to it.
    pub is_terminal: bool,
    /// Whether what is recorded comes to a clean screen, so that it looks as it did.
    pub is_rebuilt: bool,
    /// Whether our stdin is for the program.
    pub is_fed: bool,
    pub keys: DetachKeys,
    pub format: Format,
}

/// How it came to an end.
#[derive(Debug)]
pub enum Finish {
    /// The exec is over.
    Ended(End),
    /// The user left it.
    Detached,
}

/// An attachment. Giving it up gives the terminal back.
pub struct Session<'a> {
    api: &'a Api,
    plan: Plan,
    screen: Screen<'a>,
    offsets: Offsets,
    link: Link,
    connected_at: Instant,
    is_greeted: bool,
    input: Option<mpsc::Receiver<io::Result<Bytes>>>,
    typing: Typing,
    waiting: VecDeque<Outgoing>,
    waiting_bytes: usize,
    input_sent_at: Option<Instant>,
    /// Whether the end of input was sent.
    is_closed: bool,
    size_sent_at: Option<Instant>,
    resizes: Option<Signal>,
    continuations: Option<Signal>,
}

enum Link {
    Up(Connection),
    Down(Box<Outage>),
}

enum Event {
    Output(io::Error),
    HasRoom,
    Input(Option<io::Result<Bytes>>),
    Resized,
    Continued,
    /// The connection has room for a message.
    CanSend,
    Received(Received),
    Broken(ClientError),
    Back(Connection),
    LongOutage,
    GivenUp(ClientError),
}

impl<'a> Session<'a> {
    /// Takes over what the plan needs of our terminal.
    pub fn new(
        api: &'a Api,
        plan: Plan,
        out: &'a LiveOutput,
        connection: Connection,
    ) -> Result<Self, ClientError> {
        let screen = Screen::new(out, plan.format, plan.is_terminal)?;
        let signals = ClientError::local("cannot catch signals");
        let (resizes, continuations) = match screen.is_raw() {
            true => {
                let pair = terminal::resizes().and_then(|resizes| Ok((resizes, terminal::continuations()?)));
                let (resizes, continuations) = pair.map_err(signals)?;
                (Some(resizes), Some(continuations))
            }
            false => (None, None),
        };
        // A viewer's keys are for detaching.
        let input = match plan.is_fed || screen.is_raw() {
            true => Some(read_stdin().map_err(ClientError::local("cannot start a thread"))?),
            false => None,
        };
        Ok(Self {
            api,
            screen,
            offsets: plan.offsets,
            link: Link::Up(connection),
            connected_at: Instant::now(),
            is_greeted: false,
            input,
            typing: plan.keys.watch(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            input_sent_at: None,
            is_closed: false,
            size_sent_at: None,
            resizes,
            continuations,
            plan,
        })
    }

    /// Goes on until the exec ends or the user leaves it. May be dropped at any time.
    pub async fn run(&mut self) -> Result<Finish, ClientError> {
        loop {
            let finish = match self.next().await {
                Event::Output(error) => return Err(ClientError::output(error)),
                Event::HasRoom => None,
                Event::Input(read) => self.take_input(read),
                Event::Resized => {
                    self.tell_size();
                    None
                }
                Event::Continued => {
                    self.screen.resume();
                    self.tell_size();
                    None
                }
                Event::CanSend => {
                    self.send()?;
                    None
                }
                Event::Received(Received::Message(message)) => self.take(message)?,
                Event::Received(Received::Closed(words)) => {
                    let (code, reason) = match words {
                        Some(words) => (u16::from(words.code), words.reason.to_string()),
                        None => (ABNORMAL, "the connection ended".to_owned()),
                    };
                    match code {
                        // A viewer link that has expired, say.
                        POLICY => return Err(ClientError::Failed(reason)),
                        TRY_AGAIN_LATER => self.reconnect(None)?,
                        _ => self.reconnect(Some("the server closed the connection".to_owned()))?,
                    }
                    None
                }
                Event::Broken(error) => {
                    self.reconnect(Some(error.to_string()))?;
                    None
                }
                Event::Back(connection) => {
                    if let Link::Down(outage) = &self.link {
                        self.screen.erase(outage);
                    }
                    (self.link, self.connected_at) = (Link::Up(connection), Instant::now());
                    None
                }
                Event::LongOutage => {
                    if let Link::Down(outage) = &mut self.link {
                        self.screen.tell(outage);
                    }
                    None
                }
                Event::GivenUp(error) => return Err(error),
            };
            if let Some(finish) = finish {
                return Ok(finish);
            }
        }
    }

    /// Says farewell to the server.
    pub async fn close(&mut self) {
        self.screen.leave();
        if let Link::Up(connection) = &mut self.link {
            connection.close().await;
        }
    }

    async fn next(&mut self) -> Event {
        let may_send = !self.waiting.is_empty();
        let reads_input = self.screen.is_raw() || self.waiting_bytes < MAX_WAITING;
        let has_room = self.screen.has_room();
        let Self { screen, input, resizes, continuations, link, .. } = self;
        let talk = async {
            match link {
                Link::Up(connection) => match connection.next(may_send, has_room).await {
                    Ok(Some(received)) => Event::Received(received),
                    Ok(None) => Event::CanSend,
                    Err(error) => Event::Broken(error),
                },
                Link::Down(outage) => match outage.next().await {
                    Ok(Change::Over(connection)) => Event::Back(connection),
                    Ok(Change::Long) => Event::LongOutage,
                    Err(error) => Event::GivenUp(error),
                },
            }
        };
        tokio::select! {
            made = screen.make_room() => match made {
                Ok(()) => Event::HasRoom,
                Err(error) => Event::Output(error),
            },
            read = receive(input), if reads_input => Event::Input(read),
            () = signaled(resizes) => Event::Resized,
            () = signaled(continuations) => Event::Continued,
            event = talk => event,
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<Finish>, ClientError> {
        let frame = match message {
            Message::Binary(frame) => Frame::read(frame)?,
            Message::Text(text) => Frame::control(text.as_bytes())?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Frame::Other,
        };
        match frame {
            Frame::Attached(attached) => self.greet(&attached),
            Frame::Output { target, offset, bytes } => {
                let (offset, bytes) = self.offsets.take(target, Some(offset), bytes)?;
                self.screen.write(target, offset, bytes)?;
            }
            Frame::Gone { target, to } => {
                let at = match target {
                    Target::Stdout => &mut self.offsets.stdout,
                    Target::Stderr => &mut self.offsets.stderr,
                };
                if to > *at {
                    let missing = output::bytes(to - *at);
                    *at = to;
                    self.screen.note(&format!("{missing} of the output are not in the record any more"));
                }
            }
            // Input for one that has ended meanwhile: the end is told next.
            Frame::Refused(error) if error.code == "CONFLICT" => {}
            Frame::Refused(error) => {
                self.screen.bell();
                self.screen.note(&format!("{} ({})", error.message, error.code));
            }
            Frame::Ended(end) => {
                self.screen.finish();
                return Ok(Some(Finish::Ended(end)));
            }
            Frame::Other => {}
        }
        Ok(None)
    }

    /// The first frame of a connection.
    fn greet(&mut self, attached: &Attached) {
        let is_first = !std::mem::replace(&mut self.is_greeted, true);
        if !self.plan.is_terminal {
            return;
        }
        if is_first && self.plan.is_rebuilt {
            self.screen.rebuild(attached.exec.stdout_bytes);
        }
        // One that was just started began with our size. Later another viewer may have set another one, but what we told
        // a connection before it broke may never have arrived.
        let is_known = match is_first {
            true => self.plan.target.is_new && attached.exec.tty == terminal::known_size(),
            false => self.size_sent_at.is_none_or(|at| at.elapsed() > ARRIVED),
        };
        if !is_known {
            self.tell_size();
        }
    }

    fn take_input(&mut self, read: Option<io::Result<Bytes>>) -> Option<Finish> {
        // Input that cannot be read is over for the program too.
        let Some(Ok(bytes)) = read else {
            self.input = None;
            // The end of what is typed into a terminal is not the end of the terminal.
            if self.plan.is_fed && !self.plan.is_terminal {
                self.waiting.push_back(Outgoing::StdinClose);
            }
            return None;
        };
        if !self.screen.is_raw() {
            self.feed(bytes);
            return None;
        }
        match self.typing.take(&bytes) {
            Typed::Detach(_) => Some(Finish::Detached),
            Typed::Bytes(bytes) => {
                if !self.plan.is_fed {
                    // Ctrl-C would not reach the program, and shall not be without effect.
                    return bytes.contains(&3).then_some(Finish::Detached);
                }
                if self.waiting_bytes + bytes.len() > MAX_WAITING {
                    self.screen.bell();
                } else {
                    self.feed(bytes.into());
                }
                None
            }
        }
    }

    fn feed(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(Outgoing::Stdin(bytes));
        }
    }

    fn send(&mut self) -> Result<(), ClientError> {
        let Link::Up(connection) = &mut self.link else { return Ok(()) };
        let Some(outgoing) = self.waiting.pop_front() else { return Ok(()) };
        match &outgoing {
            Outgoing::Stdin(bytes) => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes.len());
                self.input_sent_at = Some(Instant::now());
            }
            Outgoing::StdinClose => self.is_closed = true,
            Outgoing::Resize(_) => self.size_sent_at = Some(Instant::now()),
        }
        match connection.send(outgoing.into_message()) {
            Ok(()) => Ok(()),
            Err(error) => self.reconnect(Some(error.to_string())),
        }
    }

    /// Of sizes that wait to be told, the last one counts.
    fn tell_size(&mut self) {
        if !self.plan.is_fed || !self.plan.is_terminal {
            return;
        }
        if let Some(size) = terminal::known_size() {
            self.waiting.retain(|outgoing| !matches!(outgoing, Outgoing::Resize(_)));
            self.waiting.push_back(Outgoing::Resize(size));
        }
    }

    fn reconnect(&mut self, why: Option<String>) -> Result<(), ClientError> {
        let is_pipe = self.plan.is_fed && !self.plan.is_terminal;
        if is_pipe && self.input_sent_at.is_some_and(|at| at.elapsed() < ARRIVED) {
            let message =
                "the connection broke while input was on its way: nobody can say how much of it arrived";
            return Err(ClientError::Failed(message.to_owned()));
        }
        if std::mem::take(&mut self.is_closed) {
            // Twice is the same as once, which may not have arrived.
            self.waiting.push_back(Outgoing::StdinClose);
        }
        if let Some(why) = why {
            self.screen.note(&format!("{why}; going on where it stood"));
        }
        let hurries = self.connected_at.elapsed() > SHORT_LIVED;
        let outage = Outage::begin(self.api, self.plan.target.clone(), self.offsets, hurries);
        self.link = Link::Down(Box::new(outage));
        Ok(())
    }
}

async fn receive(input: &mut Option<mpsc::Receiver<io::Result<Bytes>>>) -> Option<io::Result<Bytes>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn signaled(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            if signal.recv().await.is_none() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}
