use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::watch::{Watched, watch};
use agent::protocol::TerminalSize;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The agent's end of an exec's terminal.
pub struct Terminal {
    master: Rc<Watched>,
}

impl Terminal {
    /// The agent's end and the process's.
    pub fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&master)?;
        let peer =
            ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self { master: Rc::new(watch(master)?) };
        terminal.resize(size)?;
        Ok((terminal, peer))
    }

    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.master.get_ref(), size)?)
    }

    pub fn master(&self) -> Rc<Watched> {
        Rc::clone(&self.master)
    }
}
