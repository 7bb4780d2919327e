//! The live view, pictures, and the scheduler's connection.

use crate::support::{Node, get, get_error, get_json, inlined, model, wait_count, wait_for};
use crate::testing;
use api::Server;
use api::config_rows::AssignmentRow;
use base::{ColourMatrix, ColourRange, FrameFlags, FrameInfo, MediaTime, Picture, Size};
use ipc::events_message::{EventsMessage, SubscriptionState};
use ipc::ring::{RingSpec, RingWriter};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

const STATUS: &str = "/ai/observability/status";

/// Every JSON answer is what the document says it is, key by key.
fn check_against_document(server: &Server) {
    let document = get_json(server, "/openapi.json");
    let schemas = &document["components"]["schemas"];
    let events = get_json(server, "/api/v1/ai-events");
    let event = events["events"][0]["id"].as_str().unwrap_or("none").to_owned();
    for (path, operation) in document["paths"].as_object().unwrap() {
        if operation.get("get").is_none() {
            continue;
        }
        let target = match path.as_str() {
            "/api/v1/ai-events/{id}" => path.replace("{id}", &event),
            "/api/v1/ai-model-assignments/{id}" => path.replace("{id}", "front.nano"),
            _ => path.replace("{id}", "front").replace("{camera_id}", "front"),
        };
        let target = target.replace("{model_id}", "nano");
        let responses = &operation["get"]["responses"];
        let reply = get(server, &target);
        if reply.header("content-type") != Some("application/json") {
            continue;
        }
        let content = match reply.status {
            200 => &responses["200"]["content"],
            status => &responses[status.to_string()]["content"],
        };
        let schema = inlined(&content["application/json"]["schema"], schemas);
        assert!(schema.is_object(), "{target} answers an undocumented {}", reply.status);
        let problems = api::schema::problems(&schema, &reply.json(), &target);
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

#[test]
fn answers_are_what_the_document_says_at_every_stage() {
    let node = Node::new();
    let server = node.start();
    check_against_document(&server);
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Models {
        instance: base::InstanceId(1),
        models: vec![testing::model_info()],
    });
    scheduler.send(&EventsMessage::Status(testing::status()));
    scheduler.send(&EventsMessage::Results(testing::results(&[testing::item(1, &[0, 9])])));
    wait_count(&server, "stored", 1);
    check_against_document(&server);
    drop(scheduler);
    wait_for("the end of the connection", || {
        (get_json(&server, STATUS)["scheduler"]["connected"] == false).then_some(())
    });
    check_against_document(&server);
}

#[test]
fn the_status_shows_what_the_scheduler_and_its_results_say() {
    let node = Node::new();
    let server = node.start();
    let before = get_json(&server, STATUS);
    assert_eq!(before["scheduler"]["status"], "unknown");
    assert_eq!(before["cameras"][0]["state"], "unknown");
    assert_eq!(before["subscriptions"][0]["state"], "unknown");
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Status(testing::status()));
    let mut later = testing::status();
    later.now += Duration::from_secs(2);
    later.devices[0].busy += Duration::from_secs(1);
    scheduler.send(&EventsMessage::Status(later));
    let items = [testing::item(1, &[0, 0, 2]), testing::item(2, &[0]), testing::item(3, &[])];
    scheduler.send(&EventsMessage::Results(testing::results(&items)));
    wait_count(&server, "stored", 2);
    let status = get_json(&server, STATUS);
    assert_eq!(status["scheduler"]["status"], "healthy");
    assert_eq!(status["cameras"][0]["fps"], 25.0);
    assert_eq!(status["cameras"][0]["newest_frame_id"], "100");
    assert_eq!(status["cameras"][1]["decode_reason"], "no enabled assignment watches this camera");
    let one = &status["subscriptions"][0];
    assert_eq!((&one["state"], &one["reason"]), (&json!("active"), &json!("overload")));
    assert_eq!((&one["granted_fps"], &one["max_fps"]), (&json!(4.5), &json!(5.0)));
    assert_eq!((&one["results"], &one["empties"]), (&json!(3), &json!(1)));
    assert_eq!(one["ledger"]["bound"], 6);
    assert_eq!(
        one["classes"],
        json!([
            {"class_id": 0, "class_name": "person", "count": 3, "per_frame": 1.0},
            {"class_id": 2, "class_name": "car", "count": 1, "per_frame": 0.33},
        ])
    );
    let p50 = one["age"]["p50_ms"].as_f64().unwrap();
    assert!((p50 - 45.0).abs() < 1.5, "{p50}");
    assert_eq!(one["stages"]["execute_ms"], 7.0);
    assert_eq!(one["latest"]["frame_id"], "3");
    assert_eq!(one["latest"]["detections"], json!([]));
    let runner = &status["runners"][0];
    assert_eq!((&runner["mean_batch"], &runner["stages"]["copy_ms"]), (&json!(1.5), &json!(10.0)));
    assert_eq!(status["devices"][0]["busy_share"], 0.5);
    let health = get_json(&server, "/ai/observability/health");
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["cameras"][0]["subscriptions"][0]["dispatch_count"], 6);
    assert_eq!(health["models"][0]["total_requests"], 3);
}

#[test]
fn a_second_stage_waits_in_the_status_while_its_parent_does_not_run() {
    let mut node = Node::new();
    node.options.models.push(model(testing::CHILD, &["face"]));
    node.options.assignments.push(AssignmentRow {
        parent_model: Some(testing::MODEL.parse().unwrap()),
        ..AssignmentRow::new("front".parse().unwrap(), testing::CHILD.parse().unwrap())
    });
    let server = node.start();
    let mut scheduler = node.scheduler();
    let mut shown = |of_parent: SubscriptionState, of_child: SubscriptionState, now: u64| {
        let mut status = testing::status();
        status.now += Duration::from_secs(now);
        status.desired_revision = now;
        status.subscriptions[0].state = of_parent;
        let mut child = status.subscriptions[0].clone();
        child.id = testing::CHILD_SUBSCRIPTION.into();
        child.model_id = testing::CHILD.parse().unwrap();
        (child.state, child.reason) = (of_child, String::new());
        status.subscriptions.push(child);
        scheduler.send(&EventsMessage::Status(status));
        let all = wait_for("the status", || {
            let status = get_json(&server, STATUS);
            (status["scheduler"]["desired_revision"] == now).then_some(status)
        });
        let all = all["subscriptions"].as_array().unwrap();
        let one = all.iter().find(|s| s["id"] == testing::CHILD_SUBSCRIPTION).unwrap();
        assert_eq!(one["parent_model_id"], testing::MODEL);
        (one["state"].clone(), one["reason"].clone())
    };
    use SubscriptionState::{Active, NoRunner, Parked};
    assert_eq!(shown(Active, Active, 1), (json!("active"), json!(null)));
    let told = json!("parent model `nano` is no_runner");
    assert_eq!(shown(NoRunner, Active, 2), (json!("waiting"), told));
    assert_eq!(shown(NoRunner, Parked, 3).0, json!("parked"), "its own state says more");
    // What serve planned and the scheduler did not take over yet.
    let mut orphan = testing::status();
    orphan.desired_revision = 4;
    orphan.subscriptions[0].id = testing::CHILD_SUBSCRIPTION.into();
    orphan.subscriptions[0].state = SubscriptionState::Paused;
    orphan.subscriptions[0].reason = "no_parent".into();
    scheduler.send(&EventsMessage::Status(orphan));
    wait_for("the status", || {
        let status = get_json(&server, STATUS);
        let all = status["subscriptions"].as_array().unwrap();
        let one = all.iter().find(|s| s["id"] == testing::CHILD_SUBSCRIPTION)?;
        let why = "the scheduler runs no parent model `nano` on this camera";
        (one["state"] == "waiting" && one["reason"] == why).then_some(())
    });
}

#[test]
fn the_newest_scheduler_wins() {
    let node = Node::new();
    let server = node.start();
    let mut first = node.scheduler();
    first.send(&EventsMessage::Results(testing::results(&[testing::item(1, &[0])])));
    wait_count(&server, "stored", 1);
    let mut second = node.scheduler();
    first.wait_closed();
    second.send(&EventsMessage::Results(testing::results(&[testing::item(2, &[0])])));
    wait_count(&server, "stored", 2);
    let scheduler = &get_json(&server, STATUS)["scheduler"];
    assert_eq!((&scheduler["connected"], &scheduler["connections"]), (&json!(true), &json!(2)));
}

#[test]
fn a_malformed_message_closes_its_connection_only() {
    let node = Node::new();
    let server = node.start();
    let bad: [&[u8]; 3] = [&[0, 0, 0, 4, 1, 2, 3, 4], &[0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 0]];
    for (n, bytes) in bad.iter().enumerate() {
        let mut scheduler = node.scheduler();
        scheduler.socket.write_all(bytes).unwrap();
        scheduler.wait_closed();
        let refused = get_json(&server, STATUS)["scheduler"]["refused_messages"].clone();
        assert_eq!(refused, n as u64 + 1);
    }
    // Half a message and a farewell is no message, and no fault either.
    let mut scheduler = node.scheduler();
    scheduler.socket.write_all(&[0, 0, 1, 0, 9]).unwrap();
    drop(scheduler);
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Results(testing::results(&[testing::item(1, &[0])])));
    wait_count(&server, "stored", 1);
    assert_eq!(get_json(&server, STATUS)["scheduler"]["refused_messages"], 3);
}

#[test]
fn devices_show_no_credentials_anywhere() {
    let node = Node::new();
    let server = node.start();
    for target in ["/api/v1/devices", "/api/v1/devices/front", STATUS, "/health/detailed"] {
        let text = String::from_utf8(get(&server, target).body).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("admin"), "{target}: {text}");
    }
    let front = get_json(&server, "/api/v1/devices/front");
    assert_eq!(front["rtsp_url"], "rtsp://***@10.0.0.9/1?pwd=***");
    assert_eq!((&front["name"], &front["is_active"]), (&json!("Front door"), &json!(true)));
    let all = get_json(&server, "/api/v1/devices");
    let ids: Vec<&Value> = all.as_array().unwrap().iter().map(|d| &d["id"]).collect();
    assert_eq!(ids, ["front", "yard"]);
    assert_eq!(get_json(&server, "/api/v1/devices?skip=1&limit=1")[0]["id"], "yard");
    get_error(&server, 404, "/api/v1/devices/nosuch");
    get_error(&server, 404, "/api/v1/devices/..%2Ffront");
}

fn ring(node: &Node, size: Size) -> RingWriter {
    let picture = Picture { size, matrix: ColourMatrix::Bt601, range: ColourRange::Limited };
    let spec = RingSpec { camera: "front".parse().unwrap(), picture, slots: 8 };
    RingWriter::create(&node.options.directories.shm, &spec).unwrap()
}

fn publish(writer: &mut RingWriter, media: u64) -> u64 {
    let mut slot = writer.begin();
    slot.pixels().fill(media as u8);
    let info = FrameInfo {
        media: MediaTime(media),
        capture: ipc::clock::monotonic(),
        capture_utc: ipc::clock::utc(),
        decode_start: ipc::clock::monotonic(),
        flags: FrameFlags::default(),
    };
    slot.publish(&info).0
}

#[test]
fn the_newest_frame_is_a_picture_with_its_name() {
    let node = Node::new();
    let server = node.start();
    let target = "/api/v1/devices/front/frame.jpg";
    let error = get_error(&server, 404, target);
    assert!(error["message"].as_str().unwrap().contains("no ring"), "{error}");
    let error = get_error(&server, 404, "/api/v1/devices/yard/frame.jpg");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no enabled assignment watches this camera"), "{message}");
    let mut writer = ring(&node, Size { width: 96, height: 64 });
    let mut last = 0;
    for media in [90_000, 93_600] {
        last = publish(&mut writer, media);
        // A reader looks for a ring that was not there only now and then.
        wait_for("the first picture", || (get(&server, target).status == 200).then_some(()));
        // The same picture twice is encoded once and is the same.
        for _ in 0..2 {
            let reply = get(&server, target);
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("content-type"), Some("image/jpeg"));
            assert_eq!(reply.header("x-frame-id"), Some(last.to_string().as_str()));
            assert_eq!(reply.header("x-media"), Some(media.to_string().as_str()));
            let generation = writer.generation().0.to_string();
            assert_eq!(reply.header("x-generation"), Some(generation.as_str()));
            assert!(reply.body.starts_with(&[0xff, 0xd8]) && reply.body.ends_with(&[0xff, 0xd9]));
        }
    }
    // Frames grow older than a millisecond; a generous limit lets it through.
    let error = wait_for("a picture that is too old", || {
        let reply = get(&server, &format!("{target}?max_age_ms=1"));
        (reply.status == 404).then(|| reply.json())
    });
    let message = error["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("ms old, max_age_ms is 1"), "{message}");
    writer.heartbeat();
    let generous = format!("{target}?max_age_ms=3600000");
    wait_for("a picture", || (get(&server, &generous).status == 200).then_some(()));
    get_error(&server, 422, &format!("{target}?max_age_ms=0"));
    // A change of size is another generation; ids go on.
    let spec = RingSpec { picture: ring_picture(160, 96), ..writer.spec().clone() };
    let mut writer = writer.replace(&spec).unwrap();
    let next = publish(&mut writer, 97_200);
    assert!(next > last);
    let reply = wait_for("the new generation", || {
        let reply = get(&server, target);
        (reply.header("x-frame-id") == Some(next.to_string().as_str())).then_some(reply)
    });
    let frame = reply.body.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    assert_eq!(reply.body[frame + 5..][..4], [0, 96, 0, 160]);
    writer.remove().unwrap();
    wait_for("the removed ring", || (get(&server, target).status == 404).then_some(()));
}

fn ring_picture(width: u32, height: u32) -> Picture {
    let size = Size { width, height };
    Picture { size, matrix: ColourMatrix::Bt709, range: ColourRange::Full }
}

#[test]
fn a_lost_store_is_an_error_and_not_an_empty_list() {
    let node = Node::new();
    let server = node.start();
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Results(testing::results(&[testing::item(1, &[0])])));
    wait_count(&server, "stored", 1);
    assert_eq!(get_json(&server, "/health/detailed")["checks"]["store"]["status"], "healthy");
    let day = std::fs::read_dir(node.options.directories.state.join("events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "redb"))
        .unwrap();
    server.stop();
    // Garbage in place of the day: lists must say so.
    std::fs::write(&day, vec![0x5a; 64 * 1024]).unwrap();
    let server = node.start();
    // Told before anybody has asked for events.
    let health = get_json(&server, "/health/detailed");
    let store = &health["checks"]["store"];
    assert_eq!((&health["status"], &store["status"]), (&json!("degraded"), &json!("degraded")));
    let reason = store["reason"].as_str().unwrap();
    let name = day.file_name().unwrap().to_str().unwrap();
    assert!(reason.contains("can't be read") && reason.contains(name), "{health}");
    let error = get_error(&server, 503, "/api/v1/ai-events");
    assert!(error["message"].as_str().unwrap().contains("store"), "{error}");
    assert_eq!(get_json(&server, "/health")["status"], "healthy");
}
