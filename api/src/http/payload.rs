//! The body of a request: read once, checked against the schema of its route, so that the
//! description and what is accepted can't part ways.

use super::message::{Detail, Details, Failure};
use super::schemas::{self, Schema, inlined};
use crate::schema;
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
/// 415 for another media type, 422 with the faults.
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
    let mut source = serde_json::Deserializer::from_slice(&bytes);
    let read = schema::read(&named(name), &mut source, "body");
    let (value, found) = read
        .and_then(|read| source.end().map(|()| read))
        .map_err(|error| whole("", &format!("is not JSON: {error}")))?;
    let mut details = Details::default();
    for problem in &found.told {
        let field = problem.place.strip_prefix("body.").unwrap_or(&problem.place);
        details.add(|| Detail::new(field, &problem.value, &problem.message));
    }
    details.add_untold(found.more);
    details.finish().map(|()| (value, String::new()))
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

/// A named schema, its references replaced.
fn named(name: &'static str) -> Schema {
    static READY: LazyLock<Mutex<BTreeMap<&'static str, Schema>>> = LazyLock::new(Mutex::default);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let made = || inlined(&schemas::reference(name), &schemas::schemas());
    ready.entry(name).or_insert_with(made).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where a body could hold any number of anything.
    fn assert_bounded(schema: &Schema, place: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], false, "{place} takes any key");
            for (name, property) in properties {
                assert_bounded(property, &format!("{place}.{name}"));
            }
        } else if schema.get("items").is_some() {
            assert!(schema["maxItems"].is_u64(), "{place} takes any number of elements");
            assert_bounded(&schema["items"], &format!("{place}[]"));
        } else {
            let kind = schema["type"].to_string();
            let scalar = !kind.contains("object") && !kind.contains("array") && kind != "null";
            assert!(scalar, "{place} takes anything: {kind}");
        }
    }

    #[test]
    fn what_a_body_may_hold_is_bounded() {
        let mut checked = 0;
        for route in super::super::table::routes() {
            if let Payload::Json(name) | Payload::JsonOptional(name) = route.payload {
                assert_bounded(&named(name), name);
                checked += 1;
            }
        }
        assert_bounded(&named("Nothing"), "Nothing");
        assert!(checked >= 7, "{checked}");
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
