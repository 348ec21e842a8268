//! How addresses inside are written, and hidden: none of them is called, and the owner of a webhook does not hear which were there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{Clock, SystemClock};
use policy::AddressPolicy;
use secrets::WebhookSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::config::WebhooksConfig;
use crate::connector::{Connector, Resolve};
use crate::message::Message;
use crate::sender::{Sender, tls};

/// Where no address may be called. The same for a name that has none.
const NO_ADDRESS: &str = "the host has no address that may be called";
const UNUSABLE: &str = "the URL cannot be used";
const SCHEME: &str = "the URL must begin with https://";

/// Names, and what a resolver answers that somebody else writes the zone of.
const NAMES: [(&str, &[&str]); 12] = [
    ("loopback.example", &["127.0.0.1"]),
    ("loopback6.example", &["::1"]),
    ("private.example", &["10.0.0.1", "172.16.5.4", "192.168.0.1"]),
    ("metadata.example", &["169.254.169.254"]),
    ("metadata6.example", &["fd00:ec2::254"]),
    ("mapped.example", &["::ffff:127.0.0.1"]),
    ("translated.example", &["64:ff9b::7f00:1"]),
    ("relayed.example", &["2002:7f00:1::"]),
    ("nowhere.example", &["0.0.0.0", "::"]),
    ("shared.example", &["100.64.0.1"]),
    ("many.example", &["224.0.0.1", "ff02::1", "255.255.255.255"]),
    ("empty.example", &[]),
];

/// Hosts, each at a port where something listens on both loopback addresses.
const HOSTS: &[(&str, &[&str])] = &[
    (
        NO_ADDRESS,
        &[
            // IPv4, as it is and as C libraries read it
            "127.0.0.1",
            "127.0.0.2",
            "127.255.255.254",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0x7f.0.0.1",
            "0x7f.0x0.0x0.0x1",
            "0177.0.0.1",
            "0177.1",
            "017700000001",
            "00000177.0.0.1",
            "127.000.000.001",
            "127.0x1",
            "0",
            "0.0",
            "0.0.0.0",
            "0x0",
            "00",
            "0.0.0.1",
            // private, shared, link-local, metadata
            "10.0.0.1",
            "10.1",
            "167772161",
            "0xa000001",
            "012.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.1",
            "3232235521",
            "100.64.0.1",
            "100.100.100.200",
            "169.254.169.254",
            "169.254.43518",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "168.63.129.16",
            "192.0.0.192",
            // documentation, benchmarks, multicast, broadcast
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "4294967295",
            // IPv6, and IPv4 inside of it
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[0000:0000:0000:0000:0000:0000:0000:0001]",
            "[::0.0.0.1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7F00:1]",
            "[0:0:0:0:0:ffff:127.0.0.1]",
            "[::ffff:0:127.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::7f00:1]",
            "[2002:7f00:1::]",
            "[2002:a9fe:a9fe::]",
            "[2002:a00:1::1]",
            "[2001::1]",
            "[2001:0:7f00:1::]",
            "[2001:db8::1]",
            "[100::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[ff0e::1]",
            "[3fff::1]",
            "[5f00::1]",
            // names
            "localhost",
            "LOCALHOST",
            "LocalHost",
            "loopback.example",
            "loopback6.example",
            "private.example",
            "metadata.example",
            "metadata6.example",
            "mapped.example",
            "translated.example",
            "relayed.example",
            "nowhere.example",
            "shared.example",
            "many.example",
            "empty.example",
            "[fe80::1%25eth0]",
            "[::1%lo]",
            "[]",
            "127.0.0.1.",
            "localhost.",
        ],
    ),
    (
        UNUSABLE,
        &[
            "①②⑦.0.0.1",
            "127。0。0。1",
            "１２７.0.0.1",
            "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
            "[::1",
            "::1",
            "127.0.0.1 ",
            "127.0.0.1\\",
            "127.0.0.1\t",
            "127.0.0.1\r\nHost: a",
        ],
    ),
];

/// Whole URLs; `PORT` is where something listens.
const URLS: &[(&str, &str)] = &[
    // What stands before the @ is no host.
    (NO_ADDRESS, "http://1.1.1.1@127.0.0.1:PORT/"),
    (NO_ADDRESS, "http://a.example:80@127.0.0.1:PORT/"),
    (NO_ADDRESS, "http://127.0.0.1:PORT/?@1.1.1.1"),
    (NO_ADDRESS, "https://127.0.0.1:PORT/"),
    (NO_ADDRESS, "https://[::1]:PORT/"),
    (NO_ADDRESS, "HTTP://127.0.0.1:PORT/"),
    (NO_ADDRESS, "https://localhost"),
    (SCHEME, "//127.0.0.1:PORT/"),
    (UNUSABLE, "file:///etc/passwd"),
    (SCHEME, "gopher://127.0.0.1:PORT/_GET"),
    (SCHEME, "ftp://127.0.0.1:PORT/"),
    (SCHEME, "unix://run/docker.sock"),
    (SCHEME, "127.0.0.1:PORT"),
    (SCHEME, "/etc/passwd"),
    (UNUSABLE, "http:127.0.0.1:PORT"),
    (UNUSABLE, "http:///127.0.0.1:PORT/"),
    (UNUSABLE, "http://127.0.0.1:PORT:80/"),
    (NO_ADDRESS, "http://127.0.0.1:99999/"),
    (UNUSABLE, "http+unix://%2Frun%2Fdocker.sock/"),
    (UNUSABLE, ""),
];

/// Answers each request with this, and counts connections.
async fn listen(address: &str, answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, calls)
}

/// The zone of above, and the system's resolver for what it reads without asking anybody.
fn resolver() -> Resolve {
    Arc::new(|host, port| {
        Box::pin(async move {
            if let Some((_, found)) = NAMES.iter().find(|(name, _)| *name == host) {
                let found = found.iter().map(|text| text.parse::<IpAddr>().unwrap());
                return Ok(found.map(|address| SocketAddr::new(address, port)).collect());
            }
            let asked = tokio::time::timeout(Duration::from_secs(5), tokio::net::lookup_host((host, port)));
            Ok(asked.await.map_err(|_| std::io::Error::other("no answer"))??.collect())
        })
    })
}

fn sender(allowed: &[&str]) -> Sender {
    let config = WebhooksConfig {
        addresses: AddressPolicy::new(allowed).unwrap(),
        allow_http: true,
        ..WebhooksConfig::default()
    };
    Sender::with(Connector::with_resolver(config.addresses.clone(), resolver()), tls().unwrap(), &config)
}

fn now() -> DateTime<Utc> {
    SystemClock.now()
}

fn message() -> (WebhookSecret, Message) {
    let message = Message { id: "one".to_owned(), body: Bytes::from_static(b"{}") };
    (WebhookSecret::random().unwrap(), message)
}

#[tokio::test]
async fn no_address_inside_is_called_however_it_is_written() {
    let (loopback, calls) = listen("127.0.0.1:0", String::new()).await;
    let port = loopback.port();
    let (_, calls6) = listen(&format!("[::1]:{port}"), String::new()).await;
    let sender = sender(&[]);
    let (secret, message) = message();
    let hosts = HOSTS.iter().flat_map(|(wanted, hosts)| hosts.iter().map(move |host| (*wanted, host)));
    let hosts = hosts.map(|(wanted, host)| (wanted, format!("http://{host}:{port}/")));
    let urls = URLS.iter().map(|(wanted, url)| (*wanted, url.replace("PORT", &port.to_string())));
    let all: Vec<_> = hosts.chain(urls).collect();
    assert!(all.len() >= 130, "{}", all.len());
    let mut wrong = Vec::new();
    for (wanted, url) in all {
        match sender.send(&url, &secret, &message, now()).await {
            Err(refusal) if refusal.message == wanted && refusal.status.is_none() => {}
            other => wrong.push(format!("{url:?}: {other:?} instead of {wanted:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((calls.load(Ordering::SeqCst), calls6.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn what_may_be_called_is_called_and_a_redirect_to_elsewhere_is_not_followed() {
    let inside = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned();
    let (target, called) = listen("127.0.0.1:0", inside.clone()).await;
    let (secret, message) = message();
    let sender = sender(&["127.0.0.0/8"]);
    for host in ["127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "loopback.example"] {
        let url = format!("http://{host}:{}/", target.port());
        assert_eq!(sender.send(&url, &secret, &message, now()).await, Ok(204), "{host}");
    }
    let calls = called.load(Ordering::SeqCst);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://127.0.0.1:{}/", target.port());
        let answer =
            format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\nconnection: close\r\n\r\n");
        let (first, _) = listen("127.0.0.2:0", answer).await;
        let url = format!("http://{first}/");
        let refusal = sender.send(&url, &secret, &message, now()).await.unwrap_err();
        assert_eq!(refusal.message, format!("answered {status}; redirects are not followed"));
    }
    assert_eq!(called.load(Ordering::SeqCst), calls);
}
