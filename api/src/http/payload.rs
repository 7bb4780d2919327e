//! The body of a request: read once, checked against the schema of its route, so that the
//! description and what is accepted can't part ways.

use super::message::{Detail, Failure};
use super::schemas::{self, Schema, inlined};
use crate::camera_url::{MASK, without_credentials};
use crate::schema::problems;
use base::address::is_secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What a route takes as its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Nothing; an empty JSON object passes.
    None,
    /// JSON of a named schema.
    Json(&'static str),
    /// JSON of a named schema, or nothing.
    JsonOptional(&'static str),
    /// `application/sdp`.
    Sdp,
}

/// Reads a body into JSON, or into the text of an SDP.
///
/// # Errors
/// 415 for another media type, 422 with every fault.
pub fn read(
    payload: Payload,
    content_type: Option<&str>,
    bytes: Vec<u8>,
) -> Result<(Value, String), Failure> {
    let kind = content_type.and_then(|t| t.split(';').next()).unwrap_or("").trim();
    let empty = bytes.iter().all(u8::is_ascii_whitespace);
    let (name, optional) = match payload {
        Payload::Sdp => {
            demand(kind, "application/sdp")?;
            let sdp = String::from_utf8(bytes).map_err(|_| whole("", "is not UTF-8"))?;
            return if empty { Err(whole("", "is empty")) } else { Ok((Value::Null, sdp)) };
        }
        Payload::None if empty => return Ok((Value::Null, String::new())),
        Payload::None => ("Nothing", true),
        Payload::Json(name) => (name, false),
        Payload::JsonOptional(name) => (name, true),
    };
    if empty && optional {
        return Ok((Value::Null, String::new()));
    }
    demand(kind, "application/json")?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| whole("", &format!("is not JSON: {error}")))?;
    let found = problems(&schema(name), &value, "body");
    let details: Vec<Detail> = found
        .into_iter()
        .map(|problem| {
            let field = problem.place.strip_prefix("body.").unwrap_or("body").to_owned();
            let shown = at(&value, &field).map(|given| echo(&field, given)).unwrap_or_default();
            Detail::new(&field, &shown, problem.message)
        })
        .collect();
    if details.is_empty() { Ok((value, String::new())) } else { Err(Failure::invalid(details)) }
}

fn demand(kind: &str, wanted: &str) -> Result<(), Failure> {
    if kind.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let kind = if kind.is_empty() { "missing" } else { kind };
    Err(Failure::new(415, format!("Content-Type is {kind}, this request takes {wanted}")))
}

fn whole(value: &str, message: &str) -> Failure {
    Failure::invalid(vec![Detail::new("body", value, message)])
}

/// A faulty value as the answer repeats it: single values only, and nothing that is or may hold a
/// secret.
fn echo(field: &str, value: &Value) -> String {
    let name = field.rsplit('.').next().unwrap_or_default();
    match value {
        Value::Object(_) | Value::Array(_) => String::new(),
        _ if is_secret(name) => MASK.into(),
        Value::String(text) if text.contains("://") => without_credentials(text),
        Value::String(text) if name.to_ascii_lowercase().ends_with("url") && !text.is_empty() => {
            without_credentials(text)
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value at a place such as `streams[1].url`.
fn at<'v>(value: &'v Value, place: &str) -> Option<&'v Value> {
    let mut here = value;
    for step in place.split(['.', '[']) {
        here = match step.strip_suffix(']') {
            Some(index) => here.get(index.parse::<usize>().ok()?)?,
            None => here.get(step)?,
        };
    }
    Some(here)
}

fn schema(name: &'static str) -> Schema {
    static READY: LazyLock<Mutex<BTreeMap<&'static str, Schema>>> = LazyLock::new(Mutex::default);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let made = || inlined(&schemas::reference(name), &schemas::schemas());
    ready.entry(name).or_insert_with(made).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_again() {
        let value = serde_json::json!({"a": [{"b": 1}, {"b": 2}], "c": "x"});
        assert_eq!(at(&value, "a[1].b"), Some(&serde_json::json!(2)));
        assert_eq!(at(&value, "c"), Some(&serde_json::json!("x")));
        for nothing in ["d", "a[2].b", "a[x]", "c.d", ""] {
            assert_eq!(at(&value, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn media_types_and_emptiness_are_checked() {
        let status = |payload, kind: Option<&str>, body: &str| {
            read(payload, kind, body.into()).map(|_| 200).unwrap_or_else(|f| f.status)
        };
        let json = Some("application/json; charset=utf-8");
        assert_eq!(status(Payload::None, None, ""), 200);
        assert_eq!(status(Payload::None, json, "{}"), 200);
        assert_eq!(status(Payload::None, json, "{\"a\":1}"), 422);
        assert_eq!(status(Payload::None, None, "x"), 415);
        assert_eq!(status(Payload::Json("DeviceNew"), None, "{}"), 415);
        assert_eq!(status(Payload::Json("DeviceNew"), json, ""), 422);
        assert_eq!(status(Payload::Json("DeviceNew"), json, "{"), 422);
        assert_eq!(status(Payload::Sdp, Some("application/sdp"), "v=0"), 200);
        assert_eq!(status(Payload::Sdp, Some("application/sdp"), " "), 422);
        assert_eq!(status(Payload::Sdp, json, "v=0"), 415);
    }
}
