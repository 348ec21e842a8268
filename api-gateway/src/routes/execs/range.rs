//! `Range` of RFC 9110, as far as output needs it: one range of bytes. What is another unit, several ranges, or none at
//! all is ignored, as the RFC wants it, and the whole is sent.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// From the first to the last byte; to the end where there is no last.
    From(u64, Option<u64>),
    /// So many bytes before the end.
    Last(u64),
}

impl Asked {
    /// Reads the header.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::RANGE)?.to_str().ok()?;
        let (unit, range) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = range.trim().split_once('-')?;
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(Self::From(first, Some(last))),
            (Some(first), None) if last.is_empty() => Some(Self::From(first, None)),
            (None, Some(count)) if first.is_empty() => Some(Self::Last(count)),
            _ => None,
        }
    }

    /// Which bytes of `total` these are; `None`: there are none.
    pub fn of(self, total: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.map_or(total, |last| last.saturating_add(1).min(total)),
            Self::Last(count) => total.saturating_sub(count)..total,
        };
        (range.start < range.end).then_some(range)
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

    fn asked(text: &str) -> Option<Asked> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().unwrap());
        Asked::read(&headers)
    }

    #[test]
    fn one_range_of_bytes_is_read() {
        assert_eq!(asked("bytes=0-0"), Some(Asked::From(0, Some(0))));
        assert_eq!(asked("Bytes =5-"), Some(Asked::From(5, None)));
        assert_eq!(asked("bytes= 5-"), Some(Asked::From(5, None)));
        assert_eq!(asked("bytes=-7"), Some(Asked::Last(7)));
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
