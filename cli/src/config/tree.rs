//! A configuration before it is read into types: what was said, and where.

use std::fmt;
use std::path::Path;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// Where something was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nowhere: it is what holds when nobody says anything.
    Default,
    /// In a file, at a line and column, counted from 1.
    File { path: String, line: usize, column: usize },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(&'static str),
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nothing,
    Flag(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of writing. A name is there once.
    Section(Vec<(String, Node)>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub origin: Origin,
    /// The whole key; empty where it is about the file or about a variable that is none.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => {}
            Origin::File { path, line, column } => write!(f, "{path}:{line}:{column}: ")?,
            Origin::Variable(name) => write!(f, "{name}: ")?,
            Origin::Flag(name) => write!(f, "{name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl Node {
    /// A file. Empty is a section with nothing in it.
    pub fn read_file(path: &Path) -> Result<Self, Problem> {
        let shown = path.display().to_string();
        let problem = |line, column, what: String| Problem {
            origin: Origin::File { path: shown.clone(), line, column },
            key: String::new(),
            what,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| problem(1, 1, format!("cannot be read: {error}")))?;
        Self::read_yaml(&shown, &text)
    }

    /// The text of a file.
    pub fn read_yaml(path: &str, text: &str) -> Result<Self, Problem> {
        let at = |line, column| Origin::File { path: path.to_owned(), line, column };
        let problem = |origin, what: String| Problem { origin, key: String::new(), what };
        let documents = MarkedYaml::load_from_str(text).map_err(|error| {
            let mark = *error.marker();
            problem(at(mark.line(), mark.col() + 1), format!("not YAML: {}", error.info()))
        })?;
        let mut documents = documents.into_iter();
        let section = |node: Self| match node.value {
            Value::Nothing => Ok(Self { value: Value::Section(Vec::new()), ..node }),
            Value::Section(_) => Ok(node),
            Value::Flag(_) | Value::Whole(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                Err(problem(node.origin, "a configuration has keys: `server:` and so on".to_owned()))
            }
        };
        let first = match documents.next() {
            Some(document) => section(Self::of(document, &at, 0)?)?,
            None => Self { origin: at(1, 1), value: Value::Section(Vec::new()) },
        };
        match documents.next() {
            None => Ok(first),
            Some(second) => {
                let mark = second.span.start;
                Err(problem(
                    at(mark.line(), 1),
                    "a second document: one file is one configuration".to_owned(),
                ))
            }
        }
    }

    fn of(yaml: MarkedYaml<'_>, at: &impl Fn(usize, usize) -> Origin, depth: usize) -> Result<Self, Problem> {
        let mark = yaml.span.start;
        let origin = at(mark.line(), mark.col() + 1);
        let problem = |origin, what: &str| Problem { origin, key: String::new(), what: what.to_owned() };
        if depth > 32 {
            return Err(problem(origin, "too deep"));
        }
        let value = match yaml.data {
            YamlData::Value(Scalar::Null) => Value::Nothing,
            YamlData::Value(Scalar::Boolean(flag)) => Value::Flag(flag),
            YamlData::Value(Scalar::Integer(number)) => Value::Whole(number),
            YamlData::Value(Scalar::FloatingPoint(number)) => Value::Number(*number),
            YamlData::Value(Scalar::String(text)) => Value::Text(text.into_owned()),
            YamlData::Sequence(items) => Value::List(
                items.into_iter().map(|item| Self::of(item, at, depth + 1)).collect::<Result<_, _>>()?,
            ),
            YamlData::Mapping(entries) => {
                let mut section = Vec::new();
                for (key, value) in entries {
                    let mark = key.span.start;
                    let place = at(mark.line(), mark.col() + 1);
                    let Some(name) = key.data.as_str() else {
                        return Err(problem(place, "a key must be text"));
                    };
                    let mut node = Self::of(value, at, depth + 1)?;
                    // The place of a key is where people look.
                    node.origin = place;
                    section.push((name.to_owned(), node));
                }
                Value::Section(section)
            }
            YamlData::Tagged(..) => return Err(problem(origin, "tags mean nothing here")),
            YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
                return Err(problem(origin, "this value cannot be read"));
            }
        };
        Ok(Self { origin, value })
    }

    /// What a serialised value is, said by nobody.
    pub fn default_of(json: serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Nothing,
            serde_json::Value::Bool(flag) => Value::Flag(flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => Value::Whole(whole),
                None => Value::Number(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(items) => Value::List(items.into_iter().map(Self::default_of).collect()),
            serde_json::Value::Object(map) => {
                Value::Section(map.into_iter().map(|(name, value)| (name, Self::default_of(value))).collect())
            }
        };
        Self { origin: Origin::Default, value }
    }

    pub fn text(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin, value: Value::Text(text.into()) }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        key.split('.').try_fold(self, |node, name| match &node.value {
            Value::Section(entries) => entries.iter().find(|(known, _)| known == name).map(|(_, node)| node),
            Value::Nothing
            | Value::Flag(_)
            | Value::Whole(_)
            | Value::Number(_)
            | Value::Text(_)
            | Value::List(_) => None,
        })
    }

    /// Puts a value at a key, with the sections that it needs.
    pub fn set(&mut self, key: &str, node: Self) {
        let (name, rest) = key.split_once('.').map_or((key, None), |(name, rest)| (name, Some(rest)));
        if !matches!(self.value, Value::Section(_)) {
            self.value = Value::Section(Vec::new());
        }
        let Value::Section(entries) = &mut self.value else { return };
        let index = match entries.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                let empty = Self { origin: node.origin.clone(), value: Value::Nothing };
                entries.push((name.to_owned(), empty));
                entries.len() - 1
            }
        };
        match rest {
            Some(rest) => entries[index].1.set(rest, node),
            None => entries[index].1 = node,
        }
    }

    /// Takes out what is at a key.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        let (name, rest) = key.split_once('.').map_or((key, None), |(name, rest)| (name, Some(rest)));
        let Value::Section(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|(known, _)| known == name)?;
        match rest {
            Some(rest) => entries[index].1.take(rest),
            None => Some(entries.remove(index).1),
        }
    }

    /// All keys whose values are no sections.
    pub fn keys(&self) -> Vec<String> {
        fn walk(node: &Node, prefix: &str, into: &mut Vec<String>) {
            match &node.value {
                Value::Section(entries) => {
                    for (name, node) in entries {
                        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                        walk(node, &key, into);
                    }
                }
                Value::Nothing
                | Value::Flag(_)
                | Value::Whole(_)
                | Value::Number(_)
                | Value::Text(_)
                | Value::List(_) => into.push(prefix.to_owned()),
            }
        }
        let mut keys = Vec::new();
        walk(self, "", &mut keys);
        keys
    }

    /// Puts what is said over what is there, and complains of what there is no place for.
    pub fn overlay(&mut self, over: Self, problems: &mut Vec<Problem>) {
        let known = self.keys();
        self.lay(over, "", &known, problems);
    }

    fn lay(&mut self, over: Self, key: &str, known: &[String], problems: &mut Vec<Problem>) {
        let Value::Section(entries) = &mut self.value else {
            // A key without a value says nothing.
            if over.value != Value::Nothing {
                *self = over;
            }
            return;
        };
        match over.value {
            Value::Nothing => {}
            Value::Section(said) => {
                for (name, node) in said {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    match entries.iter_mut().find(|(there, _)| *there == name) {
                        Some((_, there)) => there.lay(node, &key, known, problems),
                        None => problems.push(unknown(node.origin, key, entries, known)),
                    }
                }
            }
            Value::Flag(_) | Value::Whole(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => problems
                .push(Problem {
                    origin: over.origin,
                    key: key.to_owned(),
                    what: "this is a section: its keys stand below it, further to the right".to_owned(),
                }),
        }
    }
}

/// There is no such key: what was meant is one beside it, or one somewhere else.
fn unknown(origin: Origin, key: String, beside: &[(String, Node)], known: &[String]) -> Problem {
    let (section, name) = key.rsplit_once('.').map_or(("", key.as_str()), |(section, name)| (section, name));
    let near = spelling::nearest(name, beside.iter().map(|(name, _)| name.as_str()))
        .map(|name| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") });
    let elsewhere = || {
        let ends = |key: &&String| key.rsplit('.').next() == Some(name);
        known
            .iter()
            .find(ends)
            .cloned()
            .or_else(|| spelling::nearest(&key, known.iter().map(String::as_str)).map(str::to_owned))
    };
    let what = match near.or_else(elsewhere) {
        Some(meant) => format!("there is no such key; did you mean {meant}?"),
        None => "there is no such key".to_owned(),
    };
    Problem { origin, key, what }
}
