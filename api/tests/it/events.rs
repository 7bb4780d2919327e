//! Stored events over HTTP: from `events.sock` to lists.

use crate::support::{Node, get, get_error, get_json, model, wait_count};
use crate::testing;
use api::Server;
use base::MemberError;
use ipc::events_message::{EventsMessage, ResultItem, Results};
use serde_json::{Value, json};

fn send(node: &Node, server: &Server, messages: &[Results], stored: u64) {
    let mut scheduler = node.scheduler();
    for message in messages {
        scheduler.send(&EventsMessage::Results(message.clone()));
    }
    wait_count(server, "stored", stored);
}

fn frames(list: &Value) -> Vec<&str> {
    list["events"].as_array().unwrap().iter().map(|e| e["frame_id"].as_str().unwrap()).collect()
}

#[test]
fn a_result_becomes_an_event_with_everything_in_it() {
    let node = Node::new();
    let server = node.start();
    send(&node, &server, &[testing::results(&[testing::item(3, &[0, 2, 9])])], 1);
    let list = get_json(&server, "/api/v1/ai-events");
    let event = &list["events"][0];
    let id = event["id"].as_str().unwrap();
    assert_eq!(get_json(&server, &format!("/api/v1/ai-events/{id}")), *event);
    let mut event = event.clone();
    let created = event.as_object_mut().unwrap().remove("created_at");
    assert!(created.unwrap().as_str().unwrap().ends_with('Z'));
    event.as_object_mut().unwrap().remove("id");
    let timestamp = event.as_object_mut().unwrap().remove("timestamp").unwrap();
    let bbox = json!([0.25, 0.125, 0.5, 0.875]);
    assert_eq!(
        event,
        json!({
            "camera_id": "front", "model_id": "nano", "model_version": "1", "device": "cpu",
            "generation": "7", "frame_id": "3", "media": "18446744073709551612",
            "frame": {"width": 768, "height": 576},
            "detections": [
                {"class_id": 0, "class_name": "person", "confidence": 0.75, "bbox": bbox},
                {"class_id": 2, "class_name": "car", "confidence": 0.75, "bbox": bbox},
                {"class_id": 9, "class_name": null, "confidence": 0.75, "bbox": bbox},
            ],
            "confidence": 0.75,
            "age_ms": 45.0,
            "stages": {
                "transport_ms": 1.0, "decode_ms": 2.0, "wait_ms": 3.0, "copy_ms": 4.0,
                "grant_ms": 5.0, "preprocess_ms": 6.0, "execute_ms": 7.0, "postprocess_ms": 8.0,
                "reply_ms": 9.0,
            },
            "event_metadata": {
                "scheduler": "0000000000000001", "subscription": "front.nano", "batch": "1",
                "sequence": "3", "parent": null, "region": null,
            },
        })
    );
    // The printed time is the exact time: as both bounds it finds its event.
    let time = timestamp.as_str().unwrap();
    let exact = get_json(&server, &format!("/api/v1/ai-events?start_time={time}&end_time={time}"));
    assert_eq!(exact["total"], 1);
}

#[test]
fn empties_errors_and_unknown_cameras_are_counted_and_not_stored() {
    let mut node = Node::new();
    let error = ResultItem { outcome: Err(MemberError::Engine), ..testing::item(2, &[]) };
    let stranger = ResultItem { camera: "stranger".parse().unwrap(), ..testing::item(3, &[0]) };
    let results =
        testing::results(&[testing::item(1, &[]), error, stranger, testing::item(4, &[0])]);
    let server = node.start();
    send(&node, &server, std::slice::from_ref(&results), 1);
    for (counter, value) in [("empty", 1), ("errors", 1), ("unknown_camera", 1), ("dropped", 0)] {
        wait_count(&server, counter, value);
    }
    assert_eq!(frames(&get_json(&server, "/api/v1/ai-events")), ["4"]);
    drop(server);
    node.options.store_empty = true;
    let server = node.start();
    send(&node, &server, &[results], 2);
    let list = get_json(&server, "/api/v1/ai-events");
    assert_eq!(list["total"], 3, "one of before, one with detections, one empty");
    let empty = list["events"].as_array().unwrap().iter().find(|e| e["confidence"].is_null());
    assert_eq!(empty.unwrap()["detections"], json!([]));
}

#[test]
fn filters_narrow_and_combine() {
    let mut node = Node::new();
    node.options.models.push(model("other", &["car", "person"]));
    let server = node.start();
    let of = |camera: &str, n: u64, classes: &[u16]| ResultItem {
        camera: camera.parse().unwrap(),
        ..testing::item(n, classes)
    };
    let nano = testing::results(&[
        of("front", 1, &[0]),
        of("front", 2, &[2]),
        of("yard", 3, &[0, 2]),
        of("yard", 4, &[1]),
    ]);
    let other = Results {
        model_id: "other".parse().unwrap(),
        ..testing::results(&[of("front", 5, &[0]), of("yard", 6, &[1])])
    };
    send(&node, &server, &[nano, other], 6);
    let time = |n: u64| {
        let events = get_json(&server, "/api/v1/ai-events");
        let all = events["events"].as_array().unwrap().clone();
        let wanted = n.to_string();
        let one = all.iter().find(|e| e["frame_id"] == wanted).unwrap();
        one["timestamp"].as_str().unwrap().to_owned()
    };
    let (two, four) = (time(2), time(4));
    for (query, expected) in [
        ("", "6 5 4 3 2 1"),
        ("camera_id=front", "5 2 1"),
        ("model_id=nano", "4 3 2 1"),
        ("camera_id=yard&model_id=other", "6"),
        ("camera_id=nosuch", ""),
        ("class_id=2", "3 2"),
        ("class_id=0&camera_id=front&model_id=nano", "1"),
        ("class=bicycle", "4"),
        ("class=person&model_id=nano", "3 1"),
        ("class=person&model_id=other", "6"),
        ("class=car&model_id=nano&class_id=2", "3 2"),
        (&format!("start_time={two}&end_time={four}"), "4 3 2"),
        (&format!("start_time={four}"), "6 5 4"),
        (&format!("end_time={two}&camera_id=front"), "2 1"),
        ("limit=2", "6 5"),
        ("limit=2&offset=3", "3 2"),
        ("offset=6", ""),
    ] {
        let list = get_json(&server, &format!("/api/v1/ai-events?{query}"));
        assert_eq!(frames(&list).join(" "), expected, "{query}");
    }
    let of_camera = get_json(&server, "/api/v1/ai-events/cameras/yard/events?class_id=0");
    assert_eq!(frames(&of_camera), ["3"]);
    assert_eq!(of_camera["total"], 1);
    get_error(&server, 404, "/api/v1/ai-events/cameras/nosuch/events");
    get_error(&server, 422, "/api/v1/ai-events/cameras/yard/events?camera_id=front");
    let error = get_error(&server, 422, "/api/v1/ai-events?class=person");
    let message = error["details"][0]["message"].as_str().unwrap();
    assert!(message.contains("nano: 0") && message.contains("other: 1"), "{message}");
}

#[test]
fn a_class_that_all_models_number_alike_needs_no_model() {
    let mut node = Node::new();
    node.options.models.push(model("twin", &["person", "dog"]));
    let server = node.start();
    let twin = Results {
        model_id: "twin".parse().unwrap(),
        ..testing::results(&[testing::item(2, &[0]), testing::item(3, &[1])])
    };
    send(&node, &server, &[testing::results(&[testing::item(1, &[0, 1])]), twin], 3);
    for (class, expected) in [("person", "2 1"), ("dog", "3"), ("bicycle", "1"), ("car", "")] {
        let list = get_json(&server, &format!("/api/v1/ai-events?class={class}"));
        assert_eq!(frames(&list).join(" "), expected, "{class}");
    }
}

#[test]
fn pages_by_cursor_stay_while_events_come_in() {
    let node = Node::new();
    let server = node.start();
    // Three times the same moment: the id breaks the tie.
    let item = |n: u64| ResultItem { capture_utc: testing::utc(n / 3), ..testing::item(n, &[0]) };
    let first: Vec<ResultItem> = (0..30).map(item).collect();
    send(&node, &server, &[testing::results(&first)], 30);
    let mut seen = Vec::new();
    let mut target = "/api/v1/ai-events?limit=7".to_owned();
    let mut stored = 30;
    loop {
        let page = get_json(&server, &target);
        seen.extend(frames(&page).into_iter().map(|id| id.parse::<u64>().unwrap()));
        // Newer ones and one in the past that was already paged over.
        stored += 3;
        let more = [item(1000 + stored), item(1001 + stored), item(29)];
        send(&node, &server, &[testing::results(&more)], stored);
        match page["next_cursor"].as_str() {
            Some(cursor) => target = format!("/api/v1/ai-events?limit=7&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..30).rev().collect::<Vec<_>>(), "each once, in order");
    let total = get_json(&server, "/api/v1/ai-events?limit=1")["total"].clone();
    assert_eq!(total, stored);
}

#[test]
fn wrong_parameters_are_named_with_their_values() {
    let node = Node::new();
    let server = node.start();
    let long = "x".repeat(500);
    for (query, field, value) in [
        ("limit=0", "limit", "0"),
        ("limit=1001", "limit", "1001"),
        ("limit=ten", "limit", "ten"),
        ("limit=5&limit=6", "limit", "6"),
        ("offset=10001", "offset", "10001"),
        ("offset=-1", "offset", "-1"),
        ("cursor=zzz", "cursor", "zzz"),
        ("camera_id=a%2Fb", "camera_id", "a/b"),
        ("model_id=%20", "model_id", " "),
        ("start_time=yesterday", "start_time", "yesterday"),
        ("class_id=65536", "class_id", "65536"),
        ("class=unicorn", "class", "unicorn"),
        ("class=car&class_id=0&model_id=nano", "class", "car"),
        ("colour=red", "colour", "red"),
        (&format!("camera_id={long}"), "camera_id", &format!("{}...", &long[..120])),
    ] {
        let error = get_error(&server, 422, &format!("/api/v1/ai-events?{query}"));
        let details = error["details"].as_array().unwrap();
        assert_eq!(details.len(), 1, "{query}: {details:?}");
        assert_eq!((&details[0]["field"], &details[0]["value"]), (&json!(field), &json!(value)));
        assert!(!details[0]["message"].as_str().unwrap().is_empty());
    }
    let both = "/api/v1/ai-events?start_time=2026-01-02&end_time=2026-01-01&limit=0&x=1";
    assert_eq!(get_error(&server, 422, both)["details"].as_array().unwrap().len(), 3);
    // An unescaped plus of an offset is understood.
    let offset = "/api/v1/ai-events?start_time=2026-01-02T00:00:00+01:00";
    assert_eq!(get(&server, offset).status, 200);
    for id in
        ["nosuch", "00000000-0000-4000-8000-000000000000", "019c13b8-1c00-7b00-8000-00019e370001"]
    {
        let error = get_error(&server, 404, &format!("/api/v1/ai-events/{id}"));
        assert!(error["message"].as_str().unwrap().contains(id));
    }
}

#[test]
fn the_stages_of_an_event_add_up_to_its_age() {
    let node = Node::new();
    let server = node.start();
    let nanos = [0, 1, 499, 1_234_567, 7_654_321, 33_366_700, 999_999, 12_345_678_901, 500];
    let mut item = testing::item(1, &[0]);
    item.stages = base::Stages::from_array(nanos.map(std::time::Duration::from_nanos));
    item.received = item.capture + item.stages.age();
    send(&node, &server, &[testing::results(&[item])], 1);
    let event = &get_json(&server, "/api/v1/ai-events")["events"][0];
    let stages = event["stages"].as_object().unwrap();
    assert_eq!(stages.len(), nanos.len());
    let sum: f64 = stages.values().map(|ms| ms.as_f64().unwrap()).sum();
    let age = event["age_ms"].as_f64().unwrap();
    // Each of the ten figures is rounded to a microsecond.
    assert!((sum - age).abs() <= 0.005, "{sum} and {age}");
    let exact = nanos.iter().sum::<u64>() as f64 / 1e6;
    assert!((age - exact).abs() <= 0.0005, "{age} and {exact}");
}

#[test]
fn an_event_of_a_second_stage_is_joined_to_the_event_whose_detection_it_looked_at() {
    let mut node = Node::new();
    node.options.models.push(model(testing::CHILD, &["face", "helmet"]));
    let server = node.start();
    let parents = testing::results(&[testing::item(40, &[0, 0, 2]), testing::item(50, &[0])]);
    let of_child = |n, parent, classes| Results {
        model_id: testing::CHILD.parse().unwrap(),
        ..testing::results(&testing::crops(n, parent, classes))
    };
    // Two crops of frame 40 show something, one does not; both batches hold a crop of frame 50.
    let children = of_child(40, 40, &[&[0], &[], &[1]]);
    let later = of_child(50, 50, &[&[1]]);
    send(&node, &server, &[parents, children, later], 5);

    let child_events = get_json(&server, "/api/v1/ai-events?model_id=faces");
    let found = child_events["events"].as_array().unwrap();
    assert_eq!(frames(&child_events), ["50", "40", "40"]);
    let ids: std::collections::BTreeSet<&str> =
        found.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "every crop is an event of its own");
    let regions: Vec<&Value> = found.iter().map(|e| &e["event_metadata"]["region"]).collect();
    let (first, third) = (json!([0.0, 0.0, 0.5, 0.5]), json!([0.0, 0.5, 0.5, 1.0]));
    // Events of one frame come in the reverse order of their storing.
    assert_eq!(regions, [&first, &third, &first]);

    for child in found {
        // As docs/http.md says: the parent is of the same moment, scheduler and camera.
        let metadata = &child["event_metadata"];
        let time = child["timestamp"].as_str().unwrap();
        let moment = get_json(
            &server,
            &format!("/api/v1/ai-events?camera_id=front&start_time={time}&end_time={time}"),
        );
        let parents: Vec<&Value> = moment["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|e| {
                e["event_metadata"]["scheduler"] == metadata["scheduler"]
                    && e["event_metadata"]["sequence"] == metadata["parent"]
            })
            .collect();
        assert_eq!(parents.len(), 1);
        assert_eq!(parents[0]["model_id"], "nano");
        assert_eq!(parents[0]["frame_id"], child["frame_id"]);
        assert_eq!(parents[0]["event_metadata"]["parent"], Value::Null);
    }
}
