//! Output of a command in a sandbox, byte for byte, as it comes.
//!
//! A thread of its own writes it: a terminal that was stopped, or a pipe that nobody reads, must not hold up the handling
//! of signals, nor the end of the program.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::Bytes;
use client::OutputStream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

/// Chunks that wait for the writer. Beyond that, the server is made to wait.
const QUEUE: usize = 8;
/// A terminal that was stopped holds a write until it goes on: between writes we can think again.
const TERMINAL_CHUNK: usize = 4 << 10;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl From<OutputStream> for Target {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

#[derive(Debug)]
enum Job {
    Write(Target, Bytes),
    Flush(oneshot::Sender<()>),
}

/// The way to stdout and stderr.
#[derive(Debug)]
pub struct LiveOutput {
    jobs: mpsc::Sender<Job>,
    /// Why the writer stopped.
    failure: Arc<OnceLock<io::Error>>,
    abandoned: Arc<AtomicBool>,
}

/// Room for one chunk in the queue.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, Job>);

impl Room<'_> {
    /// Passes bytes on to the writer.
    pub fn write(self, target: Target, bytes: Bytes) {
        self.0.send(Job::Write(target, bytes));
    }
}

/// What is left of bytes before they are written.
pub trait Filter: Send {
    /// What of these bytes is written by now.
    fn filter(&mut self, bytes: &[u8]) -> Vec<u8>;
    /// What belongs behind all that came so far: nothing may come any more.
    fn finish(&mut self) -> Vec<u8>;
}

impl LiveOutput {
    /// Starts the writer. Every byte is written as it is.
    pub fn start() -> io::Result<Self> {
        Self::start_with(None, None)
    }

    /// The same, with filters for stdout and for stderr.
    pub fn start_with(stdout: Option<Box<dyn Filter>>, stderr: Option<Box<dyn Filter>>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let abandoned = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&abandoned);
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut queue = queue;
            if let Err(error) = write_all(&mut queue, &given_up, stdout, stderr) {
                let _ = told.set(error);
            }
            // Last: the other side looks for the reason when it finds the queue closed.
            drop(queue);
        })?;
        Ok(Self { jobs, failure, abandoned })
    }

    /// Passes bytes on to the writer. Waits while its queue is full.
    pub async fn write(&self, target: Target, bytes: Bytes) -> io::Result<()> {
        self.jobs.send(Job::Write(target, bytes)).await.map_err(|_| self.failure())
    }

    /// Waits for room. Cancel safe.
    pub async fn room(&self) -> io::Result<Room<'_>> {
        self.jobs.reserve().await.map(Room).map_err(|_| self.failure())
    }

    /// Passes bytes on if the writer is not behind.
    pub fn offer(&self, target: Target, bytes: Bytes) -> bool {
        self.jobs.try_send(Job::Write(target, bytes)).is_ok()
    }

    /// What waits is not written any more. Completes when the writer has stopped, which it does not while a terminal holds it.
    pub async fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // Where the writer waits for work, that is work.
        let _ = self.jobs.try_send(Job::Write(Target::Stdout, Bytes::new()));
        self.jobs.closed().await;
    }

    /// Waits until everything is written.
    pub async fn flush(&self) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.jobs.send(Job::Flush(done)).await.map_err(|_| self.failure())?;
        match written.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.closed().await),
        }
    }

    /// Completes when nothing can be written any more, with the reason.
    pub async fn closed(&self) -> io::Error {
        self.jobs.closed().await;
        self.failure()
    }

    fn failure(&self) -> io::Error {
        match self.failure.get() {
            Some(error) => match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => error.kind().into(),
            },
            None => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

fn write_all(
    queue: &mut mpsc::Receiver<Job>,
    abandoned: &AtomicBool,
    mut stdout: Option<Box<dyn Filter>>,
    mut stderr: Option<Box<dyn Filter>>,
) -> io::Result<()> {
    while let Some(job) = queue.blocking_recv() {
        if abandoned.load(Ordering::Relaxed) {
            return Ok(());
        }
        match job {
            Job::Write(target, bytes) => {
                let filter = match target {
                    Target::Stdout => stdout.as_mut(),
                    Target::Stderr => stderr.as_mut(),
                };
                match filter {
                    Some(filter) => write(target, &filter.filter(&bytes), abandoned)?,
                    None => write(target, &bytes, abandoned)?,
                }
            }
            Job::Flush(done) => {
                for (target, filter) in [(Target::Stdout, &mut stdout), (Target::Stderr, &mut stderr)] {
                    if let Some(filter) = filter {
                        write(target, &filter.finish(), abandoned)?;
                    }
                }
                let _ = done.send(());
            }
        }
    }
    Ok(())
}

fn write(target: Target, bytes: &[u8], abandoned: &AtomicBool) -> io::Result<()> {
    match target {
        Target::Stdout => write_to(io::stdout().as_fd(), bytes, abandoned),
        Target::Stderr => write_to(io::stderr().as_fd(), bytes, abandoned),
    }
}

/// Past the buffers of the standard library: what is written is out.
fn write_to(fd: BorrowedFd<'_>, mut bytes: &[u8], abandoned: &AtomicBool) -> io::Result<()> {
    let chunk = if bytes.len() > TERMINAL_CHUNK && fd.is_terminal() { TERMINAL_CHUNK } else { usize::MAX };
    while !bytes.is_empty() && !abandoned.load(Ordering::Relaxed) {
        match rustix::io::write(fd, bytes.get(..chunk).unwrap_or(bytes)) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another program that shares the terminal made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
        let expected = sent.clone();
        let sender = thread::spawn(move || write_to(writer.as_fd(), &sent, &AtomicBool::new(false)).unwrap());
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        sender.join().unwrap();
        assert!(got == expected);
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(
            write_to(writer.as_fd(), b"x", &AtomicBool::new(false)).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[tokio::test]
    async fn what_is_abandoned_is_not_waited_for() {
        let out = LiveOutput::start().unwrap();
        assert!(out.offer(Target::Stderr, Bytes::new()));
        out.room().await.unwrap().write(Target::Stderr, Bytes::new());
        out.abandon().await;
        assert!(!out.offer(Target::Stderr, Bytes::new()));
        assert!(out.room().await.is_err());
    }
}
