//! A name server that is told what to say by whoever owns a name: good and bad.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

pub const PUBLIC: &str = "93.184.215.14";

/// A name server of the deployment's, which is told what to say by whoever owns a name.
pub struct Server {
    pub address: Ipv4Addr,
    /// How often each name was asked for.
    pub asked: Arc<Mutex<HashMap<String, u32>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    pub async fn start() -> Self {
        // Others test here too.
        let (datagrams, connections, address) = loop {
            let [a, b, c, ..] = RandomState::new().hash_one(()).to_be_bytes();
            let address = Ipv4Addr::new(127, a & 127, b, c.clamp(1, 254));
            let at = SocketAddr::from((address, 53));
            if let (Ok(udp), Ok(tcp)) = (UdpSocket::bind(at).await, TcpListener::bind(at).await) {
                break (udp, tcp, address);
            }
        };
        let asked = Arc::<Mutex<HashMap<String, u32>>>::default();
        let count = |query: &Query, asked: &Mutex<HashMap<String, u32>>| {
            let mut asked = asked.lock().unwrap();
            let times = asked.entry(query.name.to_ascii().to_ascii_lowercase()).or_default();
            *times += 1;
            *times
        };
        let known = Arc::clone(&asked);
        let by_datagram = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = datagrams.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let times = count(&question.queries[0], &known);
                for answer in said(&question, times, true) {
                    datagrams.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let known = Arc::clone(&asked);
        let by_connection = tokio::spawn(async move {
            loop {
                let (mut stream, _) = connections.accept().await.unwrap();
                let mut question = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut question).await.unwrap();
                let question = Message::from_vec(&question).unwrap();
                let times = count(&question.queries[0], &known);
                for answer in said(&question, times, false) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    // Who finds it too long does not read on.
                    let _ = stream.write_all(&[&length[..], &answer].concat()).await;
                }
            }
        });
        Self { address, asked, tasks: vec![by_datagram, by_connection] }
    }

    pub fn times(&self, name: &str) -> u32 {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn address(owner: &Name, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(owner.clone(), 60, data)
}

/// What is said to a question, one message after the other.
fn said(question: &Message, times: u32, datagram: bool) -> Vec<Vec<u8>> {
    let query = &question.queries[0];
    let owner = &query.name;
    let asked = owner.to_ascii().to_ascii_lowercase();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    let kind = if query.query_type == RecordType::AAAA { "aaaa" } else { "a" };
    let at = |text: &str| address(owner, text);
    let hints = |hint: &str| {
        let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A(hint.parse().unwrap())]));
        let service = SVCB::new(1, Name::root(), vec![(SvcParamKey::Ipv4Hint, hint)]);
        Record::from_rdata(owner.clone(), 60, RData::HTTPS(HTTPS(service)))
    };
    let long = |count: usize| {
        let text = |n| RData::TXT(TXT::new(vec![format!("{n:0>200}")]));
        (0..count).map(move |n| Record::from_rdata(owner.clone(), 60, text(n)))
    };
    match asked.split_once('.').unwrap_or_default() {
        ("public" | "rebind", _) if kind == "a" && (times == 1 || asked.starts_with("public")) => {
            answer.answers.push(at(PUBLIC));
        }
        ("public6", _) if kind == "aaaa" => answer.answers.push(at("2606:4700:4700::1111")),
        ("private" | "rebind", _) => answer.answers.push(at("10.0.0.5")),
        ("some", _) => answer.answers.extend([at(PUBLIC), at("192.168.1.1")]),
        ("metadata", _) => answer.answers.push(at("169.254.169.254")),
        ("sandbox", _) => answer.answers.push(at("10.213.0.2")),
        ("local6", _) => answer.answers.push(at("fd00::5")),
        ("mapped", _) => answer.answers.push(at("::ffff:10.0.0.5")),
        ("nat64", _) => answer.answers.push(at("64:ff9b::10.0.0.5")),
        ("sixtofour", _) => answer.answers.push(at("2002:a00:5::1")),
        ("alias", _) => {
            let to = name("private.test");
            answer.answers.push(Record::from_rdata(owner.clone(), 60, RData::CNAME(CNAME(to.clone()))));
            answer.answers.push(address(&to, "10.0.0.5"));
        }
        ("reverse", _) => {
            let to = name("5.0.0.10.in-addr.arpa");
            answer.answers.push(Record::from_rdata(owner.clone(), 60, RData::CNAME(CNAME(to.clone()))));
            answer.answers.push(Record::from_rdata(to, 60, RData::PTR(PTR(name("db.secret")))));
        }
        ("beside", _) => {
            answer.answers.push(at(PUBLIC));
            answer.additionals.push(address(&name("other.test"), "10.0.0.5"));
        }
        ("hint", _) => answer.answers.push(hints("10.0.0.5")),
        ("goodhint", _) => answer.answers.push(hints(PUBLIC)),
        ("opened", _) => answer.answers.push(at("10.44.0.5")),
        ("text", _) if datagram => answer.metadata.truncation = true,
        ("text", _) => answer.answers.extend(long(20)),
        ("endless", _) if datagram => answer.metadata.truncation = true,
        ("endless", _) => answer.answers.extend(long(200)),
        ("large", _) => {
            // As a datagram, whatever was asked for.
            answer.answers.extend(long(100));
            answer.answers.push(at(PUBLIC));
        }
        ("forged", _) => {
            let good = answer.clone();
            answer.answers.push(at(PUBLIC));
            let [mut id, mut other, mut request] = [answer.clone(), answer.clone(), answer.clone()];
            id.metadata.id ^= 1;
            other.queries[0].set_name(name("elsewhere.test"));
            request.metadata.message_type = MessageType::Query;
            let mut kind = answer.clone();
            kind.queries[0].set_query_type(RecordType::MX);
            let forged = [id, other, request, kind].map(|message| message.to_vec().unwrap());
            let rubbish = good.metadata.id.to_be_bytes().repeat(40);
            return forged.into_iter().chain([rubbish]).collect();
        }
        ("late", _) => {
            let mut forged = answer.clone();
            forged.answers.push(at("93.184.215.66"));
            forged.metadata.id ^= 0x0101;
            answer.answers.push(at(PUBLIC));
            return vec![forged.to_vec().unwrap(), answer.to_vec().unwrap()];
        }
        ("silent", _) => return Vec::new(),
        ("broken", _) => answer.metadata.response_code = ResponseCode::ServFail,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    vec![answer.to_vec().unwrap()]
}
