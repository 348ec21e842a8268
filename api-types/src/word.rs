//! Words of the API: few today, and a newer server may have more.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A closed set of words.
pub trait Word: Copy + Eq + Serialize + DeserializeOwned + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The word on the wire.
    fn as_str(self) -> &'static str;
}

/// One of the words that this build knows, or one of a newer server's, as it came.
///
/// ```
/// use api_types::{Open, SandboxState};
///
/// let state: Open<SandboxState> = serde_json::from_str(r#""running""#)?;
/// assert_eq!(state, SandboxState::Running);
/// let newer: Open<SandboxState> = serde_json::from_str(r#""hibernated""#)?;
/// assert_eq!((newer.known(), newer.as_str()), (None, "hibernated"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Open<T> {
    /// One of these.
    Known(T),
    /// Another one. A server never says it of itself: it is what a client may read.
    Other(Box<str>),
}

impl<T: Word> Open<T> {
    /// The word that this build knows, if it does.
    pub const fn known(&self) -> Option<T> {
        match self {
            Self::Known(word) => Some(*word),
            Self::Other(_) => None,
        }
    }

    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(word) => word.as_str(),
            Self::Other(word) => word,
        }
    }
}

impl<T: Word> Open<T> {
    /// A word as it is on the wire, whether this build knows it or not.
    pub fn read(word: &str) -> Self {
        let known = T::ALL.iter().find(|known| known.as_str() == word);
        known.map_or_else(|| Self::Other(word.into()), |known| Self::Known(*known))
    }
}

impl<T> From<T> for Open<T> {
    fn from(word: T) -> Self {
        Self::Known(word)
    }
}

impl<T: Word> PartialEq<T> for Open<T> {
    fn eq(&self, other: &T) -> bool {
        self.known() == Some(*other)
    }
}

impl<T: Word> fmt::Display for Open<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Word> Serialize for Open<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Word> Deserialize<'de> for Open<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&Cow::<str>::deserialize(deserializer)?))
    }
}

/// Makes an enum of words. Each stands beside its variant, so that renaming Rust never renames the API.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[$doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl crate::word::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(crate::word::Word::as_str(*self))
            }
        }

        // Not derived: the derive takes an empty word for none at all.
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some([$($about.trim()),+].join("\n")))
                    .enum_values(Some([$($word),+]))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::*;

    fn written_as_read<T: Word + std::fmt::Debug>() {
        for word in T::ALL {
            let json = serde_json::to_string(word).unwrap();
            assert_eq!(json, format!("{:?}", word.as_str()));
            assert_eq!(serde_json::to_string(&Open::Known(*word)).unwrap(), json);
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *word);
            assert_eq!(serde_json::from_str::<Open<T>>(&json).unwrap(), Open::Known(*word));
            assert_eq!(Open::<T>::read(word.as_str()), Open::Known(*word));
        }
        let other: Open<T> = serde_json::from_str(r#""never heard of""#).unwrap();
        assert_eq!(other, Open::Other("never heard of".into()));
        assert_eq!(serde_json::to_string(&other).unwrap(), r#""never heard of""#);
        assert!(serde_json::from_str::<Open<T>>("5").is_err(), "a word is a text");
    }

    #[test]
    fn words_are_read_as_they_are_written_and_others_are_kept() {
        written_as_read::<SandboxState>();
        written_as_read::<Network>();
        written_as_read::<ExecState>();
        written_as_read::<ExecOutcome>();
        written_as_read::<EndCause>();
        written_as_read::<OutputStream>();
        written_as_read::<WhyGone>();
        written_as_read::<ErrorCode>();
        written_as_read::<AdmissionReason>();
        written_as_read::<Capabilities>();
        written_as_read::<DestroyReason>();
        written_as_read::<EventCategory>();
        written_as_read::<ProbeAnswer>();
        written_as_read::<ProviderTrouble>();
        written_as_read::<UnreadyReason>();
        written_as_read::<JobState>();
        written_as_read::<JobEndReason>();
        written_as_read::<JobHoldReason>();
        written_as_read::<AttemptOutcome>();
        written_as_read::<WebhookState>();
        written_as_read::<ScheduleState>();
        written_as_read::<ScheduleOverlap>();
        written_as_read::<ScheduleCatchUp>();
        written_as_read::<TickOutcome>();
        written_as_read::<WorkerState>();
    }
}
