//! Durations on the wire are Go's: `30s`, `1h30m`, `1.5h`, `250ms`. Days do not exist in that syntax, and a sandbox
//! has no use for negative ones.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {text:?}: use a form such as 30s, 5m, 1h30m or 250ms")]
pub struct DurationError {
    /// The text as it came, cut to 64 characters.
    pub text: String,
}

const UNITS: [(&str, u64); 8] = [
    // Longer names first, so that "ms" is not read as "m" followed by rubbish.
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration in Go syntax, zero included. At most what fits into 63 bits of nanoseconds (292 years), as in Go.
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.chars().take(64).collect() };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(error());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(after_dot) => digits(after_dot),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(error());
        }
        let (unit, after_unit) = UNITS
            .iter()
            .find_map(|(name, nanos)| {
                after_number.strip_prefix(name).map(|after| (u128::from(*nanos), after))
            })
            .ok_or_else(error)?;
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| error())? };
        total = whole.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(error)?;
        // Digits past the fifteenth are far below a nanosecond for every unit.
        let fraction = &fraction[..fraction.len().min(15)];
        if !fraction.is_empty() {
            let scale = 10u128.pow(fraction.len() as u32);
            total += fraction.parse::<u128>().map_err(|_| error())? * unit / scale;
        }
        if total > i64::MAX as u128 {
            return Err(error());
        }
        rest = after_unit;
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| error())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Writes a duration as Go's `Duration.String` does: `1h30m0s`, `1.002s`, `127ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let (whole, part) = (nanos / unit, nanos % unit);
        if part == 0 {
            return format!("{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{part:0width$}");
        format!("{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => scaled(1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let below_minute = Duration::new(seconds % 60, duration.subsec_nanos());
            let tail = match below_minute.subsec_nanos() {
                0 => format!("{}s", below_minute.as_secs()),
                part => {
                    let digits = format!("{part:09}");
                    format!("{}.{}s", below_minute.as_secs(), digits.trim_end_matches('0'))
                }
            };
            match (hours, minutes) {
                (0, 0) => tail,
                (0, minutes) => format!("{minutes}m{tail}"),
                (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("30s", 30_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+5m", 300_000_000_000),
            ("250ms", 250_000_000),
            ("1us2ns", 1_002),
        ] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_and_what_is_negative_is_refused() {
        for text in
            ["", "1d", "-5m", "5", "5 m", "m", ".", "1.2.3s", "s1", "5mm", "9999999999h", "\u{661}s", "1e3s"]
        {
            assert!(parse_go_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (127_000_000, "127ms"),
            (1_002_000_000, "1.002s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
        ] {
            assert_eq!(format_go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn durations_survive_their_text_form(nanos in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_go_duration(&format_go_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error(text: String) {
            let _ = parse_go_duration(&text);
        }
    }
}
