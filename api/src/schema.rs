//! The part of JSON Schema that model parameters need: `type`, `properties`, `required`,
//! `additionalProperties`, `minimum`, `maximum`, `minLength`, `maxLength`, `enum`, `items`, `minItems`,
//! `maxItems`, `uniqueItems`. Requests to the HTTP interface are checked by it too.
//!
//! Other keywords constrain nothing here; [`unchecked_keywords`] names them so that the author of
//! a model learns of it.

use crate::camera_url::without_credentials;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const CHECKED: [&str; 13] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "minimum",
    "maximum",
    "enum",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "uniqueItems",
];
const ANNOTATIONS: [&str; 8] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"];

/// One place of a value that breaks the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, for example `parameters.zones[2].name`.
    pub place: String,
    /// What is wrong, with the value.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.place, self.message)
    }
}

/// Everything in `value` that breaks `schema`; `place` is the name of the value in messages.
pub fn problems(schema: &Value, value: &Value, place: &str) -> Vec<Problem> {
    let mut found = Vec::new();
    walk(schema, value, place, &mut found);
    found
}

/// Keywords anywhere in `schema` that [`problems`] does not check.
pub fn unchecked_keywords(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect_unchecked(schema, &mut found);
    found
}

fn walk(schema: &Value, value: &Value, place: &str, found: &mut Vec<Problem>) {
    let mut problem = |place: &str, message: String| {
        found.push(Problem { place: place.to_owned(), message });
    };
    let rules = match schema {
        Value::Bool(true) => return,
        Value::Object(rules) => rules,
        _ => return problem(place, "is not allowed by the schema".into()),
    };
    if let Some(allowed) = rules.get("type") {
        let names: Vec<&str> = match allowed {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        if !names.iter().any(|name| is_of_type(value, name)) {
            return problem(place, format!("is {}, expected {}", shown(value), names.join(" or ")));
        }
    }
    if let Some(allowed) = rules.get("enum").and_then(Value::as_array)
        && !allowed.iter().any(|a| equal(a, value))
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        problem(place, format!("is {}, allowed are {}", shown(value), allowed.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = rules.get("minimum").and_then(Value::as_f64)
            && number < least
        {
            problem(place, format!("is {number}, the least allowed is {least}"));
        }
        if let Some(most) = rules.get("maximum").and_then(Value::as_f64)
            && number > most
        {
            problem(place, format!("is {number}, the most allowed is {most}"));
        }
    }
    if let Value::String(text) = value {
        let bound = |name: &str| rules.get(name).and_then(Value::as_u64);
        let length = text.chars().count() as u64;
        if let Some(least) = bound("minLength").filter(|least| length < *least) {
            problem(place, format!("has {length} characters, needs at least {least}"));
        }
        if let Some(most) = bound("maxLength").filter(|most| length > *most) {
            problem(place, format!("has {length} characters, allowed are {most}"));
        }
    }
    if let Value::Object(members) = value {
        walk_object(rules, members, place, found);
    }
    if let Value::Array(elements) = value {
        walk_array(rules, elements, place, found);
    }
}

fn walk_array(
    rules: &Map<String, Value>,
    elements: &[Value],
    place: &str,
    found: &mut Vec<Problem>,
) {
    let mut problem = |message| found.push(Problem { place: place.to_owned(), message });
    if let Some(least) = rules.get("minItems").and_then(Value::as_u64)
        && (elements.len() as u64) < least
    {
        problem(format!("has {} elements, needs at least {least}", elements.len()));
    }
    if let Some(most) = rules.get("maxItems").and_then(Value::as_u64)
        && (elements.len() as u64) > most
    {
        problem(format!("has {} elements, allowed are {most}", elements.len()));
    }
    if rules.get("uniqueItems").and_then(Value::as_bool) == Some(true)
        && let Some(again) =
            elements.iter().enumerate().find_map(|(i, e)| elements[..i].contains(e).then_some(e))
    {
        problem(format!("holds {} twice", shown(again)));
    }
    if let Some(item) = rules.get("items") {
        for (i, element) in elements.iter().enumerate() {
            walk(item, element, &format!("{place}[{i}]"), found);
        }
    }
}

fn walk_object(
    rules: &Map<String, Value>,
    members: &Map<String, Value>,
    place: &str,
    found: &mut Vec<Problem>,
) {
    for name in rules.get("required").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = name.as_str()
            && !members.contains_key(name)
        {
            let message = "is required and missing".to_owned();
            found.push(Problem { place: format!("{place}.{name}"), message });
        }
    }
    let properties = rules.get("properties").and_then(Value::as_object);
    for (name, member) in members {
        let place = format!("{place}.{name}");
        match (properties.and_then(|p| p.get(name)), rules.get("additionalProperties")) {
            (Some(schema), _) => walk(schema, member, &place, found),
            (None, None) => {}
            (None, Some(Value::Bool(false))) => {
                let known: Vec<&str> =
                    properties.into_iter().flatten().map(|(k, _)| k.as_str()).collect();
                let message = format!("is not a known key; known are: {}", known.join(", "));
                found.push(Problem { place, message });
            }
            (None, Some(schema)) => walk(schema, member, &place, found),
        }
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

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        // It may be one of a camera, in the wrong place.
        Value::String(text) if text.contains("://") => {
            Value::from(without_credentials(text)).to_string()
        }
        scalar => scalar.to_string().chars().take(80).collect(),
    }
}

fn collect_unchecked(schema: &Value, found: &mut BTreeSet<String>) {
    let Value::Object(rules) = schema else { return };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "properties" => {
                for property in rule.as_object().into_iter().flatten() {
                    collect_unchecked(property.1, found);
                }
            }
            "items" | "additionalProperties" => collect_unchecked(rule, found),
            known if CHECKED.contains(&known) || ANNOTATIONS.contains(&known) => {}
            other => {
                found.insert(other.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(schema: Value, value: Value) -> Vec<String> {
        problems(&schema, &value, "p").iter().map(Problem::to_string).collect()
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
        assert_eq!(messages(schema.clone(), good), [""; 0]);
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
        assert_eq!(
            messages(json!({"additionalProperties": {"type": "null"}}), json!({"a": 1})),
            ["p.a is 1, expected null"]
        );
        assert_eq!(messages(json!(false), json!(1)).len(), 1);
        assert_eq!(messages(json!(true), json!(1)).len(), 0);
    }

    #[test]
    fn lists_may_demand_a_length_and_no_repetition() {
        let schema = json!({"type": "array", "minItems": 1, "uniqueItems": true});
        assert_eq!(messages(schema.clone(), json!(["a", "b"])), [""; 0]);
        assert_eq!(messages(schema.clone(), json!([])), ["p has 0 elements, needs at least 1"]);
        assert_eq!(messages(schema, json!([1, "a", 1])), ["p holds 1 twice"]);
    }

    #[test]
    fn texts_and_lists_have_bounds() {
        let schema = json!({"minLength": 1, "maxLength": 3, "maxItems": 1});
        for good in [json!("a"), json!("äöü"), json!([1]), json!(1234)] {
            assert_eq!(messages(schema.clone(), good), [""; 0]);
        }
        let told = |value| messages(schema.clone(), value).concat();
        assert_eq!(told(json!("")), "p has 0 characters, needs at least 1");
        assert_eq!(told(json!("abcd")), "p has 4 characters, allowed are 3");
        assert_eq!(told(json!([1, 2])), "p has 2 elements, allowed are 1");
    }

    #[test]
    fn keywords_that_are_not_checked_are_named() {
        let schema = json!({
            "title": "x",
            "properties": {"a": {"pattern": "^x", "items": {"oneOf": []}}, "pattern": {}},
        });
        let names: Vec<String> = unchecked_keywords(&schema).into_iter().collect();
        assert_eq!(names, ["oneOf", "pattern"]);
    }
}
