//! kill -9 in the middle of commits: what was acknowledged is there, nothing is half there.
//!
//! The child is this test binary again, told by an environment variable what to do.

use super::{Clock, NOON, event, seeded};
use crate::control::{Assignment, AssignmentId, Control, Device, Source};
use crate::{Event, EventId, EventQuery, EventStore, Page, StoreError};
use base::{Generation, UtcNanos};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DIRECTORY: &str = "STORE_TEST_CRASH_DIRECTORY";
const LIFE: &str = "STORE_TEST_CRASH_LIFE";
const CONTROL: &str = "STORE_TEST_CRASH_CONTROL";

/// The events of a batch are made from its number, so that a reader can make them again. The
/// batch's number is their generation, its size the same for the reader.
fn batch(number: u64) -> Vec<crate::NewEvent> {
    let mut rng = Rng::with_seed(number);
    let count = rng.usize(1..20);
    (0..count)
        .map(|_| {
            // Near noon, now and then on the day before.
            let back = if rng.u8(..8) == 0 { 13 * super::HOUR } else { rng.u64(0..1000) };
            let mut event = event(&mut rng, UtcNanos(NOON.0 - back));
            event.generation = Generation(number);
            event
        })
        .collect()
}

/// Not a test of its own: what the child does. Writes batches for ever and tells each one that is
/// acknowledged.
#[test]
fn child_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let life: u64 = std::env::var(LIFE).unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    if std::env::var(CONTROL).is_ok() {
        let control = Control::open(directory).unwrap();
        loop {
            let revision = control.write(change).unwrap();
            writeln!(out, "\nacknowledged {revision}").unwrap();
            out.flush().unwrap();
        }
    }
    let clock = Clock::at(NOON);
    let (mut writer, _reader) = EventStore::open(directory, clock.options()).unwrap();
    for n in 0.. {
        let number = life * 1_000_000 + n;
        let ids = writer.append(&batch(number)).unwrap();
        write!(out, "\nacknowledged {number}").unwrap();
        for id in ids {
            write!(out, " {}", id.unwrap()).unwrap();
        }
        writeln!(out).unwrap();
        out.flush().unwrap();
    }
}

fn spawn(directory: &Path, life: u64, control: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::crash::child_that_is_killed", "--nocapture"]);
    command.env(DIRECTORY, directory).env(LIFE, life.to_string());
    if control {
        command.env(CONTROL, "1");
    }
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Reads acknowledgements until there are `enough`, then kills the child in the middle of whatever
/// it does, and reads what it had said before.
fn acknowledged(mut child: Child, enough: usize) -> Vec<Vec<String>> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    while told.len() < enough {
        let line = lines.next().expect("the child ended by itself").unwrap();
        told.extend(words(&line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(lines.map_while(Result::ok).filter_map(|line| words(&line)));
    told
}

fn words(line: &str) -> Option<Vec<String>> {
    let rest = line.strip_prefix("acknowledged ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// All events, by following cursors, with one filter after the other: an index that lacks a row
/// or has one too many shows as a difference.
fn everything(reader: &crate::EventReader, filter: &EventQuery) -> BTreeMap<EventId, Event> {
    let mut all = BTreeMap::new();
    let mut page = Page::First;
    loop {
        let query = EventQuery { limit: 1000, page, ..filter.clone() };
        let listed = reader.list(&query).unwrap();
        assert_eq!(listed.unreadable, 0);
        all.extend(listed.events.into_iter().map(|e| (e.id, e)));
        match listed.next {
            Some(next) => page = Page::After(next),
            None => return all,
        }
    }
}

#[test]
fn acknowledged_events_survive_kill_and_commits_are_whole() {
    let mut rng = seeded("acknowledged_events_survive_kill_and_commits_are_whole");
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::at(NOON);
    let mut promised: BTreeMap<EventId, u64> = BTreeMap::new();
    for life in 1..=6 {
        let child = spawn(directory.path(), life, false);
        for told in acknowledged(child, rng.usize(1..25)) {
            let number = told[0].parse().unwrap();
            // The last line may be cut by the kill; a whole id is 36 characters.
            let ids = told[1..].iter().filter(|text| text.len() == 36);
            promised.extend(ids.map(|text| (text.parse::<EventId>().unwrap(), number)));
        }
        let (_writer, reader) = EventStore::open(directory.path(), clock.options()).unwrap();
        let all = everything(&reader, &EventQuery::default());
        for (id, number) in &promised {
            let event = all.get(id).unwrap_or_else(|| panic!("{id} of batch {number} is gone"));
            assert!(batch(*number).contains(&event.content), "{id} is not what was stored");
        }
        // Whole: of each batch and day all or none, and nothing that nobody wrote.
        let mut batches: BTreeMap<(u64, crate::Day), usize> = BTreeMap::new();
        for event in all.values() {
            assert!(batch(event.content.generation.0).contains(&event.content));
            *batches.entry((event.content.generation.0, event.id.day())).or_default() += 1;
        }
        for ((number, day), count) in batches {
            let of_day = |e: &crate::NewEvent| crate::Day::of(e.capture_utc) == day;
            assert_eq!(batch(number).into_iter().filter(of_day).count(), count, "batch {number}");
        }
        for n in 0..5 {
            let filter = EventQuery { camera: Some(super::camera(n)), ..EventQuery::default() };
            let by_index = everything(&reader, &filter);
            assert!(
                by_index.values().eq(all.values().filter(|e| e.content.camera == super::camera(n)))
            );
            let filter = EventQuery { class_id: Some(n as u16), ..EventQuery::default() };
            let has = |e: &&Event| {
                e.content.detections.detections.iter().any(|d| usize::from(d.class_id) == n)
            };
            assert!(everything(&reader, &filter).values().eq(all.values().filter(has)));
        }
        drop((_writer, reader));
    }
    assert!(crate::check(directory.path()).unwrap().clean());
}

/// One change that touches several tables and counts in each.
fn change(w: &mut crate::ControlWrite<'_>) -> Result<u64, StoreError> {
    let revision = w.next_revision()?;
    let id = base::CameraId::new(&format!("cam{}", revision % 7)).unwrap();
    let mut device = Device::new(id.clone(), Source::Api);
    device.name = format!("revision {revision}");
    w.put_device(device)?;
    let text: AssignmentId = format!("a{}", revision % 7).parse().unwrap();
    let model = super::model(1);
    w.create_assignment(Assignment::new(text.clone(), id, model, Source::Api))?;
    w.update_assignment(&text, |row| row.desired_fps = Some(revision as f64))?;
    Ok(revision)
}

#[test]
fn the_registry_survives_kill_with_whole_transactions() {
    let mut rng = seeded("the_registry_survives_kill_with_whole_transactions");
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for life in 1..=4 {
        let child = spawn(directory.path(), life, true);
        let told = acknowledged(child, rng.usize(1..15));
        // The last line may be cut short by the kill: a prefix of the number is not above it.
        let promised: u64 = told.iter().map(|w| w[0].parse().unwrap_or(0)).max().unwrap();
        let control = Control::open(directory.path()).unwrap();
        let next = control.next_revision().unwrap();
        assert!(next > promised.max(last), "{next} after {promised} and {last}");
        for device in control.devices().unwrap() {
            let fps = control
                .assignments()
                .unwrap()
                .into_iter()
                .find(|a| a.camera == device.id)
                .and_then(|a| a.desired_fps)
                .unwrap();
            assert_eq!(device.name, format!("revision {fps}"), "half a transaction");
        }
        last = next;
    }
    assert!(crate::check(directory.path()).unwrap().clean());
}
