//! Events on their way to clients, as they are stored.
//!
//! One event is one line: the stored header, byte for byte, with the position in front of its first field, and with
//! the body in base 64 after its last where bodies are wanted. Live events and replayed ones go through here alike, so
//! they are equal by construction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use events::{Frame, Position};

/// Appends the line of an event, with its line feed.
pub fn write_line(frame: &Frame, into: &mut String) {
    // A header is the JSON of an object, which ends in a brace; anything else was never an event.
    let Some(fields) = std::str::from_utf8(&frame.header)
        .ok()
        .and_then(|header| header.strip_prefix('{')?.strip_suffix('}'))
    else {
        tracing::error!(event.position = %frame.position, "a stored header is no JSON object");
        return;
    };
    into.reserve(fields.len() + 64 + frame.body.len() * 4 / 3);
    into.push_str("{\"position\":");
    into.push_str(&frame.position.to_string());
    into.push(',');
    into.push_str(fields);
    if !frame.body.is_empty() {
        into.push_str(",\"body_base64\":\"");
        BASE64.encode_string(&frame.body, into);
        into.push('"');
    }
    into.push_str("}\n");
}

/// Why a reader was told to come again, and where it goes on: the reason of a close, which has room for 123 bytes.
pub fn cursor(position: Position) -> String {
    format!("{{\"position\":{position}}}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line(header: &'static str, body: &'static [u8]) -> String {
        let frame = Frame {
            position: Position(7),
            header: Bytes::from_static(header.as_bytes()),
            body: Bytes::from_static(body),
            missing: None,
        };
        let mut line = String::new();
        write_line(&frame, &mut line);
        line
    }

    #[test]
    fn a_line_is_the_stored_header_with_its_position() {
        assert_eq!(
            line(r#"{"specversion":"1.0","é":{}}"#, b""),
            "{\"position\":7,\"specversion\":\"1.0\",\"é\":{}}\n"
        );
        assert_eq!(line(r#"{"a":1}"#, b"hi\xff"), "{\"position\":7,\"a\":1,\"body_base64\":\"aGn/\"}\n");
    }

    #[test]
    fn what_is_no_object_has_no_line() {
        assert_eq!(line("[]", b""), "");
    }
}
