use super::*;
use base::model::{Finds, Synthetic, SyntheticFault, SyntheticFaultKind};
use std::fs;

const GOOD: &str = include_str!("../../../models/nanodet_g_416/model.yaml");

/// A folder with a small valid ONNX graph, labels and this `model.yaml`.
fn folder(yaml: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), yaml).unwrap();
    fs::write(dir.path().join("labels.txt"), "person\nbicycle\n").unwrap();
    // ModelProto { ir_version: 8, graph: GraphProto { name: "g" } }
    fs::write(dir.path().join("nanodet_g_416_f16w.onnx"), b"\x08\x08\x3a\x03\x12\x01g").unwrap();
    dir
}

fn problems(yaml: &str) -> Vec<String> {
    match load(folder(yaml).path()) {
        Err(ModelError::InvalidModelYaml { problems, .. }) => {
            problems.iter().map(Problem::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The good file with one replacement; the text to replace has to be there.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// Line of the good file that starts with this.
fn line_of(start: &str) -> usize {
    GOOD.lines().position(|l| l.trim_start().starts_with(start)).unwrap() + 1
}

#[test]
fn the_shipped_model_is_read_in_full() {
    let dir = folder(GOOD);
    let spec = load(dir.path()).unwrap();
    assert_eq!(spec.model_id.as_str(), "nanodet_g_416");
    assert_eq!(spec.input.size, Size { width: 416, height: 416 });
    assert_eq!(spec.input.colour, ColourOrder::Bgr);
    assert_eq!(spec.input.resize, Resize::Letterbox { pad: 114 });
    assert_eq!(spec.input.mean, [103.53, 116.28, 123.675]);
    let (scores, boxes) = ("scores".to_owned(), "boxes".to_owned());
    assert_eq!(spec.decoder, Decoder::BoxesScores { scores, boxes });
    assert_eq!(spec.labels, ["person", "bicycle"]);
    assert_eq!((spec.confidence_threshold, spec.nms_iou_threshold), (0.4, 0.6));
    assert_eq!((spec.batch_max, spec.deadline), (16, Duration::from_millis(500)));
    assert!(spec.weights.is_absolute() && spec.weights.ends_with("nanodet_g_416_f16w.onnx"));
    let schema: serde_json::Value = serde_json::from_str(&spec.config_schema.unwrap()).unwrap();
    assert_eq!(schema["properties"]["classes"]["items"]["type"], "string");
}

#[test]
fn an_unknown_key_has_its_line_and_a_suggestion() {
    let found = problems(&with("confidence_threshold: 0.4", "confidence_treshold: 0.4"));
    let line = line_of("confidence_threshold: 0.4");
    assert_eq!(
        found,
        [format!(
            "line {line}: unknown key `confidence_treshold`; did you mean `confidence_threshold`?"
        )]
    );
    let found = problems(&with("  pad: 114", "  padding_value: 114"));
    assert!(found[0].starts_with(&format!("line {}: unknown key `input.pad", line_of("pad:"))));
    assert!(found[0].contains("known here: tensor, layout"), "{found:?}");
    assert!(problems(&format!("{GOOD}\nmodell_id: x\n"))[0].contains("did you mean `model_id`?"));
}

#[test]
fn every_problem_is_told_at_once() {
    let yaml = with("deadline_ms: 500", "deadline_ms: 0")
        .replace("model_name: NanoDet-g 416 (COCO)\n", "")
        .replace("colour: bgr", "colour: yuv");
    let found = problems(&yaml);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("key `model_name` is missing"));
    assert!(found[1].contains("key `deadline_ms` is 0: has to be whole milliseconds"));
    assert!(found[2].contains("key `input.colour` is `yuv`: has to be `rgb` or `bgr`"));
}

#[test]
fn impossible_values_name_key_value_and_rule() {
    for (from, to, expected) in [
        ("nanodet_g_416\n", "nano/det\n", "`model_id` is `nano/det`: 1 to 64 characters"),
        ("\"1.0.0\"", "1.0", "`model_version` is 1: has to be text (put numbers in quotes)"),
        ("model_type: onnx", "model_type: pytorch", "`model_type` is `pytorch`"),
        ("[416, 416]", "[416]", "`expected_resolution` is a list of 1"),
        ("[416, 416]", "[0, 416]", "`expected_resolution`"),
        ("input_format: NV12", "input_format: RGB", "`input_format` is `RGB`"),
        ("layout: nchw", "layout: chw", "`input.layout` is `chw`"),
        ("dtype: f32", "dtype: f64", "`input.dtype` is `f64`"),
        ("dtype: f32", "dtype: u8", "`input.mean` is a list of 3: must not be given with"),
        ("pad: 114", "pad: 300", "`input.pad` is 300"),
        ("resize: letterbox", "resize: crop", "`input.pad` is 114"),
        ("mean: [103.53,", "mean: [", "`input.mean` is a list of 2"),
        ("std: [57.375,", "std: [0,", "`input.std` is a list of 3: has to be three numbers above"),
        ("boxes_scores", "yolo", "`output.decoder` is `yolo`"),
        ("confidence_threshold: 0.4", "confidence_threshold: 40", "`confidence_threshold` is 40"),
        ("nms_iou_threshold: 0.6", "nms_iou_threshold: .nan", "non-finite float `.nan`"),
        ("batch_max: 16", "batch_max: 0", "`batch_max` is 0"),
        ("batch_max: 16", "batch_max: 1000", "`batch_max` is 1000"),
        ("gpu_required: false", "gpu_required: true", "`resource_requirements.cpu_fallback"),
        ("labels.txt", "names.txt", "file `names.txt` is not in the model's folder"),
        ("labels.txt", "../labels.txt", "holds `..`"),
        ("labels.txt", "/etc/passwd", "lies outside"),
        ("  type: object", "  type: array", "`config_schema` is a map: has to be a JSON Schema"),
        ("[object_detection]", "object_detection", "`supported_tasks` is `object_detection`"),
    ] {
        let found = problems(&with(from, to));
        assert!(found.iter().any(|p| p.contains(expected)), "{to}: {found:?}");
        assert!(found.iter().all(|p| p.starts_with("line ")), "{to}: {found:?}");
    }
}

#[test]
fn what_is_not_yaml_or_not_a_map_is_one_problem() {
    for yaml in ["model_id: [", "- a\n- b\n", "", "a: 1\na: 2\n", "\t\tx: {"] {
        let found = problems(yaml);
        assert!(!found.is_empty(), "{yaml:?}");
    }
    assert!(problems("a: 1\na: 2\n")[0].starts_with("line 2: not valid YAML"));
}

#[test]
fn a_missing_file_and_missing_weights_are_told_apart() {
    let empty = tempfile::tempdir().unwrap();
    let error = load(empty.path()).unwrap_err();
    assert_eq!(error.reason(), "missing_model_yaml");
    assert!(error.to_string().contains("give the folder that holds one"), "{error}");
    let dir = folder(GOOD);
    let weights = dir.path().join("nanodet_g_416_f16w.onnx");
    fs::remove_file(&weights).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert_eq!(error.reason(), "invalid_weights");
    assert!(error.to_string().contains("is not in the model's folder"), "{error}");
    fs::write(&weights, b"garbage").unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("not an ONNX file, or damaged"), "{error}");
    assert!(error.contains("rebuild.py"), "{error}");
    assert!(!error.contains('\n'));
    assert_eq!(load(&dir.path().join("nowhere")).unwrap_err().reason(), "missing_model_yaml");
}

#[test]
fn weights_and_their_external_data_stay_in_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("w.onnx"), b"\x08\x08\x3a\x03\x12\x01g").unwrap();
    let refused = |dir: &Path| load(dir).unwrap_err().to_string();

    let absolute = outside.path().join("w.onnx");
    let dir = folder(&with("nanodet_g_416_f16w.onnx", absolute.to_str().unwrap()));
    assert!(refused(dir.path()).contains("lies outside"));
    let dir = folder(&with("nanodet_g_416_f16w.onnx", "../w.onnx"));
    assert!(refused(dir.path()).contains("holds `..`"));
    let dir = folder(GOOD);
    let weights = dir.path().join("nanodet_g_416_f16w.onnx");
    fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink(&absolute, &weights).unwrap();
    assert!(refused(dir.path()).contains("is a link that leaves"));

    // An initializer whose data lies in another file.
    let model = |location: &str| {
        let field = |n: u8, body: &[u8]| [&[n << 3 | 2, body.len() as u8], body].concat();
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        [&[8, 8], &field(7, &field(5, &field(13, &entry)))[..]].concat()
    };
    let dir = folder(GOOD);
    let weights = dir.path().join("nanodet_g_416_f16w.onnx");
    fs::write(&weights, model("../secret.bin")).unwrap();
    assert!(refused(dir.path()).contains("external data"));
    fs::write(&weights, model("w.bin")).unwrap();
    assert!(refused(dir.path()).contains("file `w.bin` is not in"));
    fs::write(dir.path().join("w.bin"), b"x").unwrap();
    load(dir.path()).unwrap();
}

const SYNTHETIC: &str = "model_id: waits
model_name: Waits
model_version: \"1\"
model_type: synthetic
expected_resolution: [64, 32]
batch_max: 8
synthetic:
  alpha_ms: 2.5
  beta_ms: 0.8
  noise: 0.05
  gpu: true
  finds: moving
  faults:
    - {fault: slower, factor: 3, from_s: 60, for_s: 60, every_s: 120}
    - {fault: errors, share: 0.25, for_s: 10}
    - {fault: hang, from_s: 600, for_s: 1}
    - {fault: panic, from_s: 1.5, for_s: 0.5}
";

#[test]
fn a_synthetic_model_needs_nothing_but_its_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), SYNTHETIC).unwrap();
    let spec = load(dir.path()).unwrap();
    assert_eq!(spec.weights, dir.path().canonicalize().unwrap().join(FILE_NAME));
    assert_eq!((spec.labels.as_slice(), spec.batch_max), (&["object".to_owned()][..], 8));
    assert!(spec.has_gpu_engine());
    let Backend::Synthetic(found) = spec.backend else { panic!("{:?}", spec.backend) };
    let s = Duration::from_secs_f64;
    let fault = |kind, from, lasts, every: Option<f64>| SyntheticFault {
        kind,
        from: s(from),
        lasts: s(lasts),
        every: every.map(s),
    };
    let faults = vec![
        fault(SyntheticFaultKind::Slower(3.0), 60.0, 60.0, Some(120.0)),
        fault(SyntheticFaultKind::Errors(0.25), 0.0, 10.0, None),
        fault(SyntheticFaultKind::Hang, 600.0, 1.0, None),
        fault(SyntheticFaultKind::Panic, 1.5, 0.5, None),
    ];
    let (alpha, beta) = (s(0.0025), s(0.0008));
    let wanted = Synthetic { alpha, beta, noise: 0.05, gpu: true, finds: Finds::Moving, faults };
    assert_eq!(found, wanted);
    // It may name classes all the same, and say less.
    fs::write(dir.path().join("labels.txt"), "person\nbicycle\n").unwrap();
    let least = SYNTHETIC.split("  noise").next().unwrap().to_owned() + "class_names: labels.txt\n";
    fs::write(dir.path().join(FILE_NAME), least).unwrap();
    let spec = load(dir.path()).unwrap();
    assert_eq!(spec.labels, ["person", "bicycle"]);
    assert!(!spec.has_gpu_engine());
}

#[test]
fn a_synthetic_model_that_makes_no_sense_is_refused_by_key() {
    for (from, to, expected) in [
        ("alpha_ms: 2.5", "alpha_ms: -1", "`synthetic.alpha_ms` is -1"),
        ("  beta_ms: 0.8\n", "", "`synthetic.beta_ms` is missing"),
        ("noise: 0.05", "noise: 5", "`synthetic.noise` is 5"),
        ("finds: moving", "finds: people", "`synthetic.finds` is `people`"),
        ("fault: slower", "fault: slow", "`synthetic.faults[0].fault` is `slow`"),
        ("factor: 3, ", "", "`synthetic.faults[0].factor` is missing"),
        ("share: 0.25", "factor: 0.25", "unknown key `synthetic.faults[1].factor`"),
        ("every_s: 120", "every_s: 30", "`synthetic.faults[0].every_s` is 30: has to be seconds"),
        ("{fault: hang, from_s: 600, for_s: 1}", "hang", "`synthetic.faults` is a list of 4"),
        ("batch_max: 8", "batch_max: 8\nmodel_weights: w.onnx", "unknown key `model_weights`"),
    ] {
        assert!(SYNTHETIC.contains(from), "{from}");
        let found = problems(&SYNTHETIC.replacen(from, to, 1));
        assert!(found.iter().any(|p| p.contains(expected)), "{to}: {found:?}");
        assert!(found.iter().all(|p| p.starts_with("line ")), "{to}: {found:?}");
    }
    let found = problems(&with("model_type: onnx", "model_type: synthetic"));
    assert!(found.iter().any(|p| p.contains("`synthetic` is missing")), "{found:?}");
}
