//! The OpenAPI document, made from [`super::table`] and [`super::schemas`]. `api/openapi.json` is
//! its committed snapshot.

use super::message::{Answer, Body, Failure, Request};
use super::payload::Payload;
use super::query::Query;
use super::schemas::{Schema, list, reference, schemas, text};
use super::table::{Content, Route, Verb, routes};
use crate::canonical::sorted;
use crate::services::Services;
use crate::slots::Kind;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// GET /openapi.json
pub fn document(_: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    static DOCUMENT: LazyLock<String> = LazyLock::new(document_text);
    let body = Body::Static(DOCUMENT.as_bytes());
    Ok(Answer { status: 200, content_type: "application/json", headers: vec![], body })
}

/// The document as text.
pub fn document_text() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let verbs = paths.entry(route.path).or_insert_with(|| json!({}));
        verbs[route.verb.as_str()] = operation(route);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "VAS",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Cameras, models and what models found. Every answer that changes is \
                sent with Cache-Control: no-store. Numbers that can exceed 2^53 are decimal \
                strings. Boxes are x1, y1, x2, y2 relative to the frame. HEAD is answered as GET. \
                Files honour Range and If-None-Match. Requests that a page of another origin sends \
                are refused with 403, but for opening /. 503 says with Retry-After when to ask \
                again. Texts with format plain-text hold no control characters and none that \
                change the direction of text, and are not blank.",
        },
        "paths": paths,
        "components": {"schemas": schemas()},
    });
    // One spelling, whatever the map type of serde_json is.
    let mut text = format!("{:#}", sorted(&document));
    text.push('\n');
    text
}

fn operation(route: &Route) -> Value {
    let placeholders =
        route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = placeholders
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": text()}))
        .collect();
    parameters.extend(route.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.description,
            "schema": (parameter.schema)(),
            "example": parameter.example,
        })
    }));
    let of = |schema: Value| {
        let example = example(&schema, &schemas());
        json!({"application/json": {"schema": schema, "example": example}})
    };
    let content = match route.answer {
        Content::Json(name) => of(reference(name)),
        Content::JsonList(name) => of(list(reference(name))),
        Content::Document => json!({"application/json": {"schema": {"type": "object"}}}),
        Content::Html => json!({"text/html": {}}),
        Content::Jpeg => json!({"image/jpeg": {}}),
        Content::File(kind) => json!({kind: {}}),
        Content::Sdp => json!({"application/sdp": {}}),
        Content::Nothing => Value::Null,
    };
    let mut success = json!({"description": "What was asked for."});
    if !content.is_null() {
        success["content"] = content;
    }
    if let Content::Jpeg = route.answer {
        let header = |what: &str| json!({"description": what, "schema": text()});
        success["headers"] = json!({
            "X-Frame-Id": header("Id of the frame."),
            "X-Generation": header("Generation of the ring; with the id it names the frame."),
            "X-Media": header("Place on the camera's media timeline, ticks of 90 kHz."),
            "X-Age-Ms": header("Time since the frame was captured, milliseconds."),
        });
    }
    if let Content::Sdp = route.answer {
        let header = |what: &str| json!({"description": what, "schema": text()});
        success["headers"] = json!({
            "Location": header("The viewer's session: DELETE ends it."),
            "X-Media-Origin": header("Media time of RTP time 0, ticks of 90 kHz."),
        });
    }
    let statuses: &[u16] = match route.payload {
        Payload::None if route.verb == Verb::Get => &[403, 405, 422],
        _ => &[403, 405, 415, 422],
    };
    // What takes a thread or makes an answer may find too many others doing so.
    let busy: &[u16] = if route.kind == Kind::Immediate { &[] } else { &[503] };
    let mut responses = Map::from_iter([(route.status.to_string(), success)]);
    if let Content::File(kind) = route.answer {
        let part = json!({"description": "The range that was asked for.", "content": {kind: {}}});
        responses.insert("206".to_owned(), part);
        let same = json!({"description": "The client has it: If-None-Match names its ETag."});
        responses.insert("304".to_owned(), same);
    }
    for status in statuses.iter().chain(busy).chain(route.failures) {
        let description = match status {
            400 => "The request contradicts what there is.",
            403 => "A page of another origin sent it.",
            404 => "There is no such thing.",
            405 => "The path has other methods; Allow names them.",
            406 => "The stream can't be shown in a browser; the message says what to configure.",
            409 => "The thing is not in a state for that.",
            410 => "The file is gone.",
            413 => "The body is too large.",
            415 => "The body is of another media type.",
            416 => "The range lies outside of the file.",
            507 => "The disk, or the share of it that snapshots and clips may take, is full.",
            422 => "A parameter or a key of the body is wrong or unknown; details name each.",
            503 => {
                "Something behind this interface does not work now, or too many ask at once; \
                 Retry-After says when to ask again."
            }
            _ => "Something behind this interface does not work.",
        };
        let content = json!({"application/json": {"schema": reference("Error")}});
        let response = json!({"description": description, "content": content});
        responses.insert(status.to_string(), response);
    }
    let mut told =
        json!({"summary": route.summary, "parameters": parameters, "responses": responses});
    if let Some(body) = request_body(route) {
        told["requestBody"] = body;
    }
    told
}

fn request_body(route: &Route) -> Option<Value> {
    let json_body = |name: &str, required: bool| {
        let schema = reference(name);
        let example = example(&schema, &schemas());
        let content = json!({"application/json": {"schema": schema, "example": example}});
        Some(json!({"required": required, "content": content}))
    };
    match route.payload {
        Payload::None => None,
        Payload::Json(name) => json_body(name, true),
        Payload::JsonOptional(name) => json_body(name, false),
        Payload::Sdp => Some(json!({"required": true, "content": {"application/sdp": {}}})),
    }
}

/// The example of a schema, put together from those of its leaves.
pub fn example(schema: &Schema, schemas: &Schema) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
        return example(&schemas[name], schemas);
    }
    if let Some(given) = schema["examples"].get(0) {
        return given.clone();
    }
    if let Some(properties) = schema["properties"].as_object() {
        return properties.iter().map(|(k, v)| (k.clone(), example(v, schemas))).collect();
    }
    match (schema.get("items"), schema["type"].as_str(), schema.get("minimum")) {
        (Some(items), ..) => json!([example(items, schemas)]),
        (None, Some("string"), _) => json!(""),
        (None, Some("integer"), Some(least)) => least.clone(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::problems;

    #[test]
    fn the_snapshot_is_the_document() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, document_text()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == document_text(),
            "api/openapi.json is not what the code says; look at the difference after \
             UPDATE_OPENAPI=1 cargo test -p api openapi"
        );
    }

    #[test]
    fn every_example_fits_its_schema() {
        let document: Value = serde_json::from_str(&document_text()).unwrap();
        let schemas = &document["components"]["schemas"];
        let mut checked = 0;
        for (path, verbs) in document["paths"].as_object().unwrap() {
            for operation in verbs.as_object().unwrap().values() {
                let answers = operation["responses"].as_object().unwrap().values();
                for told in answers.chain([&operation["requestBody"]]) {
                    let content = &told["content"]["application/json"];
                    if content["example"].is_null() {
                        continue;
                    }
                    let schema = crate::http::schemas::inlined(&content["schema"], schemas);
                    assert_eq!(problems(&schema, &content["example"], path), []);
                    checked += 1;
                }
            }
        }
        assert!(checked > 20, "{checked}");
    }
}
