//! Models that execute nothing, through the whole product: as on a GPU, so that batches are prepared
//! before their grant.

use crate::node::{Place, clip, stderr, stdout};
use serde_json::Value;
use std::fs;

/// Two models of 40 ms on one GPU and two cameras: the device is mostly busy.
fn place() -> Place {
    let place = Place::new("");
    let mut extra = String::from("[frame_export]\nenabled = true\n[[device]]\nid = \"gpu0\"\n");
    for model in ["one", "two"] {
        let folder = place.folder.path().join(model);
        fs::create_dir(&folder).unwrap();
        let yaml = format!(
            "model_id: {model}\nmodel_name: Waits\nmodel_version: \"1\"\nmodel_type: synthetic\n\
             expected_resolution: [64, 64]\nbatch_max: 4\ndeadline_ms: 2000\nsynthetic:\n  \
             alpha_ms: 30\n  beta_ms: 10\n  gpu: true\n  finds: moving\n"
        );
        fs::write(folder.join("model.yaml"), yaml).unwrap();
        extra += &format!("[[model]]\ndir = \"{model}\"\ndevice = \"gpu0\"\n");
    }
    for (camera, offset) in [("left", 0), ("right", 15_000)] {
        let clip = clip().display().to_string();
        extra += &format!(
            "[[camera]]\nid = \"{camera}\"\nmain_url = \"{clip}\"\nloop_offset_ms = {offset}\n"
        );
        for model in ["one", "two"] {
            extra += &format!(
                "[[assignment]]\ncamera = \"{camera}\"\nmodel = \"{model}\"\ndesired_fps = 5\n"
            );
        }
    }
    place.configure(&extra);
    place
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

#[test]
fn synthetic_models_run_as_on_a_gpu_and_are_prepared_ahead() {
    let place = place();
    let check = place.vas(&["config", "check"]);
    assert!(check.status.success() && stderr(&check).is_empty(), "{}", stderr(&check));
    let plan = place.vas(&["plan"]);
    let plan = stdout(&plan);
    assert!(!plan.contains("CPUs only"), "{plan}");
    for model in ["one", "two"] {
        let measured = format!("  {model} ");
        let not =
            format!("model {model} was not measured on gpu0 and has no place; run `vas model");
        assert!(plan.contains(&measured) || plan.contains(&not), "{plan}");
    }

    let mut up = place.up_serving();
    let models = json(&place.get("/api/v1/ai-models"));
    assert!(!models.to_string().contains("CPUs only"), "{models}");
    let runners = |status: &Value| status["runners"].as_array().cloned().unwrap_or_default();
    // Batches that waited for their grant with their pixels in the engine.
    let ahead = |r: &Value| r["stages"]["grant_ms"].as_f64().unwrap_or(0.0) > 0.0;
    let status = place.get_until("/ai/observability/status", |body| {
        let runners = runners(&json(body));
        let used = |r: &Value| r["members"].as_u64() >= Some(20) && r["state"] == "ready";
        runners.len() == 2 && runners.iter().all(used) && runners.iter().any(ahead)
    });
    for runner in runners(&json(&status)) {
        assert_eq!(runner["device"], "gpu0");
        assert!(runner["runtime"].as_str().unwrap().starts_with("synthetic, as on a gpu"));
        let execute = runner["stages"]["execute_ms"].as_f64().unwrap();
        assert!(execute >= 40.0, "{execute} ms");
    }
    let events = json(&place.get("/api/v1/ai-events?limit=5"));
    let first = &events["events"][0]["detections"][0];
    assert_eq!(first["class_name"], "object", "{events}");
    assert!(up.stop().success());
    place.assert_nothing_left();
}
