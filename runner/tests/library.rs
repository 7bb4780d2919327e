//! ONNX Runtime that is missing or is something else: one clear line, no panic, and a later attempt
//! with the right one works. Alone in its process, since a process loads the library once.
#![allow(clippy::unwrap_used)]

use runner::{EngineError, EngineOptions, default_cache_dir, engine, model_check, model_yaml};
use std::path::{Path, PathBuf};

fn options(onnxruntime: Option<PathBuf>) -> EngineOptions {
    let cache_dir = default_cache_dir().expect("HOME is set");
    EngineOptions { onnxruntime, cache_dir, threads: 1 }
}

#[test]
fn a_wrong_library_is_one_line_and_the_right_one_still_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nanodet_g_416");
    let spec = model_yaml::load(&folder).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("libonnxruntime.so");
    std::fs::write(&text, "not a library").unwrap();
    for (path, expected) in [
        (dir.path().join("nowhere.so"), "the configured onnxruntime is"),
        (text.clone(), "ONNX Runtime at"),
        (dir.path().to_owned(), "ONNX Runtime at"),
        // A library, but not this one.
        (PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), "ONNX Runtime"),
    ] {
        let error = match engine::load(&spec, &options(Some(path.clone()))) {
            Err(error @ EngineError::Library(_)) => error.to_string(),
            Err(other) => panic!("{path:?}: {other}"),
            Ok(_) => panic!("{path:?} was loaded"),
        };
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(error.contains("hack/setup"), "{error}");
        let report = model_check(&folder, &options(Some(path)));
        assert_eq!(report.problems, [error]);
    }
    engine::load(&spec, &options(None)).unwrap();
}
