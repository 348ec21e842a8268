//! What this program is fed.

use std::io::{self, Read as _};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

/// How much is read at once, in bytes. A server takes frames of up to 1 MiB.
const CHUNK: usize = 64 << 10;

/// Reads stdin in a thread of its own: the read cannot be interrupted, and must not hold up the end of the program.
pub fn read_stdin() -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(4);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}
