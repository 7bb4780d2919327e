//! Where pictures and clips lie, and in which order files and rows come and go.
//!
//! ```text
//! <state>/media/snapshots/<camera>/<id>.jpg
//! <state>/media/bookmarks/<camera>/<id>.mp4, <id>.jpg
//! ```
//!
//! A file is made as `new-<id>...`, then its row is written, then it takes its name. To delete it, it
//! is named `deleted-<id>...`, its row is deleted, then the file, whether a person or retention does it. After a crash the row decides:
//! [`Files::mend`] gives such a file its name when there is a row, and removes it when there is none.
//! Files with other names are never touched, so a lost registry loses no media.
//! Between row and name a file is found under both names, and whoever sees that the row is gone removes it.

use base::CameraId;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use store::control::{Bookmark, JobState, MediaId, Snapshot};
use store::{Control, StoreError};
use tracing::warn;

const NEW: &str = "new-";
const DELETED: &str = "deleted-";

/// Pictures or clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Snapshots,
    /// Clips and their thumbnails.
    Bookmarks,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Snapshots, Kind::Bookmarks];

    const fn folder(self) -> &'static str {
        match self {
            Kind::Snapshots => "snapshots",
            Kind::Bookmarks => "bookmarks",
        }
    }

    const fn extensions(self) -> &'static [&'static str] {
        match self {
            Kind::Snapshots => &["jpg"],
            Kind::Bookmarks => &["mp4", "jpg"],
        }
    }
}

/// Whose files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Pictures or clips.
    pub kind: Kind,
    /// The camera of the row.
    pub camera: CameraId,
    /// Its id.
    pub id: MediaId,
}

impl Owner {
    /// Of the picture of a row.
    pub fn of_snapshot(row: &Snapshot) -> Owner {
        Owner { kind: Kind::Snapshots, camera: row.camera.clone(), id: row.id.clone() }
    }

    /// Of the clip of a row.
    pub fn of_bookmark(row: &Bookmark) -> Owner {
        Owner { kind: Kind::Bookmarks, camera: row.camera.clone(), id: row.id.clone() }
    }
}

/// The files of snapshots and bookmarks.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Beneath `root`, which need not exist.
    pub fn new(root: PathBuf) -> Files {
        Files { root }
    }

    fn folder(&self, kind: Kind, camera: &CameraId) -> PathBuf {
        self.root.join(kind.folder()).join(camera.as_str())
    }

    /// The file of a row.
    pub fn path(&self, kind: Kind, camera: &CameraId, id: &MediaId, extension: &str) -> PathBuf {
        self.folder(kind, camera).join(format!("{id}.{extension}"))
    }

    /// The same while there is no row.
    pub fn new_path(
        &self,
        kind: Kind,
        camera: &CameraId,
        id: &MediaId,
        extension: &str,
    ) -> PathBuf {
        self.folder(kind, camera).join(format!("{NEW}{id}.{extension}"))
    }

    fn deleted_path(
        &self,
        kind: Kind,
        camera: &CameraId,
        id: &MediaId,
        extension: &str,
    ) -> PathBuf {
        self.folder(kind, camera).join(format!("{DELETED}{id}.{extension}"))
    }

    /// Makes the folder of a camera, mode 0700: what cameras see is nobody else's affair.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make_folder(&self, kind: Kind, camera: &CameraId) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.folder(kind, camera))
    }

    /// Brings a new file to the disk and gives its size.
    ///
    /// # Errors
    /// Those of the file system; an empty file is one.
    pub fn sync_new(
        &self,
        kind: Kind,
        camera: &CameraId,
        id: &MediaId,
        extension: &str,
    ) -> io::Result<u64> {
        let file = File::open(self.new_path(kind, camera, id, extension))?;
        file.sync_all()?;
        match file.metadata()?.len() {
            0 => Err(io::Error::other("the file is empty")),
            bytes => Ok(bytes),
        }
    }

    /// Gives a new file its name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn settle(
        &self,
        kind: Kind,
        camera: &CameraId,
        id: &MediaId,
        extension: &str,
    ) -> io::Result<()> {
        let new = self.new_path(kind, camera, id, extension);
        fs::rename(new, self.path(kind, camera, id, extension))?;
        File::open(self.folder(kind, camera))?.sync_all()
    }

    /// Opens the file of a row, whether it has its name already or not.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(
        &self,
        kind: Kind,
        camera: &CameraId,
        id: &MediaId,
        extension: &str,
    ) -> io::Result<File> {
        let path = self.path(kind, camera, id, extension);
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        match File::open(&path) {
            Err(error) if absent(&error) => {}
            opened => return opened,
        }
        match File::open(self.new_path(kind, camera, id, extension)) {
            // It may have got its name between the two.
            Err(error) if absent(&error) => File::open(path),
            opened => opened,
        }
    }

    /// Removes what was made and is not wanted.
    pub fn forget(&self, kind: Kind, camera: &CameraId, id: &MediaId) {
        for extension in kind.extensions() {
            remove(&self.new_path(kind, camera, id, extension));
        }
    }

    /// Removes all files of a row that is gone, whatever they are called.
    pub fn remove(&self, kind: Kind, camera: &CameraId, id: &MediaId) {
        self.forget(kind, camera, id);
        for extension in kind.extensions() {
            remove(&self.path(kind, camera, id, extension));
            remove(&self.deleted_path(kind, camera, id, extension));
        }
    }

    /// Deletes the files of some rows around `delete_rows`, which says of each whether its row is gone.
    /// Gives back how many bytes went. The files of rows that are still there keep their names.
    ///
    /// # Errors
    /// Those of `delete_rows`; all files are there then.
    pub fn delete<E>(
        &self,
        rows: &[Owner],
        delete_rows: impl FnOnce() -> Result<Vec<bool>, E>,
    ) -> Result<u64, E> {
        let names = |row: &Owner| {
            let pair = |extension: &&str| {
                let path = self.path(row.kind, &row.camera, &row.id, extension);
                (path, self.deleted_path(row.kind, &row.camera, &row.id, extension))
            };
            row.kind.extensions().iter().map(pair).collect::<Vec<_>>()
        };
        // A file that is not there needs no other name.
        for (path, deleted) in rows.iter().flat_map(names) {
            drop(fs::rename(path, deleted));
        }
        // Else a power cut could leave a file under its own name that no row knows.
        let folders: BTreeSet<_> =
            rows.iter().map(|row| self.folder(row.kind, &row.camera)).collect();
        for folder in folders {
            drop(File::open(folder).and_then(|folder| folder.sync_all()));
        }
        let result = delete_rows();
        let gone = result.as_deref().unwrap_or_default();
        let mut bytes = 0;
        for (at, row) in rows.iter().enumerate() {
            if gone.get(at).is_some_and(|gone| *gone) {
                bytes += self.bytes(row);
                // One that was just made may have got its name only now.
                self.remove(row.kind, &row.camera, &row.id);
            } else {
                for (path, deleted) in names(row) {
                    drop(fs::rename(deleted, path));
                }
            }
        }
        result.map(|_| bytes)
    }

    /// Bytes of the files of a row that have a name; what is being made is not counted.
    pub fn bytes(&self, Owner { kind, camera, id }: &Owner) -> u64 {
        let named = |extension: &&str| {
            [Files::path, Files::deleted_path]
                .map(|name| fs::metadata(name(self, *kind, camera, id, extension)))
        };
        let found = kind.extensions().iter().flat_map(named);
        found.filter_map(Result::ok).map(|told| told.len()).sum()
    }

    /// Bytes of all files, also of those that no row knows.
    pub fn bytes_of_all(&self) -> u64 {
        let files = Kind::ALL.into_iter().flat_map(|kind| self.each(kind));
        let told = files.filter_map(|entry| entry.metadata().ok());
        told.filter(fs::Metadata::is_file).map(|told| told.len()).sum()
    }

    /// Every entry of every camera's folder.
    fn each(&self, kind: Kind) -> impl Iterator<Item = DirEntry> {
        let cameras = fs::read_dir(self.root.join(kind.folder())).into_iter();
        let folders = cameras.flatten().flatten().map(|entry| entry.path());
        folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten()
    }

    /// Ends what a crash interrupted.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn mend(&self, control: &Control) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            for path in self.each(kind).map(|entry| entry.path()) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
                let rest = name.strip_prefix(NEW).or_else(|| name.strip_prefix(DELETED));
                let Some((id, _)) = rest.and_then(|rest| rest.split_once('.')) else { continue };
                let Ok(id) = id.parse::<MediaId>() else { continue };
                let wanted = match kind {
                    Kind::Snapshots => control.snapshot(&id)?.is_some(),
                    Kind::Bookmarks => {
                        control.bookmark(&id)?.is_some_and(|row| row.state == JobState::Done)
                    }
                };
                if !wanted {
                    remove(&path);
                } else if let Some(rest) = rest
                    && let Err(error) = fs::rename(&path, path.with_file_name(rest))
                {
                    warn!("can't rename {}: {error}", path.display());
                }
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("can't remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::UtcNanos;
    use store::control::Moment;

    fn snapshot(id: &MediaId) -> Snapshot {
        Snapshot {
            id: id.clone(),
            camera: "front".parse().unwrap(),
            timestamp: UtcNanos(1),
            source: Moment::Live,
            width: 1,
            height: 1,
            file_size: 1,
            protected: false,
            created_at: UtcNanos(0),
            updated_at: None,
        }
    }

    fn bookmark(id: &MediaId, state: JobState) -> Bookmark {
        Bookmark {
            id: id.clone(),
            camera: "front".parse().unwrap(),
            center: UtcNanos(2),
            start: UtcNanos(1),
            end: UtcNanos(3),
            label: None,
            source: Moment::Historical,
            state,
            file_size: 1,
            gaps_ms: 0,
            thumbnail: true,
            protected: false,
            created_at: UtcNanos(0),
            updated_at: None,
        }
    }

    #[test]
    fn a_file_is_found_and_deleted_while_it_gets_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().into());
        let (kind, camera) = (Kind::Bookmarks, "front".parse().unwrap());
        files.make_folder(kind, &camera).unwrap();
        let id = MediaId::random();
        let settle = || files.settle(kind, &camera, &id, "mp4");
        let made = || fs::write(files.new_path(kind, &camera, &id, "mp4"), "x").unwrap();
        let open = || files.open(kind, &camera, &id, "mp4");
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::NotFound);
        // One that can't be opened is not one that is missing.
        for path in
            [files.path(kind, &camera, &id, "mp4"), files.new_path(kind, &camera, &id, "mp4")]
        {
            std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
            assert_ne!(open().unwrap_err().kind(), io::ErrorKind::NotFound);
            fs::remove_file(&path).unwrap();
        }
        made();
        open().unwrap();
        settle().unwrap();
        open().unwrap();
        let owner = [Owner { kind, camera: camera.clone(), id: id.clone() }];
        let gone = || Ok::<_, io::Error>(vec![true]);
        assert_eq!(files.delete(&owner, gone).unwrap(), 1);
        for settles in [true, false] {
            made();
            let deleted = files.delete(&owner, || {
                if settles {
                    settle()?;
                }
                gone()
            });
            deleted.unwrap();
            let left = fs::read_dir(files.folder(kind, &camera)).unwrap().count();
            assert_eq!(left, 0, "settles: {settles}");
        }
    }

    #[test]
    fn only_files_of_rows_that_went_go_and_their_bytes_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path().into());
        let owner = |kind, camera: &str| {
            let owner = Owner { kind, camera: camera.parse().unwrap(), id: MediaId::random() };
            files.make_folder(kind, &owner.camera).unwrap();
            owner
        };
        let rows = [
            owner(Kind::Snapshots, "front"),
            owner(Kind::Bookmarks, "front"),
            owner(Kind::Bookmarks, "yard"),
        ];
        let path = |at: usize, extension| {
            let Owner { kind, camera, id } = &rows[at];
            files.path(*kind, camera, id, extension)
        };
        let all = [path(0, "jpg"), path(1, "mp4"), path(1, "jpg"), path(2, "mp4")];
        for (path, bytes) in all.iter().zip([3, 50, 7, 1000]) {
            fs::write(path, vec![b'x'; bytes]).unwrap();
        }
        fs::write(files.new_path(rows[2].kind, &rows[2].camera, &rows[2].id, "jpg"), "12").unwrap();
        assert_eq!(files.bytes_of_all(), 1062);
        let there = || all.iter().map(|path| path.exists()).collect::<Vec<_>>();
        // Nobody finds a file under its name while its row goes.
        let hidden = || assert_eq!(there(), [false; 4]);
        let failed = files.delete(&rows, || {
            hidden();
            Err(())
        });
        assert_eq!((failed, there()), (Err(()), vec![true; 4]));
        let deleted = files.delete(&rows, || Ok::<_, ()>(vec![false, true]));
        assert_eq!((deleted, there()), (Ok(57), vec![true, false, false, true]));
        assert_eq!(files.bytes_of_all(), 1005, "what is being made stays");
        assert_eq!(files.delete(&rows, || Ok::<_, ()>(vec![true, true, true])), Ok(1003));
        assert_eq!(files.bytes_of_all(), 0);
    }

    #[test]
    fn after_a_crash_at_any_point_the_row_decides() {
        let directory = tempfile::tempdir().unwrap();
        let control = Control::open(directory.path()).unwrap();
        let files = Files::new(directory.path().join("media"));
        let camera: CameraId = "front".parse().unwrap();
        for kind in [Kind::Snapshots, Kind::Bookmarks] {
            files.make_folder(kind, &camera).unwrap();
        }
        let ids: Vec<MediaId> = (0..6).map(|_| MediaId::random()).collect();
        control
            .write(|write| {
                write.put_snapshot(snapshot(&ids[0]))?;
                write.put_snapshot(snapshot(&ids[1]))?;
                write.put_bookmark(bookmark(&ids[3], JobState::Done))?;
                write.put_bookmark(bookmark(&ids[4], JobState::Failed("x".into())))?;
                Ok::<(), StoreError>(())
            })
            .unwrap();
        let (s, b) = (Kind::Snapshots, Kind::Bookmarks);
        let made = [
            (files.new_path(s, &camera, &ids[0], "jpg"), files.path(s, &camera, &ids[0], "jpg")),
            (
                files.deleted_path(s, &camera, &ids[1], "jpg"),
                files.path(s, &camera, &ids[1], "jpg"),
            ),
            (files.new_path(b, &camera, &ids[3], "mp4"), files.path(b, &camera, &ids[3], "mp4")),
        ];
        let unwanted = [
            files.new_path(s, &camera, &ids[2], "jpg"),
            files.deleted_path(s, &camera, &ids[5], "jpg"),
            files.new_path(b, &camera, &ids[4], "mp4"),
            files.new_path(b, &camera, &ids[5], "mp4"),
        ];
        // Without a row and with names of their own: people's files, or a lost registry.
        let others = [
            files.path(s, &camera, &ids[5], "jpg"),
            files.folder(s, &camera).join("new-holiday.jpg"),
        ];
        let (all, _): (Vec<_>, Vec<_>) = made.iter().cloned().unzip();
        for path in all.iter().chain(&unwanted).chain(&others) {
            fs::write(path, "x").unwrap();
        }
        for _ in 0..2 {
            files.mend(&control).unwrap();
            assert!(made.iter().all(|(from, to)| !from.exists() && to.exists()));
            assert!(unwanted.iter().all(|path| !path.exists()));
            assert!(others.iter().all(|path| path.exists()));
        }
    }
}
