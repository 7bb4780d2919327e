//! The calls by which recordings are written, recovered and read. They go straight to the file
//! system; in tests a [`Probe`] is asked before each, which counts, refuses, or ends the process
//! there.
//!
//! Whoever changes what lies in the recordings does so through here, so that a test can let each
//! call fail. Who only reads pictures opens segments by himself.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The names in a directory are listed.
    List,
    /// A file is opened.
    Open,
    /// The length of a file is asked for.
    Length,
    /// At most so many bytes are read.
    Read(usize),
    /// A directory is made.
    MakeDirectory,
    /// A file is made, or opened to be appended to.
    Create,
    /// So many bytes are written. When it is refused, half of them are, as on a full disk.
    Write(usize),
    /// A file is cut off.
    Cut,
    /// A file is synced.
    Sync,
    /// A directory is synced.
    SyncDirectory,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
}

/// Who hears of every call.
pub trait Probe: fmt::Debug + Send + Sync {
    /// Asked before a call.
    ///
    /// # Errors
    /// What the call then fails with.
    fn ask(&self, call: Call, path: &Path) -> io::Result<()>;

    /// Half of a refused write is on the disk.
    fn half_written(&self) {}
}

/// The file system below recordings.
#[derive(Debug, Clone, Default)]
pub struct Files {
    probe: Option<Arc<dyn Probe>>,
}

/// An open file of [`Files`].
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
    files: Files,
}

impl Files {
    /// With somebody who is asked before each call.
    pub fn probed(probe: Arc<dyn Probe>) -> Files {
        Files { probe: Some(probe) }
    }

    fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
        self.probe.as_ref().map_or(Ok(()), |probe| probe.ask(call, path))
    }

    /// The names in a directory, in no order; no directory is an empty one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.ask(Call::List, directory)?;
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            // What is not text is no name of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    /// Opens a file to read.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(&self, path: &Path) -> io::Result<OpenFile> {
        self.ask(Call::Open, path)?;
        Ok(self.opened(File::open(path)?, path))
    }

    /// Opens a file to read it and to append to it, and makes it when it is missing; with `new`, it
    /// must be missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&self, path: &Path, new: bool) -> io::Result<OpenFile> {
        self.ask(Call::Create, path)?;
        let mut options = OpenOptions::new();
        // Appending: what is cut off leaves no hole.
        options.read(true).append(true).mode(0o640);
        if new {
            options.create_new(true)
        } else {
            options.create(true)
        };
        Ok(self.opened(options.open(path)?, path))
    }

    fn opened(&self, file: File, path: &Path) -> OpenFile {
        OpenFile { file, path: path.to_owned(), files: self.clone() }
    }

    /// Makes a directory, and those above it that are missing. Where one was made, the one above is
    /// synced: it is there after a loss of power.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make_directories(&self, path: &Path) -> io::Result<()> {
        let make = || -> io::Result<()> {
            self.ask(Call::MakeDirectory, path)?;
            DirBuilder::new().mode(0o750).create(path)
        };
        let parent = path.parent().unwrap_or(path);
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && parent != path => {
                self.make_directories(parent)?;
                make()?;
            }
            made => made?,
        }
        self.sync_directory(parent)
    }

    /// The names in a directory are on the disk when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(Call::SyncDirectory, path)?;
        names_synced(File::open(path)?.sync_all())
    }

    /// Length of a file; an error when it is something else.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn length(&self, path: &Path) -> io::Result<u64> {
        self.ask(Call::Length, path)?;
        let told = fs::metadata(path)?;
        if told.is_file() { Ok(told.len()) } else { Err(io::ErrorKind::IsADirectory.into()) }
    }

    /// Writes over the beginning of a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.ask(Call::Write(bytes.len()), path)?;
        OpenOptions::new().write(true).open(path)?.write_all_at(bytes, 0)
    }

    /// Gives a file another name, in place of a file that has it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Call::Rename, from)?;
        fs::rename(from, to)
    }

    /// Removes a file; one that is not there is removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Call::Remove, path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl OpenFile {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn length(&self) -> io::Result<u64> {
        self.files.ask(Call::Length, &self.path)?;
        Ok(self.file.metadata()?.len())
    }

    /// Appends all of `bytes`, or a part and fails.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        use io::Write;
        if let Err(error) = self.files.ask(Call::Write(bytes.len()), &self.path) {
            (&self.file).write_all(&bytes[..bytes.len() / 2])?;
            if let Some(probe) = &self.files.probe {
                probe.half_written();
            }
            return Err(error);
        }
        (&self.file).write_all(bytes)
    }

    /// Cuts off what is behind `length`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        self.files.ask(Call::Cut, &self.path)?;
        self.file.set_len(length)
    }

    /// What was written is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.files.ask(Call::Sync, &self.path)?;
        self.file.sync_data()
    }
}

impl FileExt for OpenFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.files.ask(Call::Read(bytes.len()), &self.path)?;
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        // Recordings are appended to.
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A file system that can't sync directories keeps names in its own way.
fn names_synced(synced: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    match synced {
        Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Whether an error is about this file, so that another one may be read. Those of the process, as
/// too many open files, and a lack of room say nothing of it.
pub(super) fn of_the_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of_the_process =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN, Errno::NOSPC]
            .map(Errno::raw_os_error);
    error.raw_os_error().is_none_or(|code| !of_the_process.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    /// Refuses the next call of this kind, and remembers all.
    #[derive(Debug, Default)]
    struct Refuses {
        next: Mutex<Option<Call>>,
        calls: Mutex<Vec<(Call, PathBuf)>>,
    }

    impl Probe for Refuses {
        fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
            self.calls.lock().unwrap().push((call, path.to_owned()));
            let refused = self.next.lock().unwrap().take_if(|next| *next == call);
            refused.map_or(Ok(()), |_| Err(rustix::io::Errno::IO.into()))
        }
    }

    fn place() -> (tempfile::TempDir, Arc<Refuses>, Files) {
        let probe: Arc<Refuses> = Arc::default();
        let files = Files::probed(Arc::clone(&probe) as Arc<dyn Probe>);
        (tempfile::tempdir().unwrap(), probe, files)
    }

    #[test]
    fn directories_are_made_with_those_above_them_and_their_names_are_synced() {
        let (root, probe, files) = place();
        let at = |name: &str| root.path().join(name);
        files.make_directories(&at("a/b/c")).unwrap();
        let calls = std::mem::take(&mut *probe.calls.lock().unwrap());
        let synced = calls.into_iter().filter(|(call, _)| *call == Call::SyncDirectory);
        let synced: Vec<_> = synced.map(|(_, path)| path).collect();
        assert_eq!(synced, [root.path().to_owned(), at("a"), at("a/b")]);
        assert_eq!(at("a/b/c").metadata().unwrap().permissions().mode() & 0o7777, 0o750);
        files.make_directories(&at("a/b/c")).unwrap();
        *probe.next.lock().unwrap() = Some(Call::MakeDirectory);
        assert!(files.make_directories(&at("d/e")).is_err() && !at("d").exists());
        std::fs::write(at("file"), "").unwrap();
        assert!(files.make_directories(&at("file/below")).is_err());
    }

    #[test]
    fn what_is_not_there_is_no_error_and_what_can_not_be_done_is() {
        let (root, _, files) = place();
        let file = root.path().join("file");
        assert_eq!(files.list(&file).unwrap(), [""; 0]);
        files.remove(&file).unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(files.list(&file).is_err() && files.remove(root.path()).is_err());
        files.sync_directory(root.path()).unwrap();
        assert!(files.sync_directory(&root.path().join("missing")).is_err());
        for kind in [io::ErrorKind::InvalidInput, io::ErrorKind::Unsupported] {
            names_synced(Err(kind.into())).unwrap();
        }
        assert!(names_synced(Err(rustix::io::Errno::IO.into())).is_err());
    }

    #[test]
    fn a_refused_write_is_on_the_disk_by_half_and_a_refused_sync_is_told() {
        let (root, probe, files) = place();
        let path = root.path().join("file");
        let file = files.append(&path, true).unwrap();
        file.write(&[1; 10]).unwrap();
        *probe.next.lock().unwrap() = Some(Call::Write(10));
        assert!(file.write(&[2; 10]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), [[1; 5], [1; 5], [2; 5]].concat());
        *probe.next.lock().unwrap() = Some(Call::Sync);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let over = file.write_at(&[3], 0).unwrap_err();
        assert_eq!(over.kind(), io::ErrorKind::Unsupported, "they are appended to");
    }
}
