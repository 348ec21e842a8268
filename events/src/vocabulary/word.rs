//! What is known of each word of the log, said once: beside the word.

use super::Category;

/// What is always true of the events of one type.
///
/// Every fact is declared where the type is ([`words!`]); whoever needs "all that end an exec" or "all that an executor says" asks
/// here, and keeps no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The name on the wire: `exec.started`.
    pub name: &'static str,
    /// What it is about.
    pub category: Category,
    /// It can be the first that the log hears of its sandbox, its exec or its subject.
    pub begins: bool,
    /// It is the end of what it is about. The first end counts.
    pub ends: bool,
    /// Executors say it, and not only the services that may speak of everything.
    pub by_executors: bool,
    /// The state of what it is about shows whether it is recorded, so that its id need not be looked up.
    pub told_by_state: bool,
    /// It is said beside the life of an exec: before the beginning and after the end too.
    pub beside: bool,
    /// Webhooks never get it: sending it would make more of its kind, without an end.
    pub unsent: bool,
    /// Webhooks get it only if they name it: it is too much to be meant by a star.
    pub by_name_only: bool,
}

impl Word {
    /// One of which nothing special is true.
    pub(crate) const fn plain(name: &'static str, category: Category) -> Self {
        Self {
            name,
            category,
            begins: false,
            ends: false,
            by_executors: false,
            told_by_state: false,
            beside: false,
            unsent: false,
            by_name_only: false,
        }
    }
}

/// Declares the words of one category: the enum of its events, their names on the wire, and in brackets what is true of each
/// (the fields of [`Word`]). The names stand beside the variants; renaming Rust never renames the log.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $category:ident($events:ident) {
            $($variant:ident($data:ident) = $name:literal $([$($fact:ident),+])?,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "events live one at a time, or beside their bytes, which are more")]
        pub enum $events {
            $(#[doc = concat!("`", $name, "`")] $variant($data),)+
        }

        impl $events {
            /// The words, in the order in which they are declared.
            pub const WORDS: &'static [$crate::Word] = &[$(
                $crate::Word {
                    $($($fact: true,)+)?
                    ..$crate::Word::plain($name, $crate::Category::$category)
                },
            )+];

            /// What is always true of events like this.
            pub const fn word(&self) -> &'static $crate::Word {
                match self {
                    $(Self::$variant(_) => {
                        const WORD: $crate::Word = $crate::Word {
                            $($($fact: true,)+)?
                            ..$crate::Word::plain($name, $crate::Category::$category)
                        };
                        &WORD
                    })+
                }
            }

            pub(crate) fn to_json(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
                match self {
                    $(Self::$variant(data) => serde_json::to_writer(into, data),)+
                }
            }

            /// Reads the data of an event; `None` if the category has no such type.
            pub(crate) fn from_json(type_name: &str, data: &str) -> serde_json::Result<Option<Self>> {
                match type_name {
                    $($name => Ok(Some(Self::$variant(serde_json::from_str(data)?))),)+
                    _ => Ok(None),
                }
            }
        }

        $(impl From<$data> for $events {
            fn from(data: $data) -> Self {
                Self::$variant(data)
            }
        }

        impl From<$data> for $crate::EventData {
            fn from(data: $data) -> Self {
                Self::$category($events::$variant(data))
            }
        })+

        impl From<$events> for $crate::EventData {
            fn from(event: $events) -> Self {
                Self::$category(event)
            }
        }
    };
}
