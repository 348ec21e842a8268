//! Reads a tree into types. An error says which key, where it was said, and what would be right, in words of people.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::{Node, Origin, Problem, Value};

/// Reads all that can be read. What is wrong is replaced by what holds when nothing is said, and complained of, so that one
/// start shows everything.
pub(super) fn read<T: DeserializeOwned>(
    mut tree: Node,
    default: &Node,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    // Each round mends one key; there are no more.
    for _ in 0..=tree.keys().len() {
        let error = match T::deserialize(Reader { node: &tree }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let key = error.key();
        problems.push(Problem {
            origin: error.origin.unwrap_or(Origin::Default),
            key: key.clone(),
            what: error.what,
        });
        // Into a list it cannot be told what holds otherwise: the whole list is what it was.
        let whole = key.split('[').next().unwrap_or_default();
        match default.get(whole) {
            Some(node) if !whole.is_empty() && tree.get(whole) != Some(node) => tree.set(whole, node.clone()),
            _ => return None,
        }
    }
    None
}

#[derive(Debug)]
struct ReadError {
    /// Innermost first.
    path: Vec<String>,
    origin: Option<Origin>,
    what: String,
}

impl ReadError {
    fn within(mut self, name: String, origin: &Origin) -> Self {
        self.path.push(name);
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn key(&self) -> String {
        let mut key = String::new();
        for name in self.path.iter().rev() {
            if !key.is_empty() && !name.starts_with('[') {
                key.push('.');
            }
            key.push_str(name);
        }
        key
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ReadError {}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), origin: None, what: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("{} is not {}", shown(found), wanted(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        match spelling::nearest(field, known.iter().copied()) {
            Some(meant) => Self::custom(format!("there is no such key as {field}; did you mean {meant}?")),
            None => Self::custom(format!("there is no such key as {field}; there are: {}", known.join(", "))),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("{field} is missing"))
    }
}

fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a section".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        // A configuration has no others.
        Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::NewtypeStruct
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::UnitVariant
        | Unexpected::Enum
        | Unexpected::Other(_) => "this".to_owned(),
    }
}

/// What serde and the types of Rust call it, for people.
fn wanted(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    let whole = |least: i128, most: u128| format!("a whole number from {least} to {most}");
    match name.as_str() {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "usize" => whole(0, i64::MAX as u128),
        "i32" => whole(i32::MIN.into(), i32::MAX as u128),
        "i64" | "isize" => whole(i64::MIN.into(), i64::MAX as u128),
        "f32" | "f64" | "floating point number" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" | "string" => {
            "text (put it in quotes where it looks like something else)".to_owned()
        }
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") || other == "a map" => {
            "a section with keys of its own".to_owned()
        }
        other => other.to_owned(),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
}

impl Reader<'_> {
    /// A variable has text only: whoever wants a number reads one.
    fn spoken(&self) -> Option<&str> {
        match (&self.node.origin, &self.node.value) {
            (Origin::Variable(_) | Origin::Flag(_), Value::Text(text)) => Some(text.trim()),
            _ => None,
        }
    }

    /// A list or a section in a variable is written as in YAML or JSON; a list of words also with commas between them.
    fn written(&self, opens: char) -> Option<Result<Node, ReadError>> {
        let text = self.spoken().filter(|text| text.starts_with(opens))?;
        let read = Node::read_yaml("", &format!("written: {text}"))
            .map_err(|problem| ReadError::custom(problem.what));
        Some(read.map(|mut node| node.take("written").unwrap_or(node)))
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.spoken().map(str::parse::<i64>) {
                Some(Ok(number)) => visit_whole(number, visitor),
                Some(Err(_)) | None => self.deserialize_any(visitor),
            }
        })*
    };
}

fn visit_whole<'de, V: Visitor<'de>>(number: i64, visitor: V) -> Result<V::Value, ReadError> {
    match u64::try_from(number) {
        Ok(number) => visitor.visit_u64(number),
        Err(_) => visitor.visit_i64(number),
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Nothing => visitor.visit_unit(),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Whole(number) => visit_whole(*number, visitor),
            Value::Number(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Section(entries) => visitor.visit_map(Entries { entries: entries.iter(), next: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.spoken() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            Some(_) | None => self.deserialize_any(visitor),
        }
    }

    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if let Some(written) = self.written('[') {
            return Reader { node: &written? }.deserialize_any(visitor);
        }
        let Some(text) = self.spoken() else { return self.deserialize_any(visitor) };
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let items: Vec<Node> = words.map(|word| Node::text(self.node.origin.clone(), word)).collect();
        visitor.visit_seq(Items { items: items.iter().enumerate() })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.written('{') {
            Some(written) => Reader { node: &written? }.deserialize_any(visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Nothing => visitor.visit_none(),
            Value::Flag(_)
            | Value::Whole(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Section(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    /// One of a few words.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let found = match &self.node.value {
            Value::Text(text) if words.contains(&text.as_str()) => {
                return visitor.visit_enum(text.as_str().into_deserializer());
            }
            Value::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
            Value::Nothing
            | Value::Flag(_)
            | Value::Whole(_)
            | Value::Number(_)
            | Value::List(_)
            | Value::Section(_) => "this".to_owned(),
        };
        Err(ReadError::custom(format!("{found} is not {}", words.join(" or "))))
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (String, Node)>,
    next: Option<&'a (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.next = self.entries.next();
        let Some((name, node)) = self.next else { return Ok(None) };
        let name: serde::de::value::StrDeserializer<'_, ReadError> =
            serde::de::IntoDeserializer::into_deserializer(name.as_str());
        seed.deserialize(name).map(Some).map_err(|mut error| {
            error.origin.get_or_insert_with(|| node.origin.clone());
            error
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let Some((name, node)) = self.next else { return Err(ReadError::custom("a value without a key")) };
        seed.deserialize(Reader { node }).map_err(|mut error| {
            if hides(name) && error.path.is_empty() {
                // The message would show it.
                error.what =
                    "this value is of the wrong kind (it is not shown: it may be a secret)".to_owned();
            }
            error.within(name.clone(), &node.origin)
        })
    }
}

/// Whether the value of such a key stays out of messages.
fn hides(name: &str) -> bool {
    ["key", "password", "dsn", "url", "sha256", "token", "secret"].iter().any(|word| name.ends_with(word))
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, ReadError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let read = seed.deserialize(Reader { node });
        read.map(Some).map_err(|error| error.within(format!("[{index}]"), &node.origin))
    }
}
