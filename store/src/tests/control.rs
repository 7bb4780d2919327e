//! The registry: what the configuration wins, what people keep, and transactions as a whole.

use super::{camera, model};
use crate::control::*;
use crate::{Control, StoreError};
use base::CameraId;

fn opened() -> (tempfile::TempDir, Control) {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::open(directory.path()).unwrap();
    (directory, control)
}

fn stream(url: &str) -> Stream {
    Stream {
        name: "main".into(),
        url: url.into(),
        transport: "tcp".into(),
        roles: vec!["detect".into(), "live".into()],
    }
}

fn config() -> ConfigRows {
    let mut device = ConfigDevice::new(camera(1));
    device.name = Some("Door".into());
    device.streams = Some(vec![stream("rtsp://u:p@host/1")]);
    device.loop_offset_ms = Some(1500);
    let mut assignment = ConfigAssignment::new(camera(1), model(1));
    assignment.desired_fps = Some(7.5);
    assignment.parameters = Some(serde_json::from_str(r#"{"threshold": 0.3}"#).unwrap());
    ConfigRows {
        devices: vec![device, ConfigDevice::new(camera(2))],
        models: vec![ConfigModel::new(model(1))],
        assignments: vec![assignment],
    }
}

#[test]
fn the_configuration_wins_only_for_what_it_names() {
    let (directory, control) = opened();
    let changes = control.upsert_config(&config()).unwrap();
    assert_eq!(changes.added.len(), 4);
    assert!(changes.added.contains(&"assignment cam1.model1".to_owned()), "{changes:?}");
    assert!(control.upsert_config(&config()).unwrap().is_empty());
    // A person renames the camera and its place, and sets fps and priority.
    control
        .write(|w| {
            let mut device = w.device(&camera(1))?.unwrap();
            device.name = "Gate".into();
            device.location = Some("North".into());
            w.put_device(device)?;
            w.update_assignment(&"cam1.model1".parse().unwrap(), |row| {
                row.desired_fps = Some(1.0);
                row.priority = Some(80);
            })
        })
        .unwrap();
    drop(control);
    let control = Control::open(directory.path()).unwrap();
    let changes = control.upsert_config(&config()).unwrap();
    assert_eq!(changes.updated, ["device cam1", "assignment cam1.model1"]);
    let device = control.device(&camera(1)).unwrap().unwrap();
    assert_eq!((device.name.as_str(), device.location.as_deref()), ("Door", Some("North")));
    assert_eq!(device.streams, [stream("rtsp://u:p@host/1")]);
    assert_eq!((device.loop_offset_ms, device.source), (1500, Source::Config));
    let row = control.assignment(&"cam1.model1".parse().unwrap()).unwrap().unwrap();
    assert_eq!((row.desired_fps, row.priority), (Some(7.5), Some(80)));
    assert_eq!(row.parameters.unwrap()["threshold"], 0.3);
}

#[test]
fn rows_that_leave_the_configuration_are_disabled_and_return() {
    let (_directory, control) = opened();
    let full = config();
    let less = ConfigRows { devices: full.devices[..1].to_vec(), ..ConfigRows::default() };
    control.upsert_config(&full).unwrap();
    // Made by a person: the configuration does not own it.
    control.write(|w| w.put_device(Device::new(camera(7), Source::Api))).unwrap();
    let changes = control.upsert_config(&less).unwrap();
    assert_eq!(changes.disabled, ["device cam2", "model model1", "assignment cam1.model1"]);
    let gone = control.device(&camera(2)).unwrap().unwrap();
    assert!(!gone.enabled && gone.gone);
    assert!(control.device(&camera(7)).unwrap().unwrap().enabled);
    assert!(control.upsert_config(&less).unwrap().is_empty(), "told once");
    // A person may enable it all the same; it stays so.
    let mut kept = gone.clone();
    kept.enabled = true;
    control.write(|w| w.put_device(kept)).unwrap();
    assert!(control.upsert_config(&less).unwrap().is_empty());
    assert!(control.device(&camera(2)).unwrap().unwrap().enabled);
    // It returns enabled, and one that a person disabled while it was named stays disabled.
    control.upsert_config(&full).unwrap();
    let back = control.assignment(&"cam1.model1".parse().unwrap()).unwrap().unwrap();
    assert!(back.enabled && !back.gone);
    control.write(|w| w.update_assignment(&back.id, |row| row.enabled = false)).unwrap();
    control.upsert_config(&full).unwrap();
    assert!(!control.assignment(&back.id).unwrap().unwrap().enabled);
    let mut named = full.clone();
    named.assignments[0].enabled = Some(true);
    control.upsert_config(&named).unwrap();
    assert!(control.assignment(&back.id).unwrap().unwrap().enabled);
}

#[test]
fn a_pair_that_a_person_assigned_is_taken_over_not_doubled() {
    let (_directory, control) = opened();
    let new = Assignment::new(AssignmentId::random(), camera(1), model(1), Source::Api);
    let Created::New(row) = control.write(|w| w.create_assignment(new)).unwrap() else { panic!() };
    assert_eq!(row.updated_at, None);
    control.upsert_config(&config()).unwrap();
    let rows = control.assignments().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0].id, rows[0].source), (&row.id, Source::Config));
    assert_eq!(rows[0].desired_fps, Some(7.5));
    // An id that another pair has is not shared.
    let mut taken = ConfigAssignment::new(camera(2), model(1));
    taken.id = row.id.clone();
    let rows = ConfigRows { assignments: vec![taken], ..ConfigRows::default() };
    control.upsert_config(&rows).unwrap();
    let all = control.assignments().unwrap();
    assert_eq!(all.len(), 2);
    assert_ne!(all[0].id, all[1].id);
}

#[test]
fn the_same_assignment_created_at_once_is_one_row() {
    let (_directory, control) = opened();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let control = control.clone();
            std::thread::spawn(move || {
                let id = AssignmentId::random();
                let new = Assignment::new(id, camera(1), model(1), Source::Api);
                control.write(|w| w.create_assignment(new)).unwrap()
            })
        })
        .collect();
    let created: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let new = created.iter().filter(|c| matches!(c, Created::New(_))).count();
    assert_eq!((new, control.assignments().unwrap().len()), (1, 1));
    let ids: std::collections::BTreeSet<_> = created
        .iter()
        .map(|c| match c {
            Created::New(row) | Created::Existing(row) => row.id.clone(),
        })
        .collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_transaction_that_fails_has_not_happened() {
    #[derive(Debug)]
    enum Refused {
        ByCaller,
        Store,
    }
    impl From<StoreError> for Refused {
        fn from(_: StoreError) -> Refused {
            Refused::Store
        }
    }
    let (_directory, control) = opened();
    control.upsert_config(&config()).unwrap();
    let before = (control.devices().unwrap(), control.assignments().unwrap());
    let refused: Result<(), Refused> = control.write(|w| {
        assert!(w.delete_device(&camera(1))?);
        assert_eq!(w.assignments()?, []);
        Err(Refused::ByCaller)
    });
    assert!(matches!(refused, Err(Refused::ByCaller)));
    assert_eq!((control.devices().unwrap(), control.assignments().unwrap()), before);
    // Committed, the camera takes its assignments along, and the pair is free.
    control.write(|w| w.delete_device(&camera(1))).unwrap();
    assert_eq!(control.assignments().unwrap(), []);
    let pair = control.write(|w| w.assignment_of(&camera(1), &model(1))).unwrap();
    assert_eq!(pair, None);
    assert!(!control.write(|w| w.delete_device(&camera(1))).unwrap());
}

#[test]
fn times_are_the_stores_and_order_lists() {
    let (_directory, control) = opened();
    for n in 0..4 {
        control.write(|w| w.put_model(Model::new(model(n), Source::Api))).unwrap();
    }
    let ids: Vec<_> = control.models().unwrap().into_iter().map(|m| m.id).collect();
    assert_eq!(ids, [3, 2, 1, 0].map(model), "the newest first");
    let first = control.model(&model(0)).unwrap().unwrap();
    assert!(first.created_at.0 > 0 && first.updated_at.is_none());
    let again = control.write(|w| w.put_model(first.clone())).unwrap();
    assert_eq!(again.updated_at, None, "nothing changed");
    let mut changed = first.clone();
    changed.enabled = false;
    let changed = control.write(|w| w.put_model(changed)).unwrap();
    assert_eq!(changed.created_at, first.created_at);
    assert!(changed.updated_at.unwrap() >= first.created_at);
    assert!(control.write(|w| w.delete_model(&model(0))).unwrap());
    assert!(!control.write(|w| w.delete_model(&model(0))).unwrap());
}

#[test]
fn revisions_rise_across_restarts_and_labels_stay() {
    let (directory, control) = opened();
    assert_eq!(control.next_revision().unwrap(), 1);
    assert_eq!(control.next_revision().unwrap(), 2);
    let labels = vec!["person".to_owned(), "dog".to_owned()];
    control.set_labels(&model(1), "1.0", &labels).unwrap();
    drop(control);
    let control = Control::open(directory.path()).unwrap();
    assert_eq!(control.next_revision().unwrap(), 3);
    assert_eq!(control.labels(&model(1), "1.0").unwrap(), Some(labels));
    assert_eq!(control.labels(&model(1), "2.0").unwrap(), None);
}

#[test]
fn a_registry_keeps_its_epoch_and_every_other_has_another() {
    let (directory, control) = opened();
    let epoch = control.epoch().unwrap();
    assert_ne!(epoch, base::Epoch(0));
    assert_eq!(control.write(|w| w.epoch()).unwrap(), epoch);
    drop(control);
    let control = Control::open(directory.path()).unwrap();
    assert_eq!(control.epoch().unwrap(), epoch);
    drop(control);
    std::fs::remove_file(directory.path().join("control.redb")).unwrap();
    let anew = Control::open(directory.path()).unwrap();
    assert_ne!(anew.epoch().unwrap(), epoch);
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, control) = opened();
    control.next_revision().unwrap();
    let path = directory.path().join("control.redb");
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn assignment_ids_are_checked() {
    for good in ["a", "cam.model-1", &"x".repeat(160)] {
        assert_eq!(good.parse::<AssignmentId>().unwrap().as_str(), good);
    }
    for bad in ["", "a b", "a/b", &"x".repeat(161), "caf\u{e9}"] {
        assert!(bad.parse::<AssignmentId>().is_err(), "{bad}");
    }
    let long = CameraId::new(&"c".repeat(64)).unwrap();
    let row = ConfigAssignment::new(long, base::ModelId::new(&"m".repeat(64)).unwrap());
    assert!(row.id.as_str().parse::<AssignmentId>().is_ok());
}
