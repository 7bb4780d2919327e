//! A disk that fails at the n-th operation: errors have a name, nothing acknowledged is lost, and
//! writing goes on when the disk does.

use super::{Clock, NOON, camera, event};
use crate::control::{Control, Device, Source};
use crate::database::Disk;
use crate::writer::open_with;
use crate::{EventId, EventQuery, EventStore, NewEvent, StoreError};
use base::UtcNanos;
use fastrand::Rng;
use redb::backends::FileBackend;
use redb::{Builder, DatabaseError, ReadOnlyDatabase, StorageBackend};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// When and how the disk fails, shared by all files of a store.
#[derive(Debug, Default)]
struct Plan {
    /// Writing operations until the disk fails; below zero it fails them all.
    left: AtomicI64,
    /// The error number it fails with.
    errno: AtomicI64,
    failures: AtomicU64,
}

impl Plan {
    fn fail_after(&self, operations: i64, errno: i32) {
        self.errno.store(errno.into(), Ordering::SeqCst);
        self.left.store(operations, Ordering::SeqCst);
    }

    fn heal(&self) {
        self.left.store(i64::MAX / 2, Ordering::SeqCst);
    }

    fn operation(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.failures.fetch_add(1, Ordering::SeqCst);
        let errno = self.errno.load(Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap()))
    }
}

#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    plan: Arc<Plan>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.operation()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plan.operation()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.plan.operation() {
            // Half of it may be there.
            self.file.write(offset, &data[..data.len() / 2])?;
            return Err(error);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, a: Bound<u64>, b: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.file.try_lock_range(a, b)
    }

    fn try_lock_shared_range(
        &self,
        a: Bound<u64>,
        b: Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        self.file.try_lock_shared_range(a, b)
    }

    fn lock_range(&self, a: Bound<u64>, b: Bound<u64>) -> Result<(), redb::BackendError> {
        self.file.lock_range(a, b)
    }

    fn lock_shared_range(&self, a: Bound<u64>, b: Bound<u64>) -> Result<(), redb::BackendError> {
        self.file.lock_shared_range(a, b)
    }

    fn unlock_range(&self, a: Bound<u64>, b: Bound<u64>) -> Result<(), redb::BackendError> {
        self.file.unlock_range(a, b)
    }

    fn query_lock_range(&self, a: Bound<u64>, b: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.file.query_lock_range(a, b)
    }
}

#[derive(Debug)]
struct FaultyDisk(Arc<Plan>);

impl FaultyDisk {
    fn backend(&self, file: File) -> Result<Faulty, DatabaseError> {
        Ok(Faulty { file: FileBackend::new(file)?, plan: self.0.clone() })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, builder: &Builder, file: File) -> Result<redb::Database, DatabaseError> {
        builder.create_with_backend(self.backend(file)?)
    }

    fn open_read_only(
        &self,
        builder: &Builder,
        file: File,
    ) -> Result<ReadOnlyDatabase, DatabaseError> {
        builder.open_read_only_with_backend(self.backend(file)?)
    }
}

fn disk(plan: &Arc<Plan>) -> Arc<dyn Disk> {
    Arc::new(FaultyDisk(plan.clone()))
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn events(rng: &mut Rng, count: usize) -> Vec<NewEvent> {
    let times: Vec<_> = (0..count).map(|_| UtcNanos(NOON.0 - rng.u64(0..1000))).collect();
    times.into_iter().map(|utc| event(rng, utc)).collect()
}

#[test]
fn a_disk_that_fails_at_any_operation_loses_nothing_acknowledged() {
    let mut operations = 0;
    let mut failed = 0;
    // Every operation of the first commits, then every seventh.
    while operations < 120 {
        let plan = Arc::new(Plan::default());
        plan.heal();
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::at(NOON);
        let mut rng = Rng::with_seed(operations as u64);
        let mut stored: BTreeMap<EventId, NewEvent> = BTreeMap::new();
        {
            let (mut writer, reader) =
                open_with(directory.path(), clock.options(), disk(&plan)).unwrap();
            let errno = if operations % 2 == 0 { ENOSPC } else { EIO };
            plan.fail_after(operations, errno);
            let mut healed_after = 3;
            for _ in 0..8 {
                let batch = events(&mut rng, 5);
                match writer.append(&batch) {
                    Ok(ids) => {
                        stored.extend(ids.into_iter().map(Result::unwrap).zip(batch));
                    }
                    Err(error) => {
                        let told = match &error {
                            StoreError::DiskFull { path, .. } => errno == ENOSPC && path.exists(),
                            StoreError::Io { .. } => errno == EIO,
                            _ => false,
                        };
                        // Creating the file fails under the name it has until it is whole.
                        let text = error.to_string();
                        assert!(told || text.contains("redb"), "{error:?}");
                        assert!(text.contains("2026-03-01"), "{text}");
                        failed += 1;
                        healed_after -= 1;
                        if healed_after == 0 {
                            plan.heal();
                        }
                    }
                }
            }
            assert!(!stored.is_empty(), "writing did not go on");
            for (id, content) in &stored {
                assert_eq!(&reader.get(*id).unwrap().unwrap().content, content);
            }
        }
        // And from a plain disk, as after a restart.
        let (_writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        for (id, content) in &stored {
            assert_eq!(&reader.get(*id).unwrap().unwrap().content, content);
        }
        let total = reader.list(&EventQuery::default()).unwrap().total.unwrap();
        assert_eq!(total % 5, 0, "half a commit");
        drop((_writer, reader));
        let report = crate::check(directory.path()).unwrap();
        assert!(!report.lossy(), "{report}");
        operations += if operations < 60 { 1 } else { 7 };
    }
    assert!(failed > 60, "only {failed} failures: the test proves little");
}

#[test]
fn the_registry_goes_on_after_the_disk_failed() {
    for operations in 0..25 {
        let plan = Arc::new(Plan::default());
        plan.heal();
        let directory = tempfile::tempdir().unwrap();
        let control = Control::open_with(directory.path(), disk(&plan)).unwrap();
        let before = control.next_revision().unwrap();
        plan.fail_after(operations, ENOSPC);
        let mut last = before;
        for _ in 0..5 {
            match control.next_revision() {
                Ok(revision) => last = revision,
                Err(error) => {
                    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                    assert!(error.to_string().contains("control.redb"), "{error}");
                    plan.heal();
                }
            }
        }
        assert!(last > before);
        drop(control);
        let control = Control::open(directory.path()).unwrap();
        assert!(control.next_revision().unwrap() > last);
    }
}

#[test]
fn places_that_can_not_be_written_are_named() {
    // A directory where nobody may make anything, root included.
    let forbidden = std::path::Path::new("/sys/kernel/vas-store-test");
    let clock = Clock::at(NOON);
    for error in [
        EventStore::open(forbidden, clock.options()).map(|_| ()).unwrap_err(),
        Control::open(forbidden).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unwritable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("/sys/kernel/vas-store-test") && text.contains("owner"), "{text}");
    }
    // A file where the directory should be.
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::write(&state, "").unwrap();
    let error = EventStore::open(&state, clock.options()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("state"), "{error}");
    let error = crate::check(&directory.path().join("nothing")).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
}

#[test]
fn a_second_store_and_a_check_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let (writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
    let error = EventStore::open(directory.path(), clock.options()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert!(matches!(crate::check(directory.path()), Err(StoreError::Locked { .. })));
    // A reader alone holds it too.
    drop(writer);
    assert!(matches!(crate::check(directory.path()), Err(StoreError::Locked { .. })));
    drop(reader);
    assert!(crate::check(directory.path()).unwrap().clean());
    let control = Control::open(directory.path()).unwrap();
    let error = Control::open(directory.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    let error = crate::check(directory.path()).unwrap_err();
    assert!(error.to_string().contains("control.redb"), "{error}");
    drop(control);
    assert_eq!(crate::check(directory.path()).unwrap().files.len(), 1);
}

fn put(control: &Control, n: usize) -> Result<(), StoreError> {
    control.write(|w| w.put_device(Device::new(camera(n), Source::Api)).map(|_| ()))
}

#[test]
fn a_registry_that_there_is_no_room_for_is_empty_until_a_write_makes_it() {
    let mut stood_in = 0;
    for operations in 0..30 {
        let plan = Arc::new(Plan::default());
        plan.fail_after(operations, ENOSPC);
        let directory = tempfile::tempdir().unwrap();
        let control = Control::open_with(directory.path(), disk(&plan)).unwrap();
        // One that was made and not closed is repaired before it is read, which writes.
        let full = |error: &StoreError| error.is_full();
        assert!(control.devices().map_or_else(|e| full(&e), |rows| rows.is_empty()));
        if let Some(told) = control.fault() {
            stood_in += 1;
            assert!(told.contains("control.redb") && told.contains("can't grow"), "{told}");
            let error = put(&control, 1).unwrap_err();
            assert!(error.is_full(), "{error:?}");
            assert!(control.fault().is_some());
        }
        plan.heal();
        put(&control, 2).unwrap();
        assert_eq!(control.fault(), None);
        drop(control);
        assert_eq!(Control::open(directory.path()).unwrap().devices().unwrap().len(), 1);
    }
    assert!(stood_in > 5, "the test proves little");
}

#[test]
fn a_registry_that_somebody_puts_there_meanwhile_is_taken() {
    let plan = Arc::new(Plan::default());
    plan.fail_after(0, ENOSPC);
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open_with(directory.path(), disk(&plan)).unwrap();
    let other = tempfile::tempdir().unwrap();
    put(&Control::open(other.path()).unwrap(), 7).unwrap();
    std::fs::copy(other.path().join("control.redb"), directory.path().join("control.redb"))
        .unwrap();
    plan.heal();
    put(&control, 1).unwrap();
    let ids: Vec<_> = control.devices().unwrap().into_iter().map(|d| d.id).collect();
    assert_eq!(ids, [camera(1), camera(7)]);
}

#[test]
fn a_full_disk_keeps_no_registry_from_being_opened() {
    let mut read = 0;
    for operations in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        put(&Control::open(directory.path()).unwrap(), 1).unwrap();
        let plan = Arc::new(Plan::default());
        plan.fail_after(operations, ENOSPC);
        let control = Control::open_with(directory.path(), disk(&plan)).unwrap();
        match control.devices() {
            Ok(rows) => read += usize::from(rows.len() == 1),
            Err(error) => assert!(error.is_full(), "{error:?}"),
        }
        plan.heal();
        put(&control, 2).unwrap();
        assert_eq!(control.devices().unwrap().len(), 2, "{operations}");
    }
    assert!(read > 0, "a file that was closed is read whatever the disk");
    // Another failure is none that passes by itself.
    let plan = Arc::new(Plan::default());
    plan.fail_after(0, EIO);
    let directory = tempfile::tempdir().unwrap();
    assert!(Control::open_with(directory.path(), disk(&plan)).is_err());
}

#[test]
fn what_a_failed_write_left_is_saved_before_its_file_is_closed() {
    let plan = Arc::new(Plan::default());
    plan.heal();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.redb");
    let control = Control::open_with(directory.path(), disk(&plan)).unwrap();
    put(&control, 1).unwrap();
    plan.fail_after(0, EIO);
    put(&control, 2).unwrap_err();
    plan.heal();
    // The file is to be opened anew, and its name leads nowhere.
    std::fs::remove_file(&path).unwrap();
    let error = control.devices().unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    control.keep().unwrap();
    assert_eq!(control.devices().unwrap().len(), 1);
}

#[test]
fn errors_of_a_full_disk_are_known_as_such() {
    let full = || std::io::Error::from_raw_os_error(ENOSPC);
    let path = std::path::PathBuf::from("control.redb");
    let lost = |source| StoreError::Lost { path: path.clone(), source };
    assert!(lost(Some(full())).is_full());
    assert!(!lost(None).is_full() && !lost(Some(std::io::Error::from_raw_os_error(EIO))).is_full());
    // ENOSPC, EDQUOT, EFBIG.
    for errno in [ENOSPC, 122, 27] {
        assert!(crate::no_room(&std::io::Error::from_raw_os_error(errno)), "{errno}");
    }
    assert!(!crate::no_room(&std::io::Error::from_raw_os_error(EIO)));
}
