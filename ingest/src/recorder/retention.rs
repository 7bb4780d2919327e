//! What is removed when: by age, and when the disk is full, the oldest segments of all cameras
//! first. Never the segment that is being written.
//!
//! A sweep looks at the disk once, counts the bytes that have to go and the lengths of what it
//! removes against them, and stops there: space that comes back late, or never because others take
//! it, costs no more than that. What remains to be done is the next sweep's.

use super::holds::{Held, Holds};
use super::listing::{Days, First, List, Listing, is_index};
use super::room::Refusal;
use super::storage::{Removal, Storage, Told};
use crate::backoff::LogGate;
use base::clock_trust::{Clocks, Rest};
use base::{CameraId, Instant, UtcNanos};
use ipc::clock_trust::ClockKeeper;
use ipc::recording::{Day, HEADER_BYTES, Header, INDEX_NAME, Recordings, SegmentName};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Space that was freed is waited for so long (btrfs shows it at its next commit, 30 s by default,
/// ZFS after some 5 s).
const LATE: Duration = Duration::from_secs(60);
/// What recordings take is counted again after so long; between, what is written and removed is
/// added up (chosen: others seldom remove recordings).
const RECOUNT: Duration = Duration::from_secs(600);

/// Limits. Shares of the disk are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention {
    /// Segments that began longer ago go (spec V8: 7 days).
    pub age: Duration,
    /// At this much used, the oldest go ... (spec V8: 90 %)
    pub high: f64,
    /// ... until no more than this is used (85 %).
    pub high_target: f64,
    /// The same, where it is urgent (95 %).
    pub critical: f64,
    /// (80 %)
    pub critical_target: f64,
    /// At this much used, the log says so (85 %).
    pub warn: f64,
    /// Segments that began later stay on a full disk while recordings are less than half of what is
    /// used: it is others who have to make room (2 hours). Zero = they go as well.
    pub keep_at_least: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            age: Duration::from_secs(7 * 86_400),
            high: 0.90,
            high_target: 0.85,
            critical: 0.95,
            critical_target: 0.80,
            warn: 0.85,
            keep_at_least: Duration::from_secs(2 * 3600),
        }
    }
}

impl Retention {
    /// Down to what the disk has to be emptied at this much used.
    pub fn target(&self, used: f64) -> Option<f64> {
        if used >= self.critical {
            Some(self.critical_target)
        } else if used >= self.high {
            Some(self.high_target)
        } else {
            None
        }
    }
}

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is too old.
    Age,
    /// The disk is used beyond its limit.
    Room,
    /// A write found no space.
    NoSpace,
}

/// Segments removed and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Segments.
    pub segments: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }
}

/// What was removed, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Too old.
    pub age: Count,
    /// The disk was used beyond its limit.
    pub room: Count,
    /// A write found no space, and new ones count more.
    pub no_space: Count,
}

impl Removed {
    fn note(&mut self, cause: Cause, bytes: u64) {
        let count = match cause {
            Cause::Age => &mut self.age,
            Cause::Room => &mut self.room,
            Cause::NoSpace => &mut self.no_space,
        };
        count.add(Count { segments: 1, bytes });
    }

    fn add(&mut self, other: &Removed) {
        self.age.add(other.age);
        self.room.add(other.room);
        self.no_space.add(other.no_space);
    }

    /// All together.
    pub fn all(&self) -> Count {
        let mut all = self.age;
        all.add(self.room);
        all.add(self.no_space);
        all
    }
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |count: Count| format!("{} ({} MiB)", count.segments, count.bytes >> 20);
        write!(
            f,
            "{} too old, {} to make room, {} because writing found no space",
            part(self.age),
            part(self.room),
            part(self.no_space)
        )
    }
}

/// Removes what is to be removed, again and again.
#[derive(Debug)]
pub struct Sweeper {
    clock: ClockKeeper,
    holds: Holds,
    held: Held,
    resting: bool,
    listing: Listing,
    late: Option<Late>,
    recorded: Recorded,
    /// Since the start.
    removed: Removed,
    warned: LogGate,
    failed: LogGate,
}

/// Space that was freed and may not have come back yet.
#[derive(Debug, Clone, Copy)]
struct Late {
    since: Instant,
    /// What was used then, with what was written since.
    used: u64,
    written: u64,
    removed: u64,
}

impl Late {
    /// So much of it the disk does not show yet.
    fn unseen(&self, used: u64, written: u64) -> u64 {
        let expected = self.used.saturating_add(written - self.written);
        self.removed.min(used.saturating_sub(expected.saturating_sub(self.removed)))
    }
}

/// The bytes that recordings take: counted when somebody asks, then kept up.
#[derive(Debug, Clone, Copy, Default)]
struct Recorded {
    counted: Option<Instant>,
    bytes: u64,
    /// What had been written by then.
    written: u64,
}

/// What a sweep has to do.
#[derive(Debug, Clone, Copy, Default)]
struct Goal {
    /// What began before goes.
    oldest: UtcNanos,
    /// What began later stays where others fill the disk.
    floor: UtcNanos,
    /// So many bytes go because the disk is used beyond its limit,
    room: u64,
    /// and so many, all told, because new ones found no space.
    no_space: u64,
    /// Bytes used on the disk at the beginning.
    used: u64,
    /// Bytes removed so far.
    freed: u64,
}

impl Goal {
    /// Why the oldest segment that is left goes; `recorded` = bytes of all recordings now.
    fn cause(&self, oldest: UtcNanos, recorded: impl FnOnce() -> u64) -> Option<Cause> {
        if oldest < self.oldest {
            Some(Cause::Age)
        } else if self.freed < self.room && (oldest <= self.floor || !self.others(recorded())) {
            Some(Cause::Room)
        } else if self.freed < self.no_space {
            Some(Cause::NoSpace)
        } else {
            None
        }
    }

    /// Whether recordings are less than half of what is used.
    fn others(&self, recorded: u64) -> bool {
        recorded.saturating_mul(2) < self.used.saturating_sub(self.freed)
    }

    /// Whether nothing that began then or later goes.
    fn done(&self, from: UtcNanos) -> bool {
        from >= self.oldest && self.freed >= self.room && self.freed >= self.no_space
    }
}

/// A sweep that is over.
#[derive(Debug, Default)]
struct Swept {
    removed: Removed,
    /// Share of the disk that was used before.
    used: f64,
    rest: Option<Rest>,
    /// Others fill the disk: the share of what is used that recordings are.
    others: Option<f64>,
    /// Writing found no space of late: new segments take the room of the oldest.
    starving: Option<Refusal>,
    failed: Option<io::Error>,
}

impl Sweeper {
    /// For a storage that nobody writes to yet, or began to at `start`.
    pub fn new(storage: &Storage, start: Clocks) -> Sweeper {
        let Storage { recordings, options, .. } = storage;
        let newest = || newest_before(recordings, start.utc);
        let mut clock = ClockKeeper::open(&options.root, options.accepted_clock.clone(), newest);
        // What is written meanwhile bears the time that is in question.
        let _ = clock.look(start);
        Sweeper {
            clock,
            holds: Holds::default(),
            held: Held::default(),
            resting: false,
            listing: Listing::default(),
            late: None,
            recorded: Recorded::default(),
            removed: Removed::default(),
            warned: LogGate::default(),
            failed: LogGate::default(),
        }
    }

    /// One sweep. What fails is logged and tried again with the next one. Returns what was removed.
    pub fn sweep(&mut self, storage: &Arc<Storage>, now: Clocks) -> Removed {
        let swept = self
            .once(storage, now)
            .unwrap_or_else(|error| Swept { failed: Some(error), ..Swept::default() });
        self.removed.add(&swept.removed);
        self.log(storage, &swept, now.monotonic);
        storage.tell(told(storage, &swept));
        swept.removed
    }

    fn log(&mut self, storage: &Storage, swept: &Swept, now: Instant) {
        let root = storage.options.root.display();
        let retention = &storage.options.retention;
        let removed = swept.removed.all();
        if removed.segments > 0 {
            tracing::info!(
                "removed {} segments of recordings ({} MiB): {}; the disk was {:.0} % full; since \
                 the start: {}",
                removed.segments,
                removed.bytes >> 20,
                swept.removed,
                swept.used * 100.0,
                self.removed
            );
        }
        if std::mem::replace(&mut self.resting, swept.rest.is_some()) != swept.rest.is_some() {
            match swept.rest {
                Some(rest) => tracing::warn!("recordings: {rest}"),
                None => tracing::info!("recordings: the clock is trusted again"),
            }
        }
        if swept.used >= retention.warn {
            let line = match swept.others {
                Some(share) => others_fill(storage, share),
                None => {
                    format!("at {:.0} % the oldest recordings are removed", retention.high * 100.0)
                }
            };
            let gate = if swept.others.is_some() { "others" } else { "full" };
            if self.warned.allows(gate, now) {
                tracing::warn!("the disk of {root} is {:.0} % full: {line}", swept.used * 100.0);
            }
        } else {
            self.warned.clear();
        }
        match &swept.failed {
            None => drop(self.failed.clear()),
            Some(error) => {
                let line = format!(
                    "recordings in {root} can't be removed: {error}; check the directory's permissions"
                );
                if self.failed.allows(&line, now) {
                    tracing::error!("{line}");
                }
            }
        }
    }

    fn once(&mut self, storage: &Storage, now: Clocks) -> io::Result<Swept> {
        let Storage { recordings, options, .. } = storage;
        let retention = &options.retention;
        let rest = self.clock.look(now);
        if !options.root.exists() {
            return Ok(Swept { rest, ..Swept::default() });
        }
        self.held = self.holds.look(&ipc::holds::read(&options.holds), now.monotonic);
        let mut first = First::default();
        let days = self.listing.days(recordings, now.monotonic, &mut first)?;
        let space = options.disk.space(&options.root)?;
        let (no_space, starving) =
            storage.wanted(now.monotonic, retention.target(space.share()).is_some());
        let written = storage.written_bytes();
        let since = |late: &Late| now.monotonic - late.since < LATE;
        self.late = self.late.filter(since);
        let used = space.used - self.late.map_or(0, |late| late.unseen(space.used, written));
        let target = retention.target(space.share_of(used));
        let back =
            |from: UtcNanos, by: Duration| UtcNanos(from.0.saturating_sub(base::time::nanos(by)));
        let mut goal = Goal {
            oldest: if rest.is_some() { UtcNanos(0) } else { back(now.utc, retention.age) },
            floor: match retention.keep_at_least {
                Duration::ZERO => UtcNanos::FAR,
                keep => back(self.clock.believed(now), keep),
            },
            room: target.map_or(0, |target| used.saturating_sub(space.bytes_of(target))),
            no_space,
            used,
            freed: 0,
        };
        let mut round =
            Round { storage, now: now.monotonic, days: &days, first, removed: Removed::default() };
        for same in days.chunk_by(|a, b| a.0 == b.0) {
            if goal.done(same[0].0.start()) || self.day(&mut round, same, &mut goal) {
                break;
            }
        }
        if goal.freed > 0 {
            let late =
                self.late.get_or_insert(Late { since: now.monotonic, used, written, removed: 0 });
            late.removed += goal.freed;
        }
        let recorded = || self.recorded.bytes(&round);
        let others = (goal.freed < goal.room).then(recorded).filter(|bytes| goal.others(*bytes));
        Ok(Swept {
            removed: round.removed,
            used: space.share(),
            rest,
            others: others.map(|bytes| bytes as f64 / used.max(1) as f64),
            starving,
            failed: round.first.0,
        })
    }

    /// Removes what goes of one day of all cameras, `same`. True = nothing newer goes.
    fn day(&mut self, round: &mut Round<'_>, same: &[(Day, CameraId)], goal: &mut Goal) -> bool {
        let (recordings, day) = (&round.storage.recordings, same[0].0);
        loop {
            let before = self.listing.listed;
            let Some(mut list) = self.listing.list(recordings, same, round.now, &mut round.first)
            else {
                return false;
            };
            let fresh = self.listing.listed != before;
            if fresh {
                for camera in list.empty().cloned().collect::<Vec<_>>() {
                    self.clear(round, &camera, day);
                }
            }
            let freed = goal.freed;
            let stop = self.take(round, &mut list, goal);
            let (empty, more) = (list.oldest().is_none(), list.more());
            if stop || !(empty || more) {
                self.listing.keep(day, list);
                return stop;
            }
            // It has grown since it was listed, or there were more names than are kept.
            let again = if more { goal.freed > freed } else { !fresh };
            if !again {
                return false;
            }
        }
    }

    /// Takes the oldest from a list for as long as they go. True = one stays for good reason.
    fn take(&mut self, round: &mut Round<'_>, list: &mut List, goal: &mut Goal) -> bool {
        let mut stayed = Vec::new();
        let stop = loop {
            let Some((name, camera)) = list.oldest() else { break false };
            let Some(cause) = goal.cause(name.utc(), || self.recorded.bytes(round)) else {
                break true;
            };
            let camera = camera.clone();
            let Some(entry) = list.take() else { break false };
            // A clip still needs it, and nothing that is new does more.
            if goal.freed >= goal.no_space && self.held.keeps(&camera, name) {
                stayed.push(entry);
                continue;
            }
            match remove(round.storage, &camera, name) {
                None => stayed.push(entry),
                Some(Err(error)) => {
                    round.first.note::<()>(Err(error));
                    stayed.push(entry);
                }
                Some(Ok(gone)) => {
                    if let Gone::Segment(bytes) = gone {
                        goal.freed = goal.freed.saturating_add(bytes);
                        self.recorded.removed(bytes);
                        round.removed.note(cause, bytes);
                    }
                    let last = list.gone(entry);
                    match (gone, last) {
                        (Gone::Foreign(path), last) => {
                            self.listing.tell(&round.storage.options.root, &path);
                            if let Some(camera) = last {
                                self.listing.leave(name.day(), &camera, round.now);
                            }
                        }
                        (_, Some(camera)) => self.clear(round, &camera, name.day()),
                        (_, None) => {}
                    }
                }
            }
        };
        list.put_back(stayed);
        stop
    }

    fn clear(&mut self, round: &mut Round<'_>, camera: &CameraId, day: Day) {
        let cleared = clear(round.storage, camera, day);
        if let Some(Some(path)) = round.first.note(cleared) {
            self.listing.tell(&round.storage.options.root, &path);
            self.listing.leave(day, camera, round.now);
        }
    }
}

/// What a sweep carries along.
struct Round<'a> {
    storage: &'a Storage,
    now: Instant,
    days: &'a Days,
    first: First,
    removed: Removed,
}

impl Recorded {
    /// All bytes of recordings. Counting costs a look at each segment.
    fn bytes(&mut self, round: &Round<'_>) -> u64 {
        let written = round.storage.written_bytes();
        if self.counted.is_none_or(|at| round.now - at >= RECOUNT) {
            let recordings = &round.storage.recordings;
            let of = |(day, camera): &(Day, CameraId)| -> u64 {
                let names = recordings.segments(camera, *day).unwrap_or_default();
                let path = |name: &SegmentName| recordings.segment(camera, *name);
                names.iter().filter_map(|name| Some(fs::metadata(path(name)).ok()?.len())).sum()
            };
            let bytes = round.days.iter().map(of).sum();
            *self = Recorded { counted: Some(round.now), bytes, written };
        }
        self.bytes = self.bytes.saturating_add(written - self.written);
        self.written = written;
        self.bytes
    }

    fn removed(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What recorders tell of the disk and the clock.
fn told(storage: &Storage, swept: &Swept) -> Told {
    let root = storage.options.root.display();
    let going = "the oldest recordings go for new ones";
    let warning = match (swept.rest, swept.others) {
        (_, Some(share)) if swept.starving.is_some() => {
            format!("{}; writing found no space, {going}", others_fill(storage, share))
        }
        (_, Some(share)) => others_fill(storage, share),
        (_, None) if swept.starving == Some(Refusal::Quota) => {
            format!(
                "writing in {root} found no space, {going}; raise the quota or shorten the retention"
            )
        }
        (Some(rest), None) => rest.to_string(),
        (None, None) => String::new(),
    };
    let full = match swept.others {
        Some(share) => format!("the disk of {root} is full: {}", others_fill(storage, share)),
        None => format!("the disk of {root} is full; make room or shorten the retention"),
    };
    Told { warning, full }
}

fn others_fill(storage: &Storage, share: f64) -> String {
    let keep = storage.options.retention.keep_at_least.as_secs();
    let stay = match keep {
        0 => String::new(),
        _ => format!(", of which the last {} min stay", keep.div_ceil(60)),
    };
    format!(
        "others fill the disk, {:.0} % of what is used are recordings{stay}; make room",
        share * 100.0
    )
}

/// The start of the newest segment that began before `utc`.
fn newest_before(recordings: &Recordings, utc: UtcNanos) -> Option<UtcNanos> {
    let newest = |camera: &CameraId| {
        let days = recordings.days(camera).unwrap_or_default();
        days.into_iter().rev().find_map(|day| {
            let names = recordings.segments(camera, day).unwrap_or_default();
            names.into_iter().map(SegmentName::utc).filter(|at| *at < utc).max()
        })
    };
    recordings.cameras().unwrap_or_default().iter().filter_map(newest).max()
}

/// What became of a segment that was to be removed.
enum Gone {
    /// So many bytes.
    Segment(u64),
    /// It was not there.
    Before,
    /// It is none: it stays.
    Foreign(PathBuf),
}

/// Removes a segment, and says so in the index of its day. `None` = its recorder needs it.
fn remove(storage: &Storage, camera: &CameraId, name: SegmentName) -> Option<io::Result<Gone>> {
    let path = storage.recordings.segment(camera, name);
    let gone = || {
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            return Ok(Gone::Foreign(path.clone()));
        }
        // First the index: who reads it must not look for what is not there.
        let index = storage.recordings.day(camera, name.day()).join(INDEX_NAME);
        // A full disk may refuse it, and removing helps: who looks for it finds nothing.
        let _ = note_removed(&index, name.next().utc());
        fs::remove_file(&path).map(|()| Gone::Segment(found.len()))
    };
    storage.remove(camera, Removal::Segment(name), || match gone() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Gone::Before),
        outcome => outcome,
    })
}

/// Says in an index what was removed. It never says less than before: after a step back of the
/// clock, what has older names goes later. One that is damaged is left to recovery.
fn note_removed(index: &Path, removed_before: UtcNanos) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(index)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    let Ok(header) = Header::decode(&header) else { return Ok(()) };
    let removed_before = header.removed_before.max(removed_before);
    file.write_all_at(&Header { removed_before }.encode(), 0)
}

/// Removes the directory of a day without segments, unless it is being written. Returns what else
/// lies there, for which it stays.
fn clear(storage: &Storage, camera: &CameraId, day: Day) -> io::Result<Option<PathBuf>> {
    let recordings = &storage.recordings;
    let cleared = storage.remove(camera, Removal::Day(day), || {
        if !recordings.segments(camera, day)?.is_empty() {
            return Ok(None);
        }
        let directory = recordings.day(camera, day);
        let mut foreign = None;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            match entry.file_name().to_str().is_some_and(is_index) {
                true => fs::remove_file(entry.path())?,
                false => foreign = Some(entry.path()),
            }
        }
        match foreign {
            None => fs::remove_dir(&directory).map(|()| None),
            foreign => Ok(foreign),
        }
    });
    match cleared {
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.unwrap_or(Ok(None)),
    }
}

#[cfg(test)]
mod tests;
