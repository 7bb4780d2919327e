//! State that somebody deletes or replaces while serve runs, and state that there is no room for.

use crate::support::{Node, call_error, call_json, get_json, wait_count, wait_for};
use crate::testing;
use api::Server;
use ipc::events_message::EventsMessage;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn check(server: &Server, name: &str) -> (String, String) {
    let health = get_json(server, "/health/detailed");
    let check = &health["checks"][name];
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn healthy(server: &Server, name: &str) -> bool {
    check(server, name) == ("healthy".into(), String::new())
}

fn camera(id: &str) -> Value {
    json!({"name": id, "rtsp_url": format!("rtsp://10.0.0.8/{id}")})
}

fn named(server: &Server, name: &str) -> bool {
    let all = get_json(server, "/api/v1/devices");
    all.as_array().unwrap().iter().any(|device| device["name"] == name)
}

/// How far the revision of another serve is ahead.
const AHEAD: u64 = 5;

/// Puts something else where a file was.
type Damage = fn(&Path);

fn damages() -> [(&'static str, Damage); 4] {
    [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("garbage", |path| fs::write(path, "{").unwrap()),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("of another serve", |path| {
            let text = fs::read_to_string(path).unwrap();
            let mut state: Value = serde_json::from_str(&text).unwrap();
            state["revision"] = json!(state["revision"].as_u64().unwrap() + AHEAD);
            state["cameras"] = json!([]);
            fs::write(path, state.to_string()).unwrap();
        }),
    ]
}

#[test]
fn a_desired_state_that_is_gone_is_told_and_written_again() {
    let node = Node::new();
    let path = node.options.directories.desired();
    let server = node.start();
    let published = node.desired();
    for (what, damage) in damages() {
        let before = node.desired()["revision"].as_u64().unwrap();
        damage(&path);
        wait_for(what, || healthy(&server, "desired_state").then_some(()));
        let after = node.desired();
        assert_eq!(after["cameras"], published["cameras"], "{what}");
        assert_eq!(after["subscriptions"], published["subscriptions"], "{what}");
        let taken = if what == "of another serve" { before + AHEAD } else { before };
        let revision = after["revision"].as_u64().unwrap();
        assert!(revision > taken, "{what}: a follower may have taken revision {taken}");
        let status = get_json(&server, "/ai/observability/status");
        assert_eq!(status["desired_state"]["revision"], after["revision"], "{what}");
    }
    // Somebody copied it away and back: nothing to do.
    let revision = node.desired()["revision"].clone();
    let text = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, text).unwrap();
    call_json(&server, 201, "POST", "/api/v1/devices", &camera("new"));
    assert_eq!(node.desired()["revision"], json!(revision.as_u64().unwrap() + 1));
}

#[test]
fn a_change_of_no_desired_field_writes_the_desired_state_that_is_gone() {
    let node = Node::new();
    let path = node.options.directories.desired();
    let server = node.start();
    let published = node.desired();
    for (what, damage) in damages() {
        damage(&path);
        call_json(&server, 200, "PUT", "/api/v1/devices/yard", &json!({"location": what}));
        assert_eq!(node.desired()["cameras"], published["cameras"], "{what}");
    }
}

#[test]
fn a_desired_state_that_can_not_be_written_refuses_changes_and_is_told() {
    let node = Node::new();
    let path = node.options.directories.desired();
    let server = node.start();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("something"), "of somebody").unwrap();
    let change = json!({"location": "cellar"});
    for (method, target, body) in
        [("PUT", "/api/v1/devices/yard", &change), ("POST", "/api/v1/devices", &camera("new"))]
    {
        let error = call_error(&server, 503, method, target, body);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("desired.json") && message.contains("nothing was changed"),
            "{message}"
        );
    }
    let (state, reason) = check(&server, "desired_state");
    assert_eq!(state, "degraded");
    assert!(reason.contains("can't write") && reason.contains("desired.json"), "{reason}");
    assert_eq!(get_json(&server, "/api/v1/devices/yard")["location"], json!(null));
    fs::remove_file(path.join("something")).unwrap();
    wait_for("the desired state", || healthy(&server, "desired_state").then_some(()));
    call_json(&server, 200, "PUT", "/api/v1/devices/yard", &change);
    assert!(path.is_file());
}

#[test]
fn a_camera_acknowledged_after_the_registry_was_deleted_is_there_after_a_restart() {
    let node = Node::new();
    let state = node.options.directories.state.clone();
    let server = node.start();
    fs::remove_file(state.join("control.redb")).unwrap();
    call_json(&server, 201, "POST", "/api/v1/devices", &camera("new"));
    server.stop();
    let server = node.start();
    assert!(named(&server, "new"));
    // And when nobody changes anything, in time for a crash.
    let path = state.join("control.redb");
    fs::remove_file(&path).unwrap();
    wait_for("control.redb", || path.exists().then_some(()));
    wait_for("health", || healthy(&server, "store").then_some(()));
    server.stop();
    let server = node.start();
    assert!(named(&server, "new"));
}

#[test]
fn a_registry_that_can_not_be_put_back_is_told_and_refuses() {
    let node = Node::new();
    let state = node.options.directories.state.clone();
    let server = node.start();
    let away = state.with_extension("away");
    fs::rename(&state, &away).unwrap();
    fs::write(&state, "").unwrap();
    let error = call_error(&server, 503, "POST", "/api/v1/devices", &camera("new"));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("state"), "{message}");
    let (status, reason) = check(&server, "store");
    assert!(status == "degraded" && reason.contains("control.redb"), "{reason}");
    assert_eq!(check(&server, "desired_state").0, "degraded");
    assert!(named(&server, "Front door") && !named(&server, "new"), "reading goes on");
    fs::remove_file(&state).unwrap();
    wait_for("the store", || healthy(&server, "store").then_some(()));
    wait_for("the desired state", || healthy(&server, "desired_state").then_some(()));
    call_json(&server, 201, "POST", "/api/v1/devices", &camera("new"));
    // Where the directory can be made again, a change goes on at once.
    fs::rename(&state, state.with_extension("again")).unwrap();
    call_json(&server, 201, "POST", "/api/v1/devices", &camera("last"));
    server.stop();
    let server = node.start();
    assert!(["Front door", "new", "last"].iter().all(|name| named(&server, name)));
}

#[test]
fn events_after_their_file_was_deleted_are_stored_in_a_file_that_exists() {
    // On a machine with less than 1 GiB free nothing would be stored.
    let node = Node::new();
    let events = node.options.directories.state.join("events");
    let server = node.start();
    let mut scheduler = node.scheduler();
    let mut sent = 0;
    let mut send = |server: &Server| {
        sent += 1;
        let results = testing::results(&[testing::item(sent, &[0])]);
        scheduler.send(&EventsMessage::Results(results));
        wait_count(server, "stored", sent);
    };
    let file = || -> Option<PathBuf> {
        let mut names = fs::read_dir(&events).unwrap().map(|entry| entry.unwrap().path());
        names.find(|path| path.extension().is_some_and(|e| e == "redb"))
    };
    send(&server);
    let path = file().unwrap();
    for damage in [
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "").unwrap();
        },
    ] {
        damage(&path);
        send(&server);
        assert!(fs::metadata(&path).unwrap().len() > 0);
        // And in time for a crash when nothing comes.
        damage(&path);
        wait_for("the file", || fs::metadata(&path).is_ok_and(|m| m.len() > 0).then_some(()));
        wait_for("health", || healthy(&server, "store").then_some(()));
    }
    // Where it can't be written again, health says so and the events are counted as lost.
    let away = events.with_extension("away");
    fs::rename(&events, &away).unwrap();
    fs::write(&events, "").unwrap();
    let (status, reason) = check(&server, "store");
    assert!(status == "degraded" && reason.contains("events"), "{reason}");
    scheduler.send(&EventsMessage::Results(testing::results(&[testing::item(90, &[0])])));
    wait_count(&server, "failed", 1);
    fs::remove_file(&events).unwrap();
    wait_for("health", || {
        let (_, reason) = check(&server, "store");
        // That of the last commit stays until the next one.
        (reason.is_empty() || reason.starts_with("events can't be written")).then_some(())
    });
    drop(scheduler);
    server.stop();
    let server = node.start();
    let list = get_json(&server, "/api/v1/ai-events");
    assert_eq!(list["total"], 3, "{list}");
}
