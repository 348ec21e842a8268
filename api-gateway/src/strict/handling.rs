use axum::http::HeaderMap;

/// What the client wants to happen to a request that is not quite right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// Not said: what is unknown is left out.
    Unsaid,
    /// The same, and said.
    Lenient,
    /// It is refused.
    Strict,
}

impl Handling {
    /// What `Prefer` says. The first of several counts (RFC 7240, section 2).
    pub fn of(headers: &HeaderMap) -> Self {
        headers
            .get_all("prefer")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(Self::read)
            .unwrap_or(Self::Unsaid)
    }

    fn read(preference: &str) -> Option<Self> {
        // Parameters may follow.
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match (name.trim(), value) {
            (name, value) if !name.eq_ignore_ascii_case("handling") || value.is_empty() => None,
            (_, value) if value.eq_ignore_ascii_case("strict") => Some(Self::Strict),
            (_, value) if value.eq_ignore_ascii_case("lenient") => Some(Self::Lenient),
            _ => None,
        }
    }

    /// What `Preference-Applied` says.
    pub const fn applied(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Lenient => Some("handling=lenient"),
            Self::Strict => Some("handling=strict"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preference_is_read_as_the_rfc_writes_it() {
        for (values, handling) in [
            (&[][..], Handling::Unsaid),
            (&["handling=strict"][..], Handling::Strict),
            (&["Handling = \"Strict\"; foo=bar"][..], Handling::Strict),
            (&["respond-async, wait=10", "handling=strict"][..], Handling::Strict),
            (&["handling=lenient, handling=strict"][..], Handling::Lenient),
            (&["handling"][..], Handling::Unsaid),
            (&["handling=odd"][..], Handling::Unsaid),
            (&["handling=strictly"][..], Handling::Unsaid),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", value.parse().unwrap());
            }
            assert_eq!(Handling::of(&headers), handling, "{values:?}");
        }
    }
}
