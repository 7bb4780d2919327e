//! The file of the desired state, as people and other programs change it.

use super::*;
use store::control::Source;

fn before(path: &Path) -> Published {
    Published::before(path.to_owned(), true, NamedFiles::default())
}

fn version(revision: u64) -> Version {
    Version { epoch: Epoch::default(), revision }
}

fn revision(path: &Path) -> u64 {
    DesiredState::load(path).unwrap().revision
}

#[test]
fn a_change_that_fails_after_its_file_was_written_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("desired.json");
    let published = before(&path);
    let mut file = published.file();
    published.store(&mut file, version(7), &Plan::default()).unwrap();
    let good = (5, Plan::default());
    published.restore(6, &good, &mut file);
    assert_eq!(revision(&path), 7, "it was not written");
    published.restore(7, &good, &mut file);
    assert_eq!((revision(&path), published.get().0), (8, 8), "above what anybody took");
}

#[test]
fn a_file_that_says_the_same_is_no_fault_and_every_other_one_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("desired.json");
    let published = before(&path);
    published.store(&mut published.file(), version(7), &Plan::default()).unwrap();
    published.set(version(7), Plan::default());
    assert_eq!(published.fault(), None);
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    assert_eq!(published.fault(), None);
    published.file().failure = Some("it could not be written".to_owned());
    published.keep().unwrap();
    assert_eq!((revision(&path), published.fault()), (7, None));
    let left = std::mem::take(&mut published.file().left);
    assert!(left.is_some() && left == Stamp::of(&path), "it is not read again");
    let other = before(&path);
    other.store(&mut other.file(), version(99), &Plan::default()).unwrap();
    let fault = published.fault().unwrap();
    assert!(fault.contains("revision 99 of another program, published was 7"), "{fault}");
    published.keep().unwrap();
    assert_eq!((revision(&path), published.get().0, published.fault()), (100, 100, None));
    fs::remove_file(&path).unwrap();
    assert!(published.fault().is_some());
    published.keep().unwrap();
    assert_eq!((revision(&path), published.fault()), (101, None));
}
#[test]
fn before_anything_is_published_no_file_is_no_fault_and_none_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("desired.json");
    let published = before(&path);
    published.keep().unwrap();
    assert_eq!((published.fault(), path.exists()), (None, false));
}

#[test]
fn what_says_something_new_or_comes_of_another_registry_is_a_revision_and_nothing_else_is() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [one, other] = [0, 1].map(|at: usize| Control::open(directories[at].path()).unwrap());
    let path = directories[0].path().join("desired.json");
    let (published, registry) = (before(&path), Registry::new(vec![]));
    let follow = |control| {
        published.follow(control, &registry).unwrap();
        (published.version(), published.since())
    };
    let change = |control, camera: Option<&str>| {
        let put = |write: &mut ControlWrite<'_>| match camera {
            Some(camera) => {
                let device = Device::new(camera.parse().unwrap(), Source::Api);
                write.put_device(device).map(drop).map_err(FollowError::from)
            }
            None => Ok(()),
        };
        published.change(control, &registry, put).unwrap();
        (published.version(), published.since())
    };
    let names =
        || -> Vec<String> { published.cameras().get().iter().map(CameraId::to_string).collect() };
    let begun = published.since();
    let mut last = follow(&one);
    assert!(last.1 > begun);
    let mut new = |next: (Version, Instant), epoch| {
        assert!(next.0.revision > last.0.revision && next.1 > last.1);
        assert_eq!(next.0.epoch, epoch);
        assert_eq!(DesiredState::load(&path).unwrap().version(), next.0);
        last = next;
    };
    let epochs = [&one, &other].map(|control| control.epoch().unwrap());
    let same = || {
        let now = (published.version(), published.since());
        assert_eq!([follow(&one), change(&one, None)], [now; 2]);
    };
    same();
    new(follow(&other), epochs[1]);
    new(change(&one, None), epochs[0]);
    assert_eq!(names(), [""; 0]);
    new(change(&one, Some("front")), epochs[0]);
    assert_eq!(names(), ["front"]);
    same();
    let device = Device::new("yard".parse().unwrap(), Source::Api);
    one.write(|write| write.put_device(device)).unwrap();
    new(follow(&one), epochs[0]);
    assert_eq!(names(), ["front", "yard"]);
    same();
    new(follow(&other), epochs[1]);
    assert_eq!(names(), [""; 0]);
}

#[test]
fn an_empty_directory_in_the_place_of_the_file_is_removed_and_what_else_fails_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("desired.json");
    fs::create_dir(&path).unwrap();
    let published = before(&path);
    published.store(&mut published.file(), version(7), &Plan::default()).unwrap();
    assert_eq!(revision(&path), 7);
    // A name of 252 bytes that has no room for the four of the file that is written first.
    let published = before(&directory.path().join(format!("{}.json", "a".repeat(247))));
    let refused = published.store(&mut published.file(), version(7), &Plan::default());
    assert_eq!(refused.unwrap_err().source.kind(), io::ErrorKind::InvalidFilename);
    assert!(published.fault().unwrap().contains("too long"));
}
