//! Clocks that are wrong delete no events: ahead and back, at the start and while it runs.

use super::{Clock, HOUR, NOON, SECOND, event};
use crate::day::{DAY_NANOS, Day};
use crate::pool::{days_in, events_directory};
use crate::{EventOptions, EventReader, EventStore, EventWriter, Rejection, StoreError};
use base::UtcNanos;
use base::clock_trust::{Doubt, MEMORY_NAME, REST};
use fastrand::Rng;
use std::time::Duration;
use tempfile::TempDir;

/// A store with an event on each of the ten days before NOON.
struct Kept {
    directory: TempDir,
    clock: Clock,
    rng: Rng,
}

impl Kept {
    fn new() -> (Kept, EventWriter, EventReader) {
        let mut kept = Kept {
            directory: tempfile::tempdir().unwrap(),
            clock: Clock::at(NOON),
            rng: Rng::with_seed(1),
        };
        let (mut writer, reader) = kept.open();
        for day in 0..10 {
            kept.append(&mut writer, NOON.0 - day * DAY_NANOS).unwrap();
        }
        (kept, writer, reader)
    }

    fn open(&self) -> (EventWriter, EventReader) {
        EventStore::open(self.directory.path(), self.clock.options()).unwrap()
    }

    fn append(&mut self, writer: &mut EventWriter, utc: u64) -> Result<(), Rejection> {
        let event = event(&mut self.rng, UtcNanos(utc));
        writer.append(&[event]).unwrap().remove(0).map(drop)
    }

    fn days(&self) -> usize {
        days_in(&events_directory(self.directory.path())).unwrap().len()
    }

    fn pass(&self, nanos: u64) {
        self.clock.set(UtcNanos(self.clock.now().0 + nanos));
    }

    /// As the last run of a program that remembered nothing.
    fn forget(&self) {
        std::fs::remove_file(events_directory(self.directory.path()).join(MEMORY_NAME)).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_while_it_runs_deletes_nothing_for_a_day() {
    for jump in [11 * DAY_NANOS as i64, 365 * DAY_NANOS as i64, -(DAY_NANOS as i64)] {
        let (mut kept, mut writer, reader) = Kept::new();
        kept.clock.jump(UtcNanos(NOON.0.checked_add_signed(jump).unwrap()));
        kept.pass(HOUR);
        let now = kept.clock.now();
        // At midnight, with an append, as well as every hour.
        kept.append(&mut writer, now.0).unwrap();
        assert_eq!(writer.expire().unwrap(), []);
        assert!(kept.days() >= 10, "{jump}");
        let rest = reader.rest().unwrap();
        let by = Duration::from_nanos(jump.unsigned_abs());
        let doubt = if jump > 0 { Doubt::Forward(by) } else { Doubt::Back(by) };
        assert_eq!((rest.doubt, rest.left), (doubt, REST), "{jump}");
        // A restart doesn't make it right, with events of the wrong time in the store.
        drop((writer, reader));
        let (mut writer, reader) = kept.open();
        assert_eq!((reader.rest().unwrap().left, kept.days() >= 10), (REST, true));
        kept.pass(DAY_NANOS - SECOND);
        assert_eq!(writer.expire().unwrap(), []);
        assert!(kept.days() >= 10 && reader.rest().is_some());
        kept.pass(SECOND);
        let expired = writer.expire().unwrap();
        assert_eq!((expired.len(), reader.rest()), (if jump > 0 { 10 } else { 0 }, None), "{jump}");
    }
}

#[test]
fn a_clock_that_is_ahead_at_the_start_deletes_nothing() {
    for forget in [true, false] {
        for (ahead, rests) in
            [(DAY_NANOS, false), (DAY_NANOS + SECOND, true), (14 * DAY_NANOS, true)]
        {
            let (kept, writer, reader) = Kept::new();
            drop((writer, reader));
            if forget {
                kept.forget();
            }
            kept.clock.restart(UtcNanos(NOON.0 + ahead));
            let retention = Duration::from_secs(5 * 86_400);
            let options = EventOptions { retention, ..kept.clock.options() };
            let (_writer, reader) = EventStore::open(kept.directory.path(), options).unwrap();
            assert_eq!(reader.rest().is_some(), rests, "{ahead} {forget}");
            assert_eq!(kept.days(), if rests { 10 } else { 5 }, "{ahead} {forget}");
            if rests {
                let ahead = Duration::from_nanos(ahead);
                assert_eq!(reader.rest().unwrap().doubt, Doubt::Ahead(ahead), "{forget}");
            }
        }
    }
}

#[test]
fn a_newest_file_that_can_not_be_read_stands_for_its_midnight() {
    let (kept, writer, reader) = Kept::new();
    drop((writer, reader));
    kept.forget();
    let newest = events_directory(kept.directory.path()).join(format!("{}.redb", Day::of(NOON)));
    std::fs::write(&newest, [0x55; 8192]).unwrap();
    // 24 h after noon would be plausible, after midnight it isn't.
    kept.clock.restart(UtcNanos(NOON.0 + 13 * HOUR));
    let (_writer, reader) = kept.open();
    let ahead = Duration::from_secs(25 * 3600);
    assert_eq!(reader.rest().unwrap().doubt, Doubt::Ahead(ahead));
}

#[test]
fn an_accepted_clock_deletes_what_is_old() {
    let (kept, mut writer, reader) = Kept::new();
    kept.clock.jump(UtcNanos(NOON.0 + 5 * DAY_NANOS));
    assert_eq!(writer.expire().unwrap(), []);
    kept.clock.accept();
    kept.pass(HOUR);
    assert_eq!(writer.expire().unwrap().len(), 4);
    assert_eq!((kept.days(), reader.rest()), (6, None));
    // Not for the next jump.
    kept.clock.jump(UtcNanos(NOON.0 + 365 * DAY_NANOS));
    assert_eq!(writer.expire().unwrap(), []);
    assert!(reader.rest().unwrap().to_string().contains("vas clock accept"));
}

#[test]
fn while_the_clock_is_in_doubt_what_comes_is_not_too_old() {
    let (mut kept, mut writer, _reader) = Kept::new();
    kept.clock.jump(UtcNanos(NOON.0 + 365 * DAY_NANOS));
    // A camera's process keeps its own time after the clock was set.
    kept.append(&mut writer, NOON.0).unwrap();
    kept.clock.accept();
    writer.expire().unwrap();
    assert!(matches!(kept.append(&mut writer, NOON.0), Err(Rejection::Expired { .. })));
}

#[test]
fn what_can_not_be_remembered_stops_nothing() {
    let (kept, mut writer, reader) = Kept::new();
    let memory = events_directory(kept.directory.path()).join(MEMORY_NAME);
    let text = std::fs::read_to_string(&memory).unwrap();
    assert_eq!(text, format!("1 {0} {0} -\n", NOON.0 / SECOND));
    // A run that broke off left more than there is to write.
    std::fs::write(memory.with_file_name(format!("{MEMORY_NAME}.new")), [b'x'; 200]).unwrap();
    writer.expire().unwrap();
    assert_eq!(std::fs::read_to_string(&memory).unwrap(), text);
    std::fs::remove_file(&memory).unwrap();
    std::fs::create_dir_all(memory.join("in the way")).unwrap();
    kept.pass(DAY_NANOS);
    assert!(writer.expire().is_ok());
    drop((writer, reader));
    let opened: Result<_, StoreError> =
        EventStore::open(kept.directory.path(), kept.clock.options());
    assert!(opened.is_ok());
}

#[test]
fn the_clocks_of_this_machine_are_told() {
    let options = EventOptions::default();
    let before = (options.monotonic)();
    assert!((options.monotonic)() >= before && before.0 > 0);
    assert_eq!((options.accepted)(), None);
}
