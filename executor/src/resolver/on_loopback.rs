//! The server as boxes meet it, on networks of the loopback interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use events::SandboxId;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::Ipv4Net;
use policy::AddressPolicy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use uuid::Uuid;

use super::packet::PORT;
use super::{Resolver, host_end};

const PATIENCE: Duration = Duration::from_secs(30);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

/// A /30 of the loopback interface that nobody else has.
fn network() -> Ipv4Net {
    let [.., a, b, c] = *Uuid::now_v7().as_bytes();
    Ipv4Net::new(Ipv4Addr::new(127, a, b, c & !3), 30).unwrap()
}

/// A server that knows `good.test` and says nothing to all else.
async fn upstream() -> Ipv4Addr {
    let address = host_end(network());
    let socket = UdpSocket::bind((address, PORT)).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let name = answer.queries[0].name.clone();
            if name.to_ascii().starts_with("good") {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(PUBLIC))));
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    address
}

struct World {
    resolver: Resolver,
}

/// A box, which asks from the other end of its network.
struct Asking {
    id: SandboxId,
    network: Ipv4Net,
    socket: UdpSocket,
}

impl World {
    async fn new() -> Self {
        let inside = Box::new(|address| !AddressPolicy::default().permits(address));
        Self { resolver: Resolver::new(&[upstream().await], Vec::new(), inside) }
    }

    async fn asking(&self) -> Asking {
        let (id, network) = (SandboxId::new(), network());
        self.resolver.listen(id, network).await.unwrap();
        assert_eq!(self.resolver.address(id), Some(host_end(network)));
        let socket = UdpSocket::bind((box_end(network), 0)).await.unwrap();
        socket.connect((host_end(network), PORT)).await.unwrap();
        Asking { id, network, socket }
    }
}

fn box_end(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + 2)
}

fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

impl Asking {
    async fn send(&self, name: &str) -> Message {
        let message = question(name);
        self.socket.send(&message.to_vec().unwrap()).await.unwrap();
        message
    }

    /// The answer to this question; others are passed over.
    async fn heard(&self, asked: &Message) -> Message {
        let mut buffer = [0; 1_500];
        loop {
            let length = timeout(PATIENCE, self.socket.recv(&mut buffer)).await.unwrap().unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            if answer.metadata.id == asked.metadata.id && answer.queries == asked.queries {
                return answer;
            }
        }
    }

    async fn is_answered(&self) {
        let answer = self.heard(&self.send("good.test.").await).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 1);
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((box_end(self.network), 0))).unwrap();
        timeout(PATIENCE, socket.connect((host_end(self.network), PORT).into())).await.unwrap().unwrap()
    }
}

async fn ask_over(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let mut answer = vec![0; timeout(PATIENCE, stream.read_u16()).await.unwrap()?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn one_box_that_asks_for_what_nobody_answers_does_not_keep_another_waiting() {
    let world = World::new().await;
    let (greedy, other) = (world.asking().await, world.asking().await);
    let mut first = None;
    for n in 0..150 {
        let asked = greedy.send(&format!("silent-{n}.test.")).await;
        first.get_or_insert(asked);
    }
    for _ in 0..20 {
        other.is_answered().await;
    }
    // It is told of the first ones, and has its turn again.
    let answer = greedy.heard(&first.unwrap()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    timeout(PATIENCE, async {
        loop {
            let asked = greedy.send("good.test.").await;
            if timeout(Duration::from_millis(500), greedy.heard(&asked)).await.is_ok() {
                break;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_no_question_is_passed_over_and_so_are_strangers() {
    let world = World::new().await;
    let asking = world.asking().await;
    for bytes in [&[][..], &[0], &[255; 40], &[0; 512], &[7; 1_400]] {
        asking.socket.send(bytes).await.unwrap();
    }
    asking.is_answered().await;
    // From elsewhere, another box's end too.
    let other = world.asking().await;
    let stranger = UdpSocket::bind((box_end(other.network), 0)).await.unwrap();
    let asked = question("good.test.").to_vec().unwrap();
    stranger.send_to(&asked, (host_end(asking.network), PORT)).await.unwrap();
    asking.is_answered().await;
    stranger.send_to(&asked, (host_end(other.network), PORT)).await.unwrap();
    let (_, from) = timeout(PATIENCE, stranger.recv_from(&mut [0; 512])).await.unwrap().unwrap();
    assert_eq!(from.ip(), host_end(other.network), "the first answer is of its own server");
}

#[tokio::test]
async fn a_box_has_a_few_connections_which_end_with_the_first_thing_that_is_no_question() {
    let world = World::new().await;
    let (asking, other) = (world.asking().await, world.asking().await);
    let asked = question("good.test.").to_vec().unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = asking.connect().await;
        ask_over(&mut stream, &asked).await.unwrap();
        open.push(stream);
    }
    ask_over(&mut asking.connect().await, &asked).await.unwrap_err();
    ask_over(&mut other.connect().await, &asked).await.unwrap();
    asking.is_answered().await;
    for wrong in [&[0; 12][..], &[0; 513]] {
        ask_over(&mut open.pop().unwrap(), wrong).await.unwrap_err();
    }
    let mut more = asking.connect().await;
    for _ in 0..3 {
        ask_over(&mut more, &asked).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_listens_for_a_box_that_is_gone_and_everything_of_its_own_ends() {
    let world = World::new().await;
    let (gone, kept) = (world.asking().await, world.asking().await);
    let mut stream = gone.connect().await;
    let asked = question("good.test.").to_vec().unwrap();
    ask_over(&mut stream, &asked).await.unwrap();
    // What is asked for again is what is there.
    world.resolver.listen(gone.id, gone.network).await.unwrap();
    ask_over(&mut stream, &asked).await.unwrap();
    world.resolver.keep(|id| id == kept.id);
    ask_over(&mut stream, &asked).await.unwrap_err();
    assert_eq!(world.resolver.address(gone.id), None);
    kept.is_answered().await;
    // The place is free for the next one with that network, once the tasks have gone.
    timeout(PATIENCE, async {
        while world.resolver.listen(gone.id, gone.network).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    gone.is_answered().await;
}

#[tokio::test]
async fn nobody_answers_and_nobody_is_there_to_be_asked() {
    let nobody = host_end(network());
    let resolver = Resolver::new(&[nobody], Vec::new(), Box::new(|_| false));
    let (id, network) = (SandboxId::new(), network());
    resolver.listen(id, network).await.unwrap();
    let socket = UdpSocket::bind((box_end(network), 0)).await.unwrap();
    socket.connect((host_end(network), PORT)).await.unwrap();
    let asking = Asking { id, network, socket };
    let answer = asking.heard(&asking.send("x.test.").await).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // Where there is no such address of ours, nobody can listen.
    let elsewhere = Ipv4Net::new(Ipv4Addr::new(192, 0, 2, 128), 30).unwrap();
    resolver.listen(SandboxId::new(), elsewhere).await.unwrap_err();
}
