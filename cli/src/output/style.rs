//! Colour, where a terminal shows it and nobody minds.

use std::env;
use std::io::IsTerminal;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// No colour, whatever the stream.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };

    /// What suits a stream: <https://no-color.org>, and terminals only.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: stream.is_terminal() && !no_color && !dumb }
    }

    /// With colour, whatever the stream.
    #[cfg(test)]
    pub const fn coloured() -> Self {
        Self { colour: true }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What went wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// The state of a sandbox.
    pub fn state(self, state: &str) -> String {
        match state {
            "running" => self.paint("32", state),
            "creating" => self.paint("33", state),
            "expired" | "error" => self.paint("31", state),
            _ => state.to_owned(),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(Style::PLAIN.state("running"), "running");
        assert_eq!(Style::coloured().state("running"), "\x1b[32mrunning\x1b[0m");
        assert_eq!(Style::coloured().state("new-state"), "new-state");
    }

    #[test]
    fn a_file_is_not_coloured() {
        assert_eq!(Style::of(&tempfile::tempfile().unwrap()), Style::PLAIN);
    }
}
