//! What is removed when: by age, and when the disk is full, the oldest segments of all cameras
//! first. Never the segment that is being written.

use super::storage::{Removal, Storage, Writing};
use crate::backoff::LogGate;
use base::{CameraId, UtcNanos};
use ipc::clock;
use ipc::recording::{Day, HEADER_BYTES, Header, INDEX_NAME, SegmentName, recover};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Segments removed between two looks at the disk.
const REMOVED_AT_ONCE: usize = 16;

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

/// Removes what is to be removed, again and again.
#[derive(Debug, Default)]
pub struct Sweeper {
    recovered: bool,
    warned: LogGate,
    failed: LogGate,
}

/// Segments of all cameras on one day, the oldest first.
type DaySegments = Vec<(SegmentName, CameraId)>;

impl Sweeper {
    /// One sweep at `now`. What fails is logged and tried again with the next one.
    pub fn sweep(&mut self, storage: &Arc<Storage>, now: UtcNanos) {
        if !std::mem::replace(&mut self.recovered, true) {
            self.recover(storage);
        }
        let failed = match sweep(storage, now) {
            Ok((removed, used, failed)) => {
                if removed > 0 {
                    tracing::info!(
                        "removed {removed} segments of recordings; the disk is {:.0} % \
                        full",
                        used * 100.0
                    );
                }
                let retention = &storage.options.retention;
                if used >= retention.warn {
                    let line = format!(
                        "the disk of {} is {:.0} % full",
                        storage.options.root.display(),
                        used * 100.0
                    );
                    if self.warned.allows("full", clock::monotonic()) {
                        tracing::warn!(
                            "{line}; at {:.0} % the oldest recordings are removed",
                            retention.high * 100.0
                        );
                    }
                } else {
                    self.warned.clear();
                }
                failed
            }
            Err(error) => Some(error),
        };
        match failed {
            None => drop(self.failed.clear()),
            Some(error) => {
                let line = format!(
                    "recordings in {} can't be removed: {error}; check the \
                    directory's permissions",
                    storage.options.root.display()
                );
                if self.failed.allows(&line, clock::monotonic()) {
                    tracing::error!("{line}");
                }
            }
        }
    }

    /// Cameras that nobody records have no recorder to put them in order.
    fn recover(&mut self, storage: &Arc<Storage>) {
        for camera in storage.recordings.cameras().unwrap_or_default() {
            // A recorder that begins meanwhile waits.
            let Some(claim) = storage.claim(&camera, || true) else { continue };
            claim.announce(Writing::PuttingInOrder);
            if let Err(error) = recover(&storage.recordings, &camera) {
                tracing::warn!(%camera, "its recordings can't be put in order: {error}");
            }
        }
    }
}

/// The first error of several attempts: one that fails holds up no other.
#[derive(Debug, Default)]
struct First(Option<io::Error>);

impl First {
    /// What came of an attempt, if anything did.
    fn note<T>(&mut self, outcome: io::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.0.get_or_insert(error)).ok()
    }
}

/// Returns how many segments were removed, how full the disk is, and the first of the errors that
/// held up only what they concern.
fn sweep(storage: &Storage, now: UtcNanos) -> io::Result<(usize, f64, Option<io::Error>)> {
    let Storage { recordings, options, .. } = storage;
    if !options.root.exists() {
        return Ok((0, 0.0, None));
    }
    let age = base::time::nanos(options.retention.age);
    let oldest = UtcNanos(now.0.saturating_sub(age));
    let mut first = First::default();
    let mut days: Vec<(Day, CameraId)> = Vec::new();
    for camera in recordings.cameras()? {
        let found = first.note(recordings.days(&camera)).unwrap_or_default();
        days.extend(found.into_iter().map(|day| (day, camera.clone())));
    }
    days.sort();
    let mut used = options.disk.used(&options.root)?;
    let mut target = options.retention.target(used);
    let mut removed = 0;
    let mut days = days.as_slice();
    while let Some((day, _)) = days.first() {
        let (same, later) = days.split_at(days.partition_point(|(d, _)| d == day));
        if day.start() >= oldest && target.is_none() {
            break;
        }
        let mut segments: DaySegments = Vec::new();
        for (day, camera) in same {
            let names = first.note(recordings.segments(camera, *day)).unwrap_or_default();
            segments.extend(names.into_iter().map(|name| (name, camera.clone())));
        }
        segments.sort();
        let mut batch = segments.as_slice();
        loop {
            let too_old = batch.partition_point(|(name, _)| name.utc() < oldest);
            let count = match target {
                Some(_) => too_old.max(REMOVED_AT_ONCE).min(batch.len()),
                None => too_old,
            };
            let (gone, rest) = batch.split_at(count);
            removed += remove(storage, gone, &mut first);
            batch = rest;
            if target.is_some() {
                used = options.disk.used(&options.root)?;
                target = target.filter(|target| used > *target);
            }
            if gone.is_empty() || batch.is_empty() {
                break;
            }
        }
        for (day, camera) in same {
            first.note(clear(storage, camera, *day));
        }
        days = later;
    }
    Ok((removed, used, first.0))
}

/// Removes segments of one day, and says so in the indexes.
fn remove(storage: &Storage, segments: &[(SegmentName, CameraId)], first: &mut First) -> usize {
    let mut removed = 0;
    for (name, camera) in segments {
        let gone = storage.remove(camera, Removal::Segment(*name), || {
            let recordings = &storage.recordings;
            // First the index: who reads it must not look for what is not there.
            let index = recordings.day(camera, name.day()).join(INDEX_NAME);
            // A full disk may refuse it, and removing helps: who looks for it finds nothing.
            let _ = note_removed(&index, name.next().utc());
            match fs::remove_file(recordings.segment(camera, *name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            }
        });
        removed += usize::from(gone.is_some_and(|gone| first.note(gone).is_some()));
    }
    removed
}

/// Says in an index what was removed. It never says less than before: after a step back of the
/// clock, what has older names goes later. One that is damaged is left to recovery.
fn note_removed(index: &Path, removed_before: UtcNanos) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(index)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    match Header::decode(&header) {
        Ok(header) if header.removed_before < removed_before => {
            file.write_all_at(&Header { removed_before }.encode(), 0)
        }
        _ => Ok(()),
    }
}

/// Removes the directory of a day without segments, unless it is being written.
fn clear(storage: &Storage, camera: &CameraId, day: Day) -> io::Result<()> {
    let recordings = &storage.recordings;
    let cleared = storage.remove(camera, Removal::Day(day), || {
        if !recordings.segments(camera, day)?.is_empty() {
            return Ok(());
        }
        let directory = recordings.day(camera, day);
        match fs::remove_file(directory.join(INDEX_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Something foreign may lie there: then it stays.
        let _ = fs::remove_dir(&directory);
        Ok(())
    });
    cleared.unwrap_or(Ok(()))
}
