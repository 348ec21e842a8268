//! `Range` of RFC 9110, as far as output and files need it: one range of bytes. What is another unit, several ranges, or none at
//! all is ignored, as the RFC wants it, and the whole is sent.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use transport::ByteRange;

use crate::error::ApiError;

/// What a request asks for.
pub fn read(headers: &HeaderMap) -> Option<ByteRange> {
    let mut all = headers.get_all(header::RANGE).iter();
    let (Some(text), None) = (all.next(), all.next()) else { return None };
    let (unit, range) = text.to_str().ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some(ByteRange::From(first, Some(last))),
        (Some(first), None) if last.is_empty() => Some(ByteRange::From(first, None)),
        (None, Some(count)) if first.is_empty() => Some(ByteRange::Last(count)),
        _ => None,
    }
}

/// Says that a range begins past the end of what has this many bytes.
pub fn unsatisfiable(total: u64) -> Response {
    let mut response = ApiError::range_not_satisfiable("the range begins past the end").into_response();
    set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{total}"));
    response
}

/// Makes an answer one with a part: `range` of `all` (a number, or `*`).
pub fn partial(response: &mut Response, range: &Range<u64>, all: &str) {
    set(
        response.headers_mut(),
        header::CONTENT_RANGE,
        &format!("bytes {}-{}/{all}", range.start, range.end - 1),
    );
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
}

/// A header of digits and punctuation, which are always a value.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are more than there can be.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().unwrap());
        read(&headers)
    }

    #[test]
    fn one_range_of_bytes_is_read() {
        assert_eq!(asked("bytes=0-0"), Some(ByteRange::From(0, Some(0))));
        assert_eq!(asked("Bytes =5-"), Some(ByteRange::From(5, None)));
        assert_eq!(asked("bytes= 5-"), Some(ByteRange::From(5, None)));
        assert_eq!(asked("bytes=-7"), Some(ByteRange::Last(7)));
        for other in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn a_range_is_cut_to_what_is_there() {
        for (text, total, range) in [
            ("bytes=0-3", 10, Some(0..4)),
            ("bytes=8-30", 10, Some(8..10)),
            ("bytes=9-", 10, Some(9..10)),
            ("bytes=10-", 10, None),
            ("bytes=-3", 10, Some(7..10)),
            ("bytes=-30", 10, Some(0..10)),
            ("bytes=-0", 10, None),
            ("bytes=-1", 0, None),
            ("bytes=0-", 0, None),
            ("bytes=0-18446744073709551615", 10, Some(0..10)),
            ("bytes=99999999999999999999-", 10, None),
        ] {
            assert_eq!(asked(text).unwrap().of(total), range, "{text} of {total}");
        }
    }
}
