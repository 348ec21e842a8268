//! Where one box asks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use ipnet::Ipv4Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::counts::Verdict;
use super::packet::{self, LONGEST_QUESTION, PORT, Reason};
use super::rate::Share;
use super::{Shared, host_end};

/// Questions of one box that are worked at, and those that wait for it; and for how long. Whoever asked waits for 5 s, and asks again.
const QUESTIONS: usize = 16;
const WAITING: usize = 128;
const WAIT: Duration = Duration::from_secs(1);
/// Connections of one box.
const CONNECTIONS: usize = 4;
/// How long a connection may be idle, or take nothing of an answer; and how long it lasts at most.
const IDLE: Duration = Duration::from_secs(5);
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);
/// How long to wait after an error of a socket's, so that one that stays costs nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// A box's network that is listened on, until this is dropped.
pub(super) struct Listening {
    pub(super) network: Ipv4Net,
    ended: CancellationToken,
    _guard: DropGuard,
}

/// What one box has.
struct Asker {
    shared: Arc<Shared>,
    network: Ipv4Net,
    share: Mutex<Share>,
    questions: Semaphore,
    waiting: Arc<Semaphore>,
    turn: tokio::sync::Mutex<()>,
    connections: Arc<Semaphore>,
    over: CancellationToken,
}

impl Listening {
    pub(super) async fn begin(shared: &Arc<Shared>, network: Ipv4Net) -> io::Result<Self> {
        let address = SocketAddr::from((host_end(network), PORT));
        let (datagrams, connections) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
        let over = CancellationToken::new();
        let asker = Arc::new(Asker {
            shared: Arc::clone(shared),
            network,
            share: Mutex::new(Share::full(Instant::now())),
            questions: Semaphore::new(QUESTIONS),
            waiting: Arc::new(Semaphore::new(WAITING)),
            turn: tokio::sync::Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            over: over.clone(),
        });
        let ended = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let on_end = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _on_end = on_end;
            let work = async {
                tokio::join!(
                    Arc::clone(&asker).take_datagrams(Arc::new(datagrams)),
                    Arc::clone(&asker).take_connections(connections)
                )
            };
            over.run_until_cancelled(work).await;
        });
        Ok(Self { network, ended, _guard: guard })
    }

    /// Whether somebody listens.
    pub(super) fn lives(&self) -> bool {
        !self.ended.is_cancelled()
    }
}

impl Asker {
    async fn take_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; LONGEST_QUESTION + 1];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                sleep(PAUSE).await;
                continue;
            };
            if !self.is_the_box(from.ip()) {
                Verdict::Malformed.count();
                continue;
            }
            let Some(waiting) =
                self.may_ask().then(|| Arc::clone(&self.waiting).try_acquire_owned().ok()).flatten()
            else {
                Verdict::OverRate.count();
                continue;
            };
            let (asker, socket, question) = (Arc::clone(&self), Arc::clone(&socket), buffer);
            tokio::spawn(async move {
                let answer = asker.answer(&question[..length], true);
                if let Some(Some(answer)) = asker.over.run_until_cancelled(answer).await {
                    // Who does not take it asks again.
                    let _ = socket.try_send_to(&answer, from);
                }
                drop(waiting);
            });
        }
    }

    async fn take_connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let places = (
                Arc::clone(&self.connections).try_acquire_owned(),
                Arc::clone(&self.shared.connections).try_acquire_owned(),
            );
            let (Ok(own), Ok(of_all)) = places else {
                Verdict::OverRate.count();
                continue;
            };
            if !self.is_the_box(from.ip()) {
                continue;
            }
            let asker = Arc::clone(&self);
            tokio::spawn(async move {
                let talk = timeout(LONGEST_CONNECTION, asker.talk(stream));
                // However it ends: who asked finds it closed.
                let _ = asker.over.run_until_cancelled(talk).await;
                drop((own, of_all));
            });
        }
    }

    async fn talk(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = [0; LONGEST_QUESTION];
        loop {
            let read = async {
                let length = usize::from(stream.read_u16().await?);
                let question = buffer.get_mut(..length);
                let question = question.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                stream.read_exact(question).await?;
                io::Result::Ok(length)
            };
            let length = match timeout(IDLE, read).await? {
                Ok(length) => length,
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        Verdict::Malformed.count();
                    }
                    return Err(error);
                }
            };
            if !self.may_ask() {
                Verdict::OverRate.count();
                return Ok(());
            }
            let Some(answer) = self.answer(&buffer[..length], false).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
            let message = [&length.to_be_bytes()[..], &answer].concat();
            timeout(IDLE, stream.write_all(&message)).await??;
        }
    }

    /// What the box hears, when it is its turn; `None`: nothing.
    async fn answer(&self, question: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let place = async {
            let own = self.questions.acquire().await;
            // One of a box waits among those of all boxes, so that each box has its turn.
            let _turn = self.turn.lock().await;
            (own, self.shared.questions.acquire().await)
        };
        let Ok(_place) = timeout(WAIT, place).await else {
            Verdict::OverRate.count();
            return None;
        };
        self.shared.answer(question, datagram).await
    }

    fn is_the_box(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.network.contains(&address))
    }

    fn may_ask(&self) -> bool {
        self.share.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

impl Shared {
    /// What a box hears; `None`: nothing.
    async fn answer(&self, question: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let Some(asked) = packet::read(question) else {
            Verdict::Malformed.count();
            return None;
        };
        let (verdict, response) = if let Some(code) = self.judge.refuses(&asked.query) {
            (Verdict::Refused, asked.response(code, Some(Reason::Blocked)))
        } else {
            match self.upstream.ask(&asked.query).await {
                Err(reason) => (Verdict::Failed, asked.response(ResponseCode::ServFail, Some(reason))),
                Ok(answer) => {
                    let code = answer.metadata.response_code;
                    if let Ok(told) = self.judge.told(answer) {
                        let mut response = asked.response(code, None);
                        response.answers = told.answers;
                        response.authorities = told.authorities;
                        (Verdict::Answered, response)
                    } else {
                        let code = ResponseCode::NXDomain;
                        (Verdict::Inside, asked.response(code, Some(Reason::Blocked)))
                    }
                }
            }
        };
        verdict.count();
        asked.bytes(&response, datagram)
    }
}
