//! Midnight, retention, wrong clocks, few files open, too little space.

use super::{Clock, HOUR, NOON, SECOND, event, json};
use crate::day::{DAY_NANOS, Day};
use crate::pool::{days_in, events_directory};
use crate::record::{self, Numbers, RECORD_BYTES_MAX};
use crate::writer::FUTURE_MAX;
use crate::{EventQuery, EventStore, Rejection, StoreError};
use base::UtcNanos;
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn days(state: &std::path::Path) -> Vec<String> {
    days_in(&events_directory(state)).unwrap().iter().map(Day::to_string).collect()
}

#[test]
fn midnight_begins_a_new_file_and_late_events_go_to_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let midnight = UtcNanos(NOON.0 + 12 * HOUR);
    let clock = Clock::at(UtcNanos(midnight.0 - 1));
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(1);
    writer.append(&[event(&mut rng, UtcNanos(midnight.0 - 1))]).unwrap();
    assert_eq!(days(directory.path()), ["2026-03-01"]);
    clock.set(midnight);
    let both = [event(&mut rng, UtcNanos(midnight.0 - 2)), event(&mut rng, midnight)];
    let ids = writer.append(&both).unwrap();
    assert_eq!(days(directory.path()), ["2026-03-01", "2026-03-02"]);
    for (id, content) in ids.into_iter().zip(&both) {
        assert_eq!(&reader.get(id.unwrap()).unwrap().unwrap().content, content);
    }
    let page = reader.list(&EventQuery::default()).unwrap();
    let order: Vec<_> = page.events.iter().map(|e| midnight.0 - e.timestamp().0).collect();
    assert_eq!(order, [0, 1, 2]);
    let until = EventQuery { end: Some(UtcNanos(midnight.0 - 1)), ..EventQuery::default() };
    assert_eq!(reader.list(&until).unwrap().total, Some(2));
    let from = EventQuery { start: Some(UtcNanos(midnight.0 - 1)), ..EventQuery::default() };
    assert_eq!(reader.list(&from).unwrap().total, Some(2));
}

#[test]
fn retention_drops_whole_days_and_never_today() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(1);
    let mut ids = Vec::new();
    for day in 0..=10 {
        let outcome = writer.append(&[event(&mut rng, UtcNanos(NOON.0 - day * DAY_NANOS))]);
        ids.push(outcome.unwrap().remove(0).unwrap());
    }
    assert_eq!(days(directory.path()).len(), 11);
    // A day stays while any moment of it is young enough.
    clock.set(UtcNanos(NOON.0 + 12 * HOUR - 1));
    assert_eq!(writer.expire().unwrap(), []);
    clock.set(UtcNanos(NOON.0 + 12 * HOUR));
    writer.append(&[event(&mut rng, clock.now())]).unwrap();
    assert_eq!(days(directory.path())[0], "2026-02-20");
    assert_eq!(reader.get(ids[10]).unwrap(), None);
    assert!(reader.get(ids[9]).unwrap().is_some());
    // Years later, at the start: only what is of today.
    drop((writer, reader));
    let mut options = clock.options();
    options.retention = std::time::Duration::ZERO;
    let (_writer, reader) = EventStore::open(directory.path(), options).unwrap();
    assert_eq!(days(directory.path()), ["2026-03-02"]);
    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(1));
}

#[test]
fn wrong_clocks_make_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, _reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(1);
    let limit = u64::try_from(FUTURE_MAX.as_nanos()).unwrap();
    let times =
        [0, 1, NOON.0 - 11 * DAY_NANOS, NOON.0, NOON.0 + limit, NOON.0 + limit + 1, u64::MAX];
    let events: Vec<_> = times.iter().map(|&t| event(&mut rng, UtcNanos(t))).collect();
    let outcomes = writer.append(&events).unwrap();
    let words: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(_) => "stored",
            Err(Rejection::Expired { .. }) => "expired",
            Err(Rejection::Future { .. }) => "future",
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(words, ["expired", "expired", "expired", "stored", "stored", "future", "future"]);
    assert_eq!(days(directory.path()), ["2026-03-01", "2026-03-02"]);
    let text = outcomes[6].as_ref().unwrap_err().to_string();
    assert!(text.contains("clock") && text.contains(events[6].camera.as_str()), "{text}");
}

#[test]
fn an_event_that_contradicts_itself_is_refused_alone() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(1);
    let mut events: Vec<_> = (0..3).map(|_| event(&mut rng, NOON)).collect();
    let mut bad = crate::tests::detection(&mut rng);
    bad.bbox.x2 = f32::NAN;
    events[1].detections.detections.push(bad);
    let outcomes = writer.append(&events).unwrap();
    assert!(matches!(outcomes[1], Err(Rejection::Invalid { .. })));
    events.push(event(&mut rng, NOON));
    events[3].metadata = Some(json("x".repeat(11 << 20)));
    let outcomes = writer.append(&events).unwrap();
    assert!(matches!(outcomes[3], Err(Rejection::TooLarge { .. })));
    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(4));
    // The largest that is stored, and one of a byte more.
    let (mut record, numbers) =
        (Vec::new(), Numbers { camera: 1, model: 2, version: 3, device: 4 });
    events[3].metadata = Some(json(""));
    record::encode(&events[3], numbers, NOON, &mut record).unwrap();
    for (more, stored) in [(0, true), (1, false)] {
        let text = "x".repeat(RECORD_BYTES_MAX - record.len() + more);
        events[3].metadata = Some(json(text));
        let outcomes = writer.append(&events[3..]).unwrap();
        assert_eq!(outcomes[0].is_ok(), stored, "{:?}", outcomes[0]);
    }
}

#[test]
fn few_files_are_open_however_many_days_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (mut writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let mut rng = Rng::with_seed(1);
    for day in 0..9 {
        writer.append(&[event(&mut rng, UtcNanos(NOON.0 - day * DAY_NANOS))]).unwrap();
        assert!(reader.pool().open_count() <= 3);
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let reader = reader.clone();
            std::thread::spawn(move || {
                for _ in 0..20 {
                    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(9));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    // Whoever was inside is out: the next use brings it back to the limit.
    reader.list(&EventQuery::default()).unwrap();
    assert!(reader.pool().open_count() <= 3);
}

#[test]
fn below_the_floor_writing_stops_and_reading_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let free = Arc::new(AtomicU64::new(100 << 20));
    let mut options = clock.options();
    options.free_space_floor_bytes = 50 << 20;
    let told = free.clone();
    options.free_space = Arc::new(move |_| Ok(told.load(Ordering::SeqCst)));
    let (mut writer, reader) = EventStore::open(directory.path(), options).unwrap();
    let mut rng = Rng::with_seed(1);
    let mut append = || writer.append(&[event(&mut rng, UtcNanos(NOON.0 - SECOND))]);
    append().unwrap();
    free.store((50 << 20) - 1, Ordering::SeqCst);
    let error = append().unwrap_err();
    assert!(matches!(error, StoreError::SpaceLow { .. }));
    let text = error.to_string();
    assert!(text.contains("has 49 MiB free") && text.contains("retention"), "{text}");
    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(1));
    free.store(50 << 20, Ordering::SeqCst);
    append().unwrap();
    assert_eq!(reader.list(&EventQuery::default()).unwrap().total, Some(2));
}

#[test]
fn the_disk_of_this_machine_tells_its_free_space() {
    let directory = tempfile::tempdir().unwrap();
    let free = (crate::EventOptions::default().free_space)(directory.path()).unwrap();
    assert!(free >= 4096, "bytes, of which a file takes whole blocks: {free}");
}

#[test]
fn the_clocks_of_this_machine_are_asked() {
    let options = crate::EventOptions::default();
    let monotonic = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * SECOND + now.tv_nsec as u64
    };
    let (before, now, after) = (monotonic(), (options.monotonic)().0, monotonic());
    assert!((before..=after).contains(&now), "{before} {now} {after}");
    assert!((options.clock)() > NOON);
}

#[test]
fn two_stores_give_events_of_one_moment_ids_of_their_own() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::at(NOON);
        let (mut writer, _reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        let events: Vec<_> = (0..3).map(|_| event(&mut Rng::with_seed(1), NOON)).collect();
        ids.extend(writer.append(&events).unwrap().into_iter().map(Result::unwrap));
    }
    // The number of the writer's life below, what it counts above.
    let life: Vec<u32> = ids.iter().map(|id| id.as_u128() as u32).collect();
    assert!(life[..3].iter().all(|of| *of == life[0]) && life[3..].iter().all(|of| *of == life[3]));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}
