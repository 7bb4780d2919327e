//! What streams do, as ingest tells it, and live view relayed to it.

use crate::ingest::{FakeIngest, down, live};
use crate::support::{
    Node, call, call_error, call_json, check_reply, get_json, request, send, wait_for,
};
use base::MediaTime;
use ipc::ingest_message::{Answer, Request, StreamState};
use serde_json::{Value, json};

const STREAMS: &str = "/api/v1/streams";
const WHEP: &str = "/api/v1/devices/front/whep";
const SDP: &str = "application/sdp";

#[test]
fn without_ingest_every_state_is_unknown_with_the_reason() {
    let node = Node::new();
    let server = node.start();
    let list = call_json(&server, 200, "GET", STREAMS, &Value::Null);
    assert_eq!((&list["total"], &list["ingest"]["status"]), (&json!(2), &json!("degraded")));
    for row in list["streams"].as_array().unwrap() {
        assert_eq!(row["state"], "unknown");
        assert!(row["reason"].as_str().unwrap().contains("start `vas ingest`"), "{row}");
    }
    let device = get_json(&server, "/api/v1/devices/front");
    assert_eq!(
        (&device["streaming"]["state"], &device["streaming"]["active"]),
        (&json!("unknown"), &json!(false))
    );
    let health = get_json(&server, "/health/detailed");
    assert_eq!(health["checks"]["ingest"]["status"], "degraded");
    call_error(&server, 503, "GET", "/api/v1/rtsp/streams", &Value::Null);
    call_error(&server, 503, "GET", "/api/v1/rtsp/streams/front/stats", &Value::Null);
    call_error(&server, 503, "POST", "/api/v1/rtsp/streams/front/reconnect", &Value::Null);
    let health = call_json(&server, 200, "GET", "/api/v1/rtsp/streams/front/health", &Value::Null);
    assert_eq!((&health["healthy"], &health["status"]), (&json!(false), &json!("unknown")));
    assert_eq!(send(&server, "POST", WHEP, SDP, b"v=0").status, 503);
    call_error(&server, 503, "DELETE", &format!("{WHEP}/7"), &Value::Null);
}

#[test]
fn states_and_figures_are_those_of_ingest() {
    let mut node = Node::new();
    node.options.cameras[1].sub_url = Some("file:///data/yard-small.mp4".into());
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    let reason = "nothing came for 3 s";
    let mut recording = live("yard", "main");
    recording.recording_reason = "the disk is full".into();
    ingest.tell(vec![
        live("front", "main"),
        recording,
        down("yard", "sub", StreamState::Stalled, reason),
    ]);
    let list = call_json(&server, 200, "GET", STREAMS, &Value::Null);
    assert_eq!(list["ingest"], json!({"status": "healthy", "reason": null}));
    let row = &list["streams"][0];
    assert_eq!(
        (&row["id"], &row["state"], &row["fps"]),
        (&json!("front.main"), &json!("live"), &json!(24.99))
    );
    assert_eq!((&row["width"], &row["bits_per_second"]), (&json!(1280), &json!(2_000_000)));
    assert_eq!(row["counters"], json!({"gaps": 1, "units": 2500}));
    assert_eq!(list["streams"][1]["recording_reason"], "the disk is full");
    assert_eq!(
        (&list["streams"][2]["state"], &list["streams"][2]["reason"]),
        (&json!("stalled"), &json!(reason))
    );
    let only = call_json(&server, 200, "GET", &format!("{STREAMS}?camera_id=yard"), &Value::Null);
    assert_eq!(only["total"], 2);
    assert_eq!(call_json(&server, 200, "GET", "/api/streams", &Value::Null)["total"], 3);
    // A camera is as well as its worst stream, and active while one is live.
    let yard = get_json(&server, "/api/v1/devices/yard");
    assert_eq!(
        (&yard["streaming"]["state"], &yard["streaming"]["active"]),
        (&json!("stalled"), &json!(true))
    );
    let status = get_json(&server, "/ai/observability/status");
    assert_eq!(status["cameras"][1]["stream_state"], "stalled");
    assert_eq!(status["cameras"][0]["viewers"], 2);
    let active = call_json(&server, 200, "GET", "/api/v1/rtsp/streams", &Value::Null);
    assert_eq!(active["active_streams"], json!(["front", "yard"]));
    let of = |path: &str| {
        call_json(&server, 200, "GET", &format!("/api/v1/rtsp/streams/{path}"), &Value::Null)
    };
    let stats = of("front/stats");
    assert_eq!((&stats["resolution"], &stats["bitrate"]), (&json!("1280x720"), &json!(2_000_000)));
    assert_eq!(of("front/health")["healthy"], true);
    let health = of("yard/health?stream=sub");
    assert_eq!((&health["healthy"], &health["reason"]), (&json!(false), &json!(reason)));
    assert_eq!(of("yard/stats?stream=sub")["resolution"], json!(null));
    for (status, path) in [
        (404, "nosuch/health"),
        (404, "front/health?stream=sub"),
        (422, "front/health?stream=third"),
        (404, "nosuch/stats"),
    ] {
        call_error(&server, status, "GET", &format!("/api/v1/rtsp/streams/{path}"), &Value::Null);
    }
    assert!(ingest.asked.lock().unwrap().is_empty());
    let reconnect = "/api/v1/rtsp/streams/front/reconnect";
    call_json(&server, 200, "POST", reconnect, &Value::Null);
    let camera = "front".parse().unwrap();
    assert_eq!(ingest.asked.lock().unwrap().as_slice(), [Request::Reconnect { camera }]);
    ingest.react(|_| Some(Answer::failed(404, "ingest has no camera `front`")));
    let error = call_error(&server, 404, "POST", reconnect, &Value::Null);
    assert_eq!(error["message"], "ingest has no camera `front`");
    call_json(&server, 200, "POST", "/api/v1/devices/front/stop-stream", &Value::Null);
    call_error(&server, 409, "POST", reconnect, &Value::Null);
}

#[test]
fn ingest_is_asked_once_a_second_and_its_return_is_seen() {
    let node = Node::new();
    let server = node.start();
    assert_eq!(get_json(&server, STREAMS)["streams"][0]["state"], "unknown");
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    ingest.tell(vec![live("front", "main")]);
    wait_for("the state", || {
        (get_json(&server, STREAMS)["streams"][0]["state"] == "live").then_some(())
    });
}

#[test]
fn an_offer_goes_to_ingest_and_its_answer_comes_back() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    ingest.react(|request| match request {
        Request::Offer { .. } => Some(Answer {
            session: "7f/3".into(),
            sdp: "v=0\r\nanswer".into(),
            media_origin: MediaTime(1 << 60),
            ..Answer::done()
        }),
        _ => Some(Answer::done()),
    });
    let reply = send(&server, "POST", &format!("{WHEP}?stream=sub"), SDP, b"v=0\r\noffer");
    check_reply(&server, "POST", WHEP, &reply);
    assert_eq!((reply.status, reply.body.as_slice()), (201, b"v=0\r\nanswer".as_slice()));
    assert_eq!(reply.header("content-type"), Some(SDP));
    assert_eq!(reply.header("x-media-origin"), Some((1u64 << 60).to_string().as_str()));
    let location = reply.header("location").unwrap();
    assert_eq!(location, "/api/v1/devices/front/whep/7f%2F3");
    assert_eq!(request(server.address(), "DELETE", location).status, 204);
    let (camera, session) = ("front".parse().unwrap(), "7f/3".to_owned());
    let sdp = "v=0\r\noffer".to_owned();
    assert_eq!(
        ingest.asked.lock().unwrap().as_slice(),
        [
            Request::Offer { camera, stream: "sub".into(), sdp },
            Request::Close { camera: "front".parse().unwrap(), session },
        ]
    );
    // What ingest says no to is told with its status and words.
    let why = "main sends H.265, which browsers do not play; configure an H.264 sub stream";
    for status in [400, 404, 406, 409, 503] {
        ingest.react(move |_| Some(Answer::failed(status, why)));
        let reply = send(&server, "POST", WHEP, SDP, b"v=0");
        assert_eq!((reply.status, &reply.json()["error"]["message"]), (status, &json!(why)));
    }
    ingest.react(|_| Some(Answer::failed(404, "no such session")));
    call_error(&server, 404, "DELETE", "/api/v1/devices/front/whep/7", &Value::Null);
    assert_eq!(send(&server, "POST", WHEP, "text/plain", b"v=0").status, 415);
    assert_eq!(send(&server, "POST", WHEP, SDP, b"").status, 422);
    assert_eq!(send(&server, "POST", WHEP, SDP, &[0xff]).status, 422);
    ingest.react(|_| Some(Answer::failed(406, "none that fits")));
    for (bytes, status) in [(64 * 1024, 406), (64 * 1024 + 1, 413)] {
        assert_eq!(send(&server, "POST", WHEP, SDP, &vec![b'v'; bytes]).status, status);
    }
    assert_eq!(send(&server, "POST", &format!("{WHEP}?stream=third"), SDP, b"v=0").status, 422);
    assert_eq!(send(&server, "POST", "/api/v1/devices/nosuch/whep", SDP, b"v=0").status, 404);
    call_json(&server, 200, "PUT", "/api/v1/devices/front", &json!({"live": false}));
    let reply = send(&server, "POST", WHEP, SDP, b"v=0");
    assert!(reply.status == 409 && String::from_utf8_lossy(&reply.body).contains("live to true"));
    call(&server, "POST", "/api/v1/devices/front/stop-stream", &Value::Null);
    let reply = send(&server, "POST", WHEP, SDP, b"v=0");
    assert!(reply.status == 409 && String::from_utf8_lossy(&reply.body).contains("start-stream"));
}

#[test]
fn why_frames_are_not_exported_is_in_the_cameras_state() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    let shown = || {
        let device = get_json(&server, "/api/v1/devices/front");
        let status = get_json(&server, "/ai/observability/status");
        assert_eq!(device["export"]["reason"], status["cameras"][0]["decode_reason"]);
        assert_eq!(device["export"]["decode"], "full");
        device["export"]["reason"].clone()
    };
    let mut fewer = live("front", "main");
    fewer.export_reason = "the ring has 10 slots of the 80".into();
    ingest.tell(vec![fewer, live("yard", "main")]);
    wait_for("the reason", || (shown() == "the ring has 10 slots of the 80").then_some(()));
    let missing = call_error(&server, 404, "GET", "/api/v1/devices/front/frame.jpg", &Value::Null);
    assert!(missing["message"].as_str().unwrap().contains("10 slots of the 80"), "{missing}");
    ingest.tell(vec![live("front", "main")]);
    wait_for("its end", || shown().is_null().then_some(()));
}

#[test]
fn a_stopped_camera_that_can_not_end_says_what_it_waits_for() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    let reason = "waits for /share/a.mp4, which does not answer";
    ingest.tell(vec![down("yard", "main", StreamState::Stalled, reason)]);
    let stop = "/api/v1/devices/yard/stop-stream";
    let stopped = call_json(&server, 200, "POST", stop, &Value::Null);
    assert_eq!(stopped["stopped"], false);
    let yard = get_json(&server, "/api/v1/devices/yard");
    assert_eq!(
        (&yard["streaming"]["state"], &yard["streaming"]["reason"]),
        (&json!("stalled"), &json!(reason))
    );
    ingest.tell(vec![]);
    wait_for("its end", || {
        let yard = get_json(&server, "/api/v1/devices/yard");
        (yard["streaming"]["state"] == "stopped").then_some(())
    });
}
