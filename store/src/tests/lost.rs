//! Files that somebody deletes, replaces or cuts while the store is open: what was acknowledged is
//! there after a restart, or was not acknowledged.

use super::{Clock, NOON, camera, event, model};
use crate::control::{Control, Device, Source};
use crate::database::{Closing, patiently};
use crate::writer::EventWriter;
use crate::{EventId, EventQuery, EventReader, EventStore, StoreError};
use base::{ModelId, UtcNanos};
use fastrand::Rng;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

fn device(n: usize) -> Device {
    Device::new(camera(n), Source::Api)
}

fn put(control: &Control, n: usize) -> Result<(), StoreError> {
    control.write(|w| w.put_device(device(n)).map(|_| ()))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What somebody does to a file, and how it is called.
type Damage = (&'static str, fn(&Path));

/// What somebody may do to the file of a store that is open.
fn damages() -> [Damage; 5] {
    [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("replaced by an empty file", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "").unwrap();
        }),
        ("replaced by garbage", |path| {
            fs::write(path.with_extension("x"), [7; 10_000]).unwrap();
            fs::rename(path.with_extension("x"), path).unwrap();
        }),
        ("replaced by a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("moved away with its directory", |path| {
            let directory = path.parent().unwrap();
            fs::rename(directory, directory.with_extension("away")).unwrap();
        }),
    ]
}

#[test]
fn a_registry_whose_file_is_gone_has_it_again_before_a_change_is_acknowledged() {
    for (what, damage) in damages() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let path = state.join("control.redb");
        let control = Control::open(&state).unwrap();
        put(&control, 1).unwrap();
        assert_eq!(control.fault(), None);
        damage(&path);
        let told = control.fault().expect(what);
        assert!(told.contains("control.redb") && told.contains("deleted or replaced"), "{told}");
        assert_eq!(control.devices().unwrap().len(), 1, "{what}: reading goes on");
        put(&control, 2).expect(what);
        assert_eq!(control.fault(), None, "{what}");
        drop(control);
        let control = Control::open(&state).unwrap();
        let ids: Vec<_> = control.devices().unwrap().into_iter().map(|d| d.id).collect();
        assert_eq!(ids, [camera(1), camera(2)], "{what}");
        let replaced = names(&state).iter().any(|name| name == "control.redb.replaced");
        assert_eq!(replaced, what.starts_with("replaced"), "{what}: {:?}", names(&state));
    }
}

#[test]
fn a_registry_is_put_back_without_a_change_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.redb");
    let control = Control::open(directory.path()).unwrap();
    put(&control, 1).unwrap();
    control.keep().unwrap();
    for n in 0..3 {
        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        control.keep().unwrap();
        assert_eq!(control.fault(), None);
        assert_eq!(control.devices().unwrap().len(), 1);
        // Nothing that lay there is destroyed.
        let kept = if n == 0 { String::new() } else { format!(".{n}") };
        let kept = directory.path().join(format!("control.redb.replaced{kept}"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "somebody else's");
    }
    // As after a crash: the file is whole while the store is open.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&path, copy.path().join("control.redb")).unwrap();
    assert_eq!(Control::open(copy.path()).unwrap().devices().unwrap().len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds credentials");
}

#[test]
fn a_registry_that_can_not_be_put_back_refuses_changes_and_is_read_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let control = Control::open(&state).unwrap();
    put(&control, 1).unwrap();
    fs::remove_dir_all(&state).unwrap();
    // A file where the directory was: nobody can put anything there.
    fs::write(&state, "").unwrap();
    let error = put(&control, 2).unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.contains("can't be written again") && told.contains("nothing is changed"),
        "{told}"
    );
    assert!(control.keep().is_err() && control.fault().is_some());
    assert_eq!(control.devices().unwrap().len(), 1, "what was refused is not there");
    fs::remove_file(&state).unwrap();
    put(&control, 3).unwrap();
    drop(control);
    let control = Control::open(&state).unwrap();
    let ids: Vec<_> = control.devices().unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(ids, [camera(1), camera(3)]);
}

#[test]
fn a_registry_deleted_while_it_commits_is_whole_again_before_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.redb");
    let control = Control::open(directory.path()).unwrap();
    let done: Result<(), StoreError> = control.write(|w| {
        w.put_device(device(1))?;
        // Behind the look before, ahead of the one after.
        fs::remove_file(&path).unwrap();
        Ok(())
    });
    done.unwrap();
    assert!(path.exists(), "acknowledged into a file that nobody finds");
    drop(control);
    assert_eq!(Control::open(directory.path()).unwrap().devices().unwrap().len(), 1);
}

#[test]
fn a_registry_that_was_cut_acknowledges_nothing_and_takes_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let (path, backup) = (directory.path().join("control.redb"), directory.path().join("backup"));
    drop(Control::open(directory.path()).map(|control| put(&control, 7)).unwrap());
    fs::copy(&path, &backup).unwrap();
    for bytes in [0, 100, fs::metadata(&path).unwrap().len() - 1] {
        let control = Control::open(directory.path()).unwrap();
        put(&control, 1).unwrap();
        let left = fs::metadata(&path).unwrap().len();
        assert!(bytes < left);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        let told = control.fault().unwrap();
        assert!(told.contains(&format!("cut from {left} to {bytes} bytes")), "{told}");
        let error = put(&control, 2).unwrap_err();
        assert!(matches!(error, StoreError::Cut { .. }), "{error:?}");
        // Also when it has grown again meanwhile.
        file.set_len(left).unwrap();
        assert!(put(&control, 2).is_err() && control.fault().is_some());
        let new = directory.path().join("new");
        fs::write(&new, [7; 5000]).unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(put(&control, 2).is_err() && control.fault().is_some(), "garbage is no backup");
        fs::copy(&backup, &new).unwrap();
        fs::rename(&new, &path).unwrap();
        put(&control, 3).unwrap();
        let ids: Vec<_> = control.devices().unwrap().into_iter().map(|d| d.id).collect();
        assert_eq!(ids, [camera(3), camera(7)], "those of the backup, and the new one");
        drop(control);
        fs::copy(&backup, &path).unwrap();
    }
}

#[test]
fn growing_and_shrinking_by_our_own_hand_is_no_cut() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    let path = directory.path().join("control.redb");
    let length = || fs::metadata(&path).unwrap().len();
    let model_id: ModelId = model(1);
    let (small, mut largest) = (length(), 0);
    for n in 0..40 {
        let labels = vec!["x".repeat(200_000)];
        control.set_labels(&model_id, &n.to_string(), &labels).unwrap();
        largest = largest.max(length());
        assert_eq!(control.fault(), None);
    }
    assert!(largest > small, "the test proves little");
}

#[test]
fn a_file_that_is_shorter_while_it_is_written_is_no_cut() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    put(&control, 1).unwrap();
    let path = directory.path().join("control.redb");
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let (left, mut last) = (file.metadata().unwrap().len(), [0]);
    let told: Result<Option<String>, StoreError> = control.write(|_| {
        file.read_exact_at(&mut last, left - 1).unwrap();
        file.set_len(left - 1).unwrap();
        let told = control.fault();
        file.write_all_at(&last, left - 1).unwrap();
        Ok(told)
    });
    assert_eq!(told.unwrap(), None);
    assert_eq!((control.fault(), control.devices().unwrap().len()), (None, 1));
}

struct Events {
    directory: tempfile::TempDir,
    clock: Clock,
    rng: Rng,
    open: Option<(EventWriter, EventReader)>,
}

impl Events {
    fn new() -> Events {
        let directory = tempfile::tempdir().unwrap();
        let mut events =
            Events { directory, clock: Clock::at(NOON), rng: Rng::with_seed(7), open: None };
        events.restart();
        events
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("events/2026-03-01.redb")
    }

    fn restart(&mut self) {
        self.open = None;
        self.open = Some(EventStore::open(&self.state(), self.clock.options()).unwrap());
    }

    fn writer(&mut self) -> &mut EventWriter {
        &mut self.open.as_mut().unwrap().0
    }

    fn reader(&self) -> &EventReader {
        &self.open.as_ref().unwrap().1
    }

    fn append(&mut self) -> Result<EventId, StoreError> {
        let one = event(&mut self.rng, UtcNanos(NOON.0 - 1000));
        self.writer().append(&[one]).map(|mut each| each.remove(0).unwrap())
    }

    fn stored(&self) -> u64 {
        let page = self.reader().list(&EventQuery::default()).unwrap();
        assert_eq!(page.unreadable, 0);
        page.total.unwrap()
    }
}

#[test]
fn events_go_into_a_file_that_exists_and_those_of_before_are_in_it() {
    for (what, damage) in damages() {
        let mut events = Events::new();
        (0..3).for_each(|_| assert!(events.append().is_ok()));
        damage(&events.file());
        let told = events.reader().fault().expect(what);
        assert!(told.contains("2026-03-01.redb"), "{what}: {told}");
        assert_eq!(events.stored(), 3, "{what}: reading goes on");
        events.append().expect(what);
        assert!(events.file().is_file(), "{what}");
        assert_eq!(events.reader().fault(), None, "{what}");
        // A second store is refused where the directory is now.
        let second = EventStore::open(&events.state(), events.clock.options()).map(|_| ());
        assert!(matches!(second, Err(StoreError::Locked { .. })), "{what}: {second:?}");
        events.restart();
        assert_eq!(events.stored(), 4, "{what}");
    }
}

#[test]
fn events_are_put_back_when_nobody_appends() {
    for (what, damage) in damages() {
        let mut events = Events::new();
        events.append().unwrap();
        events.writer().keep().unwrap();
        damage(&events.file());
        events.writer().keep().expect(what);
        assert_eq!(events.reader().fault(), None, "{what}");
        let second = EventStore::open(&events.state(), events.clock.options()).map(|_| ());
        assert!(matches!(second, Err(StoreError::Locked { .. })), "{what}: {second:?}");
        events.restart();
        assert_eq!(events.stored(), 1, "{what}");
    }
}

#[test]
fn a_day_file_that_was_cut_is_set_aside_and_a_new_one_begins() {
    for bytes in [0, 5000] {
        let mut events = Events::new();
        (0..3).for_each(|_| assert!(events.append().is_ok()));
        let file = fs::File::options().write(true).open(events.file()).unwrap();
        file.set_len(bytes).unwrap();
        let told = events.reader().fault().unwrap();
        assert!(told.contains("2026-03-01.redb"), "{told}");
        // Whoever reads meanwhile does not make it worse.
        let _read = events.reader().list(&EventQuery::default());
        events.append().unwrap();
        assert_eq!((events.stored(), events.reader().fault()), (1, None));
        let aside = events.file().with_extension("redb.damaged");
        assert!(aside.exists());
        events.restart();
        assert_eq!(events.stored(), 1, "texts and numbers are those of the new file");
    }
}

#[test]
fn a_day_file_deleted_while_it_was_closed_begins_anew() {
    for looked_for in [false, true] {
        let mut events = Events::new();
        events.append().unwrap();
        events.restart();
        // Known, and not opened yet.
        fs::remove_file(events.file()).unwrap();
        if looked_for {
            assert_eq!(events.stored(), 0);
        }
        events.append().unwrap();
        assert_eq!((events.stored(), events.reader().fault()), (1, None));
        events.restart();
        assert_eq!(events.stored(), 1);
    }
}

#[test]
fn a_day_file_emptied_while_it_was_closed_begins_anew() {
    for looked_for in [false, true] {
        let mut events = Events::new();
        events.append().unwrap();
        events.restart();
        fs::write(events.file(), "").unwrap();
        if looked_for {
            let found = events.reader().list(&EventQuery::default());
            assert!(found.is_err() || found.is_ok_and(|page| page.events.is_empty()));
            assert_eq!(
                fs::metadata(events.file()).unwrap().len(),
                0,
                "reading makes no database of it"
            );
        }
        events.append().unwrap();
        assert_eq!((events.stored(), events.reader().fault()), (1, None));
        events.restart();
        assert_eq!(events.stored(), 1);
    }
}

#[test]
fn a_day_that_retention_deleted_stays_deleted() {
    let mut events = Events::new();
    events.append().unwrap();
    events.clock.set(UtcNanos(NOON.0 + 20 * 24 * super::HOUR));
    assert_eq!(events.writer().expire().unwrap().len(), 1);
    events.writer().keep().unwrap();
    assert!(!events.file().exists());
    let left = names(&events.state().join("events"));
    assert!(!left.iter().any(|name| name.contains("redb")), "{left:?}");
}

#[test]
fn a_day_that_is_only_read_is_nobodys_to_put_back() {
    let mut events = Events::new();
    events.append().unwrap();
    let old = events.file();
    events.restart();
    assert_eq!(events.stored(), 1);
    // Whoever makes room for himself deletes it; that it is open for reading keeps nothing.
    fs::remove_file(&old).unwrap();
    assert_eq!(events.reader().fault(), None);
    events.writer().keep().unwrap();
    assert!(!old.exists());
}

#[test]
fn a_place_that_can_not_be_looked_at_is_not_taken_for_one_that_was_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let (state, away) = (directory.path().join("state"), directory.path().join("away"));
    let control = Control::open(&state).unwrap();
    put(&control, 1).unwrap();
    fs::rename(&state, &away).unwrap();
    std::os::unix::fs::symlink("state", &state).unwrap();
    let error = put(&control, 2).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    put(&control, 3).unwrap();
}

#[test]
fn a_lock_that_is_given_up_soon_is_waited_for_and_nothing_else_is() {
    let mut asked = 0;
    let opened = patiently(|| {
        asked += 1;
        let path = PathBuf::from("lock");
        if asked < 3 { Err(StoreError::Locked { path }) } else { Ok(()) }
    });
    assert!(opened.is_ok() && asked == 3);
    let mut asked = 0;
    let failed = patiently(|| -> Result<(), StoreError> {
        asked += 1;
        Err(StoreError::io(Path::new("lock"), "locking", std::io::ErrorKind::NotFound.into()))
    });
    assert!(failed.is_err() && asked == 1);
}

#[test]
fn a_file_that_panics_when_it_is_closed_takes_nobody_along() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("it panicked before");
        }
    }
    drop(Closing::new(Panics));
}
