//! What a sandbox with a network asks for, and what servers outside say to lead it inside.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::siege::{RED, client, keys};
use crate::support::api::Api;
use crate::support::serve::Serve;

const PUBLIC: &str = "93.184.215.14";

/// A name server of the deployment's, which is told what to say by whoever owns a name.
struct Server {
    address: Ipv4Addr,
    /// How often each name was asked for.
    asked: Arc<Mutex<HashMap<String, u32>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    async fn start() -> Self {
        // Others test here too.
        let (datagrams, connections, address) = loop {
            let [a, b, c, ..] = RandomState::new().hash_one(()).to_be_bytes();
            let address = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
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

    fn times(&self, name: &str) -> u32 {
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

/// Python that asks and says a line each: the code of the answer (or `nothing`), whether it was cut short, and its records: kind and data.
const ASK: &str = "
import socket, struct, sys
KINDS = {\"A\": 1, \"PTR\": 12, \"TXT\": 16, \"AAAA\": 28, \"HTTPS\": 65, \"ANY\": 255, \"AXFR\": 252, \"MX\": 15}
def question(name, kind, klass=1):
    labels = b\"\".join(bytes([len(l)]) + l.encode() for l in name.split(\".\") if l)
    return struct.pack(\">HHHHHH\", 4711, 0x100, 1, 0, 0, 0) + labels + b\"\\0\" + struct.pack(\">HH\", KINDS[kind], klass)
def skip(data, at):
    while data[at]:
        if data[at] >= 192: return at + 2
        at += 1 + data[at]
    return at + 1
def read(data):
    ident, flags, questions, answers, above, beside = struct.unpack(\">HHHHHH\", data[:12])
    assert ident == 4711 and flags & 0x8000 and questions == 1, data
    at, found = skip(data, 12) + 4, []
    for _ in range(answers + above + beside):
        at = skip(data, at)
        kind, klass, ttl, length = struct.unpack(\">HHIH\", data[at:at + 10])
        found.append(\"%d:%s\" % (kind, data[at + 10:at + 10 + length].hex()[:48]))
        at += 10 + length
    return \" \".join([str(flags & 15), \"cut\" if flags & 0x200 else \"whole\"] + found)
def ask(server, name, kind, how=\"udp\"):
    try:
        if how == \"udp\":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(8)
            s.sendto(question(name, kind), (server, 53))
            return read(s.recv(65535))
        s = socket.create_connection((server, 53), 8)
        data = question(name, kind)
        s.sendall(struct.pack(\">H\", len(data)) + data)
        f = s.makefile(\"rb\")
        return read(f.read(struct.unpack(\">H\", f.read(2))[0]))
    except (OSError, struct.error):
        return \"nothing\"
";

/// A sandbox of a tenant's.
struct Sandbox {
    api: Api,
    id: String,
    address: Ipv4Addr,
}

impl Sandbox {
    async fn of(serve: &Serve, key: &'static str) -> Self {
        let api = client(serve, key);
        let id = api.spawn(json!({"image": "python:3.12", "network": "bridge"})).await;
        let (_, shown) = api.get(&format!("/sandboxes/{id}")).await;
        Self { address: shown["ip"].as_str().unwrap().parse().unwrap(), api, id }
    }

    fn gateway(&self) -> String {
        Ipv4Addr::from(u32::from(self.address) - 1).to_string()
    }

    async fn python(&self, program: &str) -> String {
        assert!(!program.contains('\''), "it goes through a shell");
        let answer = self.api.exec(&self.id, &format!("python3 -c '{ASK}{program}'")).await;
        assert_eq!(answer["exit_code"], 0, "{answer}");
        answer["stdout"].as_str().unwrap().trim_end().to_owned()
    }

    /// Asks all of this at once: server, name, kind, and how.
    async fn ask(&self, questions: &[(&str, &str, &str, &str)]) -> Vec<String> {
        let list = questions
            .iter()
            .map(|(server, name, kind, how)| format!("({server:?},{name:?},{kind:?},{how:?})"));
        let list = list.collect::<Vec<_>>().join(",");
        let said = self
            .python(&format!(
                "
import threading
questions = [{list}]
said = [None] * len(questions)
def one(i, q): said[i] = ask(*q)
threads = [threading.Thread(target=one, args=q) for q in enumerate(questions)]
[t.start() for t in threads]; [t.join() for t in threads]
print(\"\\n\".join(said))
"
            ))
            .await;
        let said: Vec<_> = said.lines().map(str::to_owned).collect();
        assert_eq!(said.len(), questions.len(), "{said:?}");
        said
    }
}

const REFUSED: &str = "5 whole";
const NO_SUCH: &str = "3 whole";
const FAILED: &str = "2 whole";

fn config(server: &Server, more: &str) -> String {
    format!("{}providers:\n  docker:\n    dns_servers: [{}]\n{more}", keys(), server.address)
}

#[tokio::test]
async fn a_name_does_not_lead_inside_whatever_servers_say() {
    let server = Server::start().await;
    let more = "    allow_networks: [10.44.0.0/16]\n    allow_names: [open.internal]\n";
    let serve = Serve::with_config("docker", &[], &config(&server, more)).await;
    let one = Sandbox::of(&serve, RED).await;
    let gateway = &*one.gateway();
    let public = format!("0 whole 1:{}", hex(PUBLIC));
    let opened = format!("0 whole 1:{}", hex("10.44.0.5"));
    let table: &[(&str, &str, &str)] = &[
        ("public.test", "A", &public),
        ("PUBLIC.Test", "A", &public),
        ("public6.test", "AAAA", "0 whole 28:26064700470000000000000000001111"),
        ("private.test", "A", NO_SUCH),
        ("some.test", "A", NO_SUCH),
        ("metadata.test", "A", NO_SUCH),
        ("sandbox.test", "A", NO_SUCH),
        ("local6.test", "AAAA", NO_SUCH),
        ("mapped.test", "AAAA", NO_SUCH),
        ("nat64.test", "AAAA", NO_SUCH),
        ("sixtofour.test", "AAAA", NO_SUCH),
        ("alias.test", "A", NO_SUCH),
        ("reverse.test", "PTR", NO_SUCH),
        ("beside.test", "A", NO_SUCH),
        ("hint.test", "HTTPS", "0 whole 65:000100"),
        ("opened.test", "A", &opened),
        ("opened.open.internal", "A", &opened),
        ("forged.test", "A", FAILED),
        ("late.test", "A", &public),
        ("silent.test", "A", FAILED),
        ("broken.test", "A", FAILED),
        ("endless.test", "TXT", FAILED),
        ("large.test", "A", FAILED),
        ("unknown.test", "A", NO_SUCH),
        // Not passed on at all.
        ("public.local", "A", NO_SUCH),
        ("public.internal", "A", NO_SUCH),
        ("public.localhost", "A", NO_SUCH),
        ("public", "A", NO_SUCH),
        ("5.0.0.10.in-addr.arpa", "PTR", NO_SUCH),
        ("0.0.10.in-addr.arpa", "PTR", NO_SUCH),
        ("public.test", "ANY", REFUSED),
        ("public.test", "AXFR", REFUSED),
    ];
    // All datagrams at once; connections a few at a time, without those that take all the time there is.
    let slow = ["forged.test", "silent.test"];
    let quick: Vec<_> = table.iter().filter(|(name, ..)| !slow.contains(name)).copied().collect();
    let rounds = [(table, "udp")].into_iter().chain(quick.chunks(4).map(|some| (some, "tcp")));
    for (some, how) in rounds {
        let questions: Vec<_> = some.iter().map(|(name, kind, _)| (gateway, *name, *kind, how)).collect();
        for (said, (name, kind, expected)) in one.ask(&questions).await.iter().zip(some) {
            assert_eq!(said, expected, "{name} {kind} by {how}");
        }
    }
    let passed_on: Vec<_> = server.asked.lock().unwrap().keys().cloned().collect();
    for closed in ["local.", "localhost.", "public.", "arpa."] {
        assert!(!passed_on.iter().any(|name| name.ends_with(closed)), "{closed}: {passed_on:?}");
    }
    assert!(!passed_on.contains(&"public.internal.".to_owned()), "{passed_on:?}");
    assert_eq!(server.times("public.test."), 4);

    // A name that changes its address: what was good once is judged again, each time.
    let first = one.ask(&[(gateway, "rebind.test", "A", "udp")]).await;
    let then = one.ask(&[(gateway, "rebind.test", "A", "udp"); 2]).await;
    assert_eq!((first, then), (vec![public.clone()], vec![NO_SUCH.to_owned(); 2]));
    // What does not fit into a datagram is said to, and comes over a connection.
    let long = one.ask(&[(gateway, "text.test", "TXT", "udp"), (gateway, "text.test", "TXT", "tcp")]).await;
    assert_eq!(long[0], "0 cut");
    assert_eq!(long[1].matches(" 16:").count(), 20, "{long:?}");
}

fn hex(address: &str) -> String {
    let address: Ipv4Addr = address.parse().unwrap();
    format!("{:08x}", u32::from(address))
}
