//! A model that looks at the detections of another one, through the whole product.

use crate::node::{Place, clip, model};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Model id of the second stage: the same network under another name.
const CHILD: &str = "nanodet_people";

/// One camera with the NanoDet model on it, and the second stage on what that finds. `parent` =
/// more lines of the parent's assignment.
fn place(parent: &str) -> Place {
    let place = Place::new("");
    let child = place.folder.path().join(CHILD);
    fs::create_dir(&child).unwrap();
    for file in ["labels.txt", "nanodet_g_416_f16w.onnx"] {
        fs::copy(model().join(file), child.join(file)).unwrap();
    }
    let yaml = fs::read_to_string(model().join("model.yaml")).unwrap();
    let yaml = yaml.replace("model_id: nanodet_g_416", &format!("model_id: {CHILD}"));
    fs::write(child.join("model.yaml"), yaml).unwrap();
    place.configure(&format!(
        "[frame_export]\nenabled = true\n\
         [[model]]\ndir = \"{}\"\n[[model]]\ndir = \"{CHILD}\"\n\
         [[camera]]\nid = \"gate\"\nmain_url = \"{}\"\n\
         [[assignment]]\ncamera = \"gate\"\nmodel = \"nanodet_g_416\"\ndesired_fps = 3\n\
         parameters = {{ classes = [\"person\"] }}\n{parent}\
         [[assignment]]\ncamera = \"gate\"\nmodel = \"{CHILD}\"\n\
         parent_model = \"nanodet_g_416\"\n",
        model().display(),
        clip().display(),
    ));
    place
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn events(list: &Value) -> &[Value] {
    list["events"].as_array().map_or(&[], Vec::as_slice)
}

/// The second stage in a status.
fn child(status: &Value) -> Value {
    let all = status["subscriptions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|s| s["model_id"] == CHILD).cloned().unwrap_or_default()
}

fn corners(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Whether `inner` lies in `outer`, to the six decimals that are printed.
fn lies_in(inner: &[f64], outer: &[f64]) -> bool {
    let near = 2e-6;
    inner[0] >= outer[0] - near
        && inner[1] >= outer[1] - near
        && inner[2] <= outer[2] + near
        && inner[3] <= outer[3] + near
}

#[test]
fn a_second_stage_looks_at_what_the_first_one_found() {
    let place = place("");
    let mut up = place.up_serving();
    let list = place.get_until(&format!("/api/v1/ai-events?limit=1000&model_id={CHILD}"), |body| {
        let list = json(body);
        let frames: BTreeSet<&str> =
            events(&list).iter().filter_map(|e| e["frame_id"].as_str()).collect();
        frames.len() >= 5 && events(&list).len() >= 10
    });
    let list = json(&list);
    let children = events(&list);
    let ids: BTreeSet<&str> = children.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), children.len(), "events share an id");
    let mut largest = 0;
    for event in children {
        let metadata = &event["event_metadata"];
        let time = event["timestamp"].as_str().unwrap();
        let moment = format!("/api/v1/ai-events?camera_id=gate&start_time={time}&end_time={time}");
        // The events of a batch are stored together, and the parent's came first.
        let moment = json(&place.get(&moment));
        let of_parent: Vec<&Value> = events(&moment)
            .iter()
            .filter(|e| {
                e["event_metadata"]["sequence"] == metadata["parent"]
                    && e["event_metadata"]["scheduler"] == metadata["scheduler"]
            })
            .collect();
        let [parent] = of_parent[..] else { panic!("{} parents of {event}", of_parent.len()) };
        assert_eq!(parent["model_id"], "nanodet_g_416");
        for same in ["frame_id", "generation", "media", "frame"] {
            assert_eq!(parent[same], event[same], "{same}");
        }
        let region = corners(&metadata["region"]);
        let boxes: Vec<Vec<f64>> =
            parent["detections"].as_array().unwrap().iter().map(|d| corners(&d["bbox"])).collect();
        assert!(boxes.iter().any(|b| lies_in(&region, b)), "{region:?} is in none of {boxes:?}");
        for detection in event["detections"].as_array().unwrap() {
            let bbox = corners(&detection["bbox"]);
            assert!(lies_in(&bbox, &region), "{bbox:?} sticks out of {region:?}");
        }
        let of_this =
            children.iter().filter(|e| e["event_metadata"]["parent"] == metadata["parent"]);
        largest = largest.max(of_this.count());
    }
    assert!(largest > 1, "no frame gave more than one event");

    let status = json(&place.get_until("/ai/observability/status", |body| {
        let one = child(&json(body));
        one["state"] == "active" && one["ledger"]["sampled"].as_u64() > Some(0)
    }));
    let one = child(&status);
    assert_eq!(one["parent_model_id"], "nanodet_g_416");
    for subscription in status["subscriptions"].as_array().unwrap() {
        assert_eq!(subscription["ledger"]["balanced"], true, "{subscription}");
    }
    assert!(up.stop().success());
    place.assert_nothing_left();
}

#[test]
fn a_second_stage_waits_while_its_parent_is_disabled() {
    let place = place("enabled = false\n");
    let mut up = place.up_serving();
    up.wait_for("waits for its parent: parent model `nanodet_g_416` is disabled on camera `gate`");
    let status = place
        .get_until("/ai/observability/status", |body| child(&json(body))["state"] == "waiting");
    let reason = child(&json(&status))["reason"].clone();
    assert!(reason.as_str().unwrap().contains("enable that assignment"), "{reason}");
    let assignment = place.get(&format!("/api/v1/ai-model-assignments/gate.{CHILD}"));
    assert_eq!(json(&assignment)["state"], "waiting", "{assignment}");
    assert!(up.stop().success());
    place.assert_nothing_left();
}
