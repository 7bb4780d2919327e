//! What a configuration names reaches the store, and what it does not name stays.

use super::*;
use crate::config_rows::NamedFiles;
use crate::options::{ModelEntry, Unavailable, UnavailableKind};
use base::Size;
use base::model::{
    Backend, ColourOrder, DType, Decoder, InputSpec, Layout, ModelSpec, Resize,
    ResourceRequirements,
};
use serde_json::{Map, Value, json};
use std::fs;
use std::time::Duration;
use store::control::{Device, Source};
use tempfile::TempDir;

fn store() -> (TempDir, Control) {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    (directory, control)
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn upsert(control: &Control, cameras: Vec<CameraRow>, models: Vec<ModelEntry>) {
    let configuration = Configuration::new(cameras, vec![]);
    configuration.upsert(control, &Registry::new(models)).unwrap();
}

fn tiny() -> ModelSpec {
    ModelSpec {
        model_id: "tiny".parse().unwrap(),
        name: "Tiny".into(),
        version: "3".into(),
        description: Some("finds little".into()),
        author: None,
        license: None,
        supported_tasks: vec!["object_detection".into()],
        backend: Backend::Onnx,
        weights: "/nowhere/tiny.onnx".into(),
        input: InputSpec {
            tensor: "images".into(),
            size: Size { width: 8, height: 8 },
            layout: Layout::Nchw,
            dtype: DType::F32,
            colour: ColourOrder::Rgb,
            resize: Resize::Stretch,
            mean: [0.0; 3],
            std: [255.0; 3],
        },
        decoder: Decoder::BoxesScores { scores: "scores".into(), boxes: "boxes".into() },
        labels: vec!["person".into()],
        confidence_threshold: 0.5,
        nms_iou_threshold: 0.5,
        batch_max: 4,
        deadline: Duration::from_millis(700),
        resources: ResourceRequirements::default(),
        config_schema: Some(r#"{"type": "object"}"#.into()),
    }
}

#[test]
fn assignments_of_the_same_camera_and_model_are_told_and_the_last_one_wins() {
    let row = |camera: &str, fps| AssignmentRow {
        desired_fps: Some(fps),
        ..AssignmentRow::new(camera.parse().unwrap(), "nano".parse().unwrap())
    };
    let rows = [row("front", 5.0), row("yard", 5.0), row("front", 3.0)];
    let told = named_twice(&rows);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("2 assignments name camera front and model nano"), "{told:?}");
    assert_eq!(named_twice(&rows[..2]), <[String; 0]>::default());
    let (_directory, control) = store();
    let configuration = Configuration::new(vec![], rows.to_vec());
    configuration.upsert(&control, &Registry::new(vec![])).unwrap();
    let stored = control.assignments().unwrap();
    let front: Vec<_> = stored.iter().filter(|a| a.camera.as_str() == "front").collect();
    assert_eq!((front.len(), front[0].desired_fps), (1, Some(3.0)));
}

#[test]
fn all_that_a_camera_names_is_stored() {
    let (_directory, control) = store();
    let row = CameraRow {
        name: Some("Front door".into()),
        description: Some("sees the street".into()),
        location: Some("porch".into()),
        sub_url: Some("rtsp://camera/2".into()),
        sub_roles: Some(vec!["live".into()]),
        transport: Some("udp".into()),
        enabled: Some(false),
        export: Some(false),
        loop_offset_ms: Some(7),
        record: Some(true),
        live: Some(false),
        ..CameraRow::new("front".parse().unwrap(), "rtsp://camera/1")
    };
    upsert(&control, vec![row], vec![]);
    let stored = control.devices().unwrap().remove(0);
    let streams = altered(&[], "rtsp://camera/1", Some("rtsp://camera/2"), Some("udp"), None);
    assert_eq!(stored.streams[1].roles, ["live"]);
    let urls = |streams: &[Stream]| -> Vec<(String, String)> {
        streams.iter().map(|s| (s.url.clone(), s.transport.clone())).collect()
    };
    assert_eq!(urls(&stored.streams), urls(&streams));
    let wanted = Device {
        name: "Front door".into(),
        description: Some("sees the street".into()),
        location: Some("porch".into()),
        streams: stored.streams.clone(),
        loop_offset_ms: 7,
        record: true,
        live: false,
        export: false,
        enabled: false,
        created_at: stored.created_at,
        updated_at: stored.updated_at,
        ..Device::new("front".parse().unwrap(), Source::Config)
    };
    assert_eq!(stored, wanted);
}

#[test]
fn a_camera_keeps_the_smaller_stream_that_is_not_named_unless_it_is_the_main_one_now() {
    let (_directory, control) = store();
    let row = |id: &str, main: &str, sub: Option<&str>| CameraRow {
        sub_url: sub.map(str::to_owned),
        ..CameraRow::new(id.parse().unwrap(), main)
    };
    let urls = || -> Vec<Vec<String>> {
        let of = |device: &Device| device.streams.iter().map(|s| s.url.clone()).collect();
        control.devices().unwrap().iter().map(of).collect()
    };
    let both =
        vec![row("back", "rtsp://a/1", Some("rtsp://a/2")), row("front", "rtsp://b/1", None)];
    upsert(&control, both, vec![]);
    upsert(
        &control,
        vec![row("back", "rtsp://a/3", None), row("front", "rtsp://b/1", None)],
        vec![],
    );
    assert_eq!(urls(), [vec!["rtsp://a/3", "rtsp://a/2"], vec!["rtsp://b/1"]]);
    upsert(
        &control,
        vec![row("back", "rtsp://a/2", None), row("front", "rtsp://b/1", None)],
        vec![],
    );
    assert_eq!(urls(), [vec!["rtsp://a/2"], vec!["rtsp://b/1"]]);
}

#[test]
fn all_that_a_model_says_is_stored_and_stays_while_its_folder_is_broken() {
    let (_directory, control) = store();
    let entry = |name: &str, enabled, spec| ModelEntry { name: name.into(), enabled, spec };
    let check = || {
        let models = control.models().unwrap();
        assert_eq!(models.len(), 1, "{models:?}");
        let stored = &models[0];
        assert_eq!((stored.id.as_str(), stored.name.as_str()), ("tiny", "Tiny"));
        assert_eq!(stored.description.as_deref(), Some("finds little"));
        assert_eq!(stored.version.as_deref(), Some("3"));
        assert_eq!(stored.supported_tasks, ["object_detection"]);
        assert_eq!(stored.config_schema, Some(object(json!({"type": "object"}))));
        assert_eq!((stored.deadline_ms, stored.gone), (Some(700), false));
        stored.enabled
    };
    upsert(&control, vec![], vec![entry("tiny", Some(false), Ok(tiny()))]);
    assert!(!check());
    upsert(&control, vec![], vec![entry("tiny", Some(true), Ok(tiny()))]);
    assert!(check());
    let broken = || {
        let reason = "it has no weights".to_owned();
        Err(Unavailable { kind: UnavailableKind::Invalid, reason })
    };
    let folders = vec![entry("tiny", None, broken()), entry("no id", None, broken())];
    upsert(&control, vec![], folders);
    assert!(check(), "and the other one has none to be known by");
    // The registry takes from the store what the configuration does not say.
    upsert(&control, vec![], vec![entry("tiny", Some(false), Ok(tiny()))]);
    let registry = Registry::new(vec![entry("tiny", None, Ok(tiny()))]);
    Configuration::new(vec![], vec![]).upsert(&control, &registry).unwrap();
    assert!(!registry.get("tiny").unwrap().enabled());
}

#[test]
fn all_that_an_assignment_names_is_stored() {
    let (_directory, control) = store();
    let row = AssignmentRow {
        parent_model: Some("nano".parse().unwrap()),
        desired_fps: Some(2.5),
        priority: Some(60),
        max_regions: Some(3),
        deadline_ms: Some(900),
        parameters: Some(object(json!({"threshold": 0.5}))),
        enabled: Some(false),
        ..AssignmentRow::new("front".parse().unwrap(), "tiny".parse().unwrap())
    };
    let configuration = Configuration::new(vec![], vec![row]);
    configuration.upsert(&control, &Registry::new(vec![])).unwrap();
    let stored = control.assignments().unwrap().remove(0);
    assert_eq!((stored.camera.as_str(), stored.model.as_str()), ("front", "tiny"));
    assert_eq!(stored.parent_model.map(|id| id.to_string()).as_deref(), Some("nano"));
    assert_eq!((stored.desired_fps, stored.priority), (Some(2.5), Some(60)));
    assert_eq!((stored.max_regions, stored.deadline_ms), (Some(3), Some(900)));
    assert_eq!(stored.parameters, Some(object(json!({"threshold": 0.5}))));
    assert!(!stored.enabled);
}

#[test]
fn a_configuration_is_a_fault_until_it_is_applied_and_is_applied_once() {
    let (directory, control) = store();
    let place = directory.path().join("published");
    fs::write(&place, "in the way").unwrap();
    let file = place.join("desired.json");
    let published = Published::before(file.clone(), true, NamedFiles::default());
    let cameras = vec![CameraRow::new("front".parse().unwrap(), "rtsp://camera/1")];
    let configuration = Configuration::new(cameras, vec![]);
    let registry = Registry::new(vec![]);
    let apply = || configuration.apply::<FollowError>(&control, &registry, &published);
    let fault = configuration.fault().unwrap();
    assert_eq!(fault, "the configuration is not applied yet: serve is starting");
    let refused = apply().unwrap_err();
    assert!(matches!(refused, FollowError::Publish(_)), "{refused:?}");
    let fault = configuration.fault().unwrap();
    assert!(fault.ends_with(&refused.to_string()), "{fault}");
    fs::remove_file(&place).unwrap();
    apply().unwrap();
    assert_eq!(configuration.fault(), None);
    assert!(file.is_file() && control.devices().unwrap().len() == 1);
    // What people change from then on stays.
    upsert(&control, vec![], vec![]);
    apply().unwrap();
    assert!(control.devices().unwrap()[0].gone);
}
