//! `vas plan`, `vas model profile`, and a model on two devices.

use crate::node::{Place, clip, command, model, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// The NanoDet model with batches of one only, under another id.
fn single(folder: &Path, id: &str) -> PathBuf {
    let dir = folder.join(id);
    fs::create_dir(&dir).unwrap();
    for name in ["nanodet_g_416_f16w.onnx", "labels.txt"] {
        fs::copy(model().join(name), dir.join(name)).unwrap();
    }
    let yaml = fs::read_to_string(model().join("model.yaml")).unwrap();
    let yaml = yaml
        .replace("model_id: nanodet_g_416", &format!("model_id: {id}"))
        .replace("batch_max: 16", "batch_max: 1")
        .replace("gpu_memory_mb: 512", "gpu_memory_mb: 300");
    fs::write(dir.join("model.yaml"), yaml).unwrap();
    dir
}

/// A cache folder of its own; the engine's library is the one that set-up fetched.
struct Cache(TempDir);

impl Cache {
    fn new() -> Cache {
        let folder = tempfile::tempdir().unwrap();
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let usual = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        fs::create_dir(folder.path().join("vas")).unwrap();
        if let Some(usual) = usual {
            let link = folder.path().join("vas/onnxruntime");
            symlink(usual.join("vas/onnxruntime"), link).unwrap();
        }
        Cache(folder)
    }

    fn tables(&self) -> PathBuf {
        self.0.path().join("vas/latency")
    }

    fn vas(&self, place: &Place, arguments: &[&str]) -> Output {
        let config = place.config_text();
        let mut command = command(&[arguments, &["--config", &config]].concat());
        command.env("XDG_CACHE_HOME", self.0.path()).output().unwrap()
    }

    /// Says of the one measured table that it is of these devices, with these figures.
    fn set(&self, devices: &[(&str, u64)]) {
        let mut files = fs::read_dir(self.tables()).unwrap();
        let file = files.next().expect("a table was stored").unwrap().path();
        let mut table: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for (device, ms) in devices {
            table["device"] = (*device).into();
            let (p50, p99) = (ms * 1_000_000, ms * 1_500_000);
            table["entries"] = serde_json::json!([{"batch": 1, "p50_ns": p50, "p99_ns": p99}]);
            let file = self.tables().join(format!("{device}.json"));
            fs::write(file, table.to_string()).unwrap();
        }
        fs::remove_file(file).unwrap();
    }
}

fn configure(place: &Place, devices: &str, models: &[(&Path, &str)], fps: f64) {
    let models = models
        .iter()
        .map(|(dir, device)| format!("[[model]]\ndir = \"{}\"\n{device}\n", dir.display()));
    let cameras = ["one", "two"].map(|id| {
        format!(
            "[[camera]]\nid = \"{id}\"\nmain_url = \"{}\"\n[[assignment]]\ncamera = \"{id}\"\n\
             model = \"single\"\ndesired_fps = {fps}\n",
            clip().display()
        )
    });
    place.configure(&format!(
        "[runner]\nthreads = 1\n[frame_export]\nenabled = true\n{devices}{}{}",
        models.collect::<String>(),
        cameras.concat()
    ));
}

const TWO: &str = "[[device]]\nid = \"cpu\"\nmemory_mib = 1000\n[[device]]\nid = \"cpu1\"\n";

#[test]
fn models_are_measured_and_placed() {
    let place = Place::new("");
    let cache = Cache::new();
    let dir = single(place.folder.path(), "single");
    let shown = dir.display();
    configure(&place, TWO, &[(&dir, "")], 5.0);

    let output = cache.vas(&place, &["plan"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let missing = format!("was not measured and has no place; run `vas model profile {shown}`\n");
    assert!(stdout(&output).contains(&missing), "{}", stdout(&output));

    let output = cache.vas(&place, &["model", "profile", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("single on cpu, 1 threads\nbatch  p50 ms"), "{text}");
    let output = cache.vas(&place, &["plan"]);
    assert!(stdout(&output).contains("single "), "{}", stdout(&output));
    assert!(
        stdout(&output).contains(&format!("`vas model profile {shown} --device cpu1`")),
        "{}",
        stdout(&output)
    );

    // Ten frames/s of 80 ms fit on one device.
    cache.set(&[("cpu", 80), ("cpu1", 80)]);
    let file = place.folder.path().join("plan.json");
    let plan = || cache.vas(&place, &["plan", "--json", file.to_str().unwrap()]);
    let read = || serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap();
    let output = plan();
    assert_eq!(output.status.code(), Some(0), "{}\n{}", stdout(&output), stderr(&output));
    let row = format!(
        "# 1 of 2 devices; rows for vas.toml:\n[[model]]\ndir = \"{shown}\"\ndevice = \"cpu\"\n"
    );
    assert!(stdout(&output).ends_with(&row), "{}", stdout(&output));
    let json = read();
    let member = &json["devices"][0]["models"][0];
    assert_eq!((&json["served_in_full"], &json["unplaced"]), (&true.into(), &Value::Array(vec![])));
    assert_eq!(
        (&member["fps"], &member["share"], &member["memory_mib"], &member["interval_ms"]),
        (&10.0.into(), &1.0.into(), &300.into(), &100.0.into())
    );
    // 20 ms to the ring, 80 (120 at worst) to execute, and 80 % of the time half of that, at worst all
    // of it, to wait for the other camera's.
    assert_eq!((&member["mean_age_ms"], &member["worst_age_ms"]), (&132.0.into(), &260.0.into()));
    let of_device = [&json["devices"][0]["load"], &json["devices"][0]["usable"]];
    assert_eq!(of_device, [&Value::from(0.8), &Value::from(0.99)]);

    // Twenty do not, and are split: the clip has no more than ten to give to each camera.
    configure(&place, TWO, &[(&dir, "")], 30.0);
    let output = plan();
    let json = read();
    let fps = [0, 1].map(|n| json["devices"][n]["models"][0]["fps"].as_f64().unwrap());
    assert!((fps[0] - 12.375).abs() < 1e-3 && (fps[1] - 7.625).abs() < 1e-3, "{fps:?}");
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert_eq!(stdout(&output).matches("[[model]]").count(), 2, "{}", stdout(&output));

    // What the file says of devices is kept, and overload is said.
    configure(&place, TWO, &[(&dir, "device = \"cpu1\"")], 30.0);
    let output = plan();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("problem: model single gets 12.4 of 20.0 frames/s on cpu1 (61 %)"),
        "{}",
        stdout(&output)
    );
    assert_eq!(read()["devices"][1]["models"][0]["fixed"], true);
    // The rows can be put into a configuration as they are.
    let text = stdout(&output);
    let rows = text.split_once("rows for vas.toml:\n").unwrap().1;
    place.configure(&format!("{TWO}{rows}"));
    let output = place.vas(&["config", "check"]);
    assert!(stdout(&output).ends_with("0 cameras, 1 models, 0 assignments: valid\n"));

    // Nobody asks for it now: it needs nothing, and not less than that.
    let output = plan();
    assert!(stdout(&output).contains("  single      0.0   0.00"), "{}", stdout(&output));
    assert_eq!(read()["devices"][1]["models"][0]["fps"].to_string(), "0.0");
}

#[test]
fn a_model_with_runners_on_two_devices_uses_both() {
    let place = Place::new("");
    let dir = single(place.folder.path(), "single");
    let rows = [(&*dir, "device = \"cpu\""), (&*dir, "device = \"cpu1\"")];
    configure(&place, TWO, &rows, 25.0);
    let mut up = place.up_serving();
    let status = |body: &str| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        let runners = status["runners"].as_array().cloned().unwrap_or_default();
        let batches = |device: &str| {
            let runner = runners.iter().find(|r| r["device"] == device);
            runner.and_then(|r| r["batches"].as_u64()).unwrap_or_default()
        };
        batches("cpu") > 5 && batches("cpu1") > 5
    };
    place.get_until("/ai/observability/status", status);
    assert!(place.runtime().join("runner.single.cpu1.sock").exists());
    let models = place.get("/api/v1/ai-models");
    assert_eq!(models.matches("\"model_id\":\"single\"").count(), 1, "{models}");
    assert!(up.stop().success());
    let log = up.text();
    assert!(log.contains("runner single cpu1 | "), "{log}");
    assert!(!log.contains("is configured twice"), "{log}");
    place.assert_nothing_left();
}
