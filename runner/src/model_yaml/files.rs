//! Files that a `model.yaml` names: they lie beneath the model's folder, whatever the text says.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Why a named file is not usable. The text names the file, not the key.
#[derive(Debug)]
pub enum FileProblem {
    /// Outside the folder.
    Outside(String),
    /// Not there or not readable.
    Unreadable(String),
}

impl FileProblem {
    /// The text.
    pub fn into_text(self) -> String {
        match self {
            FileProblem::Outside(text) | FileProblem::Unreadable(text) => text,
        }
    }
}

/// The regular file that `name` means, symlinks resolved, beneath `folder`.
pub fn beneath(folder: &Path, name: &str) -> Result<PathBuf, FileProblem> {
    let path = Path::new(name);
    let outside = |why: &str| {
        let folder = folder.display();
        FileProblem::Outside(format!(
            "`{name}` {why} the model's folder {folder}; put the file into the folder"
        ))
    };
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(outside("holds `..` and could leave"));
    }
    let unreadable = |error: io::Error| {
        FileProblem::Unreadable(match error.kind() {
            io::ErrorKind::NotFound => {
                format!("file `{name}` is not in the model's folder {}", folder.display())
            }
            _ => format!("file {}: {error}", folder.join(path).display()),
        })
    };
    let root = folder.canonicalize().map_err(unreadable)?;
    if path.is_absolute() && !path.starts_with(&root) && !path.starts_with(folder) {
        return Err(outside("lies outside"));
    }
    let resolved = root.join(path).canonicalize().map_err(unreadable)?;
    if !resolved.starts_with(&root) {
        return Err(outside("is a link that leaves"));
    }
    if !resolved.metadata().map_err(unreadable)?.is_file() {
        return Err(FileProblem::Unreadable(format!("`{name}` is not a regular file")));
    }
    Ok(resolved)
}
