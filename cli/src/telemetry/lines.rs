//! Log lines on their way to stderr. Whoever writes one never waits: for a pipe that is full because nobody reads it, for a
//! terminal that is stopped, for a journal that is gone. What does not find room is counted instead.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines, and how many bytes of them, wait for whoever reads them.
const MOST_LINES: usize = 8_192;
const MOST_BYTES: usize = 4 << 20;
/// The metric of those that were not written.
const LOST: &str = "stacyvm_log_lines_lost_total";

static LINES: OnceLock<Lines> = OnceLock::new();

/// The way to one descriptor. Cheap to clone.
#[derive(Clone)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes, and lines, that are not written yet.
    bytes: AtomicUsize,
    lines: AtomicUsize,
    /// Lines that were not written and of which nobody was told.
    lost: AtomicU64,
}

impl Lines {
    /// A way to this descriptor, with a thread that writes. `told`: how a reader is told how many lines it missed.
    pub fn to(out: OwnedFd, told: fn(u64) -> String) -> io::Result<Self> {
        let (queue, lines) = sync_channel(MOST_LINES);
        let state = Arc::new(State::default());
        let ours = Arc::clone(&state);
        std::thread::Builder::new()
            .name("log-lines".to_owned())
            .spawn(move || write_lines(&lines, &out, &ours, told))?;
        Ok(Self { queue, state })
    }

    /// The way to stderr, the same for the whole process.
    pub fn stderr(told: fn(u64) -> String) -> io::Result<Self> {
        if let Some(lines) = LINES.get() {
            return Ok(lines.clone());
        }
        // A descriptor of our own: the lock of the standard library is held by whoever waits on a full pipe.
        let lines = Self::to(rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?, told)?;
        Ok(LINES.get_or_init(|| lines).clone())
    }

    fn offer(&self, line: &[u8]) {
        let (state, len) = (&self.state, line.len());
        if state.bytes.fetch_add(len, Ordering::Relaxed) + len > MOST_BYTES {
            state.bytes.fetch_sub(len, Ordering::Relaxed);
            return state.lose();
        }
        state.lines.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line.to_vec()).is_err() {
            state.settle(len);
            state.lose();
        }
    }

    /// Waits until all is written, but not for longer than this.
    pub fn flush(&self, patience: Duration) {
        let began = Instant::now();
        while self.state.lines.load(Ordering::Acquire) > 0 && began.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl State {
    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(LOST).increment(1);
    }

    fn settle(&self, len: usize) {
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        self.lines.fetch_sub(1, Ordering::Release);
    }
}

/// Waits, but not for longer than this, until what was logged is on stderr.
pub fn flush(patience: Duration) {
    if let Some(lines) = LINES.get() {
        lines.flush(patience);
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, out: &OwnedFd, state: &State, told: fn(u64) -> String) {
    while let Ok(line) = lines.recv() {
        let missed = state.lost.swap(0, Ordering::Relaxed);
        if missed > 0 && write_all(out, told(missed).as_bytes()).is_err() {
            state.lost.fetch_add(missed, Ordering::Relaxed);
        }
        // Nobody may be there to read it now; there may be somebody again, as when a journal is restarted.
        if write_all(out, &line).is_err() {
            state.lose();
        }
        state.settle(line.len());
    }
}

/// Waits as long as it takes: only the thread of the lines does.
fn write_all(out: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another program that shares it made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(out, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes to stderr from a thread that may not wait for long: as much as whoever reads it takes in the time.
pub fn say(text: &str, patience: Duration) {
    say_on(io::stderr(), text, patience);
}

fn say_on(out: impl std::os::fd::AsFd, text: &str, patience: Duration) {
    let began = Instant::now();
    // A pipe that has room at all has room for this much.
    for piece in text.as_bytes().chunks(libc::PIPE_BUF) {
        let mut piece = piece;
        while !piece.is_empty() {
            let left = patience.saturating_sub(began.elapsed());
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&out, PollFlags::OUT)], timeout.as_ref()) {
                Ok(0) => return,
                Ok(_) => match rustix::io::write(&out, piece) {
                    Ok(written) => piece = piece.get(written..).unwrap_or_default(),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => return,
                },
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes one line.
pub struct Line<'a>(&'a Lines);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.offer(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};

    use super::*;

    fn told(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    #[test]
    fn a_full_pipe_holds_nobody_up_and_its_reader_is_told_what_it_missed() {
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::to(writer.into(), told).unwrap();
        let line = [vec![b'x'; 999], b"\n".to_vec()].concat();
        // More than the pipe and the queue hold.
        for _ in 0..20_000 {
            lines.make_writer().write_all(&line).unwrap();
        }
        lines.flush(Duration::from_millis(1));
        // What is lost is told once or several times: the writer may be about to tell some of it.
        let (mut whole, mut missed) = (0, 0);
        for text in io::BufReader::new(reader).lines() {
            let text = text.unwrap();
            match text.strip_suffix(" lost") {
                Some(count) => missed += count.parse::<u64>().unwrap(),
                None => {
                    assert_eq!(text.len(), 999);
                    whole += 1;
                }
            }
            if whole + missed == 20_000 {
                break;
            }
        }
        assert!(missed > 10_000, "{missed}");
    }

    #[test]
    fn nobody_reads_and_nobody_is_hurt() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let copy = writer.try_clone().unwrap();
        let lines = Lines::to(writer.into(), told).unwrap();
        for _ in 0..100 {
            lines.make_writer().write_all(b"line\n").unwrap();
        }
        lines.flush(Duration::from_secs(30));
        assert_eq!(lines.state.lost.load(Ordering::Relaxed), 100);
        say_on(&copy, "a last word", Duration::from_secs(30));
    }

    #[test]
    fn a_last_word_waits_no_longer_than_it_may() {
        let (_reader, writer) = io::pipe().unwrap();
        say_on(&writer, &"x".repeat(1 << 20), Duration::from_millis(50));
    }
}
