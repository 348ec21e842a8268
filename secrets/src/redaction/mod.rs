//! What must not be told is masked before it is published: the values of secrets, and what the operator's rules find.
//!
//! Every byte of a match becomes a `*`, so lengths and offsets stay what they were. A piece of text is masked at once
//! ([`Redaction::text`]); output and input come in pieces, and are masked across their bounds ([`RedactionStream`]).

mod fields;
mod forms;
mod secrets;
mod stream;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

pub use stream::RedactionStream;

use secrets::Secrets;

/// The fewest bytes of a secret. A shorter one would mask what only looks like it.
pub const MIN_SECRET_BYTES: usize = 4;
/// The most secrets of one sandbox or exec, and the most bytes of all of them: what their automaton may take.
pub const MAX_SECRETS: usize = 64;
/// See [`MAX_SECRETS`].
pub const MAX_SECRETS_BYTES: usize = 32 << 10;
/// The most bytes of forms of secrets that are looked for beside their values: encoded, escaped, quoted. The forms of the
/// longest secrets are left out first.
const MAX_FORMS_BYTES: usize = 256 << 10;
/// How far back a rule sees when output comes in pieces, in bytes.
const RULE_WINDOW: usize = 256;
/// The largest compiled rule, in bytes.
const MAX_RULE_BYTES: usize = 1 << 20;

/// The operator's patterns.
#[derive(Clone, Default)]
pub struct RedactionRules(Arc<[Regex]>);

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the pattern of the redaction rule {name:?} cannot be used")]
pub struct RedactionRuleError {
    /// Its name.
    pub name: String,
    /// The cause.
    #[source]
    pub reason: regex::Error,
}

impl RedactionRules {
    /// Rules by name and regular expression.
    pub fn new<'a>(rules: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RedactionRuleError> {
        let compiled = rules.into_iter().map(|(name, pattern)| {
            RegexBuilder::new(pattern)
                .size_limit(MAX_RULE_BYTES)
                .build()
                .map_err(|reason| RedactionRuleError { name: name.to_owned(), reason })
        });
        compiled.collect::<Result<Vec<_>, _>>().map(|rules| Self(rules.into()))
    }
}

impl fmt::Debug for RedactionRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(Regex::as_str)).finish()
    }
}

/// What is masked. Cheap to clone; with neither rules nor secrets it costs nothing.
#[derive(Clone, Default)]
pub struct Redaction {
    rules: RedactionRules,
    secrets: Option<Arc<Secrets>>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl From<&RedactionRules> for Redaction {
    fn from(rules: &RedactionRules) -> Self {
        Self { rules: rules.clone(), secrets: None }
    }
}

impl Redaction {
    /// Masks these secrets too, and what usual encodings make of them. Values below [`MIN_SECRET_BYTES`] are left out. Of a value of several lines every longer
    /// line is a secret of its own: terminals end lines in another way.
    pub fn with_secrets(&self, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut all: Vec<Box<[u8]>> = Vec::new();
        if let Some(secrets) = &self.secrets {
            all.extend_from_slice(secrets.values());
        }
        all.extend(values.into_iter().map(|value| Box::from(value.as_ref().as_bytes())));
        let secrets = Secrets::new(all).map(Arc::new);
        Self { rules: self.rules.clone(), secrets }
    }

    /// Whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.rules.0.is_empty() && self.secrets.is_none()
    }

    /// How many bytes before a place must be seen again to mask what follows it as before.
    pub fn lookbehind(&self) -> usize {
        let secrets = self.secrets.as_ref().map_or(0, |secrets| secrets.longest() - 1);
        if self.rules.0.is_empty() { secrets } else { secrets.max(RULE_WINDOW) }
    }

    /// Masks bytes that are all there.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut stream = RedactionStream::new(self, 0, 0);
        let mut masked = stream.push(bytes).to_vec();
        masked.extend_from_slice(&stream.finish());
        Cow::Owned(masked)
    }

    /// Masks text.
    pub fn text(&self, text: &mut String) {
        if self.is_empty() {
            return;
        }
        let masked = self.bytes(text.as_bytes());
        if masked != text.as_bytes() {
            // A rule may match a part of a character: what is left of it is no text any more.
            *text = String::from_utf8_lossy(&masked).into_owned();
        }
    }
}

#[cfg(test)]
mod tests;
