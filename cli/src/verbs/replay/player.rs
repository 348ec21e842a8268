//! Plays a recording with its timing, at the viewer's pace.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::output::{LiveOutput, Target};
use crate::verbs::error::VerbError;
use crate::verbs::terminal::{Modes, RawMode, Scrollback};

/// The slowest and the fastest that keys can make it.
const SPEEDS: (f64, f64) = (1.0 / 64.0, 1024.0);

/// How to play.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Times as fast as it was.
    pub speed: f64,
    /// No pause is longer than this, in the recording's own time.
    pub idle_limit: Option<Duration>,
    /// What came before this is shown at once.
    pub from: Duration,
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Pause,
    Step,
    Faster,
    Slower,
    Quit,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Played {
    On,
    Quit,
}

/// Plays what it is given.
pub struct Player<'a> {
    out: &'a LiveOutput,
    raw_mode: Option<&'a RawMode>,
    keys: Option<mpsc::Receiver<io::Result<Bytes>>>,
    pending: Vec<Key>,
    pace: Pace,
    is_paused: bool,
    modes: Modes,
    scrollback: Scrollback,
}

impl<'a> Player<'a> {
    /// With keys, where there is a terminal to press them on.
    pub fn new(
        out: &'a LiveOutput,
        raw_mode: Option<&'a RawMode>,
        keys: Option<mpsc::Receiver<io::Result<Bytes>>>,
        pace: Pace,
    ) -> Self {
        Self {
            out,
            raw_mode,
            keys,
            pending: Vec::new(),
            pace,
            is_paused: false,
            modes: Modes::default(),
            scrollback: Scrollback::default(),
        }
    }

    /// Waits until something that came `gap` after what was before it is due, and that is `at` from the start.
    pub async fn wait(&mut self, at: Duration, gap: Duration) -> Played {
        if at < self.pace.from {
            return Played::On;
        }
        let gap = gap.min(at.saturating_sub(self.pace.from));
        let mut left = self.pace.idle_limit.map_or(gap, |limit| gap.min(limit));
        loop {
            let began = Instant::now();
            let due = scaled(left, 1.0 / self.pace.speed);
            let key = tokio::select! {
                biased;
                key = key(&mut self.pending, &mut self.keys) => key,
                () = tokio::time::sleep(due), if !self.is_paused => return Played::On,
            };
            if !self.is_paused {
                left = left.saturating_sub(scaled(began.elapsed(), self.pace.speed));
            }
            match key {
                Key::Pause => self.is_paused = !self.is_paused,
                Key::Step if self.is_paused => return Played::On,
                Key::Step => self.is_paused = true,
                Key::Faster => self.pace.speed = (self.pace.speed * 2.0).min(SPEEDS.1),
                Key::Slower => self.pace.speed = (self.pace.speed / 2.0).max(SPEEDS.0),
                Key::Quit => return Played::Quit,
            }
        }
    }

    /// Shows output.
    pub async fn show(&mut self, text: &str) -> Result<(), VerbError> {
        let bytes = self.scrollback.filter(text.as_bytes());
        if self.modes.follow(&bytes)
            && let Some(raw_mode) = self.raw_mode
        {
            raw_mode.reset_with(self.modes.reset());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.out.write(Target::Stdout, bytes.into()).await.map_err(VerbError::output)
    }

    /// Brings the terminal back to what it was before the program changed it.
    pub async fn reset(&mut self) -> Result<(), VerbError> {
        let mut reset = std::mem::take(&mut self.scrollback).finish();
        self.modes.follow(&reset);
        reset.extend(self.modes.reset());
        self.modes = Modes::default();
        if let Some(raw_mode) = self.raw_mode {
            raw_mode.reset_with(Vec::new());
            self.out.write(Target::Stdout, reset.into()).await.map_err(VerbError::output)?;
        }
        Ok(())
    }
}

async fn key(pending: &mut Vec<Key>, keys: &mut Option<mpsc::Receiver<io::Result<Bytes>>>) -> Key {
    loop {
        if !pending.is_empty() {
            return pending.remove(0);
        }
        let read = match keys {
            Some(keys) => keys.recv().await,
            None => std::future::pending().await,
        };
        match read {
            Some(Ok(bytes)) => pending.extend(bytes.iter().filter_map(|byte| meaning(*byte))),
            // A terminal that is gone presses no keys.
            Some(Err(_)) | None => *keys = None,
        }
    }
}

fn meaning(byte: u8) -> Option<Key> {
    match byte {
        b' ' => Some(Key::Pause),
        b'.' => Some(Key::Step),
        b'+' | b'=' => Some(Key::Faster),
        b'-' | b'_' => Some(Key::Slower),
        b'q' | b'Q' | 3 => Some(Key::Quit),
        _ => None,
    }
}

/// At most a century: a slow speed must not overflow a clock.
fn scaled(duration: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64((duration.as_secs_f64() * by).min(3e9)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(out: &LiveOutput, keys: mpsc::Receiver<io::Result<Bytes>>, speed: f64) -> Player<'_> {
        let pace = Pace { speed, idle_limit: Some(Duration::from_secs(2)), from: Duration::from_secs(10) };
        Player::new(out, None, Some(keys), pace)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_scaled_and_cut() {
        let out = LiveOutput::start().unwrap();
        let (_presses, keys) = mpsc::channel(4);
        let mut player = player(&out, keys, 4.0);
        let mut took = async |at, gap| {
            let began = Instant::now();
            assert_eq!(player.wait(seconds(at), seconds(gap)).await, Played::On);
            began.elapsed().as_millis()
        };
        assert_eq!(took(9, 9).await, 0, "before the start that was asked for");
        assert_eq!(took(11, 2).await, 250, "only what lies after it");
        assert_eq!(took(13, 1).await, 250);
        assert_eq!(took(100, 87).await, 500, "the limit counts in the recording's time");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_pause_step_hurry_and_quit() {
        let out = LiveOutput::start().unwrap();
        let (presses, keys) = mpsc::channel(4);
        let mut player = player(&out, keys, 1.0);
        let press = |keys: &'static str| presses.try_send(Ok(Bytes::from_static(keys.as_bytes()))).unwrap();
        press(" x.");
        let began = Instant::now();
        assert_eq!(player.wait(seconds(20), seconds(2)).await, Played::On);
        assert_eq!(began.elapsed().as_millis(), 0, "a step does not wait");
        press(" ++");
        assert_eq!(player.wait(seconds(22), seconds(2)).await, Played::On);
        assert_eq!(began.elapsed().as_millis(), 500, "four times as fast");
        press("-q");
        assert_eq!(player.wait(seconds(24), seconds(2)).await, Played::Quit);
    }
}
