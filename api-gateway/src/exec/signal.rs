//! Signals, as clients name them.

use api_types::SignalName;

use crate::error::ApiError;
use crate::extract::whole;

/// Names and numbers as Linux has them.
pub(crate) const SIGNALS: [(&str, i32); 19] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("WINCH", 28),
];

/// The number of a signal.
pub fn number(signal: &SignalName) -> Result<i32, ApiError> {
    let known = match signal {
        SignalName::Number(number) => Some(*number),
        SignalName::Name(name) => {
            let upper = name.to_ascii_uppercase();
            let short = upper.strip_prefix("SIG").unwrap_or(&upper);
            let named = SIGNALS.iter().find(|(known, _)| *known == short).map(|(_, number)| *number);
            named.or_else(|| whole(name))
        }
    };
    known
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(|| ApiError::bad_request("signal must be a name such as SIGTERM, or 1 to 64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (json, number) in [("\"SIGTERM\"", 15), ("\"kill\"", 9), ("2", 2), ("\"28\"", 28), ("64", 64)] {
            let name: SignalName = serde_json::from_str(json).unwrap();
            assert_eq!(super::number(&name).unwrap(), number, "{json}");
        }
        for json in ["\"SIGNO\"", "0", "65", "-9", "\"\""] {
            let name: SignalName = serde_json::from_str(json).unwrap();
            assert!(super::number(&name).is_err(), "{json}");
        }
    }
}
