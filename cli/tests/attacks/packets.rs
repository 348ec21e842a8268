//! Packets that a sandbox makes by itself, beside those of ordinary connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;

use crate::outside::Outside;
use crate::siege::{BLUE, RED, client, keys};
use crate::support::api::Api;
use crate::support::eventually;
use crate::support::serve::Serve;

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

    async fn shell(&self, line: &str) -> serde_json::Value {
        self.api.exec(&self.id, line).await
    }
}

async fn python(sandbox: &Sandbox, program: &str) -> String {
    assert!(!program.contains('\''), "it goes through a shell");
    let answer = sandbox.shell(&format!("python3 -c '{program}'")).await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    answer["stdout"].as_str().unwrap().trim().to_owned()
}

/// Sends echo requests as any user may, and says of each address whether the answer came.
fn ping(addresses: &[String]) -> String {
    format!(
        "
import socket, threading
def ping(i, address):
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        s.settimeout(2)
        s.sendto(b\"\\x08\\x00\\x00\\x00\\x00\\x00\\x00\\x01hello\", (address, 0))
        s.recv(100)
        said[i] = \"answered\"
    except OSError as error:
        said[i] = str(error)
addresses = {addresses:?}
said = [None] * len(addresses)
threads = [threading.Thread(target=ping, args=one) for one in enumerate(addresses)]
[t.start() for t in threads]; [t.join() for t in threads]
print(\"\\n\".join(said))
"
    )
}

/// Asks the host, or whoever listens, from addresses that are not the sandbox's: says what was refused, and sends the rest.
const MADE_UP: &str = "
import socket, struct
def attempt(name, do):
    try:
        do()
        print(name, \"done\")
    except OSError:
        print(name, \"refused\")
attempt(\"packet\", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
attempt(\"packet-dgram\", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0608))
attempt(\"raw\", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
attempt(\"raw-icmp\", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt(\"raw6\", lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
def transparent():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(socket.SOL_IP, 19, 1)
attempt(\"transparent\", transparent)
def address():
    import fcntl
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(s, 0x8916, struct.pack(\"16sH2s4s8x\", b\"eth0\", socket.AF_INET, b\"\", socket.inet_aton(\"10.213.255.6\")))
attempt(\"address\", address)
def route():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    body = struct.pack(\"BBBBBBBBI\", 2, 0, 0, 0, 254, 4, 0, 1, 0)
    s.sendto(struct.pack(\"IHHII\", 16 + len(body), 24, 0x605, 1, 0) + body, (0, 0))
    error = struct.unpack(\"i\", s.recv(4096)[16:20])[0]
    if error: raise OSError(-error, \"netlink\")
attempt(\"route\", route)
";

#[tokio::test]
async fn packets_of_ones_own_making_lead_nowhere() {
    let mut outside = Outside::new();
    let seen = outside.answers_questions();
    outside.inside(&["sh", "-c", "echo 1 | tee /proc/sys/net/ipv4/conf/*/accept_source_route"]);
    // A port that all rules look at, for questions too.
    let open = format!("providers:\n  docker:\n    allow_networks: [\"{}:53\"]\n", outside.address);
    let serve = Serve::with_config("docker", &[], &format!("{}{open}", keys())).await;
    let (one, two) = (Sandbox::of(&serve, RED).await, Sandbox::of(&serve, BLUE).await);
    let (own, other) = (one.address, two.address);
    let gateway = |of: Ipv4Addr| Ipv4Addr::from(u32::from(of) - 1).to_string();

    // Sockets that see or make whole packets, addresses and routes: none of them is to be had.
    let said = python(&one, MADE_UP).await;
    assert_eq!(said.lines().count(), 8, "{said}");
    assert!(said.lines().all(|line| line.ends_with(" refused")), "{said}");

    // An echo comes back from what is public, and from nowhere else.
    let public = [outside.address.to_string()];
    eventually("what is public echoes", Duration::from_secs(60), async || {
        (python(&one, &ping(&public)).await == "answered").then_some(())
    })
    .await;
    let mut silent = vec![gateway(own), gateway(other), other.to_string(), "255.255.255.255".to_owned()];
    silent.extend(outside.closed.clone());
    let said = python(&one, &ping(&silent)).await;
    assert_eq!(said.lines().count(), silent.len(), "{said}");
    assert!(!said.contains("answered"), "{silent:?}: {said}");

    // Datagrams: from an address that is another's, by way of a stop outside that sends them on, and to the other sandbox.
    let send = format!(
        "
import socket
def attempt(do):
    try: do()
    except OSError: pass
def datagram(data, to, *options, source=None):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for level, name, value in options: s.setsockopt(level, name, value)
    if source: s.bind(source)
    s.sendto(data, to)
server = (\"{server}\", 53)
for source in (\"{other}\", \"{their_gateway}\", \"203.0.113.253\", \"169.254.169.254\"):
    attempt(lambda: datagram(b\"a\" * 41, server, (socket.SOL_IP, 15, 1), source=(source, 0)))
for kind in (131, 137):
    for stop, end in ((server[0], \"{private}\"), (\"{private}\", server[0])):
        options = bytes([kind, 7, 4]) + socket.inet_aton(stop) + bytes(1)
        attempt(lambda: datagram(b\"b\" * 42, (end, 53), (socket.SOL_IP, 4, options)))
attempt(lambda: datagram(b\"c\" * 43, (\"{other}\", 9999)))
attempt(lambda: socket.create_connection((\"{other}\", 9999), 2).sendall(b\"stream\"))
datagram(b\"d\" * 44, server)
",
        server = outside.address,
        their_gateway = gateway(other),
        private = outside.closed[1],
    );
    let listen = "
import socket, threading
def heard(data): open(\"/tmp/came\", \"ab\").write(data + b\" \")
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind((\"0.0.0.0\", 9999))
t = socket.create_server((\"0.0.0.0\", 9999))
def streams():
    while True: heard(t.accept()[0].recv(100))
threading.Thread(target=streams).start()
open(\"/tmp/listening\", \"w\").close()
while True: heard(u.recv(100))
";
    two.shell(&format!("python3 -c '{listen}' >/dev/null 2>&1 &")).await;
    eventually("the other sandbox listens", Duration::from_secs(60), async || {
        (two.shell("test -e /tmp/listening").await["exit_code"] == 0).then_some(())
    })
    .await;
    python(&one, &send).await;
    let came = || std::fs::read_to_string(&seen).unwrap();
    eventually("an ordinary datagram arrives", Duration::from_secs(60), async || {
        came().contains(" 44 ").then_some(())
    })
    .await;
    assert!(!came().contains(" 41 ") && !came().contains(" 42 "), "{}", came());
    let itself = "
import socket
here = (\"127.0.0.1\", 9999)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b\"its-datagram\", here)
socket.create_connection(here, 2).sendall(b\"its-stream\")
";
    python(&two, itself).await;
    let heard = eventually("it hears itself", Duration::from_secs(60), async || {
        let heard = two.shell("cat /tmp/came").await["stdout"].as_str().unwrap().to_owned();
        (heard.contains("its-datagram") && heard.contains("its-stream")).then_some(heard)
    })
    .await;
    assert_eq!(heard.split_whitespace().count(), 2, "{heard}");

    // The neighbour that it sees on its bridge is the host's end of it, and nobody else.
    let neighbours = python(&one, "print(open(\"/proc/net/arp\").read())").await;
    let seen: Vec<_> =
        neighbours.lines().skip(1).filter(|line| !line.contains("00:00:00:00:00:00")).collect();
    assert!(seen.iter().all(|line| line.starts_with(&format!("{} ", gateway(own)))), "{neighbours}");
}
