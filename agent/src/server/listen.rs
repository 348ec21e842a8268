use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixStream};

use super::{Agent, session};

/// Binds with mode 0600 from the first moment; a socket left from an earlier run is replaced.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = bind_any_length(path);
    rustix::process::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket address holds 107 bytes; a longer path goes through a descriptor of its directory.
fn bind_any_length(path: &Path) -> io::Result<StdListener> {
    if path.as_os_str().len() <= 107 {
        return StdListener::bind(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = std::fs::File::open(directory)?;
    StdListener::bind(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

pub struct Listener {
    socket: UnixListener,
    any_peer: bool,
}

impl Listener {
    pub fn new(socket: StdListener, any_peer: bool) -> io::Result<Self> {
        Ok(Self { socket: UnixListener::from_std(socket)?, any_peer })
    }

    pub async fn serve(self, agent: Rc<Agent>) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) if self.admits(&stream) => {
                    tokio::task::spawn_local(session::serve(Rc::clone(&agent), stream));
                }
                Ok(_) => {}
                // Out of descriptors or memory: those under way will give some back.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The kernel shows a peer outside our pid namespace as pid 0: that is the executor. A peer with a
    /// pid is a process of the sandbox, and the agent obeys none of those.
    fn admits(&self, stream: &UnixStream) -> bool {
        self.any_peer || stream.peer_cred().is_ok_and(|peer| peer.pid() == Some(0))
    }
}
