//! Schemas of cameras and their streams.

use super::{
    ABSENT, DECODE, Schema, big, count, flag, id, list, number, object, one_of, or_null,
    plain_text, reference, request, text, text_between, time, word,
};
use crate::camera_streams::ROLES;
use crate::camera_url::URL_BYTES_MAX;
use serde_json::json;

/// What a stream does; unknown while ingest does not answer.
pub const STATES: [&str; 7] =
    ["live", "connecting", "stalled", "auth_failed", "backing_off", "stopped", "unknown"];
const URL: &str = "rtsp://***@10.0.0.9:554/stream1";
const NEW_URL: &str = "rtsp://user:password@10.0.0.9:554/stream1";

/// `main` or `sub`.
pub fn stream_name() -> Schema {
    one_of(&["main", "sub"])
}

/// The named schemas.
pub fn named() -> Vec<(&'static str, Schema)> {
    vec![
        ("Device", device()),
        ("DeviceNew", request(&["name"], &fields())),
        ("DeviceChange", request(&[], &fields())),
        ("DeviceProbe", request(&[], &fields())),
        ("DeviceStatus", device_status()),
        ("Validation", validation()),
        ("StreamStart", stream_start()),
        ("StreamStop", stream_stop()),
        ("Stream", stream()),
        ("StreamList", stream_list()),
        ("ActiveStreams", active_streams()),
        ("StreamHealth", stream_health()),
        ("StreamStats", stream_stats()),
        ("Reconnected", object(&[("status", one_of(&["success"])), ("stream_id", id())])),
        ("Nothing", request(&[], &[])),
    ]
}

fn roles() -> Schema {
    let mut roles = list(one_of(&ROLES));
    roles["uniqueItems"] = json!(true);
    roles["maxItems"] = json!(ROLES.len());
    roles
}

fn url(example: &str) -> Schema {
    text_between(1, URL_BYTES_MAX as u64, example)
}

fn fields() -> Vec<(&'static str, Schema)> {
    let stream = request(
        &["name", "url"],
        &[
            ("name", stream_name()),
            ("url", url(NEW_URL)),
            ("transport", one_of(&["tcp", "udp"])),
            ("roles", roles()),
        ],
    );
    let mut streams = list(stream);
    streams["minItems"] = json!(1);
    streams["maxItems"] = json!(2);
    vec![
        ("name", plain_text(1, 255, "Front door")),
        ("description", or_null(plain_text(0, 2000, "above the bell"))),
        ("location", or_null(plain_text(0, 255, "Gate"))),
        ("rtsp_url", url(NEW_URL)),
        ("sub_url", or_null(url("rtsp://user:password@10.0.0.9:554/stream2"))),
        ("transport", one_of(&["tcp", "udp"])),
        ("streams", streams),
        ("record", flag()),
        ("live", flag()),
        ("export", flag()),
        ("enabled", flag()),
        ("is_active", flag()),
    ]
}

fn streaming() -> Schema {
    object(&[
        ("active", flag()),
        ("room_id", or_null(text())),
        ("started_at", or_null(time())),
        ("state", one_of(&STATES)),
        ("reason", or_null(text())),
    ])
}

fn device() -> Schema {
    let stream = object(&[
        ("name", stream_name()),
        ("url", word(URL)),
        ("transport", word("tcp")),
        ("roles", roles()),
    ]);
    object(&[
        ("id", id()),
        ("name", word("Front door")),
        ("description", or_null(text())),
        ("rtsp_url", or_null(word(URL))),
        ("streams", list(stream)),
        ("is_active", flag()),
        ("enabled", flag()),
        ("record", flag()),
        ("live", flag()),
        ("location", or_null(word("Gate"))),
        ("streaming", streaming()),
        (
            "export",
            object(&[
                ("wanted", flag()),
                ("decode", one_of(&DECODE)),
                ("reason", or_null(text())),
                ("absent", or_null(word(ABSENT))),
                ("fps", or_null(number(25.0))),
                ("newest_frame_id", or_null(big("1200"))),
            ]),
        ),
        ("source", one_of(&["config", "api"])),
        ("created_at", time()),
        ("updated_at", or_null(time())),
    ])
}

fn device_status() -> Schema {
    object(&[
        ("device_id", id()),
        ("name", word("Front door")),
        ("description", or_null(text())),
        ("location", or_null(word("Gate"))),
        ("rtsp_url", or_null(word(URL))),
        ("is_active", flag()),
        ("streaming", streaming()),
        ("streams", list(reference("Stream"))),
        ("created_at", time()),
        ("updated_at", or_null(time())),
    ])
}

fn validation() -> Schema {
    let mut stream = or_null(object(&[
        ("codec", or_null(one_of(&["h264", "h265"]))),
        ("width", or_null(count(1280))),
        ("height", or_null(count(720))),
        ("fps", or_null(number(25.0))),
    ]));
    stream["examples"] = json!([null]);
    object(&[
        ("valid", flag()),
        ("rtsp_url", word(URL)),
        ("message", or_null(word("the camera answers with h264 1280x720"))),
        ("error", or_null(text())),
        ("stream", stream),
    ])
}

fn stream_start() -> Schema {
    let stream = object(&[
        ("status", one_of(&STATES)),
        ("message", or_null(text())),
        ("started_at", or_null(time())),
    ]);
    object(&[
        ("status", one_of(&["success"])),
        ("device_id", id()),
        ("stream_id", id()),
        ("room_id", id()),
        ("whep_url", word("/api/v1/devices/front-door/whep")),
        ("stream", stream),
        ("reconnect", json!({"type": "boolean", "examples": [false]})),
    ])
}

fn stream_stop() -> Schema {
    object(&[
        ("status", one_of(&["success"])),
        ("device_id", id()),
        ("stopped", flag()),
        ("message", or_null(text())),
        ("was_active", flag()),
    ])
}

fn counters() -> Schema {
    json!({
        "type": "object", "additionalProperties": count(0), "examples": [{"units": 1200}],
    })
}

fn stream() -> Schema {
    object(&[
        ("id", word("front-door.main")),
        ("device_id", id()),
        ("name", stream_name()),
        ("url", word(URL)),
        ("transport", word("tcp")),
        ("roles", roles()),
        ("enabled", flag()),
        ("state", one_of(&STATES)),
        ("reason", or_null(text())),
        ("since", or_null(time())),
        ("codec", or_null(word("h264"))),
        ("width", or_null(count(1280))),
        ("height", or_null(count(720))),
        ("fps", or_null(number(25.0))),
        ("bits_per_second", or_null(count(2_000_000))),
        ("last_unit_at", or_null(time())),
        ("connects", or_null(count(1))),
        ("viewers", or_null(count(0))),
        ("recording", or_null(flag())),
        ("recording_reason", or_null(text())),
        ("counters", counters()),
    ])
}

fn stream_list() -> Schema {
    object(&[
        ("streams", list(reference("Stream"))),
        ("total", count(1)),
        (
            "ingest",
            object(&[("status", one_of(&["healthy", "degraded"])), ("reason", or_null(text()))]),
        ),
    ])
}

fn active_streams() -> Schema {
    object(&[("status", one_of(&["success"])), ("active_streams", list(id()))])
}

fn stream_health() -> Schema {
    object(&[
        ("stream_id", id()),
        ("stream", stream_name()),
        ("healthy", flag()),
        ("status", one_of(&STATES)),
        ("reason", or_null(text())),
        ("since", or_null(time())),
        ("rtsp_url", word(URL)),
        ("last_unit_at", or_null(time())),
    ])
}

fn stream_stats() -> Schema {
    object(&[
        ("stream_id", id()),
        ("stream", stream_name()),
        ("state", one_of(&STATES)),
        ("codec", or_null(word("h264"))),
        ("resolution", or_null(word("1280x720"))),
        ("fps", or_null(number(25.0))),
        ("bitrate", or_null(count(2_000_000))),
        ("connects", or_null(count(1))),
        ("viewers", or_null(count(0))),
        ("recording", or_null(flag())),
        ("counters", counters()),
    ])
}
