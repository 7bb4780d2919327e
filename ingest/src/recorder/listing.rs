//! The segments of all cameras, the oldest first: listed a day at a time, and kept from sweep to
//! sweep. A day of 64 cameras has some 900,000 names; the oldest day is partly removed all day
//! long, and is not listed anew for it.
//!
//! What lies there and is not of recordings is told once, by its path, and left alone.

use base::{CameraId, Instant};
use ipc::recording::{Day, INDEX_NAME, Recordings, SegmentName};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Names of a day that are kept: its oldest (chosen: 1 MiB, and a day is listed again a few times a
/// day).
const NAMES_MAX: usize = if cfg!(test) { 1000 } else { 65_536 };
/// A list that is older is made again: names behind the first ones may have come, after a step back
/// of the clock.
const LIST_AGE: Duration = Duration::from_secs(3600);
/// Foreign files that are told.
const TOLD_MAX: usize = 100;

/// Days of all cameras, the oldest first.
pub type Days = Vec<(Day, CameraId)>;

/// The first error of several attempts: one that fails holds up no other.
#[derive(Debug, Default)]
pub struct First(pub Option<io::Error>);

impl First {
    /// What came of an attempt, if anything did.
    pub fn note<T>(&mut self, outcome: io::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.0.get_or_insert(error)).ok()
    }
}

/// What is known of the segments of all cameras.
#[derive(Debug, Default)]
pub struct Listing {
    lists: BTreeMap<Day, List>,
    /// Days that only something foreign is left of.
    foreign: BTreeMap<(Day, CameraId), Instant>,
    told: BTreeSet<std::path::PathBuf>,
    /// Directories of days read so far.
    pub listed: u64,
}

/// The oldest segments of one day.
#[derive(Debug)]
pub struct List {
    cameras: Vec<CameraId>,
    /// The newest first: the oldest are taken from the end.
    names: Vec<(SegmentName, u32)>,
    /// Per camera, how many of them.
    left: Vec<u32>,
    /// There are newer ones that did not fit.
    more: bool,
    made: Instant,
}

impl List {
    /// The oldest one, and whose it is.
    pub fn oldest(&self) -> Option<(SegmentName, &CameraId)> {
        let (name, camera) = self.names.last()?;
        Some((*name, &self.cameras[*camera as usize]))
    }

    /// Whether there are newer ones that did not fit.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Takes the oldest out. `kept` = it stays on the disk: it is to be put back behind the others.
    pub fn take(&mut self) -> Option<(SegmentName, u32)> {
        self.names.pop()
    }

    /// The one that was taken is gone. The camera, when it has no other here.
    pub fn gone(&mut self, (_, camera): (SegmentName, u32)) -> Option<CameraId> {
        let left = &mut self.left[camera as usize];
        *left = left.saturating_sub(1);
        (*left == 0 && !self.more).then(|| self.cameras[camera as usize].clone())
    }

    /// Those that were taken and stayed, in the order in which they were taken.
    pub fn put_back(&mut self, stayed: Vec<(SegmentName, u32)>) {
        self.names.extend(stayed.into_iter().rev());
    }

    /// Cameras without a segment on this day.
    pub fn empty(&self) -> impl Iterator<Item = &CameraId> {
        let without = self.cameras.iter().zip(&self.left).filter(|(_, left)| **left == 0);
        without.filter(|_| !self.more).map(|(camera, _)| camera)
    }
}

impl Listing {
    /// All days that may have segments.
    ///
    /// # Errors
    /// When the root can't be read; what holds up one camera alone goes to `first`.
    pub fn days(
        &mut self,
        recordings: &Recordings,
        now: Instant,
        first: &mut First,
    ) -> io::Result<Days> {
        self.foreign.retain(|_, since| now - *since < LIST_AGE);
        let mut days = Days::new();
        for camera in recordings.cameras()? {
            let path = recordings.root().join(camera.as_str());
            let found = self.own(recordings, &path, recordings.days(&camera), first);
            let found = found.unwrap_or_default().into_iter().map(|day| (day, camera.clone()));
            days.extend(found.filter(|day| !self.foreign.contains_key(day)));
        }
        days.sort();
        self.lists.retain(|day, _| days.binary_search_by_key(day, |(day, _)| *day).is_ok());
        Ok(days)
    }

    /// The list of a day, which is `same`, all of its cameras: the one that is there, else a new
    /// one. To be given back by [`Listing::keep`].
    pub fn list(
        &mut self,
        recordings: &Recordings,
        same: &[(Day, CameraId)],
        now: Instant,
        first: &mut First,
    ) -> Option<List> {
        let (day, _) = same.first()?;
        let whose = || same.iter().map(|(_, camera)| camera);
        let known = self.lists.remove(day).filter(|list| {
            list.cameras.iter().eq(whose()) && now - list.made < LIST_AGE && !list.names.is_empty()
        });
        if known.is_some() {
            return known;
        }
        let mut list = List {
            cameras: whose().cloned().collect(),
            names: vec![],
            left: vec![0; same.len()],
            more: false,
            made: now,
        };
        for (n, camera) in (0u32..).zip(whose()) {
            self.listed += 1;
            let found = recordings.segments(camera, *day);
            if found.as_ref().is_err_and(no_directory) {
                self.leave(*day, camera, now);
            }
            let path = recordings.day(camera, *day);
            let found = self.own(recordings, &path, found, first).unwrap_or_default();
            list.names.extend(found.into_iter().map(|name| (name, n)));
            if list.names.len() > NAMES_MAX {
                list.names.select_nth_unstable(NAMES_MAX);
                list.names.truncate(NAMES_MAX);
                list.more = true;
            }
        }
        list.names.sort_unstable_by(|a, b| b.cmp(a));
        for (_, camera) in &list.names {
            list.left[*camera as usize] += 1;
        }
        Some(list)
    }

    /// Keeps a list for the next sweep.
    pub fn keep(&mut self, day: Day, list: List) {
        self.lists.insert(day, list);
    }

    /// A day is only something foreign any more: it is not looked at for a while.
    pub fn leave(&mut self, day: Day, camera: &CameraId, now: Instant) {
        self.foreign.insert((day, camera.clone()), now);
    }

    /// What was read of `path`; `None` when that is no directory or can't be read.
    fn own<T>(
        &mut self,
        recordings: &Recordings,
        path: &Path,
        found: io::Result<T>,
        first: &mut First,
    ) -> Option<T> {
        if found.as_ref().is_err_and(no_directory) {
            self.tell(recordings.root(), path);
            return None;
        }
        first.note(found)
    }

    /// Says once that something is not of recordings. True = it was said now.
    pub fn tell(&mut self, root: &Path, path: &Path) -> bool {
        if self.told.len() >= TOLD_MAX || !self.told.insert(path.to_owned()) {
            return false;
        }
        tracing::warn!(
            "{} in {} is not of recordings: it stays there, and its day is not removed",
            path.strip_prefix(root).unwrap_or(path).display(),
            root.display()
        );
        true
    }
}

fn no_directory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory
}

/// Whether a name in the directory of a day is that of its index, or of one that is being made or
/// was set aside.
pub fn is_index(name: &str) -> bool {
    name.strip_prefix(INDEX_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::UtcNanos;
    use base::time::NANOS_PER_SEC;

    fn name(seconds: usize) -> SegmentName {
        SegmentName::at(UtcNanos(seconds as u64 * NANOS_PER_SEC))
    }

    #[test]
    fn a_camera_is_told_with_its_last_segment_and_not_while_there_may_be_more() {
        let cameras: Vec<CameraId> = ["a", "b"].map(|id| id.parse().unwrap()).into();
        let list = |more| List {
            cameras: cameras.clone(),
            names: [(2, 0), (1, 1), (0, 0)].map(|(at, camera)| (name(at), camera)).into(),
            left: vec![2, 1],
            more,
            made: Instant(0),
        };
        for (more, told) in [(false, [None, Some(1), Some(0)]), (true, [None; 3])] {
            let mut list = list(more);
            for told in told {
                let taken = list.take().unwrap();
                assert_eq!(list.gone(taken), told.map(|n: usize| cameras[n].clone()));
            }
            assert_eq!(list.empty().count(), if more { 0 } else { 2 });
        }
    }

    #[test]
    fn as_many_names_as_are_kept_are_all() {
        let root = tempfile::tempdir().unwrap();
        let recordings = Recordings::new(root.path());
        let camera: CameraId = "a".parse().unwrap();
        let same = [(name(0).day(), camera.clone())];
        std::fs::create_dir_all(recordings.day(&camera, name(0).day())).unwrap();
        for (from, to, more) in [(0, NAMES_MAX, false), (NAMES_MAX, NAMES_MAX + 1, true)] {
            for at in from..to {
                std::fs::write(recordings.segment(&camera, name(at)), "").unwrap();
            }
            let mut first = First::default();
            let list = Listing::default().list(&recordings, &same, Instant(0), &mut first).unwrap();
            assert_eq!((list.names.len(), list.more()), (NAMES_MAX, more));
            assert_eq!(list.empty().next(), None);
            assert_eq!(list.names[0].0, name(NAMES_MAX - 1), "the oldest are kept");
        }
    }

    #[test]
    fn so_many_foreign_files_are_told_and_no_more() {
        let (mut listing, root) = (Listing::default(), Path::new("/root"));
        let told = |n: usize| root.join(n.to_string());
        assert_eq!((0..200).filter(|n| listing.tell(root, &told(*n))).count(), 100);
    }

    #[test]
    fn indexes_have_these_names() {
        for (name, is) in [
            ("index", true),
            ("index.new", true),
            ("index.damaged", true),
            ("indexes", false),
            ("note", false),
        ] {
            assert_eq!(is_index(name), is, "{name}");
        }
    }
}
