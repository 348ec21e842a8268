//! An attachment: what comes is written, what is typed is sent, over as many connections as that takes.
//!
//! Output is taken by its offset, so that each byte is written once. Input is given to a connection once and never again:
//! what was under way when a connection broke may be lost, but is never doubled. What is typed while there is no
//! connection is kept and sent after it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use client::{AttachInput, AttachRequest, AttachUpdate, Attachment, ClientError, EndRecord, ErrorCode, Exec};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outage::Outage;
use super::screen::Screen;
use crate::output::{Format, LiveOutput};
use crate::verbs::ending::gone;
use crate::verbs::error::VerbError;
use crate::verbs::stdin::read_stdin;
use crate::verbs::terminal::{self, DetachKeys, Typed, Typing};

/// Input that waits to be sent, in bytes. Beyond that a pipe waits, and a terminal rings its bell.
const MAX_WAITING: usize = 64 << 10;
/// Input that a connection took so long before it broke has arrived.
const ARRIVED: Duration = Duration::from_secs(10);

/// What to do with an exec.
#[derive(Debug)]
pub struct Plan {
    pub request: AttachRequest,
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
    Ended(EndRecord),
    /// The user left it.
    Detached,
}

/// An attachment. Giving it up gives the terminal back.
pub struct Session<'a> {
    plan: Plan,
    screen: Screen<'a>,
    attachment: Attachment,
    outage: Option<Outage>,
    is_greeted: bool,
    input: Option<mpsc::Receiver<io::Result<Bytes>>>,
    typing: Typing,
    waiting: VecDeque<AttachInput>,
    waiting_bytes: usize,
    input_sent_at: Option<Instant>,
    /// Whether the end of input was sent.
    is_closed: bool,
    size_sent_at: Option<Instant>,
    resizes: Option<Signal>,
    continuations: Option<Signal>,
}

enum Event {
    Output(io::Error),
    HasRoom,
    Input(Option<io::Result<Bytes>>),
    Resized,
    Continued,
    Update(Result<AttachUpdate, ClientError>),
    LongOutage,
}

impl<'a> Session<'a> {
    /// Takes over what the plan needs of our terminal.
    pub fn new(plan: Plan, out: &'a LiveOutput, attachment: Attachment) -> Result<Self, VerbError> {
        let screen = Screen::new(out, plan.format, plan.is_terminal)?;
        let signals = VerbError::local("cannot catch signals");
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
            true => Some(read_stdin().map_err(VerbError::local("cannot start a thread"))?),
            false => None,
        };
        Ok(Self {
            screen,
            attachment,
            outage: None,
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
    pub async fn run(&mut self) -> Result<Finish, VerbError> {
        loop {
            let finish = match self.next().await {
                Event::Output(error) => return Err(VerbError::output(error)),
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
                Event::Update(update) => self.take(update?)?,
                Event::LongOutage => {
                    if let Some(outage) = &mut self.outage {
                        self.screen.tell(outage);
                    }
                    None
                }
            };
            if let Some(finish) = finish {
                return Ok(finish);
            }
        }
    }

    /// Says farewell to the server.
    pub async fn close(&mut self) {
        self.screen.leave();
        self.attachment.close().await;
    }

    async fn next(&mut self) -> Event {
        let may_send = !self.waiting.is_empty();
        let reads_input = self.screen.is_raw() || self.waiting_bytes < MAX_WAITING;
        let has_room = self.screen.has_room();
        let Self { screen, input, resizes, continuations, attachment, outage, .. } = self;
        let long = async {
            match outage {
                Some(outage) => outage.is_long().await,
                None => std::future::pending().await,
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
            update = attachment.next(may_send, has_room) => Event::Update(update),
            () = long => Event::LongOutage,
        }
    }

    fn take(&mut self, update: AttachUpdate) -> Result<Option<Finish>, VerbError> {
        match update {
            AttachUpdate::Attached(exec) => self.greet(&exec),
            AttachUpdate::Output { stream, offset, bytes } => self.screen.write(stream, offset, bytes)?,
            AttachUpdate::Gone { from, to, .. } => self.screen.note(&gone(from, to)),
            // Input for one that has ended meanwhile: the end is told next.
            AttachUpdate::Refused(error) if error.code == ErrorCode::Conflict => {}
            AttachUpdate::Refused(error) => {
                self.screen.bell();
                self.screen.note(&format!("{} ({})", error.message, error.code));
            }
            AttachUpdate::Room => self.send(),
            AttachUpdate::Interrupted(why) => self.interrupted(why)?,
            AttachUpdate::Reconnected => {
                if let Some(outage) = self.outage.take() {
                    self.screen.erase(&outage);
                }
            }
            AttachUpdate::Ended(end) => {
                self.screen.finish();
                return Ok(Some(Finish::Ended(end)));
            }
        }
        Ok(None)
    }

    /// The first frame of a connection.
    fn greet(&mut self, exec: &Exec) {
        let is_first = !std::mem::replace(&mut self.is_greeted, true);
        if !self.plan.is_terminal {
            return;
        }
        if is_first && self.plan.is_rebuilt {
            self.screen.rebuild(exec.stdout_bytes);
        }
        // One that was just started began with our size. Later another viewer may have set another one, but what we told
        // a connection before it broke may never have arrived.
        let is_known = match is_first {
            true => self.plan.request.is_new && exec.tty == terminal::known_size(),
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
                self.waiting.push_back(AttachInput::StdinClose);
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
            self.waiting.push_back(AttachInput::Stdin(bytes));
        }
    }

    fn send(&mut self) {
        let Some(input) = self.waiting.pop_front() else { return };
        match &input {
            AttachInput::Stdin(bytes) => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes.len());
                self.input_sent_at = Some(Instant::now());
            }
            AttachInput::StdinClose => self.is_closed = true,
            AttachInput::Resize(_) => self.size_sent_at = Some(Instant::now()),
        }
        self.attachment.send(input);
    }

    /// Of sizes that wait to be told, the last one counts.
    fn tell_size(&mut self) {
        if !self.plan.is_fed || !self.plan.is_terminal {
            return;
        }
        if let Some(size) = terminal::known_size() {
            self.waiting.retain(|outgoing| !matches!(outgoing, AttachInput::Resize(_)));
            self.waiting.push_back(AttachInput::Resize(size));
        }
    }

    fn interrupted(&mut self, why: Option<String>) -> Result<(), VerbError> {
        let is_pipe = self.plan.is_fed && !self.plan.is_terminal;
        if is_pipe && self.input_sent_at.is_some_and(|at| at.elapsed() < ARRIVED) {
            let message =
                "the connection broke while input was on its way: nobody can say how much of it arrived";
            return Err(VerbError::Failed(message.to_owned()));
        }
        if std::mem::take(&mut self.is_closed) {
            // Twice is the same as once, which may not have arrived.
            self.waiting.push_back(AttachInput::StdinClose);
        }
        if let Some(why) = why {
            self.screen.note(&format!("{why}; going on where it stood"));
        }
        self.outage = Some(Outage::begin());
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
