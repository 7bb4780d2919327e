//! Reading events: by id, and in pages.

use crate::database::Database;
use crate::day::Day;
use crate::error::{Fault, StoreError};
use crate::event::{Event, EventId, NewEvent};
use crate::pool::Pool;
use crate::query::{Cursor, EventPage, EventQuery, Page, TOTAL_MAX};
use crate::record::{self, RecordError};
use crate::tables::{BY_CAMERA, BY_CLASS, BY_MODEL, EVENTS, NUMBERS, TEXTS};
use base::clock_trust::Rest;
use base::{CameraId, DeviceId, ModelId, UtcNanos};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Reads events while they are written. Cheap to clone; every call sees whole commits.
#[derive(Debug, Clone)]
pub struct EventReader {
    pool: Arc<Pool>,
}

impl EventReader {
    /// What is behind it; for tests.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn new(pool: Arc<Pool>) -> EventReader {
        EventReader { pool }
    }

    /// One event, `None` when there is none of this id.
    ///
    /// # Errors
    /// [`StoreError::Record`] when it is there and can't be read.
    pub fn get(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let Some(file) = self.pool.get(id.day()) else { return Ok(None) };
        let read = file.read("reading an event", |read| {
            let events = read.open_table(EVENTS)?;
            let Some(bytes) = events.get(id.as_u128())? else { return Ok(None) };
            let texts = Texts::open(read)?;
            Ok(Some(load(id, bytes.value(), &texts)?.map_err(|source| StoreError::Record {
                path: file.path().to_owned(),
                what: format!("event {id}"),
                source,
            })?))
        });
        match self.noted(id.day(), read) {
            Err(e) if e.is_gone() => Ok(None),
            other => other,
        }
    }

    /// Why events can't be read, `None` when nothing is known to be wrong: the last event of the
    /// newest file up to today's is looked up, then the last read of every day counts, then what
    /// somebody did to a file that is written.
    pub fn fault(&self) -> Option<String> {
        let unread = self.probe().err().map(|e| e.to_string()).or_else(|| self.pool.unread());
        unread.or_else(|| self.pool.lost())
    }

    /// Why no events are deleted for their age; `None` while the clock is trusted.
    pub fn rest(&self) -> Option<Rest> {
        self.pool.rest()
    }

    fn probe(&self) -> Result<(), StoreError> {
        let newest = self.pool.newest_day();
        let Some(file) = newest.and_then(|day| self.pool.get(day)) else { return Ok(()) };
        let read = file.read("reading the last event", |read| {
            if let Some((id, bytes)) = read.open_table(EVENTS)?.last()?
                && let Some(id) = EventId::from_u128(id.value())
            {
                let _decoded = load(id, bytes.value(), &Texts::open(read)?)?;
            }
            Ok(())
        });
        match read {
            Err(e) if e.is_gone() => Ok(()),
            other => other,
        }
    }

    fn noted<T>(&self, day: Day, read: Result<T, StoreError>) -> Result<T, StoreError> {
        self.pool.note_read(day, read.as_ref().err().filter(|e| !e.is_gone()));
        read
    }

    /// A page of events, newest first. Cost: the page, and at most 10,000 index entries to count;
    /// a combination of filters that rarely match is looked for within a bounded number of steps.
    ///
    /// # Errors
    /// [`StoreError::Query`] when limit or offset are out of bounds.
    pub fn list(&self, query: &EventQuery) -> Result<EventPage, StoreError> {
        query.validate()?;
        let first = EventId::first_of(query.start.unwrap_or(UtcNanos(0)));
        let last = EventId::last_of(query.end.unwrap_or(UtcNanos(u64::MAX)));
        let limit = query.limit as usize;
        let (skip, from, counting) = match query.page {
            Page::First => (0, last, true),
            Page::Offset(offset) => (u64::from(offset), last, true),
            Page::After(cursor) => (0, last.min(cursor.event()), false),
        };
        let steps_left = self.pool.options().list_steps_max;
        let mut pass = Pass { skip, limit, counting, steps_left, ..Pass::default() };
        let until = match query.page {
            Page::After(cursor) if cursor.event() <= last => Bound::Below(from),
            _ => Bound::At(from),
        };
        self.walk(query, first, until, &mut pass)?;
        let total = if counting {
            pass.total()
        } else {
            let mut count = Pass { counting: true, steps_left, ..Pass::default() };
            self.walk(query, first, Bound::At(last), &mut count)?;
            count.total()
        };
        Ok(EventPage { next: pass.next(), events: pass.events, total, unreadable: pass.unreadable })
    }

    /// Hands every match between `first` and `until` to the pass, newest first.
    fn walk(
        &self,
        query: &EventQuery,
        first: EventId,
        until: Bound,
        pass: &mut Pass,
    ) -> Result<(), StoreError> {
        for day in self.pool.days(first.day(), until.id().day()) {
            let Some(file) = self.pool.get(day) else { continue };
            let low = first.max(EventId::first_of(day.start()));
            let high = match until {
                Bound::Below(id) if id.day() == day => id.as_u128().wrapping_sub(1),
                Bound::At(id) if id.day() == day => id.as_u128(),
                _ => EventId::last_of(day.end()).as_u128(),
            };
            let walked = file.read("listing events", |read| {
                walk_day(read, &file, query, low.as_u128(), high, pass)
            });
            match self.noted(day, walked) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(e) if e.is_gone() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Bound {
    At(EventId),
    Below(EventId),
}

impl Bound {
    fn id(self) -> EventId {
        match self {
            Bound::At(id) | Bound::Below(id) => id,
        }
    }
}

/// What one pass over the events gathers.
#[derive(Default)]
struct Pass {
    skip: u64,
    limit: usize,
    /// Go on behind the page until the total is known.
    counting: bool,
    matched: u64,
    steps_left: u64,
    events: Vec<Event>,
    unreadable: u32,
    /// The last event of the page, readable or not.
    page_end: Option<EventId>,
    /// There is a match behind the page.
    more: bool,
    /// Where the pass gave up.
    gave_up: Option<EventId>,
}

impl Pass {
    fn page_full(&self) -> bool {
        self.events.len() + self.unreadable as usize >= self.limit
    }

    fn total(&self) -> Option<u64> {
        (self.gave_up.is_none() && self.matched <= TOTAL_MAX).then_some(self.matched)
    }

    fn next(&self) -> Option<Cursor> {
        if self.more {
            self.page_end.map(Cursor::after)
        } else if self.page_full() {
            // A full page, then a search for its successor that found none in time.
            self.gave_up.and(self.page_end).map(Cursor::after)
        } else {
            self.gave_up.map(Cursor::after)
        }
    }

    /// One index entry was looked at; the events above `at` are all known.
    fn step(&mut self, at: u128) -> ControlFlow<()> {
        self.steps_left = self.steps_left.saturating_sub(1);
        if self.steps_left > 0 {
            return ControlFlow::Continue(());
        }
        self.gave_up = EventId::from_u128(at);
        if self.gave_up.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// A match. `load` is called when it belongs to the page.
    fn found(
        &mut self,
        id: u128,
        load: impl FnOnce(EventId) -> Result<Result<Event, RecordError>, Fault>,
    ) -> Result<ControlFlow<()>, Fault> {
        self.matched += 1;
        if self.matched > self.skip {
            if !self.page_full() {
                match EventId::from_u128(id) {
                    Some(id) => {
                        self.page_end = Some(id);
                        match load(id)? {
                            Ok(event) => self.events.push(event),
                            Err(_) => self.unreadable += 1,
                        }
                    }
                    None => self.unreadable += 1,
                }
            } else {
                self.more = true;
                if !self.counting {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        let enough = self.matched > TOTAL_MAX && (self.more || self.limit == 0);
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn walk_day(
    read: &ReadTransaction,
    file: &Database,
    query: &EventQuery,
    low: u128,
    high: u128,
    pass: &mut Pass,
) -> Result<ControlFlow<()>, Fault> {
    let go_on = Ok(ControlFlow::Continue(()));
    if low > high {
        return go_on;
    }
    let numbers = read.open_table(NUMBERS)?;
    let mut indexes = Vec::new();
    if let Some(camera) = &query.camera {
        let Some(number) = numbers.get(camera.as_str())? else { return go_on };
        indexes.push(Index { table: read.open_table(BY_CAMERA)?, key: number.value() });
    }
    if let Some(model) = &query.model {
        let Some(number) = numbers.get(model.as_str())? else { return go_on };
        indexes.push(Index { table: read.open_table(BY_MODEL)?, key: number.value() });
    }
    if let Some(class) = query.class_id {
        indexes.push(Index { table: read.open_table(BY_CLASS)?, key: class.into() });
    }
    let events = read.open_table(EVENTS)?;
    let texts = Texts::open(read)?;
    let load_by_id = |id: EventId| match events.get(id.as_u128())? {
        Some(bytes) => load(id, bytes.value(), &texts),
        None => Err(missing(file.path(), id)),
    };
    match indexes.as_slice() {
        [] => {
            for entry in events.range(low..=high)?.rev() {
                let (key, value) = entry?;
                let id = key.value();
                if pass.found(id, |id| load(id, value.value(), &texts))?.is_break()
                    || pass.step(id).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        [index] => {
            for entry in index.table.range((index.key, low)..=(index.key, high))?.rev() {
                let id = entry?.0.value().1;
                if pass.found(id, load_by_id)?.is_break() || pass.step(id).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        [lead, others @ ..] => {
            // Down the first index; where another one lacks an entry, down to its next one.
            let mut lead = Leap::new(lead, low, high);
            let mut high = high;
            while let Some(candidate) = lead.at_or_below(high)? {
                let mut agreed = candidate;
                for other in others {
                    match other.at_or_below(low, candidate)? {
                        Some(id) => agreed = agreed.min(id),
                        None => return go_on,
                    }
                    if agreed < candidate {
                        break;
                    }
                }
                let found = agreed == candidate;
                if found && pass.found(candidate, load_by_id)?.is_break()
                    || pass.step(candidate).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                if found && candidate == low {
                    return go_on;
                }
                high = if found { candidate - 1 } else { agreed };
            }
        }
    }
    go_on
}

/// The entries of one key of an index.
struct Index {
    table: ReadOnlyTable<(u32, u128), ()>,
    key: u32,
}

impl Index {
    /// The newest entry at or below `target` and not below `low`.
    fn at_or_below(&self, low: u128, target: u128) -> Result<Option<u128>, Fault> {
        // Mostly it is there, and a look-up costs less than a range.
        if self.table.get((self.key, target))?.is_some() {
            return Ok(Some(target));
        }
        let mut range = self.table.range((self.key, low)..=(self.key, target))?;
        Ok(range.next_back().transpose()?.map(|entry| entry.0.value().1))
    }
}

/// Walks the entries of one key downwards, to targets that never rise.
struct Leap<'i> {
    index: &'i Index,
    low: u128,
    high: u128,
    entries: Option<redb::Range<'static, (u32, u128), ()>>,
    current: Option<u128>,
}

/// Entries that are stepped over before the tree is searched anew (chosen: a search costs about as
/// much as a dozen steps).
const STEPS_BEFORE_SEARCH: u32 = 12;

impl<'i> Leap<'i> {
    fn new(index: &'i Index, low: u128, high: u128) -> Leap<'i> {
        Leap { index, low, high, entries: None, current: None }
    }

    /// The newest entry at or below `target`, `None` when there is none.
    fn at_or_below(&mut self, target: u128) -> Result<Option<u128>, Fault> {
        if let Some(entries) = &mut self.entries {
            for _ in 0..STEPS_BEFORE_SEARCH {
                match self.current {
                    Some(id) if id > target => {
                        self.current = entries.next_back().transpose()?.map(|e| e.0.value().1);
                    }
                    reached => return Ok(reached),
                }
            }
            if self.current.is_none_or(|id| id <= target) {
                return Ok(self.current);
            }
        }
        let high = target.min(self.high);
        if self.low > high {
            return Ok(None);
        }
        let key = self.index.key;
        let mut entries = self.index.table.range((key, self.low)..=(key, high))?;
        self.current = entries.next_back().transpose()?.map(|e| e.0.value().1);
        self.entries = Some(entries);
        Ok(self.current)
    }
}

/// The file's dictionary.
pub(crate) struct Texts(ReadOnlyTable<u32, &'static str>);

impl Texts {
    pub(crate) fn open(read: &ReadTransaction) -> Result<Texts, Fault> {
        Ok(Texts(read.open_table(TEXTS)?))
    }

    fn get<T>(
        &self,
        field: &'static str,
        number: u32,
        make: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Result<T, RecordError>, Fault> {
        let text = self.0.get(number)?;
        let made = text.and_then(|text| make(text.value()));
        Ok(made.ok_or(RecordError::Value { field, value: number.into() }))
    }
}

/// An event from its record; the inner error says why the record can't be read.
pub(crate) fn load(
    id: EventId,
    bytes: &[u8],
    texts: &Texts,
) -> Result<Result<Event, RecordError>, Fault> {
    let record = match record::decode(bytes) {
        Ok(record) => record,
        Err(error) => return Ok(Err(error)),
    };
    let numbers = record.numbers;
    let camera = texts.get("camera", numbers.camera, |t| CameraId::new(t).ok())?;
    let model = texts.get("model", numbers.model, |t| ModelId::new(t).ok())?;
    let version = texts.get("model version", numbers.version, |t| Some(t.to_owned()))?;
    let device = texts.get("device", numbers.device, |t| DeviceId::new(t).ok())?;
    let event = || {
        Ok(Event {
            id,
            created_at: record.created_at,
            content: NewEvent {
                camera: camera?,
                model: model?,
                model_version: version?,
                device: device?,
                capture_utc: id.timestamp(),
                generation: record.generation,
                frame_id: record.frame_id,
                media: record.media,
                frame: record.frame,
                detections: record.detections,
                stages: record.stages,
                metadata: record.metadata,
            },
        })
    };
    Ok(event())
}

fn missing(path: &Path, id: EventId) -> Fault {
    Fault::Store(StoreError::Corrupt {
        path: path.to_owned(),
        detail: format!("an index names event {id}, which is not there"),
    })
}
