//! Where a camera's video comes from, as text: `file:` URLs and plain paths.

use std::path::{Path, PathBuf};

/// Turns what a person wrote into the URL that the other processes read: `file:///...` for a path
/// or a file URL; a relative path is beneath `directory`.
pub(super) fn parse(text: &str, directory: &Path) -> Result<String, String> {
    let path = match text.split_once(':') {
        Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, _)) if is_scheme(scheme) => {
            return Err(format!(
                "scheme `{scheme}` is not supported; cameras are video files so far: write a path or \
                 file:///path"
            ));
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

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The path of a file URL.
pub(super) fn file_of(url: &str) -> Option<PathBuf> {
    url.strip_prefix("file://").map(PathBuf::from)
}
