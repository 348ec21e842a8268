use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Lets every user of a box listen on every port, as engines do. `pid` is a process of a box with a network of its own.
///
/// The setting belongs to a network, and a network is that of whoever asks: a thread goes there, and ends.
pub(super) fn open_low_ports(pid: i32) -> io::Result<()> {
    let network = File::open(format!("/proc/{pid}/ns/net"))?;
    let (theirs, ours) = (network.metadata()?, std::fs::metadata("/proc/self/ns/net")?);
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Err(io::Error::other("the box has the network of the host"));
    }
    let work = move || -> io::Result<()> {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    };
    let thread = std::thread::Builder::new().spawn(work)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
}
