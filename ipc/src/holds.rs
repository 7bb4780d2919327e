//! Which recordings are still needed: the windows of clips that wait to be cut or are being cut.
//!
//! `<state>/holds.json`, written by serve as a whole (temp + rename, 0600) whenever a clip is asked for
//! or done, read by ingest before it removes anything. It holds no time but the windows: how long a hold
//! counts is up to the reader, by its own clock. It is advice: one that is missing or damaged holds
//! nothing, a lost one costs a clip, and none stops the emptying of a disk for good.

use base::limits::HOLDS_MAX;
use base::{CameraId, UtcNanos};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The format this program writes and reads.
const FORMAT: u32 = 1;
/// Largest file that is read (derived: a hold takes less than 256 bytes).
const FILE_BYTES_MAX: u64 = 256 * HOLDS_MAX as u64;

/// The file in a state directory.
pub fn holds_in(state: &Path) -> PathBuf {
    state.join("holds.json")
}

/// A window of a camera's recording that somebody still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Names the clip: the same hold over and over has one.
    pub id: String,
    /// The camera.
    pub camera: CameraId,
    /// Begin of the window.
    pub start: UtcNanos,
    /// Its end, exclusive.
    pub end: UtcNanos,
}

#[derive(Serialize, Deserialize)]
struct FileOf {
    format: u32,
    holds: Vec<HoldRow>,
}

#[derive(Serialize, Deserialize)]
struct HoldRow {
    id: String,
    camera: String,
    start_utc_ns: u64,
    end_utc_ns: u64,
}

/// Says what is held from now on. Without holds there is no file, so that a full disk keeps none.
///
/// # Errors
/// Those of the file system; what was said before holds then.
pub fn write(path: &Path, holds: &[Hold]) -> io::Result<()> {
    if holds.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let row = |hold: &Hold| HoldRow {
        id: hold.id.clone(),
        camera: hold.camera.to_string(),
        start_utc_ns: hold.start.0,
        end_utc_ns: hold.end.0,
    };
    let holds = holds.iter().take(HOLDS_MAX).map(row).collect();
    let text = serde_json::to_vec(&FileOf { format: FORMAT, holds })?;
    let temporary = path.with_extension("json.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    // Not synced: serve writes it anew when it starts.
    let written = file.write_all(&text).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// What is held. Empty when nothing is said, or nothing that can be read.
pub fn read(path: &Path) -> Vec<Hold> {
    let Ok(file) = fs::File::open(path) else { return vec![] };
    let mut text = Vec::new();
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text) {
        Ok(bytes) if bytes as u64 <= FILE_BYTES_MAX => {}
        _ => return vec![],
    }
    let Ok(told) = serde_json::from_slice::<FileOf>(&text) else { return vec![] };
    if told.format != FORMAT {
        return vec![];
    }
    let hold = |row: HoldRow| {
        let camera = CameraId::new(&row.camera).ok()?;
        let (start, end) = (UtcNanos(row.start_utc_ns), UtcNanos(row.end_utc_ns));
        Some(Hold { id: row.id, camera, start, end })
    };
    told.holds.into_iter().take(HOLDS_MAX).filter_map(hold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(n: u64) -> Hold {
        let id = format!("019c13b8-1c00-7b00-8000-{n:012}");
        let camera = CameraId::new(&"c".repeat(base::limits::ID_CHARS_MAX)).unwrap();
        Hold { id, camera, start: UtcNanos(u64::MAX - n), end: UtcNanos(u64::MAX) }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holds.json");
        assert_eq!(read(&path), []);
        write(&path, &[]).unwrap();
        for count in [1, 3, HOLDS_MAX, 2] {
            let holds: Vec<Hold> = (0..count as u64).map(hold).collect();
            write(&path, &holds).unwrap();
            assert_eq!(read(&path), holds, "the longest fit");
        }
        let many: Vec<Hold> = (0..HOLDS_MAX as u64 + 1).map(hold).collect();
        write(&path, &many).unwrap();
        assert_eq!(read(&path), many[..HOLDS_MAX], "no more than are read");
        write(&path, &[]).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // A directory that can't be written says so, and leaves nothing behind.
        assert!(write(&directory.path().join("no/holds.json"), &many).is_err());
        fs::create_dir(&path).unwrap();
        assert!(write(&path, &[]).is_err(), "what it said before holds on");
    }

    #[test]
    fn what_can_not_be_read_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holds.json");
        let good = r#"{"id":"a","camera":"front","start_utc_ns":1,"end_utc_ns":2,"new":3}"#;
        let of = |format: u32, row: &str| format!(r#"{{"format":{format},"holds":[{row}]}}"#);
        let (one, spaces) = (of(1, good), " ".repeat(FILE_BYTES_MAX as usize));
        for (text, count) in [
            (one.clone(), 1),
            (of(2, good), 0),
            (of(1, r#"{"id":"a","camera":"a b","start_utc_ns":1,"end_utc_ns":2}"#), 0),
            (one[..one.len() - 1].to_owned(), 0),
            (String::new(), 0),
            (format!("{one}{}", &spaces[one.len()..]), 1),
            (format!("{one}{spaces}"), 0),
            (of(1, &vec![good; HOLDS_MAX + 1].join(",")), HOLDS_MAX),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path).len(), count);
        }
    }
}
