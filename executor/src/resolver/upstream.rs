//! The servers that know names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{timeout, timeout_at};

use super::packet::{LONGEST_DATAGRAM, PORT, Reason};

/// Where this machine says who knows names for it.
const HOSTS: &str = "/etc/resolv.conf";
/// How long that is believed.
const BELIEVED: Duration = Duration::from_secs(3);
/// How many of them are asked: as many as the C library asks.
const MOST: usize = 3;
/// How long all of them have. An engine's resolver in a box waits for 4 s.
const ALL: Duration = Duration::from_secs(3);
/// How long an answer may be, in bytes: over a connection, and as a datagram that somebody sends in spite of what was asked for.
const LONGEST: u16 = 16 * 1024;
const LONGEST_AS_DATAGRAM: usize = 4 * 1024;
/// How many datagrams are looked at that are not the answer.
const STRAYS: u32 = 64;

/// What a server says that knows the answer. Otherwise the next one is asked.
const SAID: [ResponseCode; 2] = [ResponseCode::NoError, ResponseCode::NXDomain];

/// Whom we ask.
pub(super) struct Upstream {
    /// Empty: those of this machine.
    named: Vec<SocketAddr>,
    hosts: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Upstream {
    pub(super) fn new(named: Vec<SocketAddr>) -> Self {
        Self { named, hosts: Mutex::default() }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if !self.named.is_empty() {
            return self.named.clone();
        }
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, servers)) = &*hosts
            && read.elapsed() < BELIEVED
        {
            return servers.clone();
        }
        let servers = named_in(&std::fs::read_to_string(HOSTS).unwrap_or_default());
        *hosts = Some((Instant::now(), servers.clone()));
        servers
    }

    /// Asks one after the other until one answers.
    pub(super) async fn ask(&self, query: &Query) -> Result<Message, Reason> {
        let servers = self.servers();
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let mut why = Reason::NoServer;
        for server in servers {
            match timeout(ALL / count, ask_one(server, query)).await {
                Ok(Ok(answer)) if SAID.contains(&answer.metadata.response_code) => return Ok(answer),
                Ok(Ok(_)) => why = Reason::Other,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => why = Reason::Unusable,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(why)
    }
}

fn named_in(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.take(MOST).map(|address| SocketAddr::from((address, PORT))).collect()
}

/// A question of ours: nothing of the box's is in it but what it asks for.
fn question(query: &Query) -> Message {
    // Of a random id.
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(LONGEST_DATAGRAM);
    message.set_edns(edns);
    message
}

fn unusable(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn ask_one(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let asked = question(query);
    let bytes = asked.to_vec().map_err(|_| unusable("the question"))?;
    let answer = by_datagram(server, &asked, &bytes).await?;
    if answer.metadata.truncation { by_connection(server, &asked, &bytes).await } else { Ok(answer) }
}

/// From a port that nobody knows, and heard from that server only.
async fn by_datagram(server: SocketAddr, asked: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; LONGEST_AS_DATAGRAM + 1];
    socket.send(bytes).await?;
    // Once more, if nothing comes: datagrams get lost.
    let again = tokio::time::Instant::now() + ALL / 4;
    let mut sent_again = false;
    for _ in 0..STRAYS {
        let length = if sent_again {
            socket.recv(&mut buffer).await?
        } else if let Ok(received) = timeout_at(again, socket.recv(&mut buffer)).await {
            received?
        } else {
            sent_again = true;
            socket.send(bytes).await?;
            continue;
        };
        if length > LONGEST_AS_DATAGRAM || buffer.get(..2) != bytes.get(..2) {
            continue;
        }
        if let Some(answer) = answer_to(asked, &buffer[..length]) {
            return Ok(answer);
        }
    }
    Err(unusable("nothing but strays"))
}

async fn by_connection(server: SocketAddr, asked: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| unusable("the question"))?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    if length > LONGEST {
        return Err(unusable("too long"));
    }
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    answer_to(asked, &answer).ok_or_else(|| unusable("no answer to what was asked"))
}

/// What was said, if it is an answer to this very question.
fn answer_to(asked: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let matches = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == OpCode::Query
        && answer.queries == asked.queries;
    matches.then_some(answer)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn a_machines_servers_are_those_that_it_asks() {
        let text = "# of the host\nsearch corp.example\nnameserver 127.0.0.53\n nameserver\tfd00::53 \nnameserver none\noptions edns0\n\
                    nameserver 10.0.0.2\nnameserver 10.0.0.3\n";
        let servers: Vec<_> = named_in(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[fd00::53]:53", "10.0.0.2:53"]);
        assert_eq!(named_in(""), []);
    }

    /// A server that says this to every question, or nothing.
    async fn server(said: Option<ResponseCode>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
                if let Some(code) = said {
                    answer.metadata.response_code = code;
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        address
    }

    async fn asked(servers: Vec<SocketAddr>) -> Result<ResponseCode, Reason> {
        let query = Query::query(Name::from_ascii("x.test.").unwrap(), RecordType::A);
        Upstream::new(servers).ask(&query).await.map(|answer| answer.metadata.response_code)
    }

    #[tokio::test]
    async fn the_next_server_is_asked_where_one_says_nothing_or_knows_nothing() {
        let silent = server(None).await;
        let broken = server(Some(ResponseCode::ServFail)).await;
        let refuses = server(Some(ResponseCode::Refused)).await;
        let knows = server(Some(ResponseCode::NXDomain)).await;
        // A port that nobody has, just now.
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for before in [silent, broken, refuses, closed] {
            assert_eq!(asked(vec![before, knows]).await, Ok(ResponseCode::NXDomain));
        }
        assert_eq!(asked(vec![silent]).await, Err(Reason::NoServer));
        assert_eq!(asked(vec![closed]).await, Err(Reason::NoServer));
        assert_eq!(asked(vec![silent, broken]).await, Err(Reason::Other));
    }
}
