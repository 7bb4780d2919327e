//! The file behind an open database, and whether its name still leads to it.
//!
//! Somebody may delete a file, put another one in its place, move its directory away or cut it short
//! while it is open. What is written then is found by nobody after a restart. Nothing here repairs:
//! [`Database`](crate::database::Database) asks before and after it writes, and decides.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A second descriptor of an open file: as long as it is there, no other file gets its number.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    device: u64,
    inode: u64,
    /// Its length when we last wrote it.
    bytes: AtomicU64,
    /// It was cut, and grew again perhaps: what it holds is worth nothing.
    spoiled: AtomicBool,
}

/// Where an open file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under its name.
    Here,
    /// The name leads nowhere or to another file.
    Lost,
    /// Under its name and shorter than it was left.
    Cut {
        /// Its length.
        bytes: u64,
        /// Its length when we last wrote it.
        left: u64,
    },
    /// It was cut, and the name leads to another file, or nowhere: it is to be closed.
    Worthless,
}

impl Held {
    /// Holds a file. One that is locked is to be held through the same opening: what a second one
    /// locks is refused.
    pub(crate) fn new(file: File) -> io::Result<Held> {
        let told = file.metadata()?;
        let (device, inode) = (told.dev(), told.ino());
        let (bytes, spoiled) = (AtomicU64::new(told.len()), AtomicBool::new(false));
        Ok(Held { file, device, inode, bytes, spoiled })
    }

    /// Asks the file system where the file is. Costs one `stat`.
    pub(crate) fn place(&self, path: &Path) -> io::Result<Place> {
        let spoiled = self.spoiled.load(Ordering::Acquire);
        let lost = if spoiled { Place::Worthless } else { Place::Lost };
        let told = match fs::metadata(path) {
            Ok(told) => told,
            Err(error) if absent(&error) => return Ok(lost),
            Err(error) => return Err(error),
        };
        let (bytes, left) = (told.len(), self.bytes.load(Ordering::Acquire));
        Ok(match (told.dev(), told.ino()) == (self.device, self.inode) {
            false => lost,
            true if spoiled || bytes < left => Place::Cut { bytes, left },
            true => Place::Here,
        })
    }

    /// It was cut while nobody of us wrote it.
    pub(crate) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Release);
    }

    /// Takes the length that the file has now for the one we left.
    pub(crate) fn note_length(&self) {
        if let Ok(told) = self.file.metadata() {
            self.bytes.store(told.len(), Ordering::Release);
        }
    }

    /// Copies what the file holds, durably, into a new one, whose directory is made when it is
    /// missing. Nobody may write the file meanwhile.
    pub(crate) fn copy_to(&self, path: &Path) -> io::Result<()> {
        make_directory_of(path)?;
        remove(path)?;
        let mut copy = new_file(path)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        io::copy(&mut file, &mut copy)?;
        copy.sync_all()
    }
}

/// An empty file that nobody else may read: rows hold camera addresses with passwords.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the directory that a file lies in, with those above it.
pub(crate) fn make_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames what lies at `path`, file or directory, to `<name>.redb.<word>` or, when that is taken,
/// `<name>.redb.<word>.<n>`. Gives the new name; `None` when nothing is there.
pub(crate) fn set_aside(path: &Path, word: &str) -> io::Result<Option<PathBuf>> {
    let mut to = path.with_extension(format!("redb.{word}"));
    for n in 1.. {
        match fs::symlink_metadata(&to) {
            Err(error) if absent(&error) => break,
            Err(error) => return Err(error),
            Ok(_) => to = path.with_extension(format!("redb.{word}.{n}")),
        }
    }
    match fs::rename(path, &to) {
        Ok(()) => Ok(Some(to)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is nothing at a path: also when what should be a directory is none.
pub(crate) fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_removed_or_renamed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        remove(&at("missing")).unwrap();
        assert_eq!(set_aside(&at("missing.redb"), "damaged").unwrap(), None);
        fs::write(at("file"), "").unwrap();
        assert_eq!(set_aside(&at("file/below.redb"), "damaged").unwrap(), None);
        assert!(remove(directory.path()).is_err(), "no file");
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        assert!(set_aside(&at("loop/a.redb"), "damaged").is_err());
        // It is there, and nobody may give it another name, root included.
        assert!(set_aside(Path::new("/sys/kernel"), "damaged").is_err());
        fs::create_dir(at("b.redb")).unwrap();
        assert_eq!(set_aside(&at("b.redb"), "damaged").unwrap(), Some(at("b.redb.damaged")));
    }

    #[test]
    fn a_copy_is_whole_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [7; 100_000]).unwrap();
        let held = Held::new(File::open(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        // One that failed half way may have been before it.
        for name in ["a", "made/b", "a"] {
            let copy = directory.path().join(name);
            held.copy_to(&copy).unwrap();
            assert_eq!(fs::read(copy).unwrap(), [7; 100_000]);
        }
    }
}
