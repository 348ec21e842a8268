//! What a sandbox with a network tries to reach: the host, what is private, and other sandboxes.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::outside::{Outside, run};
use crate::support::serve::Serve;

/// Python that says for each `ADDRESS PORT` whether it is `open`, or why not.
fn knock(targets: &[(String, u16)]) -> String {
    let list =
        targets.iter().map(|(address, port)| format!("({address:?},{port})")).collect::<Vec<_>>().join(",");
    format!(
        "python3 -c '
import socket, threading
def knock(i, target):
    try:
        socket.create_connection(target, 3).close()
        said[i] = \"open\"
    except OSError as error:
        said[i] = str(error)
targets = [{list}]
said = [None] * len(targets)
threads = [threading.Thread(target=knock, args=(i, t)) for i, t in enumerate(targets)]
[t.start() for t in threads]; [t.join() for t in threads]
print(\"\\n\".join(said))
'"
    )
}

pub async fn answers(serve: &Serve, sandbox: &str, targets: &[(String, u16)]) -> Vec<String> {
    let answer = serve.api.exec(sandbox, &knock(targets)).await;
    let said: Vec<_> = answer["stdout"].as_str().unwrap().lines().map(str::to_owned).collect();
    assert_eq!(said.len(), targets.len(), "{answer}");
    said
}

#[tokio::test]
async fn a_network_leads_to_what_is_public_only() {
    let outside = Outside::new();
    let serve = Serve::start().await;
    let box_with_network = json!({"image": "python:3.12", "network": "bridge"});
    let one = serve.api.spawn(box_with_network.clone()).await;
    let two = serve.api.spawn(box_with_network).await;
    let public = [(outside.address.to_string(), outside.port)];
    crate::support::eventually("what is public is reached", Duration::from_secs(30), async || {
        (answers(&serve, &one, &public).await == ["open"]).then_some(())
    })
    .await;

    // On the host, on all its addresses; and in the other sandbox.
    let host = TcpListener::bind("[::]:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let (_, shown) = serve.api.get(&format!("/sandboxes/{two}")).await;
    let other: Ipv4Addr = shown["ip"].as_str().unwrap().parse().unwrap();
    serve.api.exec(&two, "python3 -m http.server 8000 >/dev/null 2>&1 & sleep 1").await;
    let (_, shown) = serve.api.get(&format!("/sandboxes/{one}")).await;
    let own: Ipv4Addr = shown["ip"].as_str().unwrap().parse().unwrap();
    let gateway = Ipv4Addr::from(u32::from(own) - 1);
    let addresses = run("hostname", &["-I"]).unwrap();
    let mut targets: Vec<(String, u16)> =
        addresses.split_whitespace().map(|at| (at.to_owned(), port)).collect();
    targets.extend(
        [gateway.to_string(), u32::from(gateway).to_string(), format!("0x{:x}", u32::from(gateway))]
            .map(|at| (at, port)),
    );
    targets.extend([format!("::ffff:{gateway}"), "fd00:ec2::254".to_owned()].map(|at| (at, port)));
    targets.extend(outside.closed.iter().map(|at| (format!("::ffff:{at}"), outside.port)));
    targets.extend(
        ["::1", "::ffff:127.0.0.1", "127.0.0.1", "0.0.0.0", "localhost"].map(|at| (at.to_owned(), port)),
    );
    targets.extend([(other.to_string(), 8000), (Ipv4Addr::from(u32::from(other) - 1).to_string(), port)]);
    targets.extend(outside.closed.iter().map(|at| (at.clone(), outside.port)));
    let said = answers(&serve, &one, &targets).await;
    for (target, said) in targets.iter().zip(said) {
        assert_ne!(said, "open", "{target:?}");
    }
    // What was not reached is there: the host itself reaches it.
    for closed in &outside.closed {
        let at = (closed.parse::<Ipv4Addr>().unwrap(), outside.port);
        std::net::TcpStream::connect(at).unwrap_or_else(|error| panic!("{at:?}: {error}"));
    }
    let listened = answers(&serve, &two, &[(other.to_string(), 8000)]).await;
    assert_eq!(listened, ["open"], "the other sandbox reaches itself");
    let own_way_in = std::net::TcpStream::connect_timeout(&(other, 8000).into(), Duration::from_secs(2));
    own_way_in.expect_err("what a sandbox says to the host is dropped, answers too");

    // Datagrams do not get through either.
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let send = format!(
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b\"x\", (\"{gateway}\", {}))'",
        udp.local_addr().unwrap().port()
    );
    assert_eq!(serve.api.exec(&one, &send).await["exit_code"], 0);
    udp.recv(&mut [0; 8]).expect_err("nothing comes");

    // Nobody's names but its own: asked of the engine's resolver, by address and by name.
    let name = format!("{}-{two}", serve.installation());
    let ask = format!(
        "RES_OPTIONS=\"timeout:1 attempts:1\" python3 -c '
import socket
for ask in (lambda: socket.gethostbyaddr(\"{other}\"), lambda: socket.gethostbyname(\"{name}\"), lambda: socket.gethostbyname(\"{two}\")):
    try: print(\"found\", ask())
    except OSError as error: print(\"no\")
'"
    );
    assert_eq!(serve.api.exec(&one, &ask).await["stdout"], "no\nno\nno\n");

    // Its own way out cannot be changed, and rules that somebody flushed are back with the next sandbox.
    let change = "import fcntl, socket, struct; s = socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack(\"16sh\", b\"eth0\", 0))";
    assert_ne!(serve.api.exec(&one, &format!("python3 -c '{change}'")).await["exit_code"], 0);
    let bridge = run(
        "docker",
        &[
            "network",
            "inspect",
            &format!("stacyvm-{name}"),
            "--format",
            "{{index .Options \"com.docker.network.bridge.name\"}}",
        ],
    )
    .unwrap();
    let table = format!("stacyvm_{}", &bridge[..8]);
    run("nft", &["delete", "table", "inet", &table]).expect("the rules are there");
    let three = serve.api.spawn(json!({"image": "python:3.12", "network": "bridge"})).await;
    run("nft", &["list", "table", "inet", &table]).expect("the rules are back");

    for sandbox in [&one, &two, &three] {
        serve.api.destroy(sandbox).await;
    }
    crate::support::eventually("rules go with the last network", Duration::from_secs(60), async || {
        run("nft", &["list", "table", "inet", &table]).is_none().then_some(())
    })
    .await;
}
