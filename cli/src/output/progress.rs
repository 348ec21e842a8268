//! Progress bars on stderr. Where stderr is no terminal, nothing is drawn.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::text::plain;

const REDRAW: Duration = Duration::from_millis(120);

const PULL_BEGINS: &str = "pulling {msg}";
const PULL: &str = "pulling {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
const TRANSFER: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const TRANSFER_OF_UNKNOWN_LENGTH: &str = "{msg} {bytes} {bytes_per_sec}";

/// The pull of an image.
#[derive(Debug)]
pub struct PullBar {
    bar: Option<ProgressBar>,
}

impl PullBar {
    /// A bar that is drawn once there is something to show.
    pub const fn new() -> Self {
        Self { bar: None }
    }

    /// How far the pull is. The total grows while layers are found, and is 0 until the first.
    pub fn update(&mut self, image: &str, fetched: u64, total: u64) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::no_length().with_style(style(PULL_BEGINS));
            bar.set_message(plain(image).into_owned());
            bar.enable_steady_tick(REDRAW);
            bar
        });
        if total == 0 {
            return;
        }
        if bar.length().is_none() {
            bar.set_style(style(PULL));
        }
        bar.set_length(total.max(fetched));
        bar.set_position(fetched);
    }

    /// Takes the bar off the screen.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for PullBar {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A file on its way.
#[derive(Debug, Clone)]
pub struct TransferBar {
    bar: ProgressBar,
}

impl TransferBar {
    /// A bar for a file of this size, if it is known.
    pub fn new(name: &str, total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(TRANSFER)),
            None => ProgressBar::no_length().with_style(style(TRANSFER_OF_UNKNOWN_LENGTH)),
        };
        bar.set_message(plain(name).into_owned());
        Self { bar }
    }

    /// More bytes.
    pub fn advance(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the ones above, and a test reads them; the plain bar is better than no program.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_count_and_their_templates_are_read() {
        for total in [None, Some(10)] {
            let bar = TransferBar::new("a", total);
            bar.advance(4);
            bar.advance(5);
            assert_eq!(bar.bar.position(), 9);
            bar.finish();
        }
        let mut pull = PullBar::new();
        pull.update("alpine", 0, 0);
        assert_eq!(pull.bar.as_ref().unwrap().length(), None);
        pull.update("alpine", 5, 10);
        pull.update("alpine", 12, 10);
        assert_eq!(pull.bar.as_ref().unwrap().length(), Some(12));
        for template in [PULL_BEGINS, PULL, TRANSFER, TRANSFER_OF_UNKNOWN_LENGTH] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
