//! A YAML document as a tree that knows its lines, and sections that note every problem in it.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong in a `model.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file from 1, 0 = the file as a whole.
    pub line: u64,
    /// What is wrong: the key, its value, the rule.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

/// A YAML value with the lines of everything in it.
#[derive(Debug, Clone)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Null => f.write_str("empty"),
            Node::Bool(v) => write!(f, "{v}"),
            Node::Int(v) => write!(f, "{v}"),
            Node::Float(v) => write!(f, "{v}"),
            Node::Text(v) => write!(f, "`{}`", v.chars().take(80).collect::<String>()),
            Node::List(v) => write!(f, "a list of {}", v.len()),
            Node::Map(_) => f.write_str("a map"),
        }
    }
}

impl Node {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Node::Null => Value::Null,
            Node::Bool(v) => Value::Bool(*v),
            Node::Int(v) => Value::from(*v),
            Node::Float(v) => Value::from(*v),
            Node::Text(v) => Value::String(v.clone()),
            Node::List(v) => v.iter().map(|v| v.value.to_json()).collect(),
            Node::Map(v) => {
                Value::Object(v.iter().map(|(k, v)| (k.value.clone(), v.value.to_json())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
                Node::deserialize(d)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
                Ok(Node::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
                Ok(Node::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
                Ok(i64::try_from(v).map_or(Node::Float(v as f64), Node::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
                Ok(Node::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Node, E> {
                Ok(Node::Text(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// A map of the document whose keys are asked for one by one. What is wrong is noted and reading
/// goes on, so that one look at the file shows every problem; keys that nobody asked for are
/// problems too.
pub struct Section<'a> {
    prefix: String,
    line: u64,
    entries: &'a [(Spanned<String>, Spanned<Node>)],
    known: RefCell<Vec<&'static str>>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn document(node: &'a Spanned<Node>, problems: &'a RefCell<Vec<Problem>>) -> Section<'a> {
        let entries = match &node.value {
            Node::Map(entries) => entries.as_slice(),
            other => {
                let message = format!("the document is {other}, it has to be a map");
                problems.borrow_mut().push(Problem { line: 1, message });
                &[]
            }
        };
        Section { prefix: String::new(), line: 0, entries, known: RefCell::default(), problems }
    }

    /// The value of a key, when it is there.
    pub fn get(&self, key: &'static str) -> Option<&'a Spanned<Node>> {
        self.known.borrow_mut().push(key);
        self.entries.iter().find(|(k, _)| k.value == key).map(|(_, v)| v)
    }

    /// Notes that a required key is missing.
    pub fn missing(&self, key: &str, rule: &str) {
        self.note(self.line, format!("key `{}{key}` is missing: {rule}", self.prefix));
    }

    /// Notes that a value breaks a rule.
    pub fn broken(&self, key: &str, value: &Spanned<Node>, rule: &str) {
        let message = format!("key `{}{key}` is {}: {rule}", self.prefix, value.value);
        self.note(value.referenced.line(), message);
    }

    fn note(&self, line: u64, message: String) {
        self.problems.borrow_mut().push(Problem { line, message });
    }

    /// A value that `read` understands; `None` = absent, or noted as broken.
    pub fn optional<T>(
        &self,
        key: &'static str,
        rule: &str,
        read: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = read(&value.value);
        if read.is_none() {
            self.broken(key, value, rule);
        }
        read
    }

    /// The same for a key that has to be there.
    pub fn required<T>(
        &self,
        key: &'static str,
        rule: &str,
        read: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            self.optional(key, rule, read)
        } else {
            self.known.borrow_mut().push(key);
            self.missing(key, rule);
            None
        }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _)| k.value == key)
    }

    /// The maps of a list below this one. Absent = none.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let maps = |list: &'a [Spanned<Node>]| {
            let section = |(i, item): (usize, &'a Spanned<Node>)| match &item.value {
                Node::Map(entries) => Some(Section {
                    prefix: format!("{}{key}[{i}].", self.prefix),
                    line: item.referenced.line(),
                    entries,
                    known: RefCell::default(),
                    problems: self.problems,
                }),
                _ => None,
            };
            list.iter().enumerate().map(section).collect::<Option<Vec<_>>>()
        };
        let found = if let Node::List(list) = &value.value { maps(list) } else { None };
        found.unwrap_or_else(|| {
            self.broken(key, value, "has to be a list of maps");
            Vec::new()
        })
    }

    /// A map below this one. Absent = an empty one, noted when `required`.
    pub fn section(&self, key: &'static str, required: bool) -> Section<'a> {
        let value = self.get(key);
        let entries = match value.map(|v| &v.value) {
            Some(Node::Map(entries)) => entries.as_slice(),
            Some(_) => {
                self.broken(key, value.expect("matched"), "has to be a map");
                &[]
            }
            None => {
                if required {
                    self.missing(key, "has to be a map");
                }
                &[]
            }
        };
        Section {
            prefix: format!("{}{key}.", self.prefix),
            line: value.map_or(self.line, |v| v.referenced.line()),
            entries,
            known: RefCell::default(),
            problems: self.problems,
        }
    }

    /// Notes every key that nobody asked for, with the nearest one that exists.
    pub fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self.entries {
            if known.contains(&key.value.as_str()) {
                continue;
            }
            let near = known
                .iter()
                .map(|k| (strsim::damerau_levenshtein(k, &key.value), *k))
                .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
                .min();
            let hint = match near {
                Some((_, near)) => format!("did you mean `{}{near}`?", self.prefix),
                None => format!("known here: {}", known.join(", ")),
            };
            let name = key.value.chars().take(80).collect::<String>();
            let message = format!("unknown key `{}{name}`; {hint}", self.prefix);
            self.note(key.referenced.line(), message);
        }
    }
}
