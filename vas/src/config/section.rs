//! Strict reading of one TOML table: every key is asked for by name, and what nobody asked for is a
//! problem with its line and the nearest known key.
//!
//! Problems are collected, so that one run tells all of them. Knows TOML, not what the keys mean.

use serde_json::Map;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line of the file, from 1; 0 = the file as a whole.
    pub line: usize,
    /// The fact and the remedy.
    pub text: String,
}

/// The file that is being read, and what was found wrong with it so far.
#[derive(Debug)]
pub struct Source {
    text: String,
    /// Directory of the file: relative paths resolve against it.
    directory: PathBuf,
    problems: RefCell<BTreeSet<Problem>>,
}

impl Source {
    /// Parses `text`; `None` when it is not TOML, which is then the only problem.
    pub fn parse<'t>(text: &'t str, directory: &Path) -> (Rc<Source>, Option<Section<'t>>) {
        let source = Rc::new(Source {
            text: text.to_owned(),
            directory: directory.to_owned(),
            problems: RefCell::default(),
        });
        match DeTable::parse(text) {
            Ok(table) => {
                let top = Section::new(&source, String::new(), 1, table.into_inner());
                (source, Some(top))
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| source.line(span.start));
                source.problem(at, error.message());
                (source, None)
            }
        }
    }

    /// Notes a problem.
    pub fn problem(&self, line: usize, text: impl Display) {
        self.problems.borrow_mut().insert(Problem { line, text: text.to_string() });
    }

    /// All problems, in the order of their lines.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().iter().cloned().collect()
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|b| **b == b'\n').count()
    }
}

/// A value with the line it stands on.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// Line of the file, from 1.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// One table of the file.
#[derive(Debug)]
pub struct Section<'t> {
    source: Rc<Source>,
    /// How the file writes it: `[http]`, `[[camera]]`, empty for the top.
    name: String,
    /// Line of its header.
    pub line: usize,
    table: DeTable<'t>,
    known: Vec<&'static str>,
    absent: Vec<&'static str>,
}

impl<'t> Section<'t> {
    fn new(source: &Rc<Source>, name: String, line: usize, table: DeTable<'t>) -> Section<'t> {
        Section {
            source: Rc::clone(source),
            name,
            line,
            table,
            known: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Notes a problem with `key`.
    pub fn wrong(&self, line: usize, key: &str, text: impl Display) {
        self.source.problem(line, format_args!("`{key}`{} {text}", self.place()));
    }

    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) }
    }

    fn take(&mut self, key: &'static str) -> Option<At<DeValue<'t>>> {
        self.known.push(key);
        let Some(value) = self.table.remove(key) else {
            self.absent.push(key);
            return None;
        };
        let line = self.source.line(value.span().start);
        Some(At { line, value: value.into_inner() })
    }

    fn mismatch(&self, key: &str, at: &At<DeValue<'_>>, wanted: &str) {
        self.wrong(at.line, key, format_args!("is {}, must be {wanted}", Shown(&at.value)));
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let at = self.take(key)?;
        match &at.value {
            DeValue::String(text) => Some(At { line: at.line, value: text.to_string() }),
            _ => {
                self.mismatch(key, &at, "a text in quotes");
                None
            }
        }
    }

    /// A text that `parse` accepts.
    pub fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        let text = self.text(key)?;
        match parse(&text.value) {
            Ok(value) => Some(At { line: text.line, value }),
            Err(error) => {
                self.wrong(text.line, key, format_args!("is \"{}\": {error}", text.value));
                None
            }
        }
    }

    /// Texts of which each is accepted by `parse`.
    pub fn list<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<At<Vec<T>>> {
        let at = self.take(key)?;
        let wanted = "a list of texts in quotes";
        let DeValue::Array(items) = &at.value else {
            self.mismatch(key, &at, wanted);
            return None;
        };
        let mut list = Vec::new();
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                self.mismatch(key, &at, wanted);
                return None;
            };
            match parse(text) {
                Ok(value) => list.push(value),
                Err(error) => {
                    self.wrong(at.line, key, format_args!("holds \"{text}\": {error}"));
                    return None;
                }
            }
        }
        Some(At { line: at.line, value: list })
    }

    /// A path; a relative one is beneath the file's directory.
    pub fn path(&mut self, key: &'static str) -> Option<At<PathBuf>> {
        let directory = self.source.directory.clone();
        self.parsed(key, |text| {
            if text.is_empty() { Err("a path can't be empty") } else { Ok(directory.join(text)) }
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<At<bool>> {
        let at = self.take(key)?;
        match at.value {
            DeValue::Boolean(value) => Some(At { line: at.line, value }),
            _ => {
                self.mismatch(key, &at, "true or false");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let at = self.take(key)?;
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let number = match &at.value {
            DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        match number {
            Some(value) if range.contains(&value) => Some(At { line: at.line, value }),
            _ => {
                self.mismatch(key, &at, &wanted());
                None
            }
        }
    }

    /// A number within `range`.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<At<f64>> {
        let at = self.take(key)?;
        let number = match &at.value {
            DeValue::Integer(n) if n.radix() == 10 => n.as_str().parse().ok(),
            DeValue::Float(n) => n.as_str().parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(value) if range.contains(&value) => Some(At { line: at.line, value }),
            _ => {
                let wanted = format!("a number from {} to {}", range.start(), range.end());
                self.mismatch(key, &at, &wanted);
                None
            }
        }
    }

    /// A table of any shape, as JSON.
    pub fn json(&mut self, key: &'static str) -> Option<At<Map<String, serde_json::Value>>> {
        let at = self.take(key)?;
        let DeValue::Table(table) = &at.value else {
            self.mismatch(key, &at, "a table");
            return None;
        };
        match json_object(table) {
            Ok(value) => Some(At { line: at.line, value }),
            Err(text) => {
                self.wrong(at.line, key, text);
                None
            }
        }
    }

    /// The table `[key]`; an empty one when the file has none.
    pub fn section(&mut self, key: &'static str) -> Section<'t> {
        let name = format!("[{key}]");
        let Some(at) = self.take(key) else {
            return Section::new(&self.source, name, 0, DeTable::new());
        };
        let line = at.line;
        let DeValue::Table(table) = at.value else {
            self.mismatch(key, &at, &format!("a table: write {name}"));
            return Section::new(&self.source, name, line, DeTable::new());
        };
        Section::new(&self.source, name, line, table)
    }

    /// The tables `[[key]]`, in the order of the file.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'t>> {
        let name = format!("[[{key}]]");
        let Some(at) = self.take(key) else { return Vec::new() };
        let wanted = format!("a list of tables: write {name}");
        let DeValue::Array(items) = at.value else {
            self.mismatch(key, &at, &wanted);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            let line = self.source.line(item.span().start);
            let value = item.into_inner();
            match value {
                DeValue::Table(table) => {
                    sections.push(Section::new(&self.source, name.clone(), line, table));
                }
                other => self.mismatch(key, &At { line, value: other }, &wanted),
            }
        }
        sections
    }

    /// Ends the reading: a key that nobody asked for is a problem.
    pub fn finish(self) {
        for (key, _) in &self.table {
            let line = self.source.line(key.span().start);
            let text = unknown(key, &self.place(), &self.known);
            self.source.problem(line, text);
        }
    }

    /// Notes a problem when the file does not have `key`, which was asked for before.
    pub fn require(&self, key: &str) {
        if self.absent.contains(&key) {
            self.source.problem(self.line, format_args!("{} needs `{key}`", self.name));
        }
    }
}

fn unknown(key: &Spanned<std::borrow::Cow<'_, str>>, place: &str, known: &[&str]) -> String {
    let key = key.get_ref();
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min();
    match nearest {
        Some((_, name)) => format!("unknown key `{key}`{place}; did you mean `{name}`?"),
        None => format!("unknown key `{key}`{place}; known are {}", known.join(", ")),
    }
}

fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Integer(n) => Value::from(
            i64::from_str_radix(n.as_str(), n.radix())
                .map_err(|_| format!("holds {n}, which is not a 64-bit number"))?,
        ),
        DeValue::Float(n) => n
            .as_str()
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("holds {n}, which JSON can't express"))?,
        DeValue::Datetime(d) => return Err(format!("holds the date {d}: write it as a text")),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|v| json(v.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Object(json_object(table)?),
    })
}

fn json_object(table: &DeTable<'_>) -> Result<Map<String, serde_json::Value>, String> {
    table.iter().map(|(k, v)| Ok((k.get_ref().to_string(), json(v.get_ref())?))).collect()
}

/// A value as an error message shows it.
struct Shown<'a>(&'a DeValue<'a>);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DeValue::String(text) => write!(f, "\"{text}\""),
            DeValue::Integer(n) => write!(f, "{n}"),
            DeValue::Float(n) => write!(f, "{n}"),
            DeValue::Boolean(value) => write!(f, "{value}"),
            DeValue::Datetime(date) => write!(f, "the date {date}"),
            DeValue::Array(_) => write!(f, "a list"),
            DeValue::Table(_) => write!(f, "a table"),
        }
    }
}
