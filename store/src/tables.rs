//! Every table of every file. Keys are redb's: numbers compare as numbers, tuples by element, text
//! by byte. The bytes are in `docs/store.md`.

use redb::TableDefinition;

/// A kind of file: what is in a new one.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What `meta` says.
    pub format: u64,
    /// Makes all its tables.
    pub make: fn(&redb::WriteTransaction) -> Result<(), redb::TableError>,
}

/// A file of the events of one day.
pub(crate) static DAY: Kind = Kind { format: DAY_FORMAT, make: make_day };
/// The control file.
pub(crate) static CONTROL: Kind = Kind { format: CONTROL_FORMAT, make: make_control };

/// Numbers of a file: `format`; in the control file also `revision`.
pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Format of day files.
pub(crate) const DAY_FORMAT: u64 = 1;
/// Event id -> record. The primary table; its order is the order of lists, backwards.
pub(crate) const EVENTS: TableDefinition<u128, &[u8]> = TableDefinition::new("events");
/// (camera, event id).
pub(crate) const BY_CAMERA: TableDefinition<(u32, u128), ()> = TableDefinition::new("by_camera");
/// (model, event id).
pub(crate) const BY_MODEL: TableDefinition<(u32, u128), ()> = TableDefinition::new("by_model");
/// (class id, event id), once per class of the event's detections.
pub(crate) const BY_CLASS: TableDefinition<(u32, u128), ()> = TableDefinition::new("by_class");
/// Text -> number: camera, model and device ids and model versions of this file.
pub(crate) const NUMBERS: TableDefinition<&str, u32> = TableDefinition::new("numbers");
/// Number -> text.
pub(crate) const TEXTS: TableDefinition<u32, &str> = TableDefinition::new("texts");
/// Records that `vas check` found unreadable and took out of `events`.
pub(crate) const DAMAGED: TableDefinition<u128, &[u8]> = TableDefinition::new("damaged");

/// Format of the control file.
pub(crate) const CONTROL_FORMAT: u64 = 1;
/// Camera id -> device row.
pub(crate) const DEVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("devices");
/// Model id -> model row.
pub(crate) const MODELS: TableDefinition<&str, &[u8]> = TableDefinition::new("models");
/// Assignment id -> assignment row.
pub(crate) const ASSIGNMENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("assignments");
/// (camera id, model id) -> assignment id: at most one assignment of a pair.
pub(crate) const PAIRS: TableDefinition<(&str, &str), &str> = TableDefinition::new("pairs");
/// (model id, version) -> class names.
pub(crate) const LABELS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("labels");
/// Snapshot id -> snapshot row.
pub(crate) const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshots");
/// (camera id, snapshot id).
pub(crate) const SNAPSHOTS_BY_CAMERA: TableDefinition<(&str, &str), ()> =
    TableDefinition::new("snapshots_by_camera");
/// Bookmark id -> bookmark row.
pub(crate) const BOOKMARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("bookmarks");
/// (camera id, bookmark id).
pub(crate) const BOOKMARKS_BY_CAMERA: TableDefinition<(&str, &str), ()> =
    TableDefinition::new("bookmarks_by_camera");
/// Rows that `vas check` found unreadable, by what they are: `device cam1`.
pub(crate) const DAMAGED_ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("damaged");

/// Makes the tables of a day file.
pub(crate) fn make_day(write: &redb::WriteTransaction) -> Result<(), redb::TableError> {
    write.open_table(EVENTS)?;
    write.open_table(BY_CAMERA)?;
    write.open_table(BY_MODEL)?;
    write.open_table(BY_CLASS)?;
    write.open_table(NUMBERS)?;
    write.open_table(TEXTS)?;
    write.open_table(DAMAGED)?;
    Ok(())
}

/// Makes the tables of the control file.
pub(crate) fn make_control(write: &redb::WriteTransaction) -> Result<(), redb::TableError> {
    write.open_table(DEVICES)?;
    write.open_table(MODELS)?;
    write.open_table(ASSIGNMENTS)?;
    write.open_table(PAIRS)?;
    write.open_table(LABELS)?;
    write.open_table(SNAPSHOTS)?;
    write.open_table(SNAPSHOTS_BY_CAMERA)?;
    write.open_table(BOOKMARKS)?;
    write.open_table(BOOKMARKS_BY_CAMERA)?;
    write.open_table(DAMAGED_ROWS)?;
    Ok(())
}
