//! Cameras made and changed over HTTP, and the desired state that follows.

use crate::ingest::{FakeIngest, down, live};
use crate::support::{
    Node, Reply, call, call_error, call_json, connect, get_json, read_reply, request, send,
    wait_for,
};
use api::Server;
use api::config_rows::CameraRow;
use ipc::ingest_message::{StreamState, StreamStatus};
use serde_json::{Value, json};
use std::io::Write;

const DEVICES: &str = "/api/v1/devices";
const URL: &str = "rtsp://admin:s3cret@10.0.0.7:554/main?pwd=s3cret";
const SHOWN: &str = "rtsp://***@10.0.0.7:554/main?pwd=***";

fn add(server: &Server, body: Value) -> Value {
    call_json(server, 201, "POST", DEVICES, &body)
}

fn at(device: &Value) -> String {
    format!("{DEVICES}/{}", device["id"].as_str().unwrap())
}

/// A camera of the desired state.
fn desired(node: &Node, device: &Value) -> Option<Value> {
    let state = node.desired();
    state["cameras"].as_array().unwrap().iter().find(|c| c["id"] == device["id"]).cloned()
}

fn revision(node: &Node) -> u64 {
    node.desired()["revision"].as_u64().unwrap()
}

#[test]
fn a_camera_is_added_changed_started_stopped_and_deleted() {
    let node = Node::new();
    let server = node.start();
    let before = revision(&node);
    let reply = call(&server, "POST", DEVICES, &json!({"name": "Gate", "rtsp_url": URL}));
    assert_eq!(reply.status, 201);
    let made = reply.json();
    assert_eq!(reply.header("location"), Some(at(&made).as_str()));
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "a UUID: {id}");
    assert_eq!((&made["rtsp_url"], &made["is_active"]), (&json!(SHOWN), &json!(false)));
    assert_eq!((&made["source"], &made["record"]), (&json!("api"), &json!(false)));
    let wanted = desired(&node, &made).unwrap();
    assert_eq!(wanted["enabled"], false);
    assert_eq!(wanted["streams"][0]["url"], URL, "the real address reaches ingest");
    assert_eq!(wanted["streams"][0]["roles"], json!(["record", "live", "detect"]));
    assert!(revision(&node) > before);

    let change = json!({
        "name": "Back gate", "description": "by the bins", "location": "north", "record": true,
        "sub_url": "rtsp://10.0.0.7/sub", "transport": "udp",
    });
    let changed = call_json(&server, 200, "PUT", &at(&made), &change);
    assert_eq!((&changed["name"], &changed["record"]), (&json!("Back gate"), &json!(true)));
    assert!(changed["updated_at"].is_string());
    let wanted = desired(&node, &made).unwrap();
    assert_eq!((&wanted["record"], &wanted["enabled"]), (&json!(true), &json!(false)));
    assert_eq!(wanted["streams"][1]["url"], "rtsp://10.0.0.7/sub");
    assert_eq!(wanted["streams"][1]["roles"], json!(["detect"]));
    assert_eq!(wanted["streams"][0]["roles"], json!(["record", "live"]));
    assert_eq!(wanted["streams"][0]["transport"], "udp");
    let cleared = json!({"description": null, "location": "", "sub_url": null});
    let changed = call_json(&server, 200, "PUT", &at(&made), &cleared);
    assert_eq!((&changed["description"], &changed["location"]), (&json!(null), &json!(null)));
    assert_eq!(desired(&node, &made).unwrap()["streams"][0]["roles"].as_array().unwrap().len(), 3);

    let start = format!("{}/start-stream", at(&made));
    let started = call_json(&server, 200, "POST", &start, &Value::Null);
    assert_eq!((&started["status"], &started["reconnect"]), (&json!("success"), &json!(false)));
    assert_eq!(started["stream"]["status"], "unknown");
    let why = started["stream"]["message"].as_str().unwrap();
    assert!(why.contains("ingest does not run; start `vas ingest`"), "{why}");
    assert_eq!(desired(&node, &made).unwrap()["enabled"], true);
    let error = call_error(&server, 400, "DELETE", &at(&made), &Value::Null);
    assert!(error["message"].as_str().unwrap().contains("stop it first"), "{error}");
    assert_eq!(call_json(&server, 200, "POST", &start, &json!({}))["reconnect"], true);
    let stop = format!("{}/stop-stream", at(&made));
    let stopped = call_json(&server, 200, "POST", &stop, &Value::Null);
    assert_eq!((&stopped["was_active"], &stopped["stopped"]), (&json!(true), &json!(false)));
    assert_eq!(desired(&node, &made).unwrap()["enabled"], false);
    let deleted = call(&server, "DELETE", &at(&made), &Value::Null);
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.header("content-type"), None);
    assert_eq!(desired(&node, &made), None);
    for (method, path) in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/status")] {
        let body = if method == "PUT" { json!({"name": "x"}) } else { Value::Null };
        call_error(&server, 404, method, &format!("{}{path}", at(&made)), &body);
    }
    for path in ["start-stream", "stop-stream"] {
        call_error(&server, 404, "POST", &format!("{}/{path}", at(&made)), &Value::Null);
    }
}

#[test]
fn what_was_made_is_there_after_a_restart_and_the_file_says_the_same() {
    let node = Node::new();
    let server = node.start();
    let made = add(&server, json!({"name": "Gate", "rtsp_url": URL, "enabled": true}));
    let (state, revision) = (desired(&node, &made), revision(&node));
    server.stop();
    let server = node.start();
    assert_eq!(desired(&node, &made), state);
    assert_eq!(self::revision(&node), revision, "nothing new is written");
    assert_eq!(get_json(&server, &at(&made))["is_active"], true);
    // What changes nothing for ingest and scheduler does not disturb them.
    call_json(&server, 200, "PUT", &at(&made), &json!({"name": "Other", "location": "x"}));
    assert_eq!(self::revision(&node), revision);
}

#[test]
fn both_streams_can_be_named_with_what_each_is_for() {
    let node = Node::new();
    let server = node.start();
    let made = add(
        &server,
        json!({"name": "Two", "live": false, "export": false, "streams": [
            {"name": "main", "url": "rtsp://u:p@cam/1", "roles": ["record"]},
            {"name": "sub", "url": "rtsp://u:p@cam/2", "transport": "udp"},
        ]}),
    );
    let wanted = desired(&node, &made).unwrap();
    assert_eq!(
        wanted["streams"],
        json!([
            {"name": "main", "url": "rtsp://u:p@cam/1", "transport": "tcp", "roles": ["record"]},
            {"name": "sub", "url": "rtsp://u:p@cam/2", "transport": "udp", "roles": ["live", "detect"]},
        ])
    );
    assert_eq!(wanted["live"], false);
    assert_eq!(made["export"]["wanted"], false);
    // Sent back as it was shown, with one change.
    let mut streams = made["streams"].clone();
    assert_eq!(streams[1]["url"], "rtsp://***@cam/2");
    streams[1]["url"] = json!("rtsp://***@cam/3");
    call_json(&server, 200, "PUT", &at(&made), &json!({"streams": streams}));
    let wanted = desired(&node, &made).unwrap();
    assert_eq!(wanted["streams"][0]["url"], "rtsp://u:p@cam/1");
    assert_eq!(wanted["streams"][1]["url"], "rtsp://u:p@cam/3");
}

#[test]
fn the_shown_address_keeps_the_credentials_and_nobody_else_gets_them() {
    let node = Node::new();
    let server = node.start();
    let made = add(&server, json!({"name": "Gate", "rtsp_url": URL}));
    call_json(&server, 200, "PUT", &at(&made), &json!({"rtsp_url": SHOWN, "name": "Same"}));
    assert_eq!(desired(&node, &made).unwrap()["streams"][0]["url"], URL);
    for (url, told) in [
        ("rtsp://***@evil.example/main", "write the credentials"),
        ("rtsp://***@10.0.0.7:8554/main", "write the credentials"),
    ] {
        let error = call_error(&server, 422, "PUT", &at(&made), &json!({"rtsp_url": url}));
        let detail = &error["details"][0];
        assert_eq!(detail["field"], "rtsp_url");
        assert!(detail["message"].as_str().unwrap().contains(told), "{error}");
    }
    let other = json!({"name": "Thief", "rtsp_url": SHOWN});
    call_error(&server, 422, "POST", DEVICES, &other);
    assert_eq!(desired(&node, &made).unwrap()["streams"][0]["url"], URL);
    // In no answer and no error.
    let targets =
        [DEVICES, &at(&made), "/api/v1/streams", "/api/devices", "/ai/observability/status"];
    for target in targets {
        let text = String::from_utf8(request(server.address(), "GET", target).body).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("admin"), "{target}: {text}");
    }
    let bad = json!({"name": "", "rtsp_url": "http://admin:s3cret@h/1", "colour": 1});
    let text = call(&server, "POST", DEVICES, &bad);
    assert_eq!(text.status, 422);
    assert!(!String::from_utf8(text.body).unwrap().contains("s3cret"));
}

#[test]
fn a_password_in_the_path_is_hidden_and_kept_as_any_other() {
    let node = Node::new();
    let server = node.start();
    let url = |password: &str, channel: u32| {
        format!("rtsp://10.0.0.8:554/user=admin&password={password}&channel={channel}&stream=0.sdp")
    };
    let made = add(&server, json!({"name": "Old", "rtsp_url": url("s3cret", 1)}));
    assert_eq!(made["rtsp_url"], url("***", 1));
    let kept = |shown: String| {
        call_json(&server, 200, "PUT", &at(&made), &json!({"rtsp_url": shown}));
        desired(&node, &made).unwrap()["streams"][0]["url"].clone()
    };
    assert_eq!(kept(url("***", 1)), url("s3cret", 1));
    assert_eq!(kept(url("***", 2)), url("s3cret", 2));
    for target in [DEVICES, &at(&made), "/api/v1/streams", "/ai/observability/status"] {
        let text = String::from_utf8(request(server.address(), "GET", target).body).unwrap();
        assert!(!text.contains("s3cret"), "{target}: {text}");
    }
    let thief = json!({"name": "Thief", "rtsp_url": url("***", 3)});
    call_error(&server, 422, "POST", DEVICES, &thief);
    let twin = json!({"name": "Twin", "rtsp_url": url("other", 2)});
    call_error(&server, 400, "POST", DEVICES, &twin);
    add(&server, json!({"name": "Other channel", "rtsp_url": url("s3cret", 3)}));
}

#[test]
fn refusals_repeat_no_secret() {
    let node = Node::new();
    let server = node.start();
    let secret = "rtsp://admin:s3cret@h/1";
    for body in [
        json!({"name": "x", "rtsp_url": {"address": secret}}),
        json!({"name": "x", "rtsp_url": [secret]}),
        json!({"name": "x", "rtsp_url": secret, "streams": {"main": secret}}),
        json!({"name": "x", "rtsp_url": secret, "camera": {"password": "s3cret"}}),
        json!({"name": "x", "rtsp_url": secret, "password": "s3cret"}),
        json!({"name": "x", "rtsp_url": secret, "transport": secret}),
        json!({"name": "x", "rtsp_url": secret, "snapshot_url": "admin:s3cret@h"}),
        json!({"name": "x", "streams": [{"name": "main", "url": secret, "roles": [secret, secret]}]}),
        json!(secret),
    ] {
        let reply = call(&server, "POST", DEVICES, &body);
        let text = String::from_utf8(reply.body).unwrap();
        assert_eq!(reply.status, 422, "{text}");
        assert!(!text.contains("s3cret"), "{body}: {text}");
    }
}

#[test]
fn an_address_belongs_to_one_camera() {
    let node = Node::new();
    let server = node.start();
    let made = add(&server, json!({"name": "Gate", "rtsp_url": URL}));
    for url in ["rtsp://10.0.0.7/main?pwd=other", URL, "rtsp://x:y@10.0.0.7:554/main/?pwd=z"] {
        let error =
            call_error(&server, 400, "POST", DEVICES, &json!({"name": "Twin", "rtsp_url": url}));
        let message = error["message"].as_str().unwrap();
        let id = made["id"].as_str().unwrap();
        assert!(message.contains(id) && message.contains("already"), "{message}");
        assert!(!message.contains("s3cret"));
    }
    // Also one of the configuration file, and by PUT.
    let taken = json!({"rtsp_url": "rtsp://10.0.0.9/1?pwd=x"});
    call_error(&server, 400, "PUT", &at(&made), &taken);
    let both = json!({"sub_url": URL});
    call_error(&server, 422, "PUT", &at(&made), &both);
}

/// A `vas media` that finds a clip everywhere but in a path with `bad`, and notes its jobs.
fn finds_clips(node: &mut Node) -> std::path::PathBuf {
    let jobs = node.home.path().join("jobs");
    let script = r#"read -r job; echo "$job" >> "$0"
        case "$job" in
        *bad*) echo '{"status":"failed","code":422,"message":"it is refused"}';;
        *) echo '{"status":"done","codec":"h264","width":1280,"height":720,"fps":0}';;
        esac"#;
    let jobs_text = jobs.to_str().unwrap();
    node.options.media_command = ["/bin/sh", "-c", script, jobs_text].map(Into::into).to_vec();
    node.options.file_roots = vec!["/clips".into(), "/more".into()];
    jobs
}

#[test]
fn a_file_is_tried_in_a_process_of_its_own_before_a_camera_is_made_of_it() {
    let mut node = Node::new();
    let jobs = finds_clips(&mut node);
    let server = node.start();
    let jobs = || std::fs::read_to_string(&jobs).unwrap_or_default().lines().count();
    // Of one clip several cameras can be made.
    for _ in 0..2 {
        add(&server, json!({"name": "Clip", "rtsp_url": "file:///clips/clip.mp4"}));
    }
    assert_eq!(jobs(), 2);
    let made = add(&server, json!({"name": "Gate", "rtsp_url": URL, "sub_url": "file:///clips/s"}));
    assert_eq!(jobs(), 3, "cameras of the network are not tried");
    let wanted = desired(&node, &made).unwrap();
    assert_eq!(wanted["streams"][1].get("any_file"), None, "below the roots only");
    let revision = revision(&node);
    let bad = json!({"name": "Bad", "rtsp_url": "file:///etc/bad"});
    let error = call_error(&server, 422, "POST", DEVICES, &bad);
    assert_eq!(error["details"][0]["field"], "rtsp_url", "{error}");
    assert_eq!(error["details"][0]["message"], "it is refused");
    for (change, field) in [
        (json!({"rtsp_url": "file:///etc/bad"}), "rtsp_url"),
        (json!({"sub_url": "file:///etc/bad"}), "sub_url"),
        (json!({"streams": [{"name": "main", "url": "file:///etc/bad"}]}), "streams[0].url"),
        (
            json!({"streams": [
                {"name": "main", "url": "file:///clips/new"},
                {"name": "sub", "url": "FILE:///etc/bad"},
            ]}),
            "streams[1].url",
        ),
    ] {
        let error = call_error(&server, 422, "PUT", &at(&made), &change);
        assert_eq!(error["details"][0]["field"], field, "{error}");
    }
    assert_eq!(desired(&node, &made).unwrap(), wanted);
    assert_eq!(self::revision(&node), revision, "nothing was changed");
    // What a change leaves alone is not tried again.
    let before = jobs();
    let change = json!({"record": true, "sub_url": "file:///clips/s"});
    call_json(&server, 200, "PUT", &at(&made), &change);
    assert_eq!(jobs(), before);
    let tried = json!({"rtsp_url": "file:///etc/bad"});
    let answer = call_json(&server, 200, "POST", &format!("{DEVICES}/validate"), &tried);
    assert_eq!((&answer["valid"], &answer["error"]), (&json!(false), &json!("it is refused")));
}

#[test]
fn what_vas_toml_names_may_lie_anywhere_and_only_for_its_camera() {
    let mut node = Node::new();
    finds_clips(&mut node);
    node.options.cameras[1].main_url = "file:///etc/bad".into();
    let server = node.start();
    let yard = || desired(&node, &json!({"id": "yard"})).unwrap();
    assert_eq!(yard()["streams"][0]["any_file"], true);
    let path = format!("{DEVICES}/yard");
    // Over HTTP it may leave that file and come back to it, and have no other.
    let put = |status, body: Value| call_json(&server, status, "PUT", &path, &body);
    put(200, json!({"rtsp_url": "file:///clips/a.mp4"}));
    assert_eq!(yard()["streams"][0].get("any_file"), None);
    put(200, json!({"rtsp_url": "file:///etc/bad"}));
    assert_eq!(yard()["streams"][0]["any_file"], true);
    put(422, json!({"rtsp_url": "file:///etc/bad2"}));
    // Another camera gets nothing of it.
    let twin = json!({"name": "Twin", "rtsp_url": "file:///etc/bad"});
    call_error(&server, 422, "POST", DEVICES, &twin);
    drop(server);
    // What vas.toml names no more.
    node.options.cameras[1].main_url = "file:///data/other.mp4".into();
    node.options.cameras[0].sub_url = Some("file:///etc/bad".into());
    let server = node.start();
    call_json(&server, 422, "PUT", &path, &json!({"rtsp_url": "file:///etc/bad"}));
    let front = desired(&node, &json!({"id": "front"})).unwrap();
    assert_eq!(front["streams"][0].get("any_file"), None, "no file");
    assert_eq!(front["streams"][1]["any_file"], true);
}

#[test]
fn a_file_that_was_not_tried_because_somebody_else_changed_the_camera_is_refused() {
    let mut node = Node::new();
    node.options.cameras[1].main_url = "file:///data/a b.mp4".into();
    let go = node.home.path().join("go");
    let script = r#"read -r job; : > "$0.begun"
        while [ ! -e "$0" ]; do sleep 0.02; done
        echo '{"status":"done","codec":"h264","width":4,"height":2,"fps":0}'"#;
    let waits = ["/bin/sh", "-c", script, go.to_str().unwrap()];
    node.options.media_command = waits.map(Into::into).to_vec();
    let server = node.start();
    let path = format!("{DEVICES}/yard");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            // The first is what is stored, as it is shown; the second is tried.
            let change =
                json!({"rtsp_url": "file:///data/a%20b.mp4", "sub_url": "file:///clips/slow"});
            call_error(&server, 409, "PUT", &path, &change)
        });
        wait_for("the try", || go.with_extension("begun").exists().then_some(()));
        let other = json!({"rtsp_url": "rtsp://10.0.0.8/1"});
        call_json(&server, 200, "PUT", &path, &other);
        std::fs::write(&go, "").unwrap();
        let error = slow.join().unwrap();
        assert!(error["message"].as_str().unwrap().contains("try again"), "{error}");
    });
    let yard = desired(&node, &json!({"id": "yard"})).unwrap();
    assert_eq!(yard["streams"][0]["url"], "rtsp://10.0.0.8/1");
}

#[test]
fn a_file_that_can_not_be_tried_changes_nothing() {
    let mut node = Node::new();
    node.options.media_command = vec!["/nosuch/vas".into()];
    let server = node.start();
    let new = json!({"name": "Clip", "rtsp_url": "file:///clips/clip.mp4"});
    let error = call_error(&server, 503, "POST", DEVICES, &new);
    assert!(error["message"].as_str().unwrap().contains("can't be started"), "{error}");
    call_error(&server, 503, "PUT", &format!("{DEVICES}/front"), &json!({"sub_url": "file:///a"}));
    assert_eq!(get_json(&server, DEVICES).as_array().unwrap().len(), 2);
}

#[test]
fn a_change_is_not_refused_for_what_it_leaves_alone() {
    let mut node = Node::new();
    // Legal in the file: two cameras that read one stream, a path with a space.
    let row = |id: &str, url: &str| CameraRow::new(id.parse().unwrap(), url);
    node.options.cameras.push(row("twin", "rtsp://10.0.0.9/1?pwd=other"));
    node.options.cameras.push(row("spaced", "file:///data/a b.mp4"));
    let server = node.start();
    for id in ["front", "twin", "spaced"] {
        let path = format!("{DEVICES}/{id}");
        let changed = call_json(&server, 200, "PUT", &path, &json!({"record": true}));
        assert_eq!(changed["record"], true);
        let same = json!({"rtsp_url": changed["rtsp_url"]});
        call_json(&server, 200, "PUT", &path, &same);
        call_json(&server, 200, "PUT", &path, &json!({"sub_url": format!("rtsp://sub/{id}")}));
    }
    // Another password of a stream that two have is no other stream.
    let change = json!({"rtsp_url": "rtsp://10.0.0.9/1?pwd=new"});
    call_json(&server, 200, "PUT", &format!("{DEVICES}/twin"), &change);
    // What is new is checked.
    let space = json!({"rtsp_url": "file:///data/c d.mp4"});
    call_error(&server, 422, "PUT", &format!("{DEVICES}/spaced"), &space);
    let taken = json!({"sub_url": "rtsp://sub/front"});
    call_error(&server, 400, "PUT", &format!("{DEVICES}/twin"), &taken);
}

#[test]
fn each_stream_keeps_its_transport() {
    let node = Node::new();
    let server = node.start();
    let made = add(
        &server,
        json!({"name": "Two", "streams": [
            {"name": "main", "url": "rtsp://cam/1", "transport": "tcp"},
            {"name": "sub", "url": "rtsp://cam/2", "transport": "udp"},
        ]}),
    );
    let after = |change: Value| {
        call_json(&server, 200, "PUT", &at(&made), &change);
        let wanted = desired(&node, &made).unwrap();
        let of = |at: usize| wanted["streams"][at]["transport"].as_str().unwrap().to_owned();
        (of(0), of(1))
    };
    let is = |main: &str, sub: &str| (main.to_owned(), sub.to_owned());
    assert_eq!(after(json!({"rtsp_url": "rtsp://cam/3"})), is("tcp", "udp"));
    assert_eq!(after(json!({"sub_url": "rtsp://cam/4"})), is("tcp", "udp"));
    let listed = json!({"streams": [
        {"name": "main", "url": "rtsp://cam/5"},
        {"name": "sub", "url": "rtsp://cam/6"},
    ]});
    assert_eq!(after(listed), is("tcp", "udp"));
    assert_eq!(after(json!({"transport": "udp"})), is("udp", "udp"));
}

#[test]
fn a_restart_keeps_what_the_file_does_not_name_of_a_cameras_streams() {
    let mut node = Node::new();
    let server = node.start();
    let front = format!("{DEVICES}/front");
    let main = node.desired()["cameras"][0]["streams"][0]["url"].as_str().unwrap().to_owned();
    let change = json!({"streams": [
        {"name": "main", "url": main, "transport": "udp", "roles": ["record"]},
        {"name": "sub", "url": "rtsp://10.0.0.9/2", "transport": "tcp", "roles": ["live", "detect"]},
    ]});
    call_json(&server, 200, "PUT", &front, &change);
    let (state, revision) = (node.desired()["cameras"][0].clone(), revision(&node));
    assert_eq!(state["streams"], change["streams"]);
    server.stop();
    let server = node.start();
    assert_eq!(node.desired()["cameras"][0], state);
    assert_eq!(self::revision(&node), revision, "nothing new is written");
    server.stop();
    // What the file names wins, and only that.
    node.options.cameras[0].main_url = "rtsp://10.0.0.9/7".into();
    node.options.cameras[0].transport = Some("tcp".into());
    let server = node.start();
    let streams = node.desired()["cameras"][0]["streams"].clone();
    assert_eq!(
        (&streams[0]["url"], &streams[0]["transport"]),
        (&json!("rtsp://10.0.0.9/7"), &json!("tcp"))
    );
    assert_eq!(streams[0]["roles"], json!(["record"]));
    assert_eq!(streams[1], state["streams"][1]);
    server.stop();
    node.options.cameras[0].sub_url = Some("rtsp://10.0.0.9/8".into());
    node.options.cameras[0].sub_roles = Some(vec!["detect".into()]);
    let _server = node.start();
    let streams = node.desired()["cameras"][0]["streams"].clone();
    assert_eq!(streams[0]["roles"], json!(["record", "live"]));
    assert_eq!(
        (&streams[1]["url"], &streams[1]["roles"]),
        (&json!("rtsp://10.0.0.9/8"), &json!(["detect"]))
    );
}

#[test]
fn bodies_are_checked_key_by_key() {
    let node = Node::new();
    let server = node.start();
    let good = json!({"name": "Gate", "rtsp_url": "rtsp://cam/1"});
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let long = "x".repeat(600);
    for (body, field) in [
        (json!({"rtsp_url": "rtsp://cam/1"}), "name"),
        (json!({"name": "Gate"}), "rtsp_url"),
        (json!([]), "body"),
        (with("name", json!("")), "name"),
        (with("name", json!("x".repeat(256))), "name"),
        (with("name", json!(7)), "name"),
        (with("colour", json!("red")), "colour"),
        (with("record", json!("yes")), "record"),
        (with("live", json!(null)), "live"),
        (with("transport", json!("smoke")), "transport"),
        (with("rtsp_url", json!("")), "rtsp_url"),
        (with("rtsp_url", json!(null)), "rtsp_url"),
        (with("rtsp_url", json!(format!("rtsp://h/{long}"))), "rtsp_url"),
        (with("rtsp_url", json!("http://h/1")), "rtsp_url"),
        (with("rtsp_url", json!("rtsp://h/a b")), "rtsp_url"),
        (with("rtsp_url", json!("file://relative")), "rtsp_url"),
        (with("sub_url", json!("ftp://h/1")), "sub_url"),
        (with("streams", json!([])), "streams"),
        (with("streams", json!([{"name": "main", "url": "rtsp://h/1"}])), "rtsp_url"),
        (
            json!({"name": "x", "streams": [{"name": "sub", "url": "rtsp://h/1"}]}),
            "streams[0].name",
        ),
        (json!({"name": "x", "streams": [{"name": "main"}]}), "streams[0].url"),
        (json!({"name": "x", "streams": [{"name": "main", "url": "x"}]}), "streams[0].url"),
        (
            json!({"name": "x", "streams": [{"name": "main", "url": "rtsp://h", "roles": ["a"]}]}),
            "streams[0].roles[0]",
        ),
        (
            json!({"name": "x", "streams": [{"name": "main", "url": "rtsp://h/1"},
                {"name": "main", "url": "rtsp://h/2"}]}),
            "streams[1].name",
        ),
    ] {
        let error = call_error(&server, 422, "POST", DEVICES, &body);
        let details = error["details"].as_array().unwrap();
        assert_eq!(details[0]["field"], field, "{body}: {details:?}");
        assert!(!details[0]["message"].as_str().unwrap().is_empty());
    }
    let mut twice = with("enabled", json!(true));
    twice["is_active"] = json!(false);
    assert_eq!(
        call_error(&server, 422, "POST", DEVICES, &twice)["details"][0]["field"],
        "is_active"
    );
    let several = json!({"name": "", "record": 1, "x": 2});
    let error = call_error(&server, 422, "POST", DEVICES, &several);
    assert_eq!(error["details"].as_array().unwrap().len(), 3);
    assert_eq!(send(&server, "POST", DEVICES, "application/json", b"{").status, 422);
    assert_eq!(send(&server, "POST", DEVICES, "text/plain", b"{}").status, 415);
    assert_eq!(send(&server, "POST", DEVICES, "application/json", b"").status, 422);
    assert_eq!(get_json(&server, DEVICES).as_array().unwrap().len(), 2, "none was made");
    let start = format!("{DEVICES}/front/start-stream");
    call_error(&server, 422, "POST", &start, &json!({"fast": true}));
    assert_eq!(call(&server, "POST", &format!("{start}?x=1"), &Value::Null).status, 422);
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let node = Node::new();
    let server = node.start();
    let post = |header: &str| -> Reply {
        let address = server.address();
        let mut stream = connect(address);
        write!(
            stream,
            "POST {DEVICES}/front/stop-stream HTTP/1.1\r\nHost: {address}\r\n{header}\r\n\
             Content-Length: 0\r\n\r\n"
        )
        .unwrap();
        read_reply(&mut stream, false).unwrap()
    };
    for header in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let reply = post(header);
        assert_eq!(reply.status, 403, "{header}");
        assert!(
            reply.json()["error"]["message"].as_str().unwrap().contains("may not ask for this")
        );
    }
    assert_eq!(node.desired()["cameras"][0]["enabled"], true);
    assert_eq!(post(&format!("Origin: http://{}", server.address())).status, 200);
    assert_eq!(node.desired()["cameras"][0]["enabled"], false);
}

#[test]
fn methods_that_a_path_does_not_have_are_named() {
    let node = Node::new();
    let server = node.start();
    for (path, allow) in [
        (DEVICES, "GET, HEAD, POST"),
        ("/api/v1/devices/front", "PUT, DELETE, GET, HEAD"),
        ("/api/v1/devices/front/start-stream", "POST"),
        ("/api/v1/devices/front/whep/7", "DELETE"),
        ("/api/v1/rtsp/streams/front/reconnect", "POST"),
    ] {
        let reply = request(server.address(), "PATCH", path);
        let words = |text: &str| -> std::collections::BTreeSet<String> {
            text.split(", ").map(str::to_owned).collect()
        };
        assert_eq!(reply.status, 405, "{path}");
        assert_eq!(words(reply.header("allow").unwrap()), words(allow), "{path}");
    }
}

#[test]
fn a_desired_state_that_can_not_be_written_leaves_everything_as_it_was() {
    let node = Node::new();
    let server = node.start();
    let before = node.desired();
    // In the way of the file that is renamed.
    let obstacle = node.options.directories.state.join("desired.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let new = json!({"name": "Gate", "rtsp_url": URL});
    let error = call_error(&server, 503, "POST", DEVICES, &new);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("desired.json") && message.contains("nothing was changed"),
        "{message}"
    );
    call_error(&server, 503, "POST", &format!("{DEVICES}/front/stop-stream"), &Value::Null);
    assert_eq!(node.desired(), before);
    assert_eq!(get_json(&server, DEVICES).as_array().unwrap().len(), 2);
    assert_eq!(get_json(&server, "/api/v1/devices/front")["is_active"], true);
    std::fs::remove_dir(&obstacle).unwrap();
    let made = add(&server, new);
    assert!(desired(&node, &made).is_some());
    assert!(revision(&node) > before["revision"].as_u64().unwrap());
}

#[test]
fn cameras_of_the_configuration_follow_it() {
    let mut node = Node::new();
    node.options.cameras[0].record = Some(false);
    let server = node.start();
    let front = format!("{DEVICES}/front");
    // What the file names returns at the next start, what it does not name stays.
    call_json(&server, 200, "PUT", &front, &json!({"record": true, "location": "gate"}));
    assert_eq!(node.desired()["cameras"][0]["record"], true);
    call_json(&server, 200, "POST", &format!("{front}/stop-stream"), &Value::Null);
    let error = call_error(&server, 409, "DELETE", &front, &Value::Null);
    assert!(error["message"].as_str().unwrap().contains("[[camera]]"), "{error}");
    server.stop();
    let server = node.start();
    let now = get_json(&server, &front);
    assert_eq!((&now["record"], &now["location"]), (&json!(false), &json!("gate")));
    server.stop();
    // Gone from the file: it can be deleted, and nothing else.
    let yard = node.options.cameras.remove(0);
    let server = node.start();
    call_error(&server, 409, "PUT", &front, &json!({"name": "x"}));
    call_error(&server, 409, "POST", &format!("{front}/start-stream"), &Value::Null);
    assert_eq!(call(&server, "DELETE", &front, &Value::Null).status, 204);
    assert_eq!(
        call_json(&server, 200, "GET", "/api/v1/ai-model-assignments", &Value::Null)["total"],
        0,
        "its assignments went with it"
    );
    drop(yard);
}

#[test]
fn many_who_wait_for_cameras_do_not_hold_up_others() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    ingest.tell(vec![down("front", "main", StreamState::Connecting, "")]);
    let (start, begun) = (format!("{DEVICES}/front/start-stream"), std::time::Instant::now());
    let took = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let started = call_json(&server, 200, "POST", &start, &Value::Null);
                    assert_eq!(started["stream"]["status"], "connecting");
                    begun.elapsed()
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
    });
    // Those that found a place wait 3 s; without a bound the last ones wait for them as well.
    let waited = took.iter().filter(|took| took.as_secs_f64() > 2.9).count();
    assert!((1..=8).contains(&waited), "{took:?}");
}

#[test]
fn starting_waits_for_the_camera_and_stopping_for_its_end() {
    let node = Node::new();
    let server = node.start();
    let ingest = FakeIngest::start(&node.options.directories.ingest_socket());
    let made = add(&server, json!({"name": "Gate", "rtsp_url": URL}));
    let id = made["id"].as_str().unwrap().to_owned();
    ingest.tell(vec![down(&id, "main", StreamState::Connecting, "")]);
    let (told, name) = (ingest.clone(), id.clone());
    let desired = node.options.directories.desired();
    // As ingest does: follow the file, connect, be live.
    let follower = std::thread::spawn(move || {
        for (enabled, state) in [(true, live(&name, "main")), (false, stopped(&name))] {
            wait_for("the desired state", || {
                let text = std::fs::read_to_string(&desired).unwrap();
                let state: Value = serde_json::from_str(&text).unwrap();
                let cameras = state["cameras"].as_array().unwrap();
                let camera = cameras.iter().find(|c| c["id"] == name.as_str()).unwrap();
                (camera["enabled"] == enabled).then_some(())
            });
            told.tell(vec![state]);
        }
    });
    let started =
        call_json(&server, 200, "POST", &format!("{}/start-stream", at(&made)), &Value::Null);
    assert_eq!(started["stream"]["status"], "live", "{started}");
    assert_eq!(started["stream"]["started_at"], "2026-01-01T00:00:00.000000000Z");
    let status = call_json(&server, 200, "GET", &format!("{}/status", at(&made)), &Value::Null);
    assert_eq!(status["streaming"]["active"], true);
    assert_eq!(status["streaming"]["room_id"], id.as_str());
    assert_eq!(status["streams"][0]["codec"], "h264");
    let stopped =
        call_json(&server, 200, "POST", &format!("{}/stop-stream", at(&made)), &Value::Null);
    assert_eq!(stopped["stopped"], true);
    follower.join().unwrap();
    // A camera that refuses is told at once.
    let reason = "the camera refused the credentials (401)";
    ingest.tell(vec![down(&id, "main", StreamState::AuthFailed, reason)]);
    let path = format!("/api/devices/{id}/stream");
    let started = call_json(&server, 200, "POST", &path, &Value::Null);
    assert_eq!(
        started["stream"],
        json!({"status": "auth_failed", "message": reason, "started_at": null})
    );
    call_json(&server, 200, "DELETE", &path, &Value::Null);
}

fn stopped(camera: &str) -> StreamStatus {
    StreamStatus::stopped(camera.parse().unwrap(), "main")
}

#[test]
fn an_address_is_tried_by_a_process_of_its_own_and_nothing_is_stored() {
    let mut node = Node::new();
    let jobs = finds_clips(&mut node);
    // What the process answers next, unless it is to find clips.
    let next = node.home.path().join("next");
    let script = r#"if [ -e "$0" ]; then . "$0"; else exec "$@"; fi"#;
    let before = std::mem::take(&mut node.options.media_command);
    let wrapped = ["/bin/sh", "-c", script, next.to_str().unwrap()].map(Into::into);
    node.options.media_command = wrapped.into_iter().chain(before).collect();
    let server = node.start();
    let validate = format!("{DEVICES}/validate");
    let body = json!({"rtsp_url": URL, "transport": "udp"});
    let good = call_json(&server, 200, "POST", &validate, &body);
    assert_eq!((&good["valid"], &good["rtsp_url"]), (&json!(true), &json!(SHOWN)));
    assert_eq!(good["message"], "the camera answers with h264 1280x720");
    assert_eq!(good["stream"]["fps"], json!(null));
    // By standard input, not as an argument.
    let job: Value = serde_json::from_str(&std::fs::read_to_string(jobs).unwrap()).unwrap();
    assert_eq!(
        job,
        json!({"job": "probe", "url": URL, "transport": "udp", "file_roots": ["/clips", "/more"]})
    );
    let say = |what: &str| std::fs::write(&next, what).unwrap();
    say(r#"echo '{"status":"done","codec":"h265","width":null,"height":null,"fps":25.0}'"#);
    let other = call_json(&server, 200, "POST", &validate, &body);
    assert!(other["message"].as_str().unwrap().contains("H.265"), "{other}");
    let refusal = "the camera refused the credentials";
    say(&format!(r#"echo '{{"status":"failed","code":401,"message":"{refusal}"}}'"#));
    let bad = call_json(&server, 200, "POST", &validate, &body);
    assert_eq!(
        (&bad["valid"], &bad["error"]),
        (&json!(false), &json!("the camera refused the credentials"))
    );
    // What is there ended the process.
    say("kill -6 $$");
    let bad = call_json(&server, 200, "POST", &validate, &body);
    let error = bad["error"].as_str().unwrap();
    assert!(bad["valid"] == false && error.contains("check the address"), "{bad}");
    assert!(!bad.to_string().contains("s3cret"), "{bad}");
    say(r#"echo '{"status":"failed","code":503,"message":"no descriptor is left"}'"#);
    let error = call_error(&server, 503, "POST", &validate, &body);
    assert!(error["message"].as_str().unwrap().contains("no descriptor"), "{error}");
    for body in [json!({}), json!({"rtsp_url": "http://h"}), json!({"rtsp_url": URL, "x": 1})] {
        call_error(&server, 422, "POST", &validate, &body);
    }
    assert_eq!(get_json(&server, DEVICES).as_array().unwrap().len(), 2);
}
