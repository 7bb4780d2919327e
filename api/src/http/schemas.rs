//! JSON Schemas of everything that HTTP answers, with an example at every leaf.
//!
//! Objects list all their keys and allow no other, so that a test can tell when an answer and its
//! description part ways.

use crate::schema::PLAIN_TEXT;
use base::{MemberError, Stages};
use serde_json::{Map, Value, json};

mod cameras;
mod media;

pub use cameras::stream_name;

/// A JSON Schema.
pub type Schema = Value;

/// A reference to a named schema.
pub fn reference(name: &str) -> Schema {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A list.
pub fn list(items: Schema) -> Schema {
    json!({"type": "array", "items": items})
}

/// Any text.
pub fn text() -> Schema {
    json!({"type": "string"})
}

/// An id.
pub fn id() -> Schema {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "examples": ["front-door"]})
}

/// `true` or `false`.
pub fn flag() -> Schema {
    json!({"type": "boolean", "examples": [true]})
}

/// A time in UTC.
pub fn time() -> Schema {
    let example = "2026-01-31T12:00:00.123456789Z";
    json!({"type": "string", "format": "date-time", "examples": [example]})
}

/// A whole number within bounds.
pub fn integer_between(least: u64, most: u64) -> Schema {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

/// Replaces references by what they refer to.
pub fn inlined(schema: &Schema, schemas: &Schema) -> Schema {
    match schema {
        Value::Object(rules) => match rules.get("$ref").and_then(Value::as_str) {
            Some(name) => inlined(&schemas[name.rsplit('/').next().unwrap_or("")], schemas),
            None => rules.iter().map(|(k, v)| (k.clone(), inlined(v, schemas))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| inlined(item, schemas)).collect(),
        other => other.clone(),
    }
}

fn word(example: &str) -> Schema {
    json!({"type": "string", "examples": [example]})
}

fn one_of(words: &[&str]) -> Schema {
    json!({"type": "string", "enum": words, "examples": [words[0]]})
}

fn count(example: u64) -> Schema {
    json!({"type": "integer", "minimum": 0, "examples": [example]})
}

fn number(example: f64) -> Schema {
    json!({"type": "number", "minimum": 0, "examples": [example]})
}

fn share(example: f64) -> Schema {
    json!({"type": "number", "minimum": 0, "maximum": 1, "examples": [example]})
}

/// A number of 64 bits, decimal.
fn big(example: &str) -> Schema {
    json!({"type": "string", "pattern": "^[0-9]+$", "examples": [example]})
}

/// The schema, or null.
fn or_null(mut schema: Schema) -> Schema {
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    schema
}

/// An object with exactly these keys.
fn object(properties: &[(&str, Schema)]) -> Schema {
    object_with(properties, &[])
}

/// An object with these keys and perhaps some more.
fn object_with(properties: &[(&str, Schema)], optional: &[(&str, Schema)]) -> Schema {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let all: Map<String, Value> =
        properties.iter().chain(optional).map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    json!({
        "type": "object", "properties": all, "required": required, "additionalProperties": false,
    })
}

/// A text of so many characters.
fn text_between(least: u64, most: u64, example: &str) -> Schema {
    json!({"type": "string", "minLength": least, "maxLength": most, "examples": [example]})
}

/// A text that people read in one line.
fn plain_text(least: u64, most: u64, example: &str) -> Schema {
    let mut schema = text_between(least, most, example);
    schema["format"] = json!(PLAIN_TEXT);
    schema
}

/// An object of a request: every key may be left out but those of `required`.
fn request(required: &[&str], properties: &[(&str, Schema)]) -> Schema {
    let all: Map<String, Value> =
        properties.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    json!({
        "type": "object", "properties": all, "required": required, "additionalProperties": false,
    })
}

/// Every named schema.
pub fn schemas() -> Schema {
    let named = [
        ("Error", error()),
        ("Health", health()),
        ("HealthDetailed", health_detailed()),
        ("Model", model()),
        ("ModelList", object(&[("models", list(reference("Model"))), ("total", count(1))])),
        ("Assignment", assignment()),
        ("AssignmentList", page_of("assignments", "Assignment", &[("total", count(1))])),
        ("Detection", detection()),
        ("Stages", stages()),
        ("Event", event()),
        ("EventList", event_list()),
        ("Ledger", ledger()),
        ("RecordingDates", recording_dates()),
        ("RecordingTimeline", recording_timeline()),
        ("Status", status()),
        ("ObservabilityHealth", observability_health()),
    ];
    let all = named.into_iter().chain(cameras::named()).chain(media::named());
    all.map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn page_of(key: &str, name: &str, more: &[(&str, Schema)]) -> Schema {
    let mut keys = vec![(key, list(reference(name))), ("limit", count(100)), ("offset", count(0))];
    keys.extend_from_slice(more);
    object(&keys)
}

fn error() -> Schema {
    let detail = object(&[
        ("field", word("limit")),
        ("value", word("0")),
        ("message", word("is not a whole number from 1 to 1000")),
    ]);
    let keys = [
        ("status", count(422)),
        ("message", word("request is not valid: limit")),
        ("path", word("http://127.0.0.1:8080/api/v1/ai-events?limit=0")),
    ];
    object(&[("error", object_with(&keys, &[("details", list(detail))]))])
}

fn health() -> Schema {
    object(&[
        ("status", one_of(&["healthy"])),
        ("service", one_of(&["vas"])),
        ("version", word("0.1.0")),
    ])
}

const STATES: [&str; 3] = ["healthy", "degraded", "unknown"];

fn health_detailed() -> Schema {
    let check = || vec![("status", one_of(&STATES)), ("reason", or_null(text()))];
    let mut desired = check();
    desired.push(("revision", count(1)));
    desired.push(("epoch", word("9f86d081884c7d65")));
    let follower = object(&[
        ("part", one_of(&["scheduler", "ingest"])),
        ("epoch", or_null(word("9f86d081884c7d65"))),
        ("revision", or_null(count(1))),
    ]);
    desired.push(("followers", list(follower)));
    let mut media = check();
    media.push(("bytes", or_null(count(6_400_000))));
    media.push(("bytes_max", or_null(count(100_000_000))));
    object(&[
        ("status", one_of(&STATES)),
        ("service", one_of(&["vas"])),
        ("version", word("0.1.0")),
        ("uptime_seconds", count(60)),
        (
            "checks",
            object(&[
                ("store", object(&check())),
                ("media", object(&media)),
                ("scheduler", object(&check())),
                ("ingest", object(&check())),
                ("desired_state", object(&desired)),
            ]),
        ),
        ("timestamp", time()),
    ])
}

const DECODE: [&str; 3] = ["full", "keyframes", "off"];
const ABSENT: &str = "no_ring";

const RUNNER_STATES: [&str; 5] = ["ready", "profiling", "late", "demoted", "hung"];

fn model() -> Schema {
    let runner = object(&[
        ("device", word("cpu")),
        ("version", word("1.0.0")),
        ("state", one_of(&RUNNER_STATES)),
        ("runtime", word("ONNX Runtime 1.24, CPU")),
        ("batch_max", count(16)),
    ]);
    let mut reason = object(&[
        ("kind", one_of(&["missing", "invalid", "unsupported"])),
        ("message", word("model.yaml:3 unknown key `input_sise`, did you mean `input_size`?")),
    ]);
    reason["examples"] = json!([null]);
    let mut input = object(&[("width", count(416)), ("height", count(416))]);
    input["examples"] = json!([{"width": 416, "height": 416}]);
    object(&[
        ("model_id", word("nanodet_g_416")),
        ("name", word("NanoDet-g 416")),
        ("version", or_null(word("1.0.0"))),
        ("description", or_null(text())),
        ("author", or_null(text())),
        ("license", or_null(word("Apache-2.0"))),
        ("supported_tasks", list(word("object_detection"))),
        ("config_schema", json!({"examples": [null]})),
        ("labels", list(word("person"))),
        ("input", or_null(input)),
        ("confidence_threshold", or_null(share(0.4))),
        ("batch_max", or_null(count(16))),
        ("deadline_ms", or_null(number(500.0))),
        ("enabled", flag()),
        ("availability", one_of(&["available", "unavailable"])),
        ("unavailable_reason", or_null(reason)),
        ("runners", list(runner)),
        ("created_at", or_null(time())),
        ("updated_at", or_null(time())),
    ])
}

fn assignment() -> Schema {
    object(&[
        ("id", word("front-door.nanodet_g_416")),
        ("camera_id", id()),
        ("model_id", word("nanodet_g_416")),
        ("parent_model_id", or_null(text())),
        ("enabled", flag()),
        ("desired_fps", or_null(number(5.0))),
        ("priority", or_null(integer_between(0, 100))),
        ("max_regions", or_null(integer_between(1, 64))),
        ("deadline_ms", or_null(integer_between(1, 60_000))),
        ("parameters", json!({"type": ["object", "null"], "examples": [null]})),
        ("state", one_of(&["accepted", "disabled", "waiting", "rejected", "gone"])),
        ("rejection_reason", or_null(text())),
        ("waiting_reason", or_null(text())),
        ("source", one_of(&["config", "api"])),
        ("created_at", time()),
        ("updated_at", or_null(time())),
    ])
}

fn frame_size() -> Schema {
    object(&[("width", count(1920)), ("height", count(1080))])
}

fn detection() -> Schema {
    let point = object(&[
        ("kind", count(0)),
        ("x", share(0.31)),
        ("y", share(0.22)),
        ("confidence", share(0.9)),
    ]);
    let mut corners = list(share(0.0));
    corners["examples"] = json!([[0.25, 0.125, 0.5, 0.875]]);
    let keys = [
        ("class_id", count(0)),
        ("class_name", or_null(word("person"))),
        ("confidence", share(0.95)),
        ("bbox", corners),
    ];
    object_with(&keys, &[("track_id", count(7)), ("keypoints", list(point))])
}

fn stages() -> Schema {
    let names: Vec<String> = Stages::NAMES.iter().map(|name| format!("{name}_ms")).collect();
    let keys: Vec<(&str, Schema)> = names.iter().map(|n| (n.as_str(), number(5.0))).collect();
    object(&keys)
}

fn event() -> Schema {
    let metadata = json!({
        "type": ["object", "null"],
        "examples": [{
            "scheduler": "9f86d081884c7d65", "subscription": "front-door.nanodet_g_416",
            "batch": "17", "sequence": "42", "parent": null, "region": null,
        }],
    });
    object(&[
        ("id", word("019c13b8-1c00-7b00-8000-00019e370001")),
        ("camera_id", id()),
        ("model_id", word("nanodet_g_416")),
        ("model_version", word("1.0.0")),
        ("device", word("cpu")),
        ("timestamp", time()),
        ("generation", big("1769860800000000000")),
        ("frame_id", big("1200")),
        ("media", big("159287472000000")),
        ("frame", frame_size()),
        ("detections", list(reference("Detection"))),
        ("confidence", or_null(share(0.95))),
        ("age_ms", number(45.0)),
        ("stages", reference("Stages")),
        ("event_metadata", metadata),
        ("created_at", time()),
    ])
}

fn event_list() -> Schema {
    let cursor = or_null(word("a019c13b81c007b00800000019e370001"));
    page_of("events", "Event", &[("next_cursor", cursor), ("total", or_null(count(1)))])
}

fn recording_dates() -> Schema {
    let date = object(&[
        ("date", word("20260131")),
        ("formatted", word("2026-01-31")),
        ("segments_count", count(14_400)),
    ]);
    object(&[("status", one_of(&["success"])), ("device_id", id()), ("dates", list(date))])
}

fn recording_timeline() -> Schema {
    let span = [("start", time()), ("end", time()), ("duration_ms", count(6000))];
    let mut range = span.to_vec();
    range.extend([("frames", count(150)), ("bytes", count(3_000_000))]);
    object(&[
        ("device_id", id()),
        ("start", time()),
        ("end", time()),
        ("ranges", list(object(&range))),
        ("gaps", list(object(&span))),
    ])
}

fn ledger() -> Schema {
    let places = [
        "observed",
        "pending",
        "gated",
        "superseded",
        "unserved_parked",
        "unserved_no_runner",
        "unserved_paused",
        "unserved_gap",
        "expired",
        "crowded",
        "bound",
        "sampled",
        "torn",
        "error_frame",
        "error_engine",
        "error_postprocess",
        "error_parameters",
        "error_request",
        "revoked",
        "expired_late",
        "lost_with_runner",
        "in_flight",
    ];
    let mut keys: Vec<(&str, Schema)> = places.iter().map(|place| (*place, count(0))).collect();
    keys.push(("balanced", flag()));
    object(&keys)
}

/// A named schema, or null. References can't carry a type of their own.
fn reference_or_null(schema: Schema, example: Value) -> Schema {
    let mut schema = or_null(schema);
    schema["examples"] = json!([example]);
    schema
}

fn status() -> Schema {
    let scheduler = object(&[
        ("status", one_of(&STATES)),
        ("reason", or_null(text())),
        ("connected", flag()),
        ("connections", count(1)),
        ("refused_messages", count(0)),
        ("status_age_ms", or_null(number(420.0))),
        ("instance", or_null(word("9f86d081884c7d65"))),
        ("desired_epoch", or_null(word("9f86d081884c7d65"))),
        ("desired_revision", or_null(count(1))),
        ("results_dropped", or_null(count(0))),
        (
            "broken_invariants",
            json!({
                "type": ["object", "null"],
                "additionalProperties": {"type": "integer", "minimum": 1},
                "examples": [{}],
            }),
        ),
    ]);
    let camera = object(&[
        ("id", id()),
        ("name", word("Front door")),
        ("enabled", flag()),
        ("decode", one_of(&DECODE)),
        ("decode_reason", or_null(text())),
        ("stream_state", one_of(&cameras::STATES)),
        ("stream_reason", or_null(text())),
        ("live", flag()),
        ("record", flag()),
        ("recording", json!({"type": "boolean", "examples": [false]})),
        ("recording_reason", or_null(text())),
        ("viewers", count(0)),
        ("state", one_of(&["frames", "no_frames", "unknown"])),
        ("absent", or_null(word(ABSENT))),
        ("fps", or_null(number(25.0))),
        ("generation", or_null(big("1769860800000000000"))),
        ("newest_frame_id", or_null(big("1200"))),
    ]);
    let latency =
        object(&[("batch", count(1)), ("p50_ms", number(12.0)), ("p99_ms", number(15.0))]);
    let runner = object(&[
        ("model_id", word("nanodet_g_416")),
        ("device", word("cpu")),
        ("instance", word("9f86d081884c7d65")),
        ("state", one_of(&RUNNER_STATES)),
        ("version", or_null(word("1.0.0"))),
        ("runtime", or_null(word("ONNX Runtime 1.24, CPU"))),
        ("batches", count(100)),
        ("members", count(120)),
        ("mean_batch", or_null(number(1.2))),
        ("batch_size", count(1)),
        ("batch_planned", number(1.5)),
        ("interval_ms", number(40.0)),
        ("steered", flag()),
        ("busy_ms", number(1440.0)),
        ("stages", reference_or_null(stages(), Value::Null)),
        ("latency", list(latency)),
    ]);
    let device = object(&[
        ("id", word("cpu")),
        ("suspect", json!({"type": "boolean", "examples": [false]})),
        ("busy_ms", number(1440.0)),
        ("load", number(0.4)),
        ("overloaded", json!({"type": "boolean", "examples": [false]})),
        ("busy_share", or_null(share(0.3))),
    ]);
    let store = object(&[
        ("stored", count(100)),
        ("dropped", count(0)),
        ("failed", count(0)),
        ("rejected", count(0)),
        ("empty", count(20)),
        ("errors", count(0)),
        ("unknown_camera", count(0)),
        ("commits", count(12)),
        ("failing", json!({"type": "boolean", "examples": [false]})),
    ]);
    object(&[
        ("timestamp", time()),
        ("version", word("0.1.0")),
        ("uptime_seconds", count(60)),
        ("scheduler", scheduler),
        ("desired_state", object(&[("revision", count(1)), ("rejected_assignments", count(0))])),
        ("cameras", list(camera)),
        ("subscriptions", list(subscription())),
        ("runners", list(runner)),
        ("devices", list(device)),
        ("store", store),
    ])
}

fn subscription() -> Schema {
    let errors: Vec<(&str, Schema)> =
        MemberError::ALL.iter().map(|e| (e.as_str(), count(0))).collect();
    let class = object(&[
        ("class_id", count(0)),
        ("class_name", or_null(word("person"))),
        ("count", count(312)),
        ("per_frame", number(2.6)),
    ]);
    let age = object(&[
        ("window", word("last 30 to 60 s")),
        ("results", count(120)),
        ("p50_ms", or_null(number(45.0))),
        ("p99_ms", or_null(number(61.0))),
    ]);
    let latest = or_null(object(&[
        ("generation", big("1769860800000000000")),
        ("frame_id", big("1200")),
        ("media", big("159287472000000")),
        ("timestamp", time()),
        ("frame", frame_size()),
        ("age_ms", number(45.0)),
        ("since_ms", number(80.0)),
        ("detections", list(reference("Detection"))),
    ]));
    let words =
        ["active", "no_frames", "no_runner", "parked", "paused", "waiting", "rejected", "unknown"];
    object(&[
        ("id", word("front-door.nanodet_g_416")),
        ("camera_id", or_null(id())),
        ("model_id", or_null(word("nanodet_g_416"))),
        ("parent_model_id", or_null(text())),
        ("state", one_of(&words)),
        ("reason", or_null(text())),
        ("max_fps", or_null(number(5.0))),
        ("granted_fps", or_null(number(5.0))),
        ("ledger", reference_or_null(ledger(), Value::Null)),
        ("device", or_null(word("cpu"))),
        ("results", count(120)),
        ("empties", count(20)),
        ("errors", object(&errors)),
        ("classes", list(class)),
        ("age", age),
        ("stages", reference_or_null(stages(), Value::Null)),
        ("latest", latest),
    ])
}

fn observability_health() -> Schema {
    let subscription = object(&[
        ("subscription_id", word("front-door.nanodet_g_416")),
        ("model_id", word("nanodet_g_416")),
        ("camera_id", id()),
        ("active", flag()),
        ("state", one_of(&["active", "no_frames", "no_runner", "parked", "paused"])),
        ("dispatch_count", count(120)),
        ("drop_count", count(480)),
    ]);
    let camera = object(&[
        ("camera_id", id()),
        ("state", one_of(&STATES)),
        ("absent", or_null(word(ABSENT))),
        ("fps", or_null(number(25.0))),
        ("subscription_count", count(1)),
        ("subscriptions", list(subscription)),
    ]);
    let model = object(&[
        ("model_id", word("nanodet_g_416")),
        ("status", one_of(&STATES)),
        ("last_heartbeat", or_null(time())),
        ("runner_count", count(1)),
        ("total_requests", count(120)),
        ("total_errors", count(0)),
        ("error_rate", share(0.0)),
        ("avg_latency_ms", or_null(number(45.2))),
    ]);
    object(&[
        ("status", one_of(&STATES)),
        ("timestamp", time()),
        ("camera_count", count(1)),
        ("model_count", count(1)),
        ("cameras", list(camera)),
        ("models", list(model)),
    ])
}
