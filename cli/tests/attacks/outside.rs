//! Somewhere else on the network: a namespace with public and private addresses, and what listens on them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::process::{Process, free_port};

pub fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Another network namespace with a public address, routes of the host to it, and something that listens there.
pub struct Outside {
    namespace: String,
    interface: String,
    pub address: Ipv4Addr,
    /// Listened on outside, and routed there by the host: link-local, private, shared. Other tests have others.
    pub closed: [String; 3],
    pub port: u16,
    processes: Vec<Process>,
    dir: tempfile::TempDir,
}

impl Outside {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() % 100_000 * 10 + NEXT.fetch_add(1, Ordering::Relaxed) % 10;
        let (namespace, interface, there) = (format!("svt-{id}"), format!("svt{id}a"), format!("svt{id}b"));
        run("ip", &["netns", "add", &namespace]).expect("root may make a network namespace");
        // One of 64 of a range that nobody has; others test here too.
        let net = u8::try_from((id / 10 * 7 + id % 10) % 64).unwrap() * 4;
        let (gateway, address) = (Ipv4Addr::new(203, 0, 113, net + 1), Ipv4Addr::new(203, 0, 113, net + 2));
        let (high, low) = (id / 200 % 200, id % 200 + 1);
        let mut outside = Self {
            namespace,
            interface,
            address,
            closed: ["169.254", "10.99", "100.100"].map(|net| format!("{net}.{high}.{low}")),
            port: free_port(),
            processes: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        let ip = |args: &[&str]| run("ip", args).unwrap_or_else(|| panic!("{args:?}"));
        let here = &outside.interface;
        ip(&["link", "add", here, "type", "veth", "peer", "name", &there, "netns", &outside.namespace]);
        ip(&["addr", "add", &format!("{gateway}/30"), "dev", here]);
        ip(&["link", "set", here, "up"]);
        outside.inside(&["ip", "addr", "add", &format!("{address}/30"), "dev", &there]);
        outside.inside(&["ip", "link", "set", &there, "up"]);
        outside.inside(&["ip", "link", "set", "lo", "up"]);
        // What is private, and what clouds have for their machines, is there too: only rules keep it out of reach.
        for closed in outside.closed.clone() {
            outside.has_too(&closed);
        }
        outside.listens_on(outside.port);
        outside
    }

    /// Runs a program there.
    pub fn inside(&self, arguments: &[&str]) -> String {
        let all = [&["netns", "exec", &self.namespace], arguments].concat();
        run("ip", &all).unwrap_or_else(|| panic!("{arguments:?}"))
    }

    /// Gives it another address, and the host a route to it.
    pub fn has_too(&self, address: &str) {
        self.inside(&["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]);
        let via = self.address.to_string();
        run("ip", &["route", "replace", &format!("{address}/32"), "via", &via]).expect("a route");
    }

    /// Whether something answers on this port: on all its addresses.
    pub fn listens_on(&mut self, port: u16) {
        let directory = self.dir.path().join("empty");
        let _ = std::fs::create_dir(&directory);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "python3", "-m", "http.server", &port.to_string()]);
        command.current_dir(directory);
        let log = self.dir.path().join("log");
        self.processes.push(Process::start(command, &log));
    }

    /// A name server on all its addresses that knows `known.test` and nothing else. What it is asked by datagrams comes into the file, a
    /// line each: to which address, how many bytes, and the question.
    pub fn answers_questions(&mut self) -> PathBuf {
        let (program, seen) = (self.dir.path().join("names.py"), self.dir.path().join("seen"));
        std::fs::write(&program, NAMES).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "python3"]).arg(&program).arg(&seen);
        for address in self.closed.iter().chain([&self.address.to_string()]) {
            command.arg(address);
        }
        let log = self.dir.path().join("names.log");
        self.processes.push(Process::start(command, &log));
        let began = std::time::Instant::now();
        while !seen.exists() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed().as_secs() < 30, "no name server: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        seen
    }
}

const NAMES: &str = r#"
import select, socket, sys
seen = open(sys.argv[1], "w", 1)
sockets = {}
for address in sys.argv[2:]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 53))
    sockets[s] = address
while True:
    for s in select.select(list(sockets), [], [])[0]:
        asked, who = s.recvfrom(65535)
        labels, at = [], 12
        while at < len(asked) and asked[at] and len(labels) < 40:
            labels.append(asked[at + 1:at + 1 + asked[at]].decode("latin1"))
            at += 1 + asked[at]
        name = ".".join(labels)
        print(sockets[s], len(asked), ascii(name), file=seen)
        if len(asked) < 17:
            continue
        question = asked[12:at + 5]
        known = name == "known.test" and asked[at + 1:at + 3] == bytes([0, 1])
        flags = bytes([0x81, 0x80 if name == "known.test" else 0x83])
        head = asked[:2] + flags + bytes([0, 1, 0, int(known), 0, 0, 0, 0])
        answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 93, 184, 215, 14]) if known else b""
        s.sendto(head + question + answer, who)
"#;

impl Drop for Outside {
    fn drop(&mut self) {
        // Its end of the pair goes with it, the host's end and the routes with that.
        run("ip", &["link", "del", &self.interface]);
        self.processes.clear();
        run("ip", &["netns", "del", &self.namespace]);
    }
}
