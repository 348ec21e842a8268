//! Everything else of a request: parameters, ranges, cursors, headers, tickets, links.

use api_gateway::fuzzing;

/// The first byte says which route it is; then come the query, a line feed, and headers, a line each.
pub fn request_values(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (query, headers) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
    let headers = fuzzing::headers(headers);
    assert!(fuzzing::read_headers(&headers, u64::from(*kind) << 20) <= 9);
    let Ok(query) = str::from_utf8(query) else { return };
    fuzzing::query(*kind, query, &headers);
    assert!(!fuzzing::is_let_in(query), "a forged ticket or link");
    if let Some(origin) = fuzzing::origin(query) {
        assert_eq!(
            fuzzing::origin(&origin).as_deref(),
            Some(&*origin),
            "an origin that is another one when read again"
        );
    }
}
