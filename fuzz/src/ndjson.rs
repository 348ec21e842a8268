//! Streams of lines: what a sandbox wrote, on its way to a client.

use base64::Engine as _;
use serde_json::Value;

/// The first 9 bytes are an offset and a distance, the rest is output, cut into pieces of that distance.
pub fn ndjson(input: &[u8]) {
    let Some((head, output)) = input.split_at_checked(9) else { return };
    // Offsets that the recorder takes: it counts what is there.
    let offset = head.iter().take(8).fold(0, |offset, byte| (offset << 8) | u64::from(*byte)) >> 2;
    let pieces: Vec<&[u8]> = output.chunks(usize::from(head[8]).max(1)).collect();
    let lines = api_gateway::fuzzing::records(offset, &pieces);
    let text = str::from_utf8(&lines).unwrap_or_else(|_| panic!("lines that are no text"));
    let (mut at, mut seen) = (offset, Vec::new());
    for line in text.lines() {
        // Clients cut at every boundary that Unicode knows.
        assert!(
            !line.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{b}', '\u{c}']),
            "a line that some would cut"
        );
        let Ok(record) = serde_json::from_str::<Value>(line) else { panic!("no JSON: {line}") };
        assert_eq!(record["offset"].as_u64(), Some(at), "a hole");
        match record["data_b64"].as_str() {
            Some(encoded) => match base64::engine::general_purpose::STANDARD.decode(encoded) {
                Ok(bytes) => seen.extend(bytes),
                Err(error) => panic!("{error}"),
            },
            None => seen.extend(record["data"].as_str().unwrap_or_default().as_bytes()),
        }
        at = offset + seen.len() as u64;
        assert_eq!(record["next_offset"].as_u64(), Some(at), "an offset that does not fit the bytes");
    }
    assert_eq!(seen, output, "what was written is not what is shown");
}
