//! `desired.json`: what is in it, when it is written, and what is kept out of it.

use crate::support::{Node, get_error, get_json, model, wait_for};
use api::config_rows::AssignmentRow;
use api::{ModelEntry, Unavailable, UnavailableKind};
use ipc::events_message::{EventsMessage, Status};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn assign(camera: &str, model: &str) -> AssignmentRow {
    AssignmentRow::new(camera.parse().unwrap(), model.parse().unwrap())
}

#[test]
fn it_says_what_ingest_and_scheduler_need() {
    let mut node = Node::new();
    node.options.cameras[1].loop_offset_ms = Some(2500);
    node.options.cameras[1].sub_url = Some("file:///data/yard-small.mp4".into());
    let row = &mut node.options.assignments[0];
    row.priority = Some(75);
    row.parameters = json!({"b": 1, "a": [true]}).as_object().cloned();
    row.deadline_ms = Some(900);
    let server = node.start();
    let desired = node.desired();
    assert_eq!(desired["format"], 1);
    assert_eq!(
        desired["cameras"][0],
        json!({
            "id": "front", "enabled": true, "loop_offset_ms": 0, "record": false, "live": true,
            "decode": "full", "deadline_ms": 900,
            "streams": [{
                "name": "main", "url": "rtsp://admin:s3cret@10.0.0.9/1?pwd=s3cret",
                "transport": "tcp", "roles": ["record", "live", "detect"],
            }],
        })
    );
    let yard = &desired["cameras"][1];
    assert_eq!((&yard["decode"], &yard["deadline_ms"]), (&json!("off"), &json!(500)));
    assert_eq!(yard["loop_offset_ms"], 2500);
    assert_eq!(yard["streams"][0]["roles"], json!(["record", "live"]));
    assert_eq!(yard["streams"][1]["roles"], json!(["detect"]));
    assert_eq!(yard["streams"][1]["transport"], "");
    assert_eq!(
        desired["subscriptions"],
        json!([{
            "id": "front.nano", "camera": "front", "model": "nano", "parent_model": null,
            "max_fps": 5.0, "priority": 75, "max_regions": 16, "deadline_ms": 900,
            "parameters": {"a": [true], "b": 1}, "enabled": true,
            // printf '{"a":[true],"b":1}' | sha256sum
            "parameters_id": "708747538ba81fd60b5aac8c646370de5e24abf70ab1872f67458a5a4f3af05d",
        }])
    );
    let file = std::fs::metadata(node.options.directories.desired()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600, "it holds credentials");
    drop(server);
}

#[test]
fn it_says_which_registry_it_follows_from() {
    let node = Node::new();
    let version = || {
        let desired = node.desired();
        (desired["epoch"].as_str().unwrap().to_owned(), desired["revision"].as_u64().unwrap())
    };
    drop(node.start());
    let (epoch, revision) = version();
    assert_eq!((epoch.len(), revision), (16, 1));
    drop(node.start());
    assert_eq!(version(), (epoch.clone(), 1), "a restart changes nothing");
    // As a program of before wrote it.
    let path = node.options.directories.desired();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&format!("  \"epoch\": \"{epoch}\",\n"), "")).unwrap();
    drop(node.start());
    assert_eq!(version(), (epoch.clone(), 2));
    std::fs::remove_file(node.options.directories.state.join("control.redb")).unwrap();
    let server = node.start();
    let (anew, revision) = version();
    assert!(anew != epoch && revision == 3, "{anew}, {revision}");
    let check = &get_json(&server, "/health/detailed")["checks"]["desired_state"];
    assert_eq!((&check["epoch"], &check["revision"]), (&json!(anew), &json!(3)));
    let unknown = |part: &str| json!({"part": part, "epoch": null, "revision": null});
    assert_eq!(check["followers"], json!([unknown("scheduler"), unknown("ingest")]));
    let mut scheduler = node.scheduler();
    scheduler.send(&EventsMessage::Status(Status {
        desired_epoch: base::Epoch(5),
        desired_revision: 9,
        ..crate::testing::status()
    }));
    let follows = wait_for("the scheduler's status", || {
        let health = get_json(&server, "/health/detailed");
        let scheduler = health["checks"]["desired_state"]["followers"][0].clone();
        (scheduler["revision"] == 9).then_some(scheduler)
    });
    assert_eq!(follows["epoch"], "0000000000000005");
}

#[test]
fn export_off_and_disabled_assignments_mean_no_decoding() {
    let mut node = Node::new();
    node.options.export_enabled = false;
    node.start();
    assert_eq!(node.desired()["cameras"][0]["decode"], "off");
    assert_eq!(node.desired()["subscriptions"][0]["enabled"], true, "ready for the switch");
    node.options.export_enabled = true;
    node.options.assignments[0].enabled = Some(false);
    node.start();
    assert_eq!(node.desired()["cameras"][0]["decode"], "off");
    assert_eq!(node.desired()["subscriptions"][0]["enabled"], false);
    node.options.assignments[0].enabled = Some(true);
    node.options.cameras[0].export = Some(false);
    node.start();
    assert_eq!(node.desired()["cameras"][0]["decode"], "off");
    node.options.cameras[0].export = Some(true);
    node.start();
    assert_eq!(node.desired()["cameras"][0]["decode"], "full");
}

#[test]
fn it_is_written_only_when_it_says_something_new() {
    let mut node = Node::new();
    let path = node.options.directories.desired();
    let inode = || std::fs::metadata(&path).unwrap().ino();
    node.start();
    let (first, revision) = (inode(), node.desired()["revision"].as_u64().unwrap());
    node.start();
    assert_eq!((inode(), node.desired()["revision"].as_u64()), (first, Some(revision)));
    node.options.assignments[0].desired_fps = Some(6.0);
    let server = node.start();
    let second = node.desired()["revision"].as_u64().unwrap();
    assert!(second > revision && inode() != first);
    let status = get_json(&server, "/ai/observability/status");
    assert_eq!(status["desired_state"]["revision"], second);
}

#[test]
fn the_revision_rises_whatever_is_lost() {
    let mut node = Node::new();
    let directories = node.options.directories.clone();
    node.start();
    // A younger store beside an older file.
    let text = std::fs::read_to_string(directories.desired()).unwrap();
    let revision = format!("\"revision\": {}", node.desired()["revision"]);
    std::fs::write(directories.desired(), text.replace(&revision, "\"revision\": 1000")).unwrap();
    node.options.assignments[0].desired_fps = Some(7.0);
    node.start();
    assert_eq!(node.desired()["revision"], 1001);
    // A file that can't be read is written anew.
    std::fs::write(directories.desired(), "{").unwrap();
    node.start();
    assert!(node.desired()["revision"].as_u64().unwrap() > 1);
    assert_eq!(node.desired()["subscriptions"][0]["max_fps"], 7.0);
}

#[test]
fn what_can_not_run_is_rejected_with_its_reason_and_the_rest_goes_on() {
    let mut node = Node::new();
    let broken = Unavailable {
        kind: UnavailableKind::Invalid,
        reason: "model.yaml:3 unknown key `inptu`, did you mean `input`?".into(),
    };
    let mut strict = model("strict", &["person"]);
    strict.spec.as_mut().unwrap().config_schema = Some(
        json!({
            "type": "object", "required": ["zone"], "additionalProperties": false,
            "properties": {"zone": {"enum": ["gate", "yard"]}, "score": {"maximum": 1}},
        })
        .to_string(),
    );
    let mut unparsable = model("unparsable", &["person"]);
    unparsable.spec.as_mut().unwrap().config_schema = Some("{".into());
    let off = ModelEntry { enabled: Some(false), ..model("off", &["person"]) };
    let folder = ModelEntry { name: "broken".into(), enabled: None, spec: Err(broken) };
    node.options.models.extend([strict, unparsable, off, folder]);
    node.options.models.extend([model("third", &["face"]), model("selfish", &["face"])]);
    let with = |mut row: AssignmentRow, parameters: serde_json::Value| {
        row.parameters = parameters.as_object().cloned();
        row
    };
    let huge = json!({"note": "x".repeat(5000)});
    let mut fast = assign("yard", "nano");
    fast.desired_fps = Some(31.0);
    let on = |row: AssignmentRow, parent: &str| AssignmentRow {
        parent_model: Some(parent.parse().unwrap()),
        ..row
    };
    let second = with(on(assign("front", "strict"), "nano"), json!({"zone": "gate"}));
    node.options
        .cameras
        .push(api::config_rows::CameraRow::new("gate".parse().unwrap(), "file:///g"));
    node.options.assignments.extend([
        assign("cellar", "nano"),
        assign("front", "nosuch"),
        assign("front", "off"),
        assign("front", "broken"),
        assign("front", "unparsable"),
        with(assign("gate", "strict"), json!({"zone": "roof", "score": 2, "x": 1})),
        with(assign("gate", "nano"), huge),
        fast,
        second,
        on(assign("front", "third"), "strict"),
        on(assign("front", "selfish"), "selfish"),
        on(assign("yard", "strict"), "nano"),
        on(assign("yard", "third"), "nosuch"),
        on(assign("yard", "selfish"), "off"),
        on(assign("gate", "third"), "selfish"),
    ]);
    let server = node.start();
    let subscriptions = node.desired()["subscriptions"].clone();
    let ids: Vec<&str> =
        subscriptions.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["front.nano", "front.strict"]);
    let reason = |id: &str| {
        let one = get_json(&server, &format!("/api/v1/ai-model-assignments/{id}"));
        assert_eq!(one["state"], "rejected", "{id}");
        one["rejection_reason"].as_str().unwrap().to_owned()
    };
    for (id, expected) in [
        ("cellar.nano", "camera `cellar` is unknown"),
        ("front.nosuch", "model `nosuch` is unknown; known are: broken, nano, off"),
        ("front.off", "model `off` is disabled"),
        ("front.broken", "did you mean `input`?"),
        ("front.unparsable", "config_schema is not JSON"),
        ("gate.nano", "parameters are 5011 bytes of JSON, allowed are 4096"),
        ("yard.nano", "desired_fps is 31, allowed are 0.1 to 30"),
        ("front.third", "`strict` itself looks at detections of `nano` on camera `front`"),
        ("front.selfish", "model `selfish` can't look at its own detections; name another"),
        ("yard.strict", "parent model `nano` is rejected on camera `yard`; correct that"),
        ("yard.third", "parent model `nosuch` is unknown; known are: "),
        ("yard.selfish", "parent model `off` is disabled; enable it first"),
        ("gate.third", "`selfish` is not assigned to camera `gate`; assign it there first"),
        (
            "gate.strict",
            "parameters.zone: the value is not one of \"gate\" or \"yard\"; it is \"roof\"",
        ),
        ("gate.strict", "parameters.score: the value is greater than the maximum of 1; it is 2"),
        ("gate.strict", "('x' was unexpected)"),
    ] {
        let told = reason(id);
        assert!(told.contains(expected), "{id}: {told}");
    }
    let accepted = get_json(&server, "/api/v1/ai-model-assignments/front.nano");
    assert_eq!(
        (&accepted["state"], &accepted["rejection_reason"]),
        (&json!("accepted"), &json!(null))
    );
    let models = get_json(&server, "/api/v1/ai-models");
    let of = |id: &str| {
        let all = models["models"].as_array().unwrap();
        all.iter().find(|m| m["model_id"] == id).unwrap_or_else(|| panic!("no {id}")).clone()
    };
    assert_eq!(of("broken")["availability"], "unavailable");
    assert_eq!(of("broken")["unavailable_reason"]["kind"], "invalid");
    assert_eq!(
        (&of("off")["enabled"], &of("off")["availability"]),
        (&json!(false), &json!("available"))
    );
    assert_eq!(of("nano")["labels"], json!(["person", "bicycle", "car"]));
    assert_eq!(get_json(&server, "/api/v1/ai-models?enabled=false")["total"], 1);
    get_error(&server, 404, "/api/v1/ai-models/nosuch");
    let health = get_json(&server, "/health/detailed");
    assert_eq!(health["checks"]["desired_state"]["reason"], "14 assignments are rejected");
}

#[test]
fn a_second_stage_stays_and_waits_while_its_parent_does_not_run() {
    let mut node = Node::new();
    node.options.models.push(model("faces", &["face"]));
    let mut child = assign("front", "faces");
    child.parent_model = Some("nano".parse().unwrap());
    node.options.assignments.push(child);
    let shown = |node: &Node| {
        let server = node.start();
        let one = get_json(&server, "/api/v1/ai-model-assignments/front.faces");
        assert_eq!((&one["parent_model_id"], &one["enabled"]), (&json!("nano"), &json!(true)));
        assert_eq!(one["rejection_reason"], json!(null));
        let desired = node.desired();
        let subscriptions = desired["subscriptions"].as_array().unwrap();
        let of_child = subscriptions.iter().find(|s| s["id"] == "front.faces").unwrap();
        assert_eq!(
            (&of_child["parent_model"], &of_child["enabled"]),
            (&json!("nano"), &json!(true))
        );
        let status = get_json(&server, "/ai/observability/status");
        let all = status["subscriptions"].as_array().unwrap();
        let of_child = all.iter().find(|s| s["id"] == "front.faces").unwrap().clone();
        (
            one["state"].clone(),
            one["waiting_reason"].clone(),
            of_child,
            desired["cameras"][0]["decode"].clone(),
        )
    };
    let (state, why, live, decode) = shown(&node);
    assert_eq!((state, why, decode), (json!("accepted"), json!(null), json!("full")));
    assert_eq!((&live["parent_model_id"], &live["state"]), (&json!("nano"), &json!("unknown")));

    node.options.assignments[0].enabled = Some(false);
    let (state, why, live, decode) = shown(&node);
    let told = "parent model `nano` is disabled on camera `front`; enable that assignment";
    assert_eq!((state, &why), (json!("waiting"), &json!(told)));
    assert_eq!((&live["state"], &live["reason"]), (&json!("waiting"), &json!(told)));
    assert_eq!(decode, json!("off"), "nobody would look at the frames");

    let parent = node.options.assignments.remove(0);
    let (state, why, live, decode) = shown(&node);
    let told =
        "parent model `nano` is not assigned to camera `front` any more; assign it there again";
    assert_eq!((state, &why), (json!("waiting"), &json!(told)));
    assert_eq!((&live["state"], decode), (&json!("waiting"), json!("off")));

    node.options.assignments.push(AssignmentRow { enabled: Some(true), ..parent });
    let (state, _, _, decode) = shown(&node);
    assert_eq!((state, decode), (json!("accepted"), json!("full")));
}

#[test]
fn a_second_stage_whose_configuration_names_no_parent_any_more_looks_at_whole_frames() {
    let mut node = Node::new();
    node.options.models.push(model("faces", &["face"]));
    let mut child = assign("front", "faces");
    child.parent_model = Some("nano".parse().unwrap());
    node.options.assignments.push(child);
    let parent = |node: &Node| {
        node.start();
        let subscriptions = node.desired()["subscriptions"].clone();
        let all = subscriptions.as_array().unwrap();
        all.iter().find(|s| s["id"] == "front.faces").unwrap()["parent_model"].clone()
    };
    assert_eq!(parent(&node), "nano");
    node.options.assignments[1].parent_model = None;
    assert_eq!(parent(&node), json!(null));
}

#[test]
fn rows_that_leave_the_configuration_stop_and_come_back() {
    let mut node = Node::new();
    node.start();
    let assignments = std::mem::take(&mut node.options.assignments);
    let yard = node.options.cameras.pop().unwrap();
    let server = node.start();
    assert_eq!(node.desired()["subscriptions"], json!([]));
    assert_eq!(node.desired()["cameras"].as_array().unwrap().len(), 1);
    let gone = get_json(&server, "/api/v1/ai-model-assignments/front.nano");
    assert_eq!(gone["state"], "gone");
    assert_eq!(get_json(&server, "/api/v1/devices/yard")["is_active"], false);
    server.stop();
    node.options.assignments = assignments;
    node.options.cameras.push(yard);
    node.start();
    assert_eq!(node.desired()["subscriptions"][0]["enabled"], true);
    assert_eq!(node.desired()["cameras"].as_array().unwrap().len(), 2);
}
