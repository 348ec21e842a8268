//! What the user sees of an attachment.

use std::io;

use bytes::Bytes;
use client::OutputStream;

use super::outage::Outage;
use crate::output::{self, Format, LiveOutput, OutputLine, Room, Target};
use crate::verbs::error::VerbError;
use crate::verbs::terminal::{self, Modes, RawMode, Scrollback};

const BELL: &[u8] = b"\x07";

/// Writes what comes, and knows what it does to our terminal.
pub struct Screen<'a> {
    out: &'a LiveOutput,
    room: Option<Room<'a>>,
    format: Format,
    /// Given back with the rest.
    raw_mode: Option<RawMode>,
    modes: Modes,
    /// Filters what is recorded, up to the offset where what is new begins.
    scrollback: Option<(Scrollback, u64)>,
}

impl<'a> Screen<'a> {
    /// A screen; where a program has our terminal, that is taken over.
    pub fn new(out: &'a LiveOutput, format: Format, is_terminal: bool) -> Result<Self, VerbError> {
        let raw_mode = match is_terminal && terminal::is_input() {
            true => Some(RawMode::enter()?),
            false => None,
        };
        Ok(Self { out, room: None, format, raw_mode, modes: Modes::default(), scrollback: None })
    }

    /// Whether our terminal is lent to the program.
    pub const fn is_raw(&self) -> bool {
        self.raw_mode.is_some()
    }

    /// Whether something can be written at once.
    pub const fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// Waits until something can be written, and fails once nothing ever can. Cancel safe.
    pub async fn make_room(&mut self) -> io::Result<()> {
        if self.has_room() {
            return Err(self.out.closed().await);
        }
        self.room = Some(self.out.room().await?);
        Ok(())
    }

    /// Lets others write.
    pub fn leave(&mut self) {
        self.room = None;
    }

    /// After this program was stopped, the terminal is taken over again.
    pub fn resume(&self) {
        if let Some(raw_mode) = &self.raw_mode {
            raw_mode.resume();
        }
    }

    /// Output of the past comes to a clean screen, so that it looks as it did. `recorded` bytes of it are of the past.
    pub fn rebuild(&mut self, recorded: u64) {
        if !terminal::is_output() {
            return;
        }
        self.scrollback = (recorded > 0).then(|| (Scrollback::default(), recorded));
        // What was on the screen goes up, and is not lost.
        let rows = usize::from(terminal::size().rows);
        self.put(Target::Stdout, ["\x1b[999;1H", &"\n".repeat(rows), "\x1b[H\x1b[2J"].concat().into());
    }

    /// Writes output of the program. There should be room.
    pub fn write(&mut self, stream: OutputStream, offset: u64, bytes: Bytes) -> Result<(), VerbError> {
        if self.raw_mode.is_some() && self.modes.follow(&bytes) {
            self.remember_reset();
        }
        match self.format {
            Format::Table => {
                let shown = match stream {
                    OutputStream::Stdout => self.without_the_past(offset, bytes),
                    OutputStream::Stderr => bytes,
                };
                self.put(stream.into(), shown);
            }
            Format::Json if bytes.is_empty() => {}
            Format::Json => {
                let line = json_line(&OutputLine::new(stream, offset, &bytes))?;
                self.put(Target::Stdout, line);
            }
        }
        Ok(())
    }

    /// Writes what is still held back: nothing more comes.
    pub fn finish(&mut self) {
        if let Some((scrollback, _)) = self.scrollback.take() {
            self.put(Target::Stdout, scrollback.finish().into());
        }
    }

    /// Rings.
    pub fn bell(&self) {
        if self.raw_mode.is_some() {
            self.out.offer(Target::Stdout, Bytes::from_static(BELL));
        }
    }

    /// Says something on stderr. On a terminal in raw mode words would stand in the program's way.
    pub fn note(&self, words: &str) {
        if self.raw_mode.is_none() {
            output::note(words);
        }
    }

    /// Tells of an outage that takes long.
    pub fn tell(&self, outage: &mut Outage) {
        if self.raw_mode.is_some() && terminal::is_output() {
            self.out.offer(Target::Stdout, outage.tell(self.modes.is_alternate()));
        }
    }

    /// Takes that away again.
    pub fn erase(&mut self, outage: &Outage) {
        self.put(Target::Stdout, outage.erase());
    }

    /// Leaves out of past output what only had a meaning at its time.
    fn without_the_past(&mut self, offset: u64, mut bytes: Bytes) -> Bytes {
        let Some((mut scrollback, live_from)) = self.scrollback.take() else {
            return bytes;
        };
        let next = offset + bytes.len() as u64;
        let past = usize::try_from(live_from.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let mut shown = scrollback.filter(&bytes.split_to(past));
        if next < live_from {
            self.scrollback = Some((scrollback, live_from));
        } else {
            shown.extend(scrollback.finish());
            shown.extend_from_slice(&bytes);
        }
        shown.into()
    }

    fn put(&mut self, target: Target, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self.room.take() {
            Some(room) => room.write(target, bytes),
            None => {
                self.out.offer(target, bytes);
            }
        }
    }

    fn remember_reset(&self) {
        if let Some(raw_mode) = &self.raw_mode {
            raw_mode.reset_with(if terminal::is_output() { self.modes.reset() } else { Vec::new() });
        }
    }
}

pub fn json_line(value: &impl serde::Serialize) -> Result<Bytes, VerbError> {
    let line = serde_json::to_string(value).map_err(|error| VerbError::Unexpected(error.to_string()))?;
    Ok(format!("{}\n", output::json(&line)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_ends_in_the_middle_of_a_chunk() {
        let out = LiveOutput::start().unwrap();
        let mut screen = Screen::new(&out, Format::Table, false).unwrap();
        screen.scrollback = Some((Scrollback::default(), 6));
        let question = Bytes::from_static(b"\x1b[6n");
        assert_eq!(screen.without_the_past(0, question.clone()), "");
        assert_eq!(screen.without_the_past(4, Bytes::from_static(b"ab\x1b[6ncd")), "ab\x1b[6ncd");
        assert_eq!(screen.without_the_past(12, question.clone()), question, "asked now, it is answered now");
    }

    #[test]
    fn a_sequence_that_the_past_ends_in_is_not_lost() {
        let out = LiveOutput::start().unwrap();
        let mut screen = Screen::new(&out, Format::Table, false).unwrap();
        screen.scrollback = Some((Scrollback::default(), 2));
        assert_eq!(screen.without_the_past(0, Bytes::from_static(b"\x1b[")), "\x1b[");
        screen.scrollback = Some((Scrollback::default(), 2));
        assert_eq!(screen.without_the_past(0, Bytes::from_static(b"\x1b[6n")), "\x1b[6n");
    }
}
