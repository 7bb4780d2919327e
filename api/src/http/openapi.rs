//! The OpenAPI document, made from [`super::table`] and [`super::schemas`]. `api/openapi.json` is
//! its committed snapshot.

use super::message::{Answer, Body, Failure, Request};
use super::query::Query;
use super::schemas::{Schema, list, reference, schemas, text};
use super::table::{Content, ROUTES, Route};
use crate::canonical::sorted;
use crate::services::Services;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// GET /openapi.json
pub fn document(_: &Services, request: &Request) -> Result<Answer, Failure> {
    Query::of(request).finish()?;
    static DOCUMENT: LazyLock<String> = LazyLock::new(document_text);
    let body = Body::Static(DOCUMENT.as_bytes());
    Ok(Answer { content_type: "application/json", headers: vec![], body })
}

/// The document as text.
pub fn document_text() -> String {
    let paths: Map<String, Value> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), json!({"get": operation(route)})))
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "VAS",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Cameras, models and what models found. Every answer that changes is \
                sent with Cache-Control: no-store. Numbers that can exceed 2^53 are decimal \
                strings. Boxes are x1, y1, x2, y2 relative to the frame. HEAD is answered as GET.",
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
        Content::Playlist => json!({"application/vnd.apple.mpegurl": {}}),
        Content::Video => json!({"video/mp4": {}}),
    };
    let mut success = json!({"description": "What was asked for.", "content": content});
    if let Content::Jpeg = route.answer {
        let header = |what: &str| json!({"description": what, "schema": text()});
        success["headers"] = json!({
            "X-Frame-Id": header("Id of the frame."),
            "X-Generation": header("Generation of the ring; with the id it names the frame."),
            "X-Media": header("Place on the camera's media timeline, ticks of 90 kHz."),
            "X-Age-Ms": header("Time since the frame was captured, milliseconds."),
        });
    }
    let mut responses = Map::from_iter([("200".to_owned(), success)]);
    for status in [405, 422].iter().chain(route.failures) {
        let description = match status {
            404 => "There is no such thing.",
            405 => "Only GET and HEAD are allowed.",
            422 => "A query parameter is wrong or unknown; details name each.",
            _ => "Something behind this interface does not work now.",
        };
        let content = json!({"application/json": {"schema": reference("Error")}});
        let response = json!({"description": description, "content": content});
        responses.insert(status.to_string(), response);
    }
    json!({"summary": route.summary, "parameters": parameters, "responses": responses})
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
        for (path, operation) in document["paths"].as_object().unwrap() {
            let content = &operation["get"]["responses"]["200"]["content"]["application/json"];
            if content["example"].is_null() {
                continue;
            }
            let schema = crate::http::schemas::inlined(&content["schema"], schemas);
            assert_eq!(problems(&schema, &content["example"], path), []);
        }
    }
}
