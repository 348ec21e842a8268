//! Our terminal, lent to a command in a sandbox.

use std::io::{self, IsTerminal as _, stdin, stdout};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;

use super::error::ClientError;

/// What a terminal has that does not say.
const USUAL: Size = Size { rows: 24, cols: 80 };

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

/// While it is there, every key goes to the command, Ctrl-C too.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Takes the terminal over.
    pub fn enter() -> Result<Self, ClientError> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Err(ClientError::Usage("--tty needs a terminal on stdin and stdout".to_owned()));
        }
        let failed = |error: rustix::io::Errno| ClientError::local("cannot use the terminal")(error.into());
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing is left to be done for a terminal that is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

/// How large our terminal is.
pub fn size() -> Size {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size { rows: size.ws_row, cols: size.ws_col },
        Ok(_) | Err(_) => USUAL,
    }
}

/// Tells of new sizes.
pub fn resizes() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
}
