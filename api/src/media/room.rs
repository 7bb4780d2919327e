//! What snapshots and clips may take of the disk, and which go when it is too much or they are too old.
//!
//! They never take more than a share of the file system: the oldest that nobody protected go, and where
//! that does not help a new one is refused. Nor does a job begin that would leave less free than others
//! need. Bytes are counted on the disk once and carried on from there, so files without a row count too.
//! [`super::keeper`] calls what is to be done from time to time; jobs take a [`Place`] each.

use super::MediaError;
use super::files::{Files, Kind, Owner};
use crate::disk::{Demands, Disk, Space, share};
use base::UtcNanos;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::control::{Bookmark, JobState};
use store::{Control, StoreError};

/// Rows that are removed in one transaction (chosen: a second transaction costs as much again).
const BATCH: usize = 64;

/// How long snapshots and clips stay, and how much they may take: `[media]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaOptions {
    /// Those made longer ago go.
    pub retention: Duration,
    /// Share of the disk that all of them can't exceed.
    pub max_percent: u64,
}

/// Why a picture or clip may not be made now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Theirs is used up, and nothing of it may go.
    #[error(
        "snapshots and clips may take {percent} % of the disk, {share} bytes; {used} are taken, of which \
         {removable} may be removed, and {wanted} more are needed: delete some, take `protected` off some, \
         or raise `max_percent` in [media]"
    )]
    Share {
        /// `max_percent`.
        percent: u64,
        /// Bytes of it.
        share: u64,
        /// Bytes that are taken, by jobs under way too.
        used: u64,
        /// Bytes of those that nobody protected.
        removable: u64,
        /// Bytes that were asked for.
        wanted: u64,
    },
    /// Others filled the disk.
    #[error(
        "the disk of {} has {free} bytes free, of which {reserve} stay free, and {wanted} are needed: make \
         room, or shorten `retention` of [recording] or of [media]", path.display()
    )]
    Disk {
        /// The state directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that others need.
        reserve: u64,
        /// Bytes that were asked for.
        wanted: u64,
    },
}

/// What the share is and how much of it is taken, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Taken, also by jobs under way.
    pub bytes: u64,
    /// At most.
    pub most: u64,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Bytes of files; `None` = not counted yet.
    used: Option<u64>,
    /// Bytes that jobs under way may write.
    reserved: u64,
    /// Changes so far: what was found out before one may not hold any more.
    changes: u64,
    /// Bytes that may be removed in all, found out when so many changes had been made.
    removable: Option<(u64, u64)>,
    /// Why the last picture or clip was refused.
    refused: Option<String>,
    /// Why nothing is removed for its age.
    resting: Option<String>,
}

impl Ledger {
    fn taken(&self) -> u64 {
        self.used.unwrap_or(0).saturating_add(self.reserved)
    }

    fn change(&mut self, removed: u64, added: u64) {
        self.used = self.used.map(|used| used.saturating_sub(removed).saturating_add(added));
        self.changes += 1;
    }
}

/// Makes room, or says no.
#[derive(Debug)]
pub struct Room {
    /// The state directory.
    pub path: PathBuf,
    /// The disk below.
    pub disk: Disk,
    /// What `[media]` says.
    pub options: MediaOptions,
    /// What others need of the disk.
    pub demands: Demands,
    files: Files,
    control: Control,
    stopping: Arc<AtomicBool>,
    ledger: Mutex<Ledger>,
}

/// Bytes that a job may write, given back when dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    /// On the disk of the state directory `path`.
    pub fn new(
        (path, disk): (PathBuf, Disk),
        options: MediaOptions,
        demands: Demands,
        (files, control): (Files, Control),
        stopping: Arc<AtomicBool>,
    ) -> Arc<Room> {
        let ledger = Mutex::default();
        Arc::new(Room { path, disk, options, demands, files, control, stopping, ledger })
    }

    /// The ledger, counted.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.used.is_none() {
            ledger.used = Some(self.files.bytes_of_all());
        }
        ledger
    }

    fn space(&self) -> Result<Space, MediaError> {
        let failed = |source| MediaError::File { path: self.path.clone(), source };
        self.disk.space(&self.path).map_err(failed)
    }

    /// How much is taken, and of how much.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn taken(&self) -> Result<Taken, MediaError> {
        Ok(Taken { bytes: self.lock().taken(), most: self.share()? })
    }

    /// Why events are not stored on this disk once recordings have filled it; see
    /// [`Demands::contradiction`].
    pub fn contradiction(&self) -> Option<String> {
        self.demands.contradiction(self.space().ok()?.size)
    }

    /// Why the last picture or clip was refused, until one is not.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    /// Why nothing is removed for its age, while it is so.
    pub fn resting(&self) -> Option<String> {
        self.lock().resting.clone()
    }

    /// Says why nothing is removed for its age.
    pub fn rests(&self, why: Option<String>) {
        self.lock().resting = why;
    }

    /// Whether so many bytes could be had now. Removes nothing.
    ///
    /// # Errors
    /// [`NoRoom`], and those of the disk and the registry.
    pub fn look(&self, bytes: u64) -> Result<(), MediaError> {
        let mut ledger = self.lock();
        self.may(&mut ledger, bytes).map(drop)
    }

    /// Makes room for so many bytes.
    ///
    /// # Errors
    /// As [`Room::look`]; then nothing was removed, unless the registry failed or somebody protected
    /// rows meanwhile.
    pub fn admit(self: &Arc<Room>, bytes: u64) -> Result<Place, MediaError> {
        let mut ledger = self.lock();
        let over = self.may(&mut ledger, bytes)?;
        self.shrink(&mut ledger, over, bytes)?;
        ledger.reserved += bytes;
        Ok(Place { room: Arc::clone(self), bytes })
    }

    /// Bytes that have to go for so many new ones.
    fn may(&self, ledger: &mut Ledger, bytes: u64) -> Result<u64, MediaError> {
        let may = self.within(ledger, bytes).and_then(|over| self.free(ledger, over, bytes));
        ledger.refused = match &may {
            Err(MediaError::NoRoom(reason)) => Some(reason.to_string()),
            _ => None,
        };
        may
    }

    /// Bytes beyond the share with so many new ones, when so many may go.
    fn within(&self, ledger: &mut Ledger, wanted: u64) -> Result<u64, MediaError> {
        let over = ledger.taken().saturating_add(wanted).saturating_sub(self.share()?);
        if over == 0 {
            return Ok(0);
        }
        let removable = self.removable(ledger, over)?;
        if removable < over { Err(self.full(ledger, removable, wanted)?) } else { Ok(over) }
    }

    /// Bytes that all of them can't exceed.
    fn share(&self) -> Result<u64, MediaError> {
        Ok(share(self.space()?.size, self.options.max_percent))
    }

    fn full(&self, ledger: &Ledger, removable: u64, wanted: u64) -> Result<MediaError, MediaError> {
        let (percent, share, used) = (self.options.max_percent, self.share()?, ledger.taken());
        Ok(NoRoom::Share { percent, share, used, removable, wanted }.into())
    }

    /// Whether enough stays free when `over` bytes go and `wanted` come.
    fn free(&self, ledger: &Ledger, over: u64, wanted: u64) -> Result<u64, MediaError> {
        let Space { size, free } = self.space()?;
        let (path, reserve) = (self.path.clone(), self.demands.reserve(size));
        let written = ledger.reserved.saturating_add(wanted);
        let left = i128::from(free) + i128::from(over) - i128::from(written);
        if left < i128::from(reserve) {
            return Err(NoRoom::Disk { path, free, reserve, wanted }.into());
        }
        Ok(over)
    }

    /// Bytes that may be removed, all of them or at least `enough`. As rows say it: the small pictures
    /// beside clips come on top.
    fn removable(&self, ledger: &mut Ledger, enough: u64) -> Result<u64, StoreError> {
        if let Some((changes, bytes)) = ledger.removable
            && changes == ledger.changes
        {
            return Ok(bytes);
        }
        let mut bytes = 0;
        let mut count = |loose: bool, size: u64| {
            bytes += if loose { size } else { 0 };
            bytes < enough
        };
        self.control.read(|read| {
            read.visit_snapshots(|row| count(!row.protected, row.file_size))?;
            read.visit_bookmarks(|row| count(loose(&row), row.file_size))
        })?;
        if bytes < enough {
            ledger.removable = Some((ledger.changes, bytes));
        }
        Ok(bytes)
    }

    /// Removes the oldest until `over` bytes went, for `wanted` new ones.
    fn shrink(&self, ledger: &mut Ledger, over: u64, wanted: u64) -> Result<(), MediaError> {
        let mut left = over;
        while left > 0 {
            let oldest = self.oldest(left)?;
            let (rows, bytes) = self.remove(ledger, &oldest)?;
            left = left.saturating_sub(bytes);
            if rows == 0 {
                // Protected since it was looked at, or serve stops.
                return Err(self.full(ledger, 0, wanted)?);
            }
        }
        Ok(())
    }

    /// The oldest that may go, up to so many bytes or [`BATCH`] rows.
    fn oldest(&self, wanted: u64) -> Result<Vec<Owner>, StoreError> {
        let mut found: Vec<(UtcNanos, Owner)> = Vec::new();
        let more = |bytes: &mut u64, rows: &mut usize, size: u64| {
            *bytes = bytes.saturating_add(size);
            *rows += 1;
            *bytes < wanted && *rows < BATCH
        };
        self.control.read(|read| {
            let (mut bytes, mut rows) = (0, 0);
            read.visit_snapshots(|row| {
                if row.protected {
                    return true;
                }
                found.push((row.created_at, Owner::of_snapshot(&row)));
                more(&mut bytes, &mut rows, row.file_size)
            })?;
            let (mut bytes, mut rows) = (0, 0);
            read.visit_bookmarks(|row| {
                // One that failed has no file.
                if !loose(&row) || row.state != JobState::Done {
                    return true;
                }
                found.push((row.created_at, Owner::of_bookmark(&row)));
                more(&mut bytes, &mut rows, row.file_size)
            })
        })?;
        found.sort_by_key(|(created_at, _)| *created_at);
        let (mut bytes, mut oldest) = (0_u64, Vec::new());
        for (_, owner) in found.into_iter().take(BATCH) {
            if bytes >= wanted {
                break;
            }
            bytes = bytes.saturating_add(self.files.bytes(&owner));
            oldest.push(owner);
        }
        Ok(oldest)
    }

    /// Removes rows that may go and their files. Returns how many rows and bytes went.
    fn remove(&self, ledger: &mut Ledger, rows: &[Owner]) -> Result<(usize, u64), StoreError> {
        if rows.is_empty() || self.stopping.load(Ordering::Acquire) {
            return Ok((0, 0));
        }
        let mut went = 0;
        let bytes = self.files.delete(rows, || {
            let gone = self.control.write(|write| {
                let each = rows.iter().map(|Owner { kind, id, .. }| match kind {
                    // Somebody may have protected it meanwhile.
                    Kind::Snapshots => match write.snapshot(id)? {
                        Some(row) if row.protected => Ok(false),
                        _ => write.delete_snapshot(id).map(|_| true),
                    },
                    Kind::Bookmarks => match write.bookmark(id)? {
                        Some(row) if !loose(&row) => Ok(false),
                        _ => write.delete_bookmark(id).map(|_| true),
                    },
                });
                each.collect::<Result<Vec<bool>, StoreError>>()
            })?;
            went = gone.iter().filter(|gone| **gone).count();
            Ok::<_, StoreError>(gone)
        })?;
        ledger.change(bytes, 0);
        Ok((went, bytes))
    }

    /// Removes what was made before `oldest`. Returns how many went.
    ///
    /// # Errors
    /// Those of the registry.
    pub fn expire(&self, oldest: UtcNanos) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let mut rows = Vec::new();
            self.control.read(|read| {
                let young = |created_at: UtcNanos| created_at >= oldest;
                read.visit_snapshots(|row| {
                    if !young(row.created_at) && !row.protected {
                        rows.push(Owner::of_snapshot(&row));
                    }
                    !young(row.created_at) && rows.len() < BATCH
                })?;
                read.visit_bookmarks(|row| {
                    if !young(row.created_at) && loose(&row) {
                        rows.push(Owner::of_bookmark(&row));
                    }
                    !young(row.created_at) && rows.len() < BATCH
                })
            })?;
            let (went, _) = self.remove(&mut self.lock(), &rows)?;
            removed += went;
            if went == 0 {
                return Ok(removed);
            }
        }
    }

    /// Brings what there is below the share, which may have become smaller, as far as it may go. Returns
    /// how many bytes went.
    ///
    /// # Errors
    /// Those of the disk and the registry; [`NoRoom::Share`] when it is still too much.
    pub fn fit(&self) -> Result<u64, MediaError> {
        let mut ledger = self.lock();
        let before = ledger.taken();
        let over = before.saturating_sub(self.share()?);
        self.shrink(&mut ledger, over, 0)?;
        Ok(before - ledger.taken())
    }

    /// Counts again what is on the disk: people remove and add files too.
    pub fn recount(&self) {
        let changes = self.lock().changes;
        self.counted(changes, self.files.bytes_of_all());
    }

    fn counted(&self, changes: u64, counted: u64) {
        let mut ledger = self.lock();
        // While somebody writes, the ledger knows better.
        if ledger.changes == changes && ledger.reserved == 0 {
            ledger.used = Some(counted);
        }
    }

    /// Deletes files around `delete_row`, whatever protects them: a person asked for it.
    ///
    /// # Errors
    /// Those of `delete_row`; the files are there then.
    pub fn delete<E>(
        &self,
        owner: Owner,
        delete_row: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.files.delete(&[owner], || delete_row().map(|()| vec![true]))?;
        self.lock().change(bytes, 0);
        Ok(())
    }

    /// Notes that rows were changed: some may be protected, or not any more.
    pub fn changed(&self) {
        self.lock().change(0, 0);
    }

    /// Has the files counted anew before the next use.
    pub fn unsure(&self) {
        self.lock().used = None;
    }
}

/// Whether retention may remove a bookmark: nobody protects it, and no job is about to write it.
fn loose(row: &Bookmark) -> bool {
    !row.protected && !matches!(row.state, JobState::Pending | JobState::Running)
}

impl Place {
    /// Makes it large enough for what was made.
    ///
    /// # Errors
    /// As [`Room::admit`].
    pub fn hold(&mut self, bytes: u64) -> Result<(), MediaError> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let mut ledger = self.room.lock();
        // It is written already: the disk has it.
        let over = self.room.within(&mut ledger, more)?;
        self.room.shrink(&mut ledger, over, more)?;
        ledger.reserved += more;
        self.bytes += more;
        Ok(())
    }

    /// So many bytes stay.
    pub fn keep(self, bytes: u64) {
        self.room.lock().change(0, bytes);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut ledger = self.room.lock();
        ledger.reserved = ledger.reserved.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests;
