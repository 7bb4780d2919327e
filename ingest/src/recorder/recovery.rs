//! Recordings that are not appended to are put in order after recording has begun, one day after the
//! other on a thread of its own: it holds up neither a recorder nor the sweep. A day that is appended
//! to and lacks rows is prepared here, and its recorder puts the index in place between two segments.

use super::storage::{Removal, Storage, Writing};
use base::CameraId;
use ipc::recording::{self, Day, Prepared, Recovered, put_in_order};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// From the start to the first day (chosen: recorders have the disk for themselves while they begin).
pub const FIRST: Duration = Duration::from_secs(10);
/// Between two looks for something to do.
pub const PAUSE: Duration = Duration::from_secs(1);

/// What recorders and recovery have to tell each other.
#[derive(Debug, Default)]
pub struct Orders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    cameras: BTreeMap<CameraId, Recorded>,
    due: VecDeque<(CameraId, Day)>,
}

#[derive(Debug, Default)]
struct Recorded {
    /// Rises when the recorder begins to put a day in order, and when it is done: odd = it does.
    turn: u64,
    /// The day that it appends to.
    day: Option<Day>,
    /// What waits for it.
    prepared: Option<Prepared>,
}

impl Orders {
    /// A recorder puts the end of a day in order, to append to it.
    pub fn begins(&self, camera: &CameraId, day: Day) {
        let mut state = self.lock();
        let recorded = state.cameras.entry(camera.clone()).or_default();
        recorded.turn += 1;
        (recorded.day, recorded.prepared) = (Some(day), None);
    }

    /// It has done so; when the day is `lacking`, recovery looks after it.
    pub fn ends(&self, camera: &CameraId, day: Day, lacking: bool) {
        let mut state = self.lock();
        state.cameras.entry(camera.clone()).or_default().turn += 1;
        let order = (camera.clone(), day);
        if lacking && !state.due.contains(&order) {
            state.due.push_back(order);
        }
    }

    /// The index that was made again of the day that is appended to, if there is one.
    pub fn prepared(&self, camera: &CameraId, day: Day) -> Option<Prepared> {
        let mut state = self.lock();
        let prepared = &mut state.cameras.get_mut(camera)?.prepared;
        prepared.take_if(|prepared| prepared.day() == day)
    }

    fn turn(&self, camera: &CameraId) -> u64 {
        self.lock().cameras.get(camera).map_or(0, |recorded| recorded.turn)
    }

    fn appended(&self, camera: &CameraId) -> Option<Day> {
        self.lock().cameras.get(camera).and_then(|recorded| recorded.day)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what was done to a day and what could not be read.
pub fn tell(camera: &CameraId, day: Day, done: &Recovered) {
    if done.changed() {
        tracing::info!(%camera, "recordings of {day} put in order: {} indexes mended, {} segments \
            cut to their last whole fragment, {} empty ones removed", done.indexes, done.torn,
            done.empty);
    }
    for fault in &done.faults {
        tracing::warn!(%camera, "{fault}");
    }
    if done.more_faults > 0 {
        tracing::warn!(%camera, "and {} more faults on {day}", done.more_faults);
    }
}

/// Every day of every camera is due, but for those that are appended to.
pub fn all_due(storage: &Storage) {
    let recordings = &storage.recordings;
    for camera in recordings.cameras().unwrap_or_default() {
        match recordings.days(&camera) {
            Ok(days) => {
                let appended = storage.written(&camera).and(storage.orders.appended(&camera));
                let mut state = storage.orders.lock();
                for day in days.into_iter().rev().filter(|day| Some(*day) != appended) {
                    state.due.push_back((camera.clone(), day));
                }
            }
            Err(error) => tracing::warn!(%camera, "its recordings can't be listed: {error}"),
        }
    }
}

/// Puts the next day in order; false = there is none.
pub fn one(storage: &Storage) -> bool {
    let Some((camera, day)) = storage.orders.lock().due.pop_front() else { return false };
    let mut done = Recovered::default();
    match order(storage, &camera, day, &mut done) {
        Ok(true) => {}
        // A recorder came between.
        Ok(false) => storage.orders.lock().due.push_back((camera.clone(), day)),
        Err(error) => tracing::warn!(%camera, "the recordings of {day} can't be put in order: \
            {error}; they are played as far as they can be read"),
    }
    tell(&camera, day, &done);
    true
}

/// False = it has to be done again.
fn order(
    storage: &Storage,
    camera: &CameraId,
    day: Day,
    done: &mut Recovered,
) -> std::io::Result<bool> {
    let (orders, recordings) = (&storage.orders, &storage.recordings);
    let turn = orders.turn(camera);
    if !turn.is_multiple_of(2) {
        return Ok(false);
    }
    let recorder = Cell::new(false);
    let writing = || {
        let written = storage.written(camera).filter(|_| orders.appended(camera) == Some(day));
        recorder.set(written.is_some());
        match written {
            None => recording::Writing::Nobody,
            Some(Writing::Open(name)) => recording::Writing::Recorder(Some(name)),
            Some(_) => recording::Writing::Recorder(None),
        }
    };
    let Some(prepared) = put_in_order(recordings, camera, day, &writing, done)? else {
        return Ok(true);
    };
    // A recorder that begins a segment meanwhile waits until the index is in its place.
    let mut prepared = Some(prepared);
    let adopted = storage.remove(camera, Removal::Day(day), || {
        let same = orders.turn(camera) == turn;
        prepared.take_if(|_| same).map(|prepared| prepared.adopt(recordings))
    });
    match adopted {
        Some(Some(adopted)) => adopted.map(|()| true),
        Some(None) => Ok(false),
        // A segment of the day is open: its recorder does it when that ends.
        None => {
            let mut state = orders.lock();
            let recorded = state.cameras.entry(camera.clone()).or_default();
            let same = recorder.get() && recorded.turn == turn;
            recorded.prepared = prepared.filter(|_| same);
            Ok(same)
        }
    }
}

/// Puts in order what is due, from `first` on and until nobody else keeps the storage.
pub fn run(weak: &Weak<Storage>, first: Duration, pause: Duration) {
    let mut before = first;
    loop {
        let Some(storage) = weak.upgrade() else { return };
        if before.is_zero() {
            if one(&storage) {
                continue;
            }
        } else {
            before = before.saturating_sub(pause);
            if before.is_zero() {
                all_due(&storage);
            }
        }
        drop(storage);
        thread::sleep(pause);
    }
}

/// Starts the thread.
///
/// # Errors
/// When the process has no threads left.
pub fn keep(storage: &Arc<Storage>, first: Duration, pause: Duration) -> std::io::Result<()> {
    let weak = Arc::downgrade(storage);
    let work = move || run(&weak, first, pause);
    thread::Builder::new().name("recovery".into()).spawn(work).map(drop)
}
