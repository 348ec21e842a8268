//! Lengths of time, changes of permissions, numbers: small languages that clients and files are written in.

use spelling::{format_go_duration, parse_go_duration};
use transport::ModeChange;

/// One text, read as each of them.
pub fn durations(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(duration) = parse_go_duration(text) {
        assert_eq!(parse_go_duration(&format_go_duration(duration)), Ok(duration), "{text}");
    }
    if let Ok(change) = text.parse::<ModeChange>() {
        let again = change.to_string();
        assert_eq!(again.parse::<ModeChange>().ok(), Some(change), "{text} as {again}");
    }
}
