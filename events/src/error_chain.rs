use std::error::Error;
use std::fmt::{self, Write};

/// The longest text of a chain, in bytes. What programs and servers say of their failures may hold what a workload chose: a
/// path of 150,000 bytes, for one.
const MOST_BYTES: usize = 2000;

/// An error with all that lies under it, on one line of bounded length: for the log, never for a client.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Bounded { left: MOST_BYTES, to: f };
        // It fails when the line is full.
        if self.tell(&mut line).is_err() && line.left == 0 {
            return f.write_str("...");
        }
        Ok(())
    }
}

impl ErrorChain<'_> {
    fn tell(&self, line: &mut Bounded<'_, '_>) -> fmt::Result {
        write!(line, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(line, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

struct Bounded<'a, 'f> {
    left: usize,
    to: &'a mut fmt::Formatter<'f>,
}

impl Write for Bounded<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(self.left);
        self.to.write_str(&text[..end])?;
        if end < text.len() {
            self.left = 0;
            return Err(fmt::Error);
        }
        self.left -= end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: String,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn all_layers_are_told_on_a_line_that_is_never_too_long() {
        let under = |text: &str, source| Layer { text: text.to_owned(), source };
        let chain = under("outer", Some(Box::new(under("inner", None))));
        assert_eq!(ErrorChain(&chain).to_string(), "outer: inner");
        let long = under("outer", Some(Box::new(under(&"é/".repeat(50_000), Some(Box::new(chain))))));
        let told = ErrorChain(&long).to_string();
        assert!(told.starts_with("outer: é/") && told.ends_with("..."), "{told}");
        assert!(told.len() <= MOST_BYTES + 3, "{}", told.len());
    }
}
