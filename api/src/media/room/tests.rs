use super::*;
use crate::testing;
use std::fs;
use store::control::MediaId;

/// A disk of 1000 bytes, of which a tenth is for pictures and clips, and nothing has to stay free.
struct Rig {
    space: Arc<Mutex<Space>>,
    room: Arc<Room>,
    stopping: Arc<AtomicBool>,
    _root: tempfile::TempDir,
}

fn rig() -> Rig {
    rig_with(Demands { keep_free: 0, high_percent: None })
}

fn rig_with(demands: Demands) -> Rig {
    let root = tempfile::tempdir().unwrap();
    let space = Arc::new(Mutex::new(Space { size: 1000, free: 1000 }));
    let disk = (root.path().to_owned(), Disk::told(Arc::clone(&space)));
    let options = MediaOptions { retention: Duration::from_secs(1), max_percent: 10 };
    let control = Control::open(root.path()).unwrap();
    let files = Files::new(root.path().join("media"));
    let stopping = Arc::new(AtomicBool::new(false));
    let room = Room::new(disk, options, demands, (files, control), Arc::clone(&stopping));
    Rig { space, room, stopping, _root: root }
}

impl Rig {
    fn write(&self, owner: &Owner, extension: &str, bytes: usize) {
        let Owner { kind, camera, id } = owner;
        self.room.files.make_folder(*kind, camera).unwrap();
        let path = self.room.files.path(*kind, camera, id, extension);
        fs::write(path, vec![b'x'; bytes]).unwrap();
    }

    /// A picture that was there before serve began.
    fn picture(&self, bytes: usize) -> MediaId {
        let row = store::control::Snapshot { file_size: bytes as u64, ..testing::snapshot() };
        let row = self.room.control.write(|write| write.put_snapshot(row)).unwrap();
        self.write(&Owner::of_snapshot(&row), "jpg", bytes);
        self.room.unsure();
        row.id
    }

    /// The same as a clip; its thumbnail has five bytes more.
    fn clip(&self, bytes: usize, state: JobState) -> MediaId {
        let row = Bookmark { file_size: bytes as u64, state, ..testing::bookmark() };
        let row = self.room.control.write(|write| write.put_bookmark(row)).unwrap();
        if row.state == JobState::Done {
            self.write(&Owner::of_bookmark(&row), "mp4", bytes);
            self.write(&Owner::of_bookmark(&row), "jpg", 5);
        }
        self.room.unsure();
        row.id
    }

    fn protect(&self, id: &MediaId, protected: bool) {
        let write = |write: &mut store::ControlWrite<'_>| {
            let picture = write.update_snapshot(id, |row| row.protected = protected)?;
            let clip = write.update_bookmark(id, |row| row.protected = protected)?;
            assert!(picture.is_some() || clip.is_some());
            Ok::<_, StoreError>(())
        };
        self.room.control.write(write).unwrap();
        self.room.changed();
    }

    /// Whether a row is there, and its files with it.
    fn there(&self, id: &MediaId) -> bool {
        let (control, files) = (&self.room.control, &self.room.files);
        let picture = control.snapshot(id).unwrap().map(|row| Owner::of_snapshot(&row));
        let clip = control.bookmark(id).unwrap().map(|row| Owner::of_bookmark(&row));
        let bytes = |kind| {
            let camera = testing::CAMERA.parse().unwrap();
            files.bytes(&Owner { kind, camera, id: id.clone() })
        };
        let file = bytes(Kind::Snapshots) + bytes(Kind::Bookmarks) > 0;
        let row = picture.or(clip).is_some();
        assert_eq!(row, file, "{id}");
        row
    }

    fn taken(&self) -> u64 {
        self.room.taken().unwrap().bytes
    }

    fn created(&self, id: &MediaId) -> UtcNanos {
        let control = &self.room.control;
        let picture = control.snapshot(id).unwrap().map(|row| row.created_at);
        picture.or_else(|| control.bookmark(id).unwrap().map(|row| row.created_at)).unwrap()
    }
}

fn no_room(result: Result<impl Sized, MediaError>) -> NoRoom {
    match result.map(drop) {
        Err(MediaError::NoRoom(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_oldest_of_both_kinds_go_first_and_no_more_than_the_new_one_needs() {
    let rig = rig();
    let first = rig.picture(30);
    let second = rig.clip(30, JobState::Done);
    let third = rig.picture(20);
    assert_eq!(rig.room.taken().unwrap(), Taken { bytes: 85, most: 100 });
    // What fits to the byte removes nothing.
    let place = rig.room.admit(15).unwrap();
    assert_eq!([&first, &second, &third].map(|id| rig.there(id)), [true; 3]);
    assert_eq!(rig.taken(), 100);
    drop(place);
    // One byte more takes the oldest alone; looking takes nothing.
    rig.room.look(16).unwrap();
    rig.room.look(95).unwrap();
    assert!(rig.there(&first));
    drop(rig.room.admit(16).unwrap());
    assert_eq!([&first, &second, &third].map(|id| rig.there(id)), [false, true, true]);
    assert_eq!(rig.taken(), 55);
    // The thumbnail counts too: 35 bytes go with the clip.
    rig.room.admit(80).unwrap().keep(80);
    assert_eq!([&second, &third].map(|id| rig.there(id)), [false, true]);
    assert_eq!(rig.taken(), 100);
}

#[test]
fn what_is_enough_for_one_is_not_all_that_may_go() {
    let rig = rig();
    let pictures = [rig.picture(50), rig.picture(50)];
    rig.room.look(50).unwrap();
    rig.room.look(100).unwrap();
    drop(rig.room.admit(100).unwrap());
    assert_eq!(pictures.map(|id| rig.there(&id)), [false; 2]);
}

#[test]
fn protected_ones_stay_and_a_new_one_that_needs_their_place_is_refused() {
    let rig = rig();
    let picture = rig.picture(45);
    let clip = rig.clip(40, JobState::Done);
    let loose = rig.picture(10);
    rig.protect(&picture, true);
    rig.protect(&clip, true);
    assert_eq!(rig.taken(), 100);
    let why = no_room(rig.room.admit(11));
    let expected = NoRoom::Share { percent: 10, share: 100, used: 100, removable: 10, wanted: 11 };
    assert_eq!(why, expected);
    for part in
        ["10 % of the disk", "100 bytes", "11 more", "`max_percent` in [media]", "protected"]
    {
        assert!(why.to_string().contains(part), "{part}: {why}");
    }
    assert_eq!(no_room(rig.room.look(11)), expected);
    assert!(rig.there(&loose), "nothing is removed in vain");
    assert_eq!(rig.room.refused(), Some(why.to_string()));
    drop(rig.room.admit(10).unwrap());
    assert!(!rig.there(&loose) && rig.there(&picture) && rig.there(&clip));
    assert_eq!(rig.room.refused(), None);
    // Somebody takes the protection off: it is seen at once.
    assert!(matches!(no_room(rig.room.look(11)), NoRoom::Share { removable: 0, .. }));
    rig.protect(&clip, false);
    rig.room.look(11).unwrap();
    rig.protect(&clip, true);
    no_room(rig.room.look(11));
    // Neither age nor a smaller disk takes them.
    assert_eq!(rig.room.expire(UtcNanos::FAR).unwrap(), 0);
    rig.space.lock().unwrap().size = 100;
    no_room(rig.room.fit());
    assert!(rig.there(&picture) && rig.there(&clip));
    // A person does.
    let row = rig.room.control.bookmark(&clip).unwrap().unwrap();
    let delete = || rig.room.control.write(|write| write.delete_bookmark(&clip)).map(drop);
    rig.room.delete(Owner::of_bookmark(&row), delete).unwrap();
    assert!(!rig.there(&clip));
    assert_eq!(rig.taken(), 45);
}

#[test]
fn demands_that_this_disk_can_not_meet_are_told() {
    let told = |keep_free| rig_with(Demands { keep_free, high_percent: None }).room.contradiction();
    assert_eq!(told(999), None);
    assert!(told(1000).unwrap().contains("events are not stored"));
}

#[test]
fn what_is_protected_while_it_is_about_to_go_stays() {
    let rig = rig();
    let (picture, clip) = (rig.picture(50), rig.clip(45, JobState::Done));
    let oldest = rig.room.oldest(100).unwrap();
    assert_eq!(oldest.len(), 2);
    rig.protect(&picture, true);
    rig.protect(&clip, true);
    let removed = rig.room.remove(&mut rig.room.lock(), &oldest).unwrap();
    assert_eq!(removed, (0, 0));
    assert!(rig.there(&picture) && rig.there(&clip));
    let mut ledger = rig.room.lock();
    let why = no_room(rig.room.shrink(&mut ledger, 1, 1));
    assert!(matches!(why, NoRoom::Share { removable: 0, .. }));
}

#[test]
fn those_that_are_too_old_go_and_no_clip_that_is_yet_to_be_cut() {
    let rig = rig();
    let picture = rig.picture(1);
    let protected = rig.picture(1);
    rig.protect(&protected, true);
    let pending = rig.clip(0, JobState::Pending);
    let running = rig.clip(0, JobState::Running);
    let failed = rig.clip(0, JobState::Failed("x".into()));
    let clip = rig.clip(1, JobState::Done);
    let young = rig.picture(1);
    let state = |id: &MediaId| rig.room.control.bookmark(id).unwrap().map(|row| row.state);
    // To the nanosecond.
    assert_eq!(rig.room.expire(rig.created(&picture)).unwrap(), 0);
    assert_eq!(rig.room.expire(UtcNanos(rig.created(&picture).0 + 1)).unwrap(), 1);
    assert!(!rig.there(&picture));
    assert_eq!(rig.room.expire(rig.created(&clip)).unwrap(), 1, "the one that failed");
    assert_eq!(state(&failed), None);
    assert_eq!(rig.room.expire(rig.created(&young)).unwrap(), 1);
    assert!(!rig.there(&clip) && rig.there(&young) && rig.there(&protected));
    assert_eq!(rig.room.expire(UtcNanos::FAR).unwrap(), 1);
    assert_eq!([&pending, &running].map(state), [Some(JobState::Pending), Some(JobState::Running)]);
    assert_eq!(rig.taken(), 1, "the protected one");
}

#[test]
fn more_than_a_transaction_takes_go_in_several() {
    let rig = rig();
    let ids: Vec<MediaId> = (0..2 * BATCH + 3).map(|_| rig.picture(1)).collect();
    assert_eq!(rig.room.oldest(u64::MAX).unwrap().len(), BATCH);
    let (old, young) = ids.split_at(BATCH + 2);
    let oldest = rig.created(&young[0]);
    assert_eq!(rig.room.expire(oldest).unwrap(), old.len());
    assert!(old.iter().all(|id| !rig.there(id)) && young.iter().all(|id| rig.there(id)));
    rig.room.admit(100).unwrap().keep(100);
    assert!(young.iter().all(|id| !rig.there(id)));
    // At the end of serve nothing begins any more.
    let last = rig.picture(1);
    rig.stopping.store(true, Ordering::Release);
    assert_eq!(rig.room.expire(UtcNanos::FAR).unwrap(), 0);
    assert!(rig.there(&last));
}

#[test]
fn many_that_stay_hold_up_none_that_go() {
    let rig = rig();
    let many = |write: &mut store::ControlWrite<'_>| {
        for _ in 0..BATCH {
            let protected = store::control::Snapshot { protected: true, ..testing::snapshot() };
            write.put_snapshot(protected)?;
            write.put_bookmark(testing::bookmark())?;
        }
        Ok::<_, StoreError>(())
    };
    rig.room.control.write(many).unwrap();
    let picture = rig.picture(1);
    assert_eq!(rig.room.expire(UtcNanos::FAR).unwrap(), 1);
    let clip = rig.clip(1, JobState::Done);
    assert_eq!(rig.room.expire(UtcNanos::FAR).unwrap(), 1);
    assert!(!rig.there(&picture) && !rig.there(&clip));
    // Nor for room.
    let (picture, clip) = (rig.picture(1), rig.clip(1, JobState::Done));
    drop(rig.room.admit(95).unwrap());
    assert!(!rig.there(&picture) && !rig.there(&clip));
}

#[test]
fn clips_that_wait_or_run_have_no_place_that_could_be_taken() {
    let rig = rig();
    rig.clip(0, JobState::Pending);
    let failed = rig.clip(0, JobState::Failed("x".into()));
    let clip = rig.clip(75, JobState::Done);
    let mut place = rig.room.admit(20).unwrap();
    assert_eq!(rig.taken(), 100);
    // Another one has to take the oldest, and both together can't have more than all.
    assert!(matches!(no_room(rig.room.look(81)), NoRoom::Share { used: 100, removable: 75, .. }));
    let other = rig.room.admit(80).unwrap_err();
    assert!(matches!(other, MediaError::NoRoom(_)));
    assert!(rig.there(&clip));
    // What was made is larger than it was thought.
    place.hold(20).unwrap();
    assert!(rig.there(&clip));
    place.hold(21).unwrap();
    assert!(!rig.there(&clip));
    let row = rig.room.control.bookmark(&failed).unwrap();
    assert!(row.is_some(), "it frees nothing, and says what became of it");
    assert_eq!(rig.taken(), 21);
    assert!(matches!(no_room(place.hold(101)), NoRoom::Share { wanted: 80, .. }));
    place.hold(100).unwrap();
    assert_eq!(rig.taken(), 100);
    place.keep(60);
    assert_eq!(rig.taken(), 60, "what it took in the end");
}

#[test]
fn what_others_need_stays_free() {
    // A tenth of the disk stays free of recordings, half of it is urgent.
    let rig = rig_with(Demands { keep_free: 20, high_percent: Some(90) });
    let old = rig.picture(95);
    rig.space.lock().unwrap().free = 59;
    drop(rig.room.admit(5).unwrap());
    // What goes makes room for what comes.
    rig.room.look(10).unwrap();
    rig.space.lock().unwrap().free = 54;
    let why = no_room(rig.room.look(5));
    assert!(matches!(why, NoRoom::Disk { free: 54, reserve: 50, wanted: 5, .. }), "{why:?}");
    for part in ["54 bytes free", "50 stay free", "5 are needed", "`retention` of [recording]"] {
        assert!(why.to_string().contains(part), "{part}: {why}");
    }
    assert_eq!(no_room(rig.room.admit(5)), why);
    assert!(rig.there(&old), "nothing is removed in vain");
    rig.room.look(4).unwrap();
    let place = rig.room.admit(4).unwrap();
    no_room(rig.room.look(1));
    drop(place);
    rig.room.look(4).unwrap();
}

#[test]
fn a_smaller_share_is_kept_from_then_on_and_foreign_files_count() {
    let rig = rig();
    let (first, second) = (rig.picture(40), rig.picture(30));
    assert_eq!(rig.room.fit().unwrap(), 0);
    rig.space.lock().unwrap().size = 690;
    assert_eq!(rig.room.fit().unwrap(), 40);
    assert_eq!([&first, &second].map(|id| rig.there(id)), [false, true]);
    let foreign = rig.room.files.path(
        Kind::Snapshots,
        &testing::CAMERA.parse().unwrap(),
        &MediaId::random(),
        "jpg",
    );
    fs::write(&foreign, [0; 40]).unwrap();
    assert_eq!(rig.taken(), 30, "not noticed yet");
    let place = rig.room.admit(1).unwrap();
    rig.room.recount();
    assert_eq!(rig.taken(), 31, "not while somebody writes");
    drop(place);
    let changes = rig.room.lock().changes;
    rig.room.changed();
    rig.room.counted(changes, 70);
    assert_eq!(rig.taken(), 30, "something went or came while it was counted");
    rig.room.recount();
    assert_eq!(rig.taken(), 70);
    assert_eq!(rig.room.fit().unwrap(), 30);
    assert!(!rig.there(&second) && foreign.exists());
    assert!(matches!(no_room(rig.room.look(30)), NoRoom::Share { used: 40, removable: 0, .. }));
    fs::remove_file(&foreign).unwrap();
    rig.room.recount();
    rig.room.look(69).unwrap();
}

#[test]
fn a_removal_that_a_kill_interrupts_is_ended_or_undone_at_the_next_start() {
    let rig = rig();
    let (kept, gone) = (rig.clip(40, JobState::Done), rig.clip(40, JobState::Done));
    let hide = |id: &MediaId| {
        let owner = Owner::of_bookmark(&rig.room.control.bookmark(id).unwrap().unwrap());
        for extension in ["mp4", "jpg"] {
            let path = rig.room.files.path(owner.kind, &owner.camera, id, extension);
            let hidden = path.with_file_name(format!("deleted-{id}.{extension}"));
            fs::rename(path, hidden).unwrap();
        }
    };
    // Killed before the row went, and after it.
    hide(&kept);
    hide(&gone);
    rig.room.control.write(|write| write.delete_bookmark(&gone)).unwrap();
    rig.room.files.mend(&rig.room.control).unwrap();
    rig.room.unsure();
    assert!(rig.there(&kept) && !rig.there(&gone));
    assert_eq!((rig.taken(), rig.room.files.bytes_of_all()), (45, 45));
    // A row whose files are gone takes no place, and goes when its turn comes.
    let bare = rig.picture(20);
    let camera = testing::CAMERA.parse().unwrap();
    fs::remove_file(rig.room.files.path(Kind::Snapshots, &camera, &bare, "jpg")).unwrap();
    rig.room.unsure();
    assert_eq!(rig.taken(), 45);
    drop(rig.room.admit(100).unwrap());
    assert!(!rig.there(&kept));
    assert_eq!(rig.taken(), 0);
}
