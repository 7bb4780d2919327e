//! Where a camera's video comes from, as text: `rtsp:` and `file:` URLs and plain paths.

use std::path::{Path, PathBuf};

/// Turns what a person wrote into the URL that the other processes read: `rtsp://...` as it is,
/// `file:///...` for a path or a file URL; a relative path is beneath `directory`.
pub(super) fn parse(text: &str, directory: &Path) -> Result<String, String> {
    let path = match text.split_once(':') {
        Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, _)) if is_scheme(scheme) => {
            return api::camera_url::check(text).map(|()| text.to_owned());
        }
        _ => text,
    };
    if path.is_empty() {
        return Err("names no file".to_owned());
    }
    if path.contains('\0') {
        return Err("has a zero byte".to_owned());
    }
    let absolute = directory.join(path);
    match absolute.to_str() {
        Some(path) => Ok(format!("file://{path}")),
        None => Err(format!("directory {} is not UTF-8", directory.display())),
    }
}

/// The same text as messages and `vas config show` may print it: without credentials.
pub(super) fn shown(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme, _)) if scheme != "file" && is_scheme(scheme) => {
            api::camera_url::without_credentials(text)
        }
        _ => text.to_owned(),
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The path of a file URL.
pub(super) fn file_of(url: &str) -> Option<PathBuf> {
    url.strip_prefix("file://").map(PathBuf::from)
}
