//! The trace that a request belongs to, as W3C Trace Context has it.

use axum::http::HeaderMap;

/// Version, trace, parent and flags, each in lower-case hexadecimal, with the hyphens between them.
const LENGTH: usize = 55;

/// The header `traceparent` of a request, if it is there once and is one. What is none is as if it were not there: a trace that
/// cannot be told is no reason to refuse work.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    read(value.to_str().ok()?)
}

fn read(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let [version, trace, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
    let hexadecimal = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_nothing = |part: &str| part.bytes().all(|byte| byte == b'0');
    let is_one = lengths == [2, 32, 16, 2]
        && parts.next().is_none()
        && [version, trace, parent, flags].into_iter().all(hexadecimal)
        && !is_nothing(trace)
        && !is_nothing(parent)
        && version != "ff";
    // Later versions may add to the end; of theirs it is known what version 00 has.
    let ends = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    (is_one && ends).then(|| format!("00-{trace}-{parent}-{flags}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_is_read_and_what_is_none_is_not() {
        assert_eq!(read(GOOD).as_deref(), Some(GOOD));
        let newer = GOOD.replacen("00-", "cc-", 1);
        assert_eq!(read(&newer).as_deref(), Some(GOOD));
        assert_eq!(read(&format!("{newer}-what-comes")).as_deref(), Some(GOOD));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-x"),
            &format!("{newer}x"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &GOOD.replace('-', "_"),
            &GOOD.replace('4', "\u{e9}"),
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_traces_are_none() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(traceparent(&headers).as_deref(), Some(GOOD));
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(traceparent(&headers), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_trace_of_this_length_or_none(text: String) {
            prop_assert!(read(&text).is_none_or(|read| read.len() == LENGTH));
        }
    }
}
