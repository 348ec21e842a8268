//! Raw mode, and the way out of it: at the end, on an error, in a panic, on a signal.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::verbs::error::VerbError;

/// A terminal that takes nothing for so long (it was stopped with Ctrl-S, say) is not waited for on the way out.
const SCREEN_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// A panic may come while the lock is held, and in the thread that holds it.
const PANIC_TRIES: u32 = 20;

/// The one terminal that is lent out. Static, because a panic knows of nothing else.
static LENT: Mutex<Option<Lent>> = Mutex::new(None);
static HOOK: Once = Once::new();

struct Lent {
    keyboard: OwnedFd,
    screen: OwnedFd,
    before: Termios,
    raw: Termios,
    /// What undoes the modes that the program has left on.
    reset: Vec<u8>,
}

/// While it is there, every key goes to the program, Ctrl-C too.
#[derive(Debug)]
pub struct RawMode {
    _private: (),
}

impl RawMode {
    /// Takes our terminal over. Output may go elsewhere.
    pub fn enter() -> Result<Self, VerbError> {
        if !io::stdin().is_terminal() {
            return Err(VerbError::Usage("this needs a terminal on stdin".to_owned()));
        }
        Self::enter_on(io::stdin().as_fd(), io::stdout().as_fd())
            .map_err(VerbError::local("cannot use the terminal"))
    }

    /// Takes over the terminal that `keyboard` is open on, and whose screen `screen` writes to.
    fn enter_on(keyboard: BorrowedFd<'_>, screen: BorrowedFd<'_>) -> io::Result<Self> {
        let before = tcgetattr(keyboard)?;
        let mut raw = before.clone();
        raw.make_raw();
        let mut lent = lock();
        if lent.is_some() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is lent out already"));
        }
        *lent = Some(Lent {
            keyboard: keyboard.try_clone_to_owned()?,
            screen: screen.try_clone_to_owned()?,
            before,
            raw: raw.clone(),
            reset: Vec::new(),
        });
        drop(lent);
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back_in_panic();
                before(panic);
            }));
        });
        let guard = Self { _private: () };
        // What was typed before is for the program too.
        tcsetattr(keyboard, OptionalActions::Now, &raw)?;
        Ok(guard)
    }

    /// What the screen needs to be given back in order.
    pub fn reset_with(&self, reset: Vec<u8>) {
        if let Some(lent) = lock().as_mut() {
            lent.reset = reset;
        }
    }

    /// Takes the terminal over again, after this program was stopped and something else used it.
    pub fn resume(&self) {
        if let Some(lent) = lock().as_ref() {
            // In the background, setting the terminal would stop us again.
            if tcgetpgrp(&lent.keyboard).is_ok_and(|foreground| foreground == getpgrp()) {
                let _ = tcsetattr(&lent.keyboard, OptionalActions::Now, &lent.raw);
            }
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let lent = lock().take();
        if let Some(lent) = lent {
            lent.give_back();
        }
    }
}

impl Lent {
    fn give_back(self) {
        if !self.reset.is_empty() && self.screen.is_terminal() {
            write_patiently(self.screen.as_fd(), &self.reset);
        }
        // At once, without waiting for output that may never drain. Nothing is left to be done for a terminal that is gone.
        let _ = tcsetattr(&self.keyboard, OptionalActions::Now, &self.before);
    }
}

fn lock() -> MutexGuard<'static, Option<Lent>> {
    LENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give_back_in_panic() {
    for _ in 0..PANIC_TRIES {
        let lent = match LENT.try_lock() {
            Ok(mut lent) => lent.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        if let Some(lent) = lent {
            lent.give_back();
        }
        return;
    }
}

fn write_patiently(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&SCREEN_PATIENCE)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// Only one terminal can be lent out in a process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// Both ends of a real terminal.
    fn terminal() -> (std::fs::File, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let peer = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master.into(), peer)
    }

    fn modes(fd: &OwnedFd) -> String {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } = tcgetattr(fd).unwrap();
        format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
    }

    fn enter(peer: &OwnedFd) -> io::Result<RawMode> {
        RawMode::enter_on(peer.as_fd(), peer.as_fd())
    }

    fn read(master: &mut std::fs::File, count: usize) -> String {
        let mut bytes = vec![0; count];
        master.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_terminal_comes_back_as_it_was_lent() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut master, peer) = terminal();
        let before = modes(&peer);
        let raw_mode = enter(&peer).unwrap();
        let local = tcgetattr(&peer).unwrap().local_modes;
        assert!(!local.intersects(LocalModes::ISIG | LocalModes::ICANON | LocalModes::ECHO), "{local:?}");
        assert!(enter(&peer).is_err(), "it is lent out");
        raw_mode.reset_with(b"\x1b[?25h".to_vec());
        drop(raw_mode);
        assert_eq!(modes(&peer), before);
        assert_eq!(read(&mut master, 6), "\x1b[?25h");
        drop(enter(&peer).unwrap());
        assert_eq!(modes(&peer), before);
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut master, peer) = terminal();
        let before = modes(&peer);
        let raw_mode = enter(&peer).unwrap();
        raw_mode.reset_with(b"\x1b[?1049l".to_vec());
        assert_ne!(modes(&peer), before);
        // In a thread that knows nothing of the guard, as a task of the runtime would.
        let panicked = std::thread::spawn(|| panic!("on purpose, in a test")).join();
        assert!(panicked.is_err());
        assert_eq!(modes(&peer), before);
        assert_eq!(read(&mut master, 8), "\x1b[?1049l");
        drop(raw_mode);
        // And unwinding through the guard is the same.
        let raw_mode = enter(&peer).unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _raw_mode = raw_mode;
            panic!("on purpose, in a test");
        }));
        assert!(unwound.is_err());
        assert_eq!(modes(&peer), before);
    }

    #[test]
    fn a_terminal_that_takes_no_output_is_given_back_all_the_same() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (_master, peer) = terminal();
        let before = modes(&peer);
        let raw_mode = enter(&peer).unwrap();
        raw_mode.reset_with(b"\x1b[?25h".to_vec());
        // As Ctrl-S does, and nobody reads the other end.
        rustix::termios::tcflow(&peer, rustix::termios::Action::OOff).unwrap();
        drop(raw_mode);
        assert_eq!(modes(&peer), before);
    }

    #[test]
    fn a_pipe_is_not_a_terminal() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (reader, writer) = io::pipe().unwrap();
        assert!(RawMode::enter_on(reader.as_fd(), writer.as_fd()).is_err());
        let (_master, peer) = terminal();
        drop(enter(&peer).unwrap());
    }
}
