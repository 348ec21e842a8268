//! The names of a box: what engines write into `/etc`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use events::Network;
use tokio::process::Command;

use super::confine::memory_file;
use crate::provider::BoxOrder;

/// Has bwrap write the files, as the user of the box. The descriptors must stay open until it has.
pub(super) fn write(command: &mut Command, rootfs: &Path, order: &BoxOrder) -> io::Result<Vec<OwnedFd>> {
    let id = order.id;
    let mut files = vec![
        ("hostname", format!("{id}\n")),
        (
            "hosts",
            format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{id}\n"),
        ),
    ];
    if order.spec.network == Network::None {
        files.push(("resolv.conf", "# There is no network.\n".to_owned()));
    }
    let mut descriptors = Vec::new();
    for (name, content) in files {
        // An image that has a link there means something else; followed, it may lead nowhere.
        if is_link(&rootfs.join("etc")) || is_link(&rootfs.join("etc").join(name)) {
            continue;
        }
        let file = memory_file(name, content.as_bytes())?;
        command.args(["--perms", "0644", "--file", &file.as_raw_fd().to_string(), &format!("/etc/{name}")]);
        descriptors.push(file);
    }
    Ok(descriptors)
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}
