//! Requests held against the schema of their route while they are read: what the schema has no
//! place for is never kept, so a body costs no more memory than what it may rightly hold.
//!
//! It knows the part of JSON Schema that our own schemas use: `type`, `properties`, `required`,
//! `additionalProperties`, `minimum`, `maximum`, `minLength`, `maxLength`, `format` (`plain-text`
//! only), `enum`, `items`, `minItems`, `maxItems`, `uniqueItems`. Schemas that others write are not
//! checked here: `parameters.rs`.

use crate::camera_url::{MASK, without_credentials};
use crate::limits::{EXPLANATION_CHARS_MAX, PROBLEMS_MAX, SHOWN_CHARS_MAX};
use crate::plain_text;
use base::address::is_secret;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;

/// `format` of texts that people read in one line.
pub const PLAIN_TEXT: &str = "plain-text";

/// One place of a value that breaks the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `body.streams[1].name`; cut.
    pub place: String,
    /// What is wrong, with the value; cut.
    pub message: String,
    /// The value as an answer may repeat it: single values only, cut, and nothing that is or may
    /// hold a secret.
    pub value: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.message)
    }
}

/// What was found wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The first 32 (`limits::PROBLEMS_MAX`).
    pub told: Vec<Problem>,
    /// How many there are beyond those.
    pub more: u64,
}

/// Reads a value, and says what in it breaks `schema`; `name` is that of the value in messages. What
/// breaks it is missing from the value.
///
/// # Errors
/// Those of the source: it is not JSON.
pub fn read<'de, D: Deserializer<'de>>(
    schema: &Value,
    source: D,
    name: &str,
) -> Result<(Value, Problems), D::Error> {
    let mut found = Problems::default();
    let check = Check { schema, place: Place::Root(name), found: &mut found };
    let value = check.deserialize(source)?;
    Ok((value, found))
}

/// What in `value` breaks `schema`.
pub fn problems(schema: &Value, value: &Value, name: &str) -> Vec<Problem> {
    // A value that is there can be read.
    read(schema, value, name).map(|(_, found)| found.told).unwrap_or_default()
}

/// `text`, and `...` in place of what is beyond `most` characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Where in the value, on the stack of the reader: text is made of it only when it is told.
#[derive(Clone, Copy)]
enum Place<'p> {
    Root(&'p str),
    Key(&'p Place<'p>, &'p str),
    Element(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn text(&self) -> String {
        let mut text = match self {
            Place::Root(name) => (*name).to_owned(),
            Place::Key(parent, name) => format!("{}.{}", parent.text(), cut(name, SHOWN_CHARS_MAX)),
            Place::Element(parent, index) => format!("{}[{index}]", parent.text()),
        };
        // The cut of a place that was cut stays as long as it is.
        if text.chars().count() > SHOWN_CHARS_MAX {
            text = cut(&text, SHOWN_CHARS_MAX);
        }
        text
    }

    /// The innermost key.
    fn key(&self) -> &str {
        match self {
            Place::Root(name) | Place::Key(_, name) => name,
            Place::Element(parent, _) => parent.key(),
        }
    }
}

/// One value that is being read.
struct Check<'c> {
    schema: &'c Value,
    place: Place<'c>,
    found: &'c mut Problems,
}

impl Check<'_> {
    fn rule(&self, name: &str) -> Option<&Value> {
        self.schema.get(name)
    }

    fn bound(&self, name: &str) -> Option<u64> {
        self.rule(name).and_then(Value::as_u64)
    }

    /// Adds a problem. Beyond the bound nothing is made of it, so `message` is not asked.
    fn problem(&mut self, place: Place<'_>, value: &Value, message: impl FnOnce() -> String) {
        if self.found.told.len() >= PROBLEMS_MAX {
            self.found.more += 1;
            return;
        }
        let message = cut(&message(), EXPLANATION_CHARS_MAX);
        let value = repeated(place.key(), value);
        self.found.told.push(Problem { place: place.text(), message, value });
    }

    /// Whether a value of this kind is allowed here at all; tells when it is not.
    fn allowed(&mut self, value: &Value) -> bool {
        let place = self.place;
        if matches!(self.schema, Value::Bool(true)) {
            return true;
        }
        if !self.schema.is_object() {
            self.problem(place, value, || "is not allowed by the schema".into());
            return false;
        }
        let names: Vec<&str> = match self.schema.get("type") {
            None => return true,
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(name) => name.as_str().into_iter().collect(),
        };
        let fits = names.iter().any(|name| is_of_type(value, name));
        if !fits {
            let expected = names.join(" or ");
            self.problem(place, value, || format!("is {}, expected {expected}", shown(value)));
        }
        fits
    }

    fn one_of(&mut self, value: &Value) {
        let Some(allowed) = self.schema.get("enum").and_then(Value::as_array) else { return };
        if !allowed.iter().any(|one| equal(one, value)) {
            let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
            let allowed = allowed.join(", ");
            let message = || format!("is {}, allowed are {allowed}", shown(value));
            self.problem(self.place, value, message);
        }
    }

    fn number(&mut self, value: &Value, number: f64) {
        let rule = |name: &str| self.schema.get(name).and_then(Value::as_f64);
        let (least, most) = (rule("minimum"), rule("maximum"));
        if let Some(least) = least.filter(|least| number < *least) {
            let message = || format!("is {number}, the least allowed is {least}");
            self.problem(self.place, value, message);
        }
        if let Some(most) = most.filter(|most| number > *most) {
            let message = || format!("is {number}, the most allowed is {most}");
            self.problem(self.place, value, message);
        }
    }

    fn text(&mut self, value: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(least) = self.bound("minLength").filter(|least| length < *least) {
            let message = || format!("has {length} characters, needs at least {least}");
            self.problem(self.place, value, message);
        }
        if let Some(most) = self.bound("maxLength").filter(|most| length > *most) {
            let message = || format!("has {length} characters, allowed are {most}");
            return self.problem(self.place, value, message);
        }
        if self.rule("format").and_then(Value::as_str) == Some(PLAIN_TEXT)
            && let Some(fault) = plain_text::fault(text)
        {
            self.problem(self.place, value, || fault);
        }
    }

    fn scalar<E>(mut self, value: Value) -> Result<Value, E> {
        if !self.allowed(&value) || !self.schema.is_object() {
            return Ok(value);
        }
        self.one_of(&value);
        if let Some(number) = value.as_f64() {
            self.number(&value, number);
        }
        if let Value::String(text) = &value {
            self.text(&value, text);
        }
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut source: A) -> Result<Value, A::Error> {
        let kind = Value::Array(vec![]);
        if !self.allowed(&kind) {
            while source.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let (least, most) = (self.bound("minItems"), self.bound("maxItems"));
        let unique = self.rule("uniqueItems").and_then(Value::as_bool) == Some(true);
        let any = Value::Bool(true);
        let (schema, place) = (self.schema.get("items").unwrap_or(&any), self.place);
        let mut elements = Vec::new();
        let mut length = 0u64;
        let mut seen = HashSet::new();
        let mut again = None;
        // Those beyond the most are counted, and neither looked at nor kept.
        while most.is_none_or(|most| length < most) {
            let place = Place::Element(&place, elements.len());
            let check = Check { schema, place, found: self.found };
            let Some(element) = source.next_element_seed(check)? else { break };
            length += 1;
            if unique && again.is_none() && !seen.insert(element.to_string()) {
                again = Some(shown(&element));
            }
            elements.push(element);
        }
        while source.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        if let Some(least) = least.filter(|least| length < *least) {
            let message = || format!("has {length} elements, needs at least {least}");
            self.problem(place, &kind, message);
        }
        if let Some(most) = most.filter(|most| length > *most) {
            let message = || format!("has {length} elements, allowed are {most}");
            self.problem(place, &kind, message);
        }
        if let Some(again) = again {
            self.problem(place, &kind, || format!("holds {again} twice"));
        }
        let value = Value::Array(elements);
        self.one_of(&value);
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut source: A) -> Result<Value, A::Error> {
        let kind = Value::Object(Map::new());
        if !self.allowed(&kind) {
            while source.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let any = Value::Bool(true);
        let properties = self.schema.get("properties").and_then(Value::as_object);
        let others = self.schema.get("additionalProperties").unwrap_or(&any);
        let place = self.place;
        let mut members = Map::new();
        while let Some(name) = source.next_key::<String>()? {
            let place = Place::Key(&place, &name);
            let schema = properties.and_then(|known| known.get(&name)).unwrap_or(others);
            if *schema == Value::Bool(false) {
                source.next_value::<IgnoredAny>()?;
                self.problem(place, &Value::Null, || {
                    let known = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                    let known: Vec<&str> = known.collect();
                    format!("is not a known key; known are: {}", known.join(", "))
                });
                continue;
            }
            let check = Check { schema, place, found: self.found };
            let member = source.next_value_seed(check)?;
            members.insert(name, member);
        }
        let required = self.schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                let message = || "is required and missing".to_owned();
                self.problem(Place::Key(&place, name), &Value::Null, message);
            }
        }
        let value = Value::Object(members);
        self.one_of(&value);
        Ok(value)
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        // JSON Schema: 2.0 is an integer.
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A faulty value as a message names it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        // It may be one of a camera, in the wrong place.
        Value::String(text) if text.contains("://") => {
            Value::from(cut(&without_credentials(text), SHOWN_CHARS_MAX)).to_string()
        }
        scalar => cut(&scalar.to_string(), SHOWN_CHARS_MAX),
    }
}

/// A faulty value as it is repeated beside the message.
fn repeated(key: &str, value: &Value) -> String {
    let text = match value {
        Value::Object(_) | Value::Array(_) | Value::Null => String::new(),
        _ if is_secret(key) => MASK.into(),
        Value::String(text) if text.contains("://") => without_credentials(text),
        Value::String(text) if key.to_ascii_lowercase().ends_with("url") && !text.is_empty() => {
            without_credentials(text)
        }
        Value::String(text) => return cut(text, SHOWN_CHARS_MAX),
        other => other.to_string(),
    };
    cut(&text, SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(schema: Value, value: Value) -> Vec<String> {
        problems(&schema, &value, "p").iter().map(Problem::to_string).collect()
    }

    fn read_text(schema: &Value, text: &str) -> (Value, Problems) {
        read(schema, &mut serde_json::Deserializer::from_str(text), "p").unwrap()
    }

    #[test]
    fn every_checked_keyword_refuses_and_accepts() {
        let schema = json!({
            "type": "object",
            "required": ["threshold"],
            "additionalProperties": false,
            "properties": {
                "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                "mode": {"enum": ["fast", "exact", 2]},
                "zones": {"type": "array", "items": {"type": "integer"}},
                "note": {"type": ["string", "null"]},
            },
        });
        let good = json!({"threshold": 0.5, "mode": 2.0, "zones": [1, 2.0], "note": null});
        assert_eq!(messages(schema.clone(), good.clone()), [""; 0]);
        assert_eq!(read_text(&schema, &good.to_string()), (good, Problems::default()));
        assert_eq!(messages(schema.clone(), json!(3)), ["p is 3, expected object"]);
        assert_eq!(messages(schema.clone(), json!({})), ["p.threshold is required and missing"]);
        let bad = json!({"threshold": 1.5, "mode": "slow", "zones": [1, "x"], "note": 4, "Z": 1});
        assert_eq!(
            messages(schema, bad),
            [
                "p.Z is not a known key; known are: mode, note, threshold, zones",
                "p.mode is \"slow\", allowed are \"fast\", \"exact\", 2",
                "p.note is 4, expected string or null",
                "p.threshold is 1.5, the most allowed is 1",
                "p.zones[1] is \"x\", expected integer",
            ]
        );
        assert_eq!(messages(json!({"minimum": 2}), json!(1)), ["p is 1, the least allowed is 2"]);
        assert_eq!(messages(json!({"minimum": 2, "maximum": 2}), json!(2)), [""; 0]);
        assert_eq!(
            messages(json!({"additionalProperties": {"type": "null"}}), json!({"a": 1})),
            ["p.a is 1, expected null"]
        );
        assert_eq!(
            messages(json!({"type": "array"}), json!({"a": 1})),
            ["p is an object, expected array"]
        );
        assert_eq!(messages(json!({"type": "null"}), json!([1])), ["p is an array, expected null"]);
        for value in [json!(1), json!([1]), json!({"a": 1}), json!(null), json!(-1), json!(true)] {
            assert_eq!(messages(json!(false), value.clone()).len(), 1, "{value}");
            assert_eq!(messages(json!(true), value.clone()).len(), 0, "{value}");
            let (read, found) = read_text(&json!(true), &value.to_string());
            assert_eq!((read, found.told.len()), (value, 0));
        }
        // What is of another type is told once, and held against nothing else.
        let text = json!({"type": "string", "enum": ["a"], "minimum": 2});
        assert_eq!(messages(text, json!(1)), ["p is 1, expected string"]);
        assert_eq!(messages(json!({"enum": [[1]]}), json!([1])).len(), 0);
        assert_eq!(messages(json!({"enum": [[1]]}), json!([2])).len(), 1);
        assert_eq!(messages(json!({"enum": [{"a": 1}]}), json!({"a": 2})).len(), 1);
    }

    #[test]
    fn lists_may_demand_a_length_and_no_repetition() {
        let schema = json!({"type": "array", "minItems": 1, "uniqueItems": true});
        assert_eq!(messages(schema.clone(), json!(["a", "b"])), [""; 0]);
        assert_eq!(messages(schema.clone(), json!([])), ["p has 0 elements, needs at least 1"]);
        assert_eq!(messages(schema.clone(), json!([1, "a", 1])), ["p holds 1 twice"]);
        assert_eq!(messages(schema.clone(), json!([1, 1, 2, 2])), ["p holds 1 twice"], "the first");
        assert_eq!(
            messages(schema.clone(), json!([{"a": 1}, {"a": 1}])),
            ["p holds an object twice"]
        );
        assert_eq!(messages(schema, json!([1, "1", [1], {"1": 1}])), [""; 0]);
        let bounded = json!({"maxItems": 2, "uniqueItems": true, "items": {"type": "integer"}});
        assert_eq!(messages(bounded.clone(), json!([1, 2])), [""; 0]);
        // What is beyond the most is counted, not looked at and not kept.
        let (kept, found) = read_text(&bounded, "[1,2,2,\"x\",[{}]]");
        assert_eq!(kept, json!([1, 2]));
        let told: Vec<String> = found.told.iter().map(Problem::to_string).collect();
        assert_eq!(told, ["p has 5 elements, allowed are 2"]);
    }

    #[test]
    fn texts_and_lists_have_bounds() {
        let schema = json!({"minLength": 1, "maxLength": 3, "maxItems": 1});
        for good in [json!("a"), json!("äöü"), json!([1]), json!([]), json!(1234)] {
            assert_eq!(messages(schema.clone(), good), [""; 0]);
        }
        let told = |value| messages(schema.clone(), value).concat();
        assert_eq!(told(json!("")), "p has 0 characters, needs at least 1");
        assert_eq!(told(json!("abcd")), "p has 4 characters, allowed are 3");
        assert_eq!(told(json!([1, 2])), "p has 2 elements, allowed are 1");
        let plain = json!({"format": PLAIN_TEXT});
        assert_eq!(messages(plain.clone(), json!("Gate")), [""; 0]);
        assert_eq!(messages(plain.clone(), json!("  ")), ["p is blank"]);
        assert_eq!(messages(plain, json!("a\n")).len(), 1);
        assert_eq!(messages(json!({"format": "date-time"}), json!("a\n")), [""; 0]);
    }

    #[test]
    fn at_most_32_problems_are_told_and_the_others_counted() {
        let schema = json!({"additionalProperties": false});
        for (count, more) in [(31, 0), (32, 0), (33, 1), (1000, 968)] {
            let keys: Map<String, Value> =
                (0..count).map(|n| (format!("k{n}"), Value::Null)).collect();
            let (kept, found) = read_text(&schema, &Value::from(keys).to_string());
            assert_eq!((found.told.len(), found.more), (count.min(32), more));
            assert_eq!(kept, json!({}), "what has no place is not kept");
        }
    }

    #[test]
    fn what_is_told_is_cut_and_holds_no_secret() {
        let schema = json!({"properties": {
            "name": {"maxLength": 1},
            "password": {"type": "integer"},
            "rtsp_url": {"maxLength": 1},
            "list": {"items": {"type": "integer"}},
        }, "additionalProperties": false});
        let long = "x".repeat(1000);
        let value = |body: Value| problems(&schema, &body, "body").remove(0);
        let told = value(json!({"name": long}));
        assert_eq!((told.place.as_str(), told.value.len()), ("body.name", 123));
        let told = value(json!({long.as_str(): 1}));
        assert!(told.place.starts_with("body.xxx") && told.place.ends_with("..."));
        assert!(told.place.len() <= 123, "{}", told.place.len());
        let told = value(json!({"password": "hunter2"}));
        assert_eq!(told.value, MASK);
        let told = value(json!({"rtsp_url": "rtsp://u:hunter2@h/x"}));
        assert!(!told.value.contains("hunter2") && told.value.contains("h/x"), "{}", told.value);
        let told = value(json!({"rtsp_url": "hunter2@h"}));
        assert!(!told.value.contains("hunter2"), "{}", told.value);
        let told = value(json!({"list": [1, "rtsp://u:hunter2@h/x"]}));
        assert_eq!(told.place, "body.list[1]");
        assert!(!told.value.contains("hunter2") && !told.message.contains("hunter2"));
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö...");
    }
}
