//! Values with a syntax of their own.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::schema::Text;

/// A duration in Go syntax: `30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&spelling::format_go_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Spoken("a duration such as \"30s\", \"5m\" or \"1h30m\"", |text| {
            spelling::parse_go_duration(text).map(Self).map_err(|error| error.to_string())
        }))
    }
}

/// Reads what is written as text, and a number as one; says what it wanted otherwise.
struct Spoken<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> de::Visitor<'_> for Spoken<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

/// The origin of pages that may call: `https://console.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(pub api_gateway::Origin);

impl Serialize for AllowedOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AllowedOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// How long something is kept: a duration in Go syntax; nothing, or zero: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFor(pub Option<Duration>);

impl Serialize for KeptFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.map(spelling::format_go_duration).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for KeptFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Spoken("a duration such as \"720h\", or \"\" for ever", |text| {
            if text.is_empty() {
                return Ok(Self(None));
            }
            let kept = spelling::parse_go_duration(text).map_err(|error| error.to_string())?;
            Ok(Self(Some(kept).filter(|kept| !kept.is_zero())))
        }))
    }
}

/// An amount of bytes: a number, or a number with `k`, `m` or `g` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl de::Visitor<'_> for Size {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"512m\" or \"2g\", or a number of bytes")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                parse_bytes(text).map(Bytes).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text::Number(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_no_time_is_kept_for_ever() {
        let read = |text: &str| serde_json::from_value::<KeptFor>(text.into()).map(|kept| kept.0);
        for text in ["", "0", "0s"] {
            assert_eq!(read(text).unwrap(), None, "{text}");
        }
        assert_eq!(read("720h").unwrap(), Some(Duration::from_secs(720 * 3600)));
        assert!(read("30 days").is_err());
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("512m", Some(512 << 20)),
            ("2G", Some(2 << 30)),
            ("1024", Some(1024)),
            ("1kb", Some(1024)),
            ("4MiB", Some(4 << 20)),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        for text in ["", "m", "-1", "1.5g", "99999999999g", "b"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
