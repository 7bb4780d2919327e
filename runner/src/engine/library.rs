//! Where ONNX Runtime is, from any working directory: configuration, ORT_DYLIB_PATH, cache folder.
//!
//! The library is loaded once per process. `ort` panics when it has to find a missing library by
//! itself, so nothing here touches it before the file is known to load.

use super::{EngineError, one_line};
use crate::options::EngineOptions;
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Variable that names the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Folder of the cache that holds one folder per version, as set-up leaves them.
pub const CACHE_FOLDER: &str = "onnxruntime";

const REMEDY: &str =
    "run hack/setup, or name the library in the configuration or in ORT_DYLIB_PATH";

/// The loaded library.
#[derive(Clone)]
pub(super) struct Library {
    pub environment: Environment,
    pub version: String,
}

/// The library of this process; the first successful call decides which.
pub(super) fn load(options: &EngineOptions) -> Result<Library, EngineError> {
    static LOADED: Mutex<Option<Library>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*loaded {
        return Ok(library.clone());
    }
    let variable = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = find(options.onnxruntime.as_deref(), variable.as_deref(), &options.cache_dir)
        .map_err(EngineError::Library)?;
    let refused = |why: String| {
        let why = one_line(&why);
        EngineError::Library(format!("ONNX Runtime at {}: {why}; {REMEDY}", path.display()))
    };
    let logger = Arc::new(|level: LogLevel, category: &str, _: &str, _: &str, message: &str| {
        tracing::debug!(target: "onnxruntime", ?level, category, message);
    });
    let environment = ort::init_from(&path)
        .map_err(|e| refused(e.to_string()))?
        .with_name("vas")
        .with_telemetry(false)
        .with_logger(logger)
        .build()
        .map_err(|e| refused(e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    let library = Library { environment, version: version(&path) };
    tracing::info!(path = %path.display(), version = library.version, "ONNX Runtime loaded");
    Ok(loaded.insert(library).clone())
}

/// The version that the name of the file ends with, else that of its folder, else the name.
fn version(path: &Path) -> String {
    let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some((_, version)) = name.split_once(".so.") {
        return version.to_owned();
    }
    let folder = path.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    folder.filter(|f| digits(f)).unwrap_or(name)
}

/// The library file, links resolved, or one line that says what was looked for.
fn find(
    configured: Option<&Path>,
    variable: Option<&Path>,
    cache_dir: &Path,
) -> Result<PathBuf, String> {
    // What a person named must be right: nothing else is tried.
    let named = [("the configured onnxruntime", configured), (VARIABLE, variable)];
    for (what, path) in named {
        let Some(path) = path else { continue };
        return in_place(path).ok_or_else(|| {
            format!(
                "ONNX Runtime not found: {what} is {}, where no libonnxruntime.so is; {REMEDY}",
                path.display()
            )
        });
    }
    let cache = cache_dir.join(CACHE_FOLDER);
    let mut versions: Vec<(Vec<u64>, PathBuf)> = std::fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let numbers: Result<Vec<u64>, _> = name.split('.').map(str::parse).collect();
            Some((numbers.ok()?, in_place(&entry.path())?))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path).or_else(|| in_place(&cache)).ok_or_else(|| {
        format!(
            "ONNX Runtime not found: no onnxruntime is configured, {VARIABLE} is not set, and no \
             libonnxruntime.so lies beneath {}; {REMEDY}",
            cache.display()
        )
    })
}

/// `path` when it is a file, else the library in the folder `path`.
fn in_place(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    if path.is_file() {
        return Some(path);
    }
    let mut names: Vec<PathBuf> = std::fs::read_dir(&path)
        .ok()?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("libonnxruntime.so"))
        .filter_map(|e| e.path().canonicalize().ok())
        .filter(|p| p.is_file())
        .collect();
    names.sort();
    names.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_version_of_the_cache_is_taken() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["1.9.0", "1.31.1", "1.24.0", "notes", "1.40.0"] {
            fs::create_dir_all(cache.path().join(CACHE_FOLDER).join(name)).unwrap();
        }
        for version in ["1.9.0", "1.31.1", "1.24.0"] {
            let name = format!("libonnxruntime.so.{version}");
            fs::write(cache.path().join(CACHE_FOLDER).join(version).join(name), "").unwrap();
        }
        // 1.40.0 holds no library.
        let found = find(None, None, cache.path()).unwrap();
        assert!(found.ends_with("onnxruntime/1.31.1/libonnxruntime.so.1.31.1"), "{found:?}");
        assert_eq!(version(&found), "1.31.1");
        let folder = cache.path().join(CACHE_FOLDER).join("1.9.0");
        let found = find(None, Some(&folder), cache.path()).unwrap();
        assert_eq!(version(&found), "1.9.0");
        let found = find(Some(&found), Some(Path::new("/nowhere")), cache.path()).unwrap();
        assert_eq!(version(&found), "1.9.0");
    }

    #[test]
    fn what_is_missing_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let error = find(None, None, cache.path()).unwrap_err();
        assert!(error.contains(VARIABLE) && error.contains("hack/setup"), "{error}");
        assert!(error.contains(&cache.path().join(CACHE_FOLDER).display().to_string()), "{error}");
        let error = find(None, Some(Path::new("/nowhere/lib.so")), cache.path()).unwrap_err();
        assert!(error.contains("ORT_DYLIB_PATH is /nowhere/lib.so"), "{error}");
    }
}
