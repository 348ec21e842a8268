use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::fields::{known_at, segments};
use crate::error::ApiError;

/// How many of a request are named; of more it is said that there are more.
const MAX_NAMED: usize = 32;
/// How much of a name is shown, in characters.
const MAX_NAME_CHARS: usize = 64;

/// What one request says and nothing reads. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Unread {
    /// Whether the client wants to be refused.
    strict: bool,
    found: Arc<Mutex<Vec<Unknown>>>,
}

/// One name that nothing reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    pub place: Place,
    /// As the client wrote it, with the names that it is inside of, and no longer than is shown.
    pub name: String,
    pub meant: Option<String>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Body,
    /// A frame of a WebSocket.
    Frame,
    Query,
    /// A body where none is read; its name is that of nothing.
    Unasked,
}

impl Unread {
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// For what only clients of ours say: nothing unknown is let pass.
    pub fn strict() -> Self {
        Self::new(true)
    }

    /// Reads a JSON object from a body.
    pub fn body<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ApiError> {
        self.object(Place::Body, bytes, &[])
    }

    /// Reads a JSON object from a frame of a WebSocket. `besides` are names that somebody else reads.
    pub fn frame<T: DeserializeOwned>(&self, bytes: &[u8], besides: &[&str]) -> Result<T, ApiError> {
        let value = self.object(Place::Frame, bytes, besides)?;
        // No answer of HTTP follows, which would tell.
        self.log("websocket");
        Ok(value)
    }

    /// Looks through a later frame of a WebSocket, of which only these names are read.
    pub fn control(&self, bytes: &[u8], known: &'static [&'static str]) -> Result<(), ApiError> {
        let names: BTreeMap<String, IgnoredAny> = parse_object(bytes, |_| {})?;
        let unknown: Vec<Unknown> = names
            .into_keys()
            .filter(|name| !known.contains(&name.as_str()))
            .take(MAX_NAMED + 1)
            .map(|name| Unknown {
                place: Place::Frame,
                meant: spelling::nearest(&name, known.iter().copied()).map(str::to_owned),
                name: shown(&name),
            })
            .collect();
        if !unknown.is_empty() {
            self.note(unknown);
            self.check()?;
            self.log("websocket");
        }
        Ok(())
    }

    fn object<T: DeserializeOwned>(
        &self,
        place: Place,
        bytes: &[u8],
        besides: &[&str],
    ) -> Result<T, ApiError> {
        let mut unknown = Vec::new();
        let value = parse_object(bytes, |path| {
            if unknown.len() <= MAX_NAMED
                && !matches!(path.as_slice(), [name] if besides.contains(&name.as_str()))
            {
                unknown.push(path);
            }
        })?;
        if !unknown.is_empty() {
            self.note(unknown.into_iter().map(|path| Unknown::field::<T>(place, path)));
            self.check()?;
        }
        Ok(value)
    }

    pub(super) fn note(&self, unknown: impl IntoIterator<Item = Unknown>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let room = (MAX_NAMED + 1).saturating_sub(found.len());
        found.extend(unknown.into_iter().take(room));
    }

    /// Refuses, if there is something and the client wants that.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let found = self.found();
        if !self.strict || found.is_empty() {
            return Ok(());
        }
        Err(ApiError::bad_request(sentence(&found)))
    }

    pub(super) fn found(&self) -> Vec<Unknown> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The value of `X-Unknown-Fields`.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let found = self.found();
        if found.is_empty() {
            return None;
        }
        let mut names: Vec<Cow<'_, str>> =
            found.iter().take(MAX_NAMED).map(|unknown| for_a_header(&unknown.name)).collect();
        if found.len() > MAX_NAMED {
            names.push("...".into());
        }
        HeaderValue::try_from(names.join(", ")).ok()
    }

    /// Writes to the log what was left out, as often as the log can bear.
    pub(crate) fn log(&self, route: &str) {
        let found = self.found();
        if !found.is_empty() {
            super::notice::left_out(route, &sentence(&found));
        }
    }
}

impl Unknown {
    fn field<T: DeserializeOwned>(place: Place, mut path: Vec<String>) -> Self {
        let whole = path.join(".");
        let name = path.pop().unwrap_or_default();
        let meant = spelling::nearest(&name, known_at::<T>(&path).iter().copied()).map(|meant| {
            path.push(meant.to_owned());
            path.join(".")
        });
        Self { place, name: shown(&whole), meant }
    }
}

/// As much of a name as is shown, without anything that would change a line.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(MAX_NAME_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_NAME_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::Body => "field",
            Place::Frame => "field of the frame",
            Place::Query => "query parameter",
            Place::Unasked => return f.write_str("a body, which this route does not read"),
        };
        write!(f, "unknown {place} \"{}\"", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, " (did you mean \"{meant}\"?)"),
            None => Ok(()),
        }
    }
}

fn sentence(found: &[Unknown]) -> String {
    let mut parts: Vec<String> = found.iter().take(MAX_NAMED).map(Unknown::to_string).collect();
    if found.len() > MAX_NAMED {
        parts.push("and more".to_owned());
    }
    parts.join(", ")
}

/// Visible ASCII without what separates; the rest percent-encoded.
fn for_a_header(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b",\"%".contains(&byte);
    if name.bytes().all(plain) {
        return name.into();
    }
    let mut encoded = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if plain(byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded.into()
}

/// Reads a JSON object and says what of it nothing reads. An array would also fill a struct, field by field, and is not
/// what anybody means.
pub fn parse_object<T: DeserializeOwned>(
    bytes: &[u8],
    mut ignored: impl FnMut(Vec<String>),
) -> Result<T, ApiError> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::bad_request("the body must be a JSON object"));
    }
    let wrong = |error: serde_json::Error| {
        ApiError::bad_request(format!("invalid JSON body: {}", events::without_values(&error)))
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_ignored::deserialize(&mut reader, |path| ignored(segments(&path))).map_err(wrong)?;
    reader.end().map_err(wrong)?;
    Ok(value)
}

impl<S: Sync> FromRequestParts<S> for Unread {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Without the layer nothing is strict and nothing is told.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use api_types::ExecRequest;

    fn strictly(json: &str) -> Result<ExecRequest, String> {
        Unread::new(true).body(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_error_does_not_repeat_a_value() {
        for json in [
            r#"{"command":"true","env":{"TOKEN":["s3cret"]},"timeout":"s3cret, expected"}"#,
            r#"{"command":"true","env":"s3cret, expected a pony"}"#,
            r#"{"command":"true","tty":"s3cret"}"#,
            r#"{"command":{"s3cret":1}}"#,
            r#"{"command":"true","args":[["s3cret"]]}"#,
            r#"{"command":"true","rows":"s3cret"}"#,
        ] {
            let error = strictly(json).unwrap_err();
            assert!(!error.contains("s3cret") && !error.contains("pony"), "{error}");
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn later_frames_are_looked_through() {
        let frame = br#"{"type":"resize","rows":1,"cols":2,"colls":3}"#;
        let known = &["type", "rows", "cols"];
        let error = Unread::new(true).control(frame, known).unwrap_err().to_string();
        assert_eq!(error, "unknown field of the frame \"colls\" (did you mean \"cols\"?)");
        let lenient = Unread::new(false);
        lenient.control(frame, known).unwrap();
        assert_eq!(lenient.found().len(), 1);
        Unread::new(true).control(br#"{"type":"resize","rows":1,"cols":2}"#, known).unwrap();
    }

    #[test]
    fn all_of_them_are_named_with_what_was_meant() {
        let error =
            strictly(r#"{"command":"true","timout":"5s","Workdir":"/","colour":{"a":1},"env":{"X":"y"}}"#)
                .unwrap_err();
        assert_eq!(
            error,
            "unknown field \"timout\" (did you mean \"timeout\"?), unknown field \"Workdir\" (did you mean \
             \"workdir\"?), unknown field \"colour\""
        );
        assert!(strictly(r#"{"command":"true","timeout":"5s"}"#).is_ok());
    }

    #[test]
    fn what_is_inside_of_something_is_named_with_it() {
        let error = strictly(r#"{"command":"sh","tty":{"rows":1,"cols":2,"col":3}}"#).unwrap_err();
        assert!(error.contains("unknown field \"tty.col\""), "{error}");
    }

    #[test]
    fn the_lenient_are_answered_and_told() {
        let unread = Unread::new(false);
        let request: ExecRequest =
            unread.body("{\"command\":\"true\",\"timout\":\"5s\",\"ä, b\\n\":1}".as_bytes()).unwrap();
        assert_eq!(request.command.as_deref(), Some("true"));
        assert_eq!(unread.header().unwrap(), "timout, %C3%A4%2C%20b\\n");
    }

    #[test]
    fn a_million_of_them_cost_a_few_names() {
        let many: Vec<String> =
            (0..100_000).map(|number| format!("\"{number}{}\":1", "x".repeat(100))).collect();
        let unread = Unread::new(true);
        let error = unread.body::<ExecRequest>(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
        assert!(error.to_string().len() < 10_000 && error.to_string().ends_with("and more"));
        assert!(unread.header().unwrap().len() < 4_000);
    }

    proptest! {
        #[test]
        fn any_name_gives_a_header(name: String) {
            let unread = Unread::new(false);
            unread.note([Unknown { place: Place::Query, name: shown(&name), meant: None }]);
            prop_assert!(unread.header().is_some());
        }
    }
}
