//! Which fields a type reads, as far as its `Deserialize` tells.

use std::cell::Cell;

use serde::de::value::Error;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_ignored::Path;

/// The names of the fields that `T` reads where `path` leads.
pub(super) fn known_at<T: DeserializeOwned>(path: &[String]) -> &'static [&'static str] {
    let found: Cell<&'static [&'static str]> = Cell::new(&[]);
    // It always fails, at the latest where the path ends.
    let _ = T::deserialize(Probe { path, found: &found });
    found.get()
}

/// The names on the way to a value, outermost first.
pub(super) fn segments(path: &Path<'_>) -> Vec<String> {
    let mut segments = Vec::new();
    let mut at = path;
    loop {
        at = match at {
            Path::Root => break,
            Path::Seq { parent, index } => {
                segments.push(index.to_string());
                parent
            }
            Path::Map { parent, key } => {
                segments.push(key.clone());
                parent
            }
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
                parent
            }
        };
    }
    segments.reverse();
    segments
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [String],
    found: &'a Cell<&'static [&'static str]>,
}

impl<'a> Probe<'a> {
    fn step(self) -> Result<(&'a str, Self), Error> {
        match self.path.split_first() {
            Some((first, path)) => Ok((first, Self { path, ..self })),
            None => Err(Error::custom("this is the place")),
        }
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            self.found.set(fields);
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (key, inner) = self.step()?;
        visitor.visit_map(Only { key: Some(key), inner })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (_, inner) = self.step()?;
        visitor.visit_seq(Only { key: None, inner })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

/// A map or a list of which only what is on the path is there.
struct Only<'a> {
    key: Option<&'a str>,
    inner: Probe<'a>,
}

impl<'de> MapAccess<'de> for Only<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let key = self.key.take().map(serde::de::value::StrDeserializer::new);
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.inner)
    }
}

impl<'de> SeqAccess<'de> for Only<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        seed.deserialize(self.inner).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Default)]
    #[serde(default)]
    struct Outer {
        name: Option<String>,
        items: Option<Vec<Inner>>,
        by_name: BTreeMap<String, Option<Box<Inner>>>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its names matter")]
    struct Inner {
        rows: u16,
        #[serde(rename = "columns", alias = "cols")]
        width: u16,
    }

    #[test]
    fn the_fields_of_any_depth_are_found() {
        let known = |path: &[&str]| {
            known_at::<Outer>(&path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(known(&[]), ["name", "items", "by_name"]);
        for path in [&["items", "7"][..], &["by_name", "x"]] {
            assert!(known(path).contains(&"rows") && known(path).contains(&"columns"), "{path:?}");
        }
        for path in [&["name"][..], &["nothing"], &["name", "a", "b"]] {
            assert!(known(path).is_empty(), "{path:?}");
        }
    }
}
