//! Snapshots and bookmarks: pictures and clips that people took of a camera. Rows only; the files
//! are their owner's. Rows outlive their camera.

use super::row::{Row, json_from_bytes, json_to_bytes};
use super::transaction::{row, unreadable};
use super::{Control, ControlRead, ControlWrite};
use crate::error::{Fault, StoreError};
use crate::record::RecordError;
use crate::tables::{BOOKMARKS, BOOKMARKS_BY_CAMERA, SNAPSHOTS, SNAPSHOTS_BY_CAMERA};
use base::{CameraId, UtcNanos};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
type Index = TableDefinition<'static, (&'static str, &'static str), ()>;

/// Id of a snapshot or a bookmark: a UUID of version 7, so ids are in the order of their making.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId(Box<str>);

impl MediaId {
    /// A new one.
    pub fn random() -> MediaId {
        MediaId(uuid::Uuid::now_v7().to_string().into())
    }

    /// The text: 36 characters, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is not the id of a snapshot or bookmark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UUID such as 019c13b8-1c00-7b00-8000-00019e370001")]
pub struct MediaIdError(String);

impl FromStr for MediaId {
    type Err = MediaIdError;
    fn from_str(text: &str) -> Result<MediaId, MediaIdError> {
        // The one spelling only: the id names files.
        let good = text.len() == 36
            && text.bytes().enumerate().all(|(at, b)| match at {
                8 | 13 | 18 | 23 => b == b'-',
                _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            });
        if good {
            Ok(MediaId(text.into()))
        } else {
            Err(MediaIdError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a picture or clip was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// What the camera showed when it was asked for.
    Live,
    /// The recording.
    Historical,
}

/// One picture, JPEG.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Id; names the file too.
    pub id: MediaId,
    /// The camera; it may be deleted meanwhile.
    pub camera: CameraId,
    /// Capture time of the picture.
    pub timestamp: UtcNanos,
    /// What it was taken from.
    pub source: Moment,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bytes of the file.
    pub file_size: u64,
    /// Retention does not remove it.
    pub protected: bool,
    /// When the row was made. Set by the store.
    pub created_at: UtcNanos,
    /// When it was last changed. Set by the store.
    pub updated_at: Option<UtcNanos>,
}

/// How far the making of a clip is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for its turn.
    Pending,
    /// It is being cut.
    Running,
    /// The file is there.
    Done,
    /// There is no file, and why.
    Failed(String),
}

/// One clip, MP4.
#[derive(Debug, Clone, PartialEq)]
pub struct Bookmark {
    /// Id; names the files too.
    pub id: MediaId,
    /// The camera; it may be deleted meanwhile.
    pub camera: CameraId,
    /// The moment that was meant.
    pub center: UtcNanos,
    /// Begin: as asked for, and what there is once it is done.
    pub start: UtcNanos,
    /// End, likewise.
    pub end: UtcNanos,
    /// Given by a person.
    pub label: Option<String>,
    /// What it was taken from.
    pub source: Moment,
    /// How far it is.
    pub state: JobState,
    /// Bytes of the clip; 0 until it is done.
    pub file_size: u64,
    /// Milliseconds in which nothing was recorded between begin and end.
    pub gaps_ms: u64,
    /// Whether there is a small picture beside the clip.
    pub thumbnail: bool,
    /// Retention does not remove it.
    pub protected: bool,
    /// When the row was made. Set by the store.
    pub created_at: UtcNanos,
    /// When it was last changed. Set by the store.
    pub updated_at: Option<UtcNanos>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotRow {
    camera: String,
    timestamp: u64,
    source: Moment,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    file_size: u64,
    #[serde(default)]
    protected: bool,
    created_at: u64,
    updated_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct BookmarkRow {
    camera: String,
    center: u64,
    start: u64,
    end: u64,
    label: Option<String>,
    source: Moment,
    state: JobState,
    #[serde(default)]
    file_size: u64,
    #[serde(default)]
    gaps_ms: u64,
    #[serde(default)]
    thumbnail: bool,
    #[serde(default)]
    protected: bool,
    created_at: u64,
    updated_at: Option<u64>,
}

/// A row that can be listed by camera.
pub(crate) trait OfCamera: Row {
    /// Rows by id.
    const ROWS: Rows;
    /// (camera, id).
    const INDEX: Index;
    fn camera(&self) -> &CameraId;
}

macro_rules! media_row {
    ($row:ty, $what:literal, $rows:expr, $index:expr) => {
        impl OfCamera for $row {
            const ROWS: Rows = $rows;
            const INDEX: Index = $index;
            fn camera(&self) -> &CameraId {
                &self.camera
            }
        }

        impl Row for $row {
            const WHAT: &'static str = $what;
            fn key(&self) -> &str {
                self.id.as_str()
            }
            fn created_at(&self) -> UtcNanos {
                self.created_at
            }
            fn updated_at(&self) -> Option<UtcNanos> {
                self.updated_at
            }
            fn set_times(&mut self, created_at: UtcNanos, updated_at: Option<UtcNanos>) {
                self.created_at = created_at;
                self.updated_at = updated_at;
            }
            fn to_bytes(&self) -> Vec<u8> {
                self.bytes()
            }
            fn from_bytes(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
                Self::read(key, bytes)
            }
        }
    };
}

media_row!(Snapshot, "snapshot", SNAPSHOTS, SNAPSHOTS_BY_CAMERA);
media_row!(Bookmark, "bookmark", BOOKMARKS, BOOKMARKS_BY_CAMERA);

fn id<T: FromStr<Err: ToString>>(text: &str) -> Result<T, RecordError> {
    text.parse().map_err(|e: T::Err| RecordError::Row(e.to_string()))
}

impl Snapshot {
    fn bytes(&self) -> Vec<u8> {
        json_to_bytes(&SnapshotRow {
            camera: self.camera.to_string(),
            timestamp: self.timestamp.0,
            source: self.source,
            width: self.width,
            height: self.height,
            file_size: self.file_size,
            protected: self.protected,
            created_at: self.created_at.0,
            updated_at: self.updated_at.map(|utc| utc.0),
        })
    }

    fn read(key: &str, bytes: &[u8]) -> Result<Snapshot, RecordError> {
        let row: SnapshotRow = json_from_bytes(bytes)?;
        Ok(Snapshot {
            id: id(key)?,
            camera: id(&row.camera)?,
            timestamp: UtcNanos(row.timestamp),
            source: row.source,
            width: row.width,
            height: row.height,
            file_size: row.file_size,
            protected: row.protected,
            created_at: UtcNanos(row.created_at),
            updated_at: row.updated_at.map(UtcNanos),
        })
    }
}

impl Bookmark {
    fn bytes(&self) -> Vec<u8> {
        json_to_bytes(&BookmarkRow {
            camera: self.camera.to_string(),
            center: self.center.0,
            start: self.start.0,
            end: self.end.0,
            label: self.label.clone(),
            source: self.source,
            state: self.state.clone(),
            file_size: self.file_size,
            gaps_ms: self.gaps_ms,
            thumbnail: self.thumbnail,
            protected: self.protected,
            created_at: self.created_at.0,
            updated_at: self.updated_at.map(|utc| utc.0),
        })
    }

    fn read(key: &str, bytes: &[u8]) -> Result<Bookmark, RecordError> {
        let row: BookmarkRow = json_from_bytes(bytes)?;
        Ok(Bookmark {
            id: id(key)?,
            camera: id(&row.camera)?,
            center: UtcNanos(row.center),
            start: UtcNanos(row.start),
            end: UtcNanos(row.end),
            label: row.label,
            source: row.source,
            state: row.state,
            file_size: row.file_size,
            gaps_ms: row.gaps_ms,
            thumbnail: row.thumbnail,
            protected: row.protected,
            created_at: UtcNanos(row.created_at),
            updated_at: row.updated_at.map(UtcNanos),
        })
    }
}

/// A part of a list, the newest row first.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPage<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

impl ControlRead<'_> {
    fn page<T: OfCamera>(
        &self,
        camera: Option<&CameraId>,
        skip: usize,
        limit: usize,
    ) -> Result<MediaPage<T>, StoreError> {
        let page = || -> Result<MediaPage<T>, Fault> {
            let table = self.read.open_table(T::ROWS)?;
            let decode = |key: &str, bytes: &[u8]| {
                T::from_bytes(key, bytes)
                    .map_err(|e| unreadable(self.path, format!("{} {key}", T::WHAT), e))
            };
            let mut rows = Vec::new();
            let Some(camera) = camera else {
                for entry in table.iter()?.rev().skip(skip).take(limit) {
                    let (key, bytes) = entry?;
                    rows.push(decode(key.value(), bytes.value())?);
                }
                return Ok(MediaPage { rows, total: table.len()? });
            };
            let index = self.read.open_table(T::INDEX)?;
            // Ids are printable: none sorts behind this.
            let of_camera = (camera.as_str(), "")..(camera.as_str(), "\u{7f}");
            let mut total = 0;
            for entry in index.range(of_camera)?.rev() {
                let (key, _) = entry?;
                total += 1;
                if (skip..skip.saturating_add(limit)).contains(&(total - 1)) {
                    let key = key.value().1;
                    let Some(bytes) = table.get(key)? else { continue };
                    rows.push(decode(key, bytes.value())?);
                }
            }
            Ok(MediaPage { rows, total: total as u64 })
        };
        self.told(page())
    }

    fn visit<T: OfCamera>(&self, mut each: impl FnMut(T) -> bool) -> Result<(), StoreError> {
        let mut visit = || -> Result<(), Fault> {
            for entry in self.read.open_table(T::ROWS)?.iter()? {
                let (key, bytes) = entry?;
                let Ok(row) = T::from_bytes(key.value(), bytes.value()) else { continue };
                if !each(row) {
                    break;
                }
            }
            Ok(())
        };
        self.told(visit())
    }

    /// Hands out snapshots from the oldest on until `each` says false. A row that can't be read is
    /// left out: `vas check` tells of it, and one such must not end what is done with the others.
    ///
    /// # Errors
    /// Those of the file.
    pub fn visit_snapshots(&self, each: impl FnMut(Snapshot) -> bool) -> Result<(), StoreError> {
        self.visit(each)
    }

    /// As [`ControlRead::visit_snapshots`], of bookmarks.
    ///
    /// # Errors
    /// Those of the file.
    pub fn visit_bookmarks(&self, each: impl FnMut(Bookmark) -> bool) -> Result<(), StoreError> {
        self.visit(each)
    }

    /// Snapshots, of one camera or of all.
    ///
    /// # Errors
    /// Those of the file.
    pub fn snapshots(
        &self,
        camera: Option<&CameraId>,
        skip: usize,
        limit: usize,
    ) -> Result<MediaPage<Snapshot>, StoreError> {
        self.page(camera, skip, limit)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// Those of the file.
    pub fn snapshot(&self, id: &MediaId) -> Result<Option<Snapshot>, StoreError> {
        self.told((|| row(&self.read.open_table(SNAPSHOTS)?, id.as_str(), self.path))())
    }

    /// Bookmarks, of one camera or of all.
    ///
    /// # Errors
    /// Those of the file.
    pub fn bookmarks(
        &self,
        camera: Option<&CameraId>,
        skip: usize,
        limit: usize,
    ) -> Result<MediaPage<Bookmark>, StoreError> {
        self.page(camera, skip, limit)
    }

    /// One bookmark.
    ///
    /// # Errors
    /// Those of the file.
    pub fn bookmark(&self, id: &MediaId) -> Result<Option<Bookmark>, StoreError> {
        self.told((|| row(&self.read.open_table(BOOKMARKS)?, id.as_str(), self.path))())
    }
}

impl ControlWrite<'_> {
    fn put_media<T: OfCamera>(&mut self, new: T) -> Result<T, StoreError> {
        let index = || -> Result<(), Fault> {
            let mut index = self.write.open_table(T::INDEX)?;
            index.insert((new.camera().as_str(), new.key()), ())?;
            Ok(())
        };
        let index = index();
        self.told(index)?;
        self.put(T::ROWS, new)
    }

    fn delete_media<T: OfCamera>(&mut self, id: &MediaId) -> Result<Option<T>, StoreError> {
        let Some(old) = self.row::<T>(T::ROWS, id.as_str())? else { return Ok(None) };
        let index = || -> Result<(), Fault> {
            let mut index = self.write.open_table(T::INDEX)?;
            index.remove((old.camera().as_str(), id.as_str()))?;
            Ok(())
        };
        let index = index();
        self.told(index)?;
        self.remove(T::ROWS, id.as_str())?;
        Ok(Some(old))
    }

    /// Stores a snapshot.
    ///
    /// # Errors
    /// Those of the file.
    pub fn put_snapshot(&mut self, snapshot: Snapshot) -> Result<Snapshot, StoreError> {
        self.put_media(snapshot)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// Those of the file.
    pub fn snapshot(&mut self, id: &MediaId) -> Result<Option<Snapshot>, StoreError> {
        self.row(SNAPSHOTS, id.as_str())
    }

    /// Changes a snapshot; its id and camera stay. `None` when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn update_snapshot(
        &mut self,
        id: &MediaId,
        change: impl FnOnce(&mut Snapshot),
    ) -> Result<Option<Snapshot>, StoreError> {
        let Some(old) = self.snapshot(id)? else { return Ok(None) };
        let mut new = old.clone();
        change(&mut new);
        let row = Snapshot { id: old.id, camera: old.camera, ..new };
        self.put(SNAPSHOTS, row).map(Some)
    }

    /// Deletes a snapshot and gives it back; `None` when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn delete_snapshot(&mut self, id: &MediaId) -> Result<Option<Snapshot>, StoreError> {
        self.delete_media(id)
    }

    /// Stores a bookmark.
    ///
    /// # Errors
    /// Those of the file.
    pub fn put_bookmark(&mut self, bookmark: Bookmark) -> Result<Bookmark, StoreError> {
        self.put_media(bookmark)
    }

    /// One bookmark.
    ///
    /// # Errors
    /// Those of the file.
    pub fn bookmark(&mut self, id: &MediaId) -> Result<Option<Bookmark>, StoreError> {
        self.row(BOOKMARKS, id.as_str())
    }

    /// Changes a bookmark; its id and camera stay. `None` when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn update_bookmark(
        &mut self,
        id: &MediaId,
        change: impl FnOnce(&mut Bookmark),
    ) -> Result<Option<Bookmark>, StoreError> {
        let Some(old) = self.bookmark(id)? else { return Ok(None) };
        let mut new = old.clone();
        change(&mut new);
        let row = Bookmark { id: old.id, camera: old.camera, ..new };
        self.put(BOOKMARKS, row).map(Some)
    }

    /// Deletes a bookmark and gives it back; `None` when there is none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn delete_bookmark(&mut self, id: &MediaId) -> Result<Option<Bookmark>, StoreError> {
        self.delete_media(id)
    }
}

impl Control {
    /// The bookmarks that are not cut yet, the oldest first: pending and running ones. One whose row
    /// can't be read is left out.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open_bookmarks(&self) -> Result<Vec<Bookmark>, StoreError> {
        let mut open = Vec::new();
        self.read(|read| {
            read.visit_bookmarks(|row| {
                if matches!(row.state, JobState::Pending | JobState::Running) {
                    open.push(row);
                }
                true
            })
        })?;
        Ok(open)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// Those of the file.
    pub fn snapshot(&self, id: &MediaId) -> Result<Option<Snapshot>, StoreError> {
        self.read(|r| r.snapshot(id))
    }

    /// One bookmark.
    ///
    /// # Errors
    /// Those of the file.
    pub fn bookmark(&self, id: &MediaId) -> Result<Option<Bookmark>, StoreError> {
        self.read(|r| r.bookmark(id))
    }
}
