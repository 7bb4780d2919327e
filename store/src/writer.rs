//! The one writer of events.

use crate::database::{Disk, PlainDisk};
use crate::day::Day;
use crate::error::{Fault, StoreError};
use crate::event::{EventId, NewEvent, Rejection};
use crate::expiry::Expiry;
use crate::pool::{Pool, events_directory, first_kept};
use crate::reader::EventReader;
use crate::record::{self, Numbers, RECORD_BYTES_MAX, RecordError};
use crate::tables::{BY_CAMERA, BY_CLASS, BY_MODEL, EVENTS, NUMBERS, TEXTS};
use base::clock_trust::ClockOffset;
use base::{Instant, UtcNanos};
use redb::{ReadableTable, ReadableTableMetadata};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far a timestamp may be ahead of this machine's clock (chosen: a camera process keeps its
/// own anchored time after the clock was set back; a day bounds the files that can appear).
pub const FUTURE_MAX: Duration = Duration::from_secs(86_400);

/// Asks how many bytes are free in a directory.
pub type FreeSpace = dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync;

/// How the event store behaves.
#[derive(Clone)]
pub struct EventOptions {
    /// Days that ended longer ago are deleted as a whole.
    pub retention: Duration,
    /// Events are not written while the file system has less free.
    pub free_space_floor_bytes: u64,
    /// redb's cache for the file of today.
    pub cache_today_bytes: usize,
    /// redb's cache for any other file.
    pub cache_older_bytes: usize,
    /// Most files kept open; more only while more are in use at the same time.
    pub files_open: usize,
    /// Index entries that one list looks at before it gives up; see [`EventPage::next`].
    ///
    /// [`EventPage::next`]: crate::EventPage::next
    pub list_steps_max: u64,
    /// UTC now.
    pub clock: Arc<dyn Fn() -> UtcNanos + Send + Sync>,
    /// CLOCK_MONOTONIC now.
    pub monotonic: Arc<dyn Fn() -> Instant + Send + Sync>,
    /// The offset of UTC that somebody accepted in this run of the machine, if anybody did.
    pub accepted: Arc<dyn Fn() -> Option<ClockOffset> + Send + Sync>,
    /// Free bytes of the file system that holds a directory.
    pub free_space: Arc<FreeSpace>,
}

impl Default for EventOptions {
    /// 30 days, 1 GiB to stay free, caches of 64 and 4 MiB, 6 files, 200,000 entries (about 0.2 s),
    /// the machine's clocks and disk, no offset accepted.
    fn default() -> Self {
        EventOptions {
            retention: Duration::from_secs(30 * 86_400),
            free_space_floor_bytes: 1 << 30,
            cache_today_bytes: 64 << 20,
            cache_older_bytes: 4 << 20,
            files_open: 6,
            list_steps_max: 200_000,
            clock: Arc::new(utc_now),
            monotonic: Arc::new(monotonic_now),
            accepted: Arc::new(|| None),
            free_space: Arc::new(free_space),
        }
    }
}

impl std::fmt::Debug for EventOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventOptions")
            .field("retention", &self.retention)
            .field("free_space_floor_bytes", &self.free_space_floor_bytes)
            .field("cache_today_bytes", &self.cache_today_bytes)
            .field("cache_older_bytes", &self.cache_older_bytes)
            .field("files_open", &self.files_open)
            .field("list_steps_max", &self.list_steps_max)
            .finish_non_exhaustive()
    }
}

/// UTC now, zero before 1970.
pub(crate) fn utc_now() -> UtcNanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UtcNanos(base::time::nanos(since))
}

fn monotonic_now() -> Instant {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Instant(part(now.tv_sec) * base::time::NANOS_PER_SEC + part(now.tv_nsec))
}

/// What an unprivileged process may still use.
fn free_space(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The events of a node. A name to open it by; what is open is a writer and its readers.
#[derive(Debug)]
pub struct EventStore;

impl EventStore {
    /// Opens the events beneath a state directory, making the directory when it is missing, and
    /// deletes what retention no longer keeps. Day files are opened when they are first used.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it open, else those of the file system.
    pub fn open(
        state: &Path,
        options: EventOptions,
    ) -> Result<(EventWriter, EventReader), StoreError> {
        open_with(state, options, Arc::new(PlainDisk))
    }
}

pub(crate) fn open_with(
    state: &Path,
    options: EventOptions,
    disk: Arc<dyn Disk>,
) -> Result<(EventWriter, EventReader), StoreError> {
    let pool = Arc::new(Pool::open(events_directory(state), options, disk)?);
    let now = pool.clocks();
    let mut expiry = Expiry::open(&pool);
    expiry.run(&pool, now)?;
    let writer = EventWriter {
        pool: pool.clone(),
        expiry,
        day: Day::of(now.utc),
        counter: 0,
        // The low bits of a version 7 UUID are random; uuid brings its generator.
        random: uuid::Uuid::now_v7().as_u128() as u32,
        numbers: BTreeMap::new(),
        record: Vec::new(),
    };
    Ok((writer, EventReader::new(pool)))
}

/// Appends events. There is one per store.
#[derive(Debug)]
pub struct EventWriter {
    pool: Arc<Pool>,
    expiry: Expiry,
    /// The day of the last call, to notice midnight.
    day: Day,
    counter: u32,
    random: u32,
    /// What the files' dictionaries hold, as far as it was needed.
    numbers: BTreeMap<Day, HashMap<String, u32>>,
    record: Vec<u8>,
}

/// An event on its way into a file.
struct Placed {
    /// Where it stood in the call.
    index: usize,
    id: EventId,
}

impl EventWriter {
    /// Stores events durably, one transaction per UTC day among them: call it with many at once.
    /// Returns one outcome per event in the same order. Those that come back `Ok` survive a crash
    /// and a power cut.
    ///
    /// The same frame may be stored more than once: a runner answers once, but a model may look
    /// at several regions of a frame, and after a restart of the scheduler a frame may rightly be
    /// sampled again. Each gets an id of its own.
    ///
    /// # Errors
    /// No event of the call is acknowledged; those of another day's transaction, or of one whose
    /// sync failed, may be there all the same. The next call begins afresh.
    pub fn append(
        &mut self,
        events: &[NewEvent],
    ) -> Result<Vec<Result<EventId, Rejection>>, StoreError> {
        let now = self.pool.now();
        self.turn_day(now)?;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.check_space()?;
        let mut outcomes = Vec::with_capacity(events.len());
        let mut days: BTreeMap<Day, Vec<Placed>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            match self.admit(event, now) {
                Ok(()) => {
                    let id = self.next_id(event.capture_utc);
                    days.entry(id.day()).or_default().push(Placed { index, id });
                    outcomes.push(Ok(id));
                }
                Err(rejection) => outcomes.push(Err(rejection)),
            }
        }
        for (day, placed) in days {
            let written = self.write_day(day, events, placed, now, &mut outcomes);
            if let Err(error) = written {
                // The numbers may not be in the file.
                self.numbers.remove(&day);
                return Err(error);
            }
        }
        Ok(outcomes)
    }

    /// Deletes the days that are past retention, unless the clock is in doubt. [`EventWriter::append`]
    /// does it at midnight; call it now and then: a wrong clock shows between two calls.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn expire(&mut self) -> Result<Vec<Day>, StoreError> {
        let now = self.pool.clocks();
        let expired = self.expiry.run(&self.pool, now)?;
        self.day = Day::of(now.utc);
        self.numbers.retain(|day, _| !expired.contains(day));
        Ok(expired)
    }

    /// Has the file of today lie under its name again when somebody deleted or replaced it:
    /// [`EventWriter::append`] does it; call it now and then, so that a crash before that loses
    /// nothing. Costs a `stat` or two when all is well.
    ///
    /// # Errors
    /// [`StoreError::Lost`], and those of the file system.
    pub fn keep(&mut self) -> Result<(), StoreError> {
        self.pool.keep_all()
    }

    fn turn_day(&mut self, now: UtcNanos) -> Result<(), StoreError> {
        if Day::of(now) != self.day {
            self.expire()?;
            let kept = Day(Day::of(now).0.saturating_sub(1));
            self.numbers.retain(|&day, _| day >= kept);
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let dir = self.pool.dir();
        let floor_bytes = self.pool.options().free_space_floor_bytes;
        let free_bytes = (self.pool.options().free_space)(dir)
            .map_err(|e| StoreError::io(dir, "asking for the free space", e))?;
        if free_bytes >= floor_bytes {
            return Ok(());
        }
        Err(StoreError::SpaceLow { dir: dir.to_owned(), free_bytes, floor_bytes })
    }

    fn admit(&self, event: &NewEvent, now: UtcNanos) -> Result<(), Rejection> {
        let ahead = Duration::from_nanos(event.capture_utc.0.saturating_sub(now.0));
        if ahead > FUTURE_MAX {
            let camera = event.camera.clone();
            return Err(Rejection::Future { camera, ahead, limit: FUTURE_MAX });
        }
        let day = Day::of(event.capture_utc);
        // While the clock is in doubt, nothing is too old: not what comes, either.
        if self.pool.rest().is_none() && day < first_kept(now, self.pool.options().retention) {
            return Err(Rejection::Expired { camera: event.camera.clone(), day });
        }
        Ok(())
    }

    fn next_id(&mut self, utc: UtcNanos) -> EventId {
        self.counter = self.counter.wrapping_add(1);
        EventId::new(utc, u64::from(self.counter) << 32 | u64::from(self.random))
    }

    fn write_day(
        &mut self,
        day: Day,
        events: &[NewEvent],
        mut placed: Vec<Placed>,
        now: UtcNanos,
        outcomes: &mut [Result<EventId, Rejection>],
    ) -> Result<(), StoreError> {
        let (file, made) = self.pool.get_or_create(day)?;
        if made {
            // Those of a file that is gone.
            self.numbers.remove(&day);
        }
        // In the order of the tree: neighbours share its pages.
        placed.sort_unstable_by_key(|p| p.id);
        let numbers = self.numbers.entry(day).or_default();
        let record = &mut self.record;
        file.write("writing events", |db| {
            let mut write = db.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut dictionary = Dictionary {
                    numbers: write.open_table(NUMBERS)?,
                    texts: write.open_table(TEXTS)?,
                    known: numbers,
                };
                let mut table = write.open_table(EVENTS)?;
                let mut by_camera = write.open_table(BY_CAMERA)?;
                let mut by_model = write.open_table(BY_MODEL)?;
                let mut by_class = write.open_table(BY_CLASS)?;
                for Placed { index, id } in &placed {
                    let event = &events[*index];
                    let numbers = Numbers {
                        camera: dictionary.number(event.camera.as_str())?,
                        model: dictionary.number(event.model.as_str())?,
                        version: dictionary.number(&event.model_version)?,
                        device: dictionary.number(event.device.as_str())?,
                    };
                    record.clear();
                    if let Err(rejection) = encode(event, numbers, now, record) {
                        outcomes[*index] = Err(rejection);
                        continue;
                    }
                    let mut id = *id;
                    // Two lives of the writer may draw the same number: a record is never
                    // rewritten.
                    while table.get(id.as_u128())?.is_some() {
                        id = EventId::new(id.timestamp(), (id.as_u128() as u64).wrapping_add(1));
                    }
                    outcomes[*index] = Ok(id);
                    let id = id.as_u128();
                    table.insert(id, record.as_slice())?;
                    by_camera.insert((numbers.camera, id), ())?;
                    by_model.insert((numbers.model, id), ())?;
                    for class in record::classes(&event.detections) {
                        by_class.insert((u32::from(class), id), ())?;
                    }
                }
            }
            write.commit()?;
            Ok(())
        })
    }
}

fn encode(
    event: &NewEvent,
    numbers: Numbers,
    now: UtcNanos,
    record: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let camera = || event.camera.clone();
    record::encode(event, numbers, now, record)
        .map_err(|source: RecordError| Rejection::Invalid { camera: camera(), source })?;
    let (bytes, limit) = (record.len(), RECORD_BYTES_MAX);
    if bytes > limit {
        return Err(Rejection::TooLarge { camera: camera(), bytes, limit });
    }
    Ok(())
}

/// The texts of a file and their numbers.
struct Dictionary<'t, 'k> {
    numbers: redb::Table<'t, &'static str, u32>,
    texts: redb::Table<'t, u32, &'static str>,
    known: &'k mut HashMap<String, u32>,
}

impl Dictionary<'_, '_> {
    fn number(&mut self, text: &str) -> Result<u32, Fault> {
        if let Some(&number) = self.known.get(text) {
            return Ok(number);
        }
        let stored = self.numbers.get(text)?.map(|v| v.value());
        let number = match stored {
            Some(number) => number,
            None => {
                // Counted from 1 and never taken out, so that the length is the last number.
                let number = u32::try_from(self.texts.len()? + 1).unwrap_or(u32::MAX);
                self.numbers.insert(text, number)?;
                self.texts.insert(number, text)?;
                number
            }
        };
        self.known.insert(text.to_owned(), number);
        Ok(number)
    }
}
