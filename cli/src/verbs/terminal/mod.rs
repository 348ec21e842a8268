//! Our terminal, lent to a program in a sandbox.

mod calm;
mod detach_keys;
mod modes;
mod queries;
mod raw_mode;
mod sequences;

pub use detach_keys::{DetachKeys, Typed, Typing};
pub use modes::Modes;
pub use queries::Scrollback;
pub use raw_mode::RawMode;

use std::io::{self, IsTerminal as _, stderr, stdin, stdout};
use std::os::fd::AsFd as _;

use client::TerminalSize;
use rustix::termios::tcgetwinsize;

use crate::output::{self, LiveOutput};

/// What a terminal has that does not say.
const USUAL: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// How large our terminal is, wherever it is connected; `None` where there is none.
pub fn known_size() -> Option<TerminalSize> {
    let (stdout, stdin, stderr) = (stdout(), stdin(), stderr());
    [stdout.as_fd(), stdin.as_fd(), stderr.as_fd()]
        .into_iter()
        .filter_map(|fd| tcgetwinsize(fd).ok())
        .find(|size| size.ws_row > 0 && size.ws_col > 0)
        .map(|size| TerminalSize { rows: size.ws_row, cols: size.ws_col })
}

/// How large our terminal is, or usually would be.
pub fn size() -> TerminalSize {
    known_size().unwrap_or(USUAL)
}

/// Whether keys come from a terminal.
pub fn is_input() -> bool {
    stdin().is_terminal()
}

/// Whether output goes to a terminal.
pub fn is_output() -> bool {
    stdout().is_terminal()
}

/// The way to stdout and stderr for what a sandbox wrote: where these are terminals, nothing reaches them but what shows
/// something, unless it is wanted `raw`. What goes to files and pipes stays as it is.
pub fn output_of_sandboxes(raw: bool) -> io::Result<LiveOutput> {
    let filter = |is_terminal: bool| -> Option<Box<dyn output::Filter>> {
        (is_terminal && !raw).then(|| -> Box<dyn output::Filter> { Box::<calm::Calm>::default() })
    };
    LiveOutput::start_with(filter(io::stdout().is_terminal()), filter(io::stderr().is_terminal()))
}

/// Tells of new sizes.
pub fn resizes() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
}

/// Tells that we go on after we were stopped.
pub fn continuations() -> io::Result<tokio::signal::unix::Signal> {
    let number = rustix::process::Signal::CONT.as_raw();
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(number))
}
