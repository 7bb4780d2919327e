//! Recording as people run it: what a kill costs, and what a full disk touches.

use crate::node::{Node, camera, pedestrians};
use crate::watch::{Watch, wait_until};
use ingest::clip::ClipFrames;
use ingest::{Disk, LimitedDisk, RecordingOptions};
use ipc::desired::DecodeMode;
use ipc::recording::{Recordings, Row, RowFlags, recover, scan};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SECOND: u64 = base::time::NANOS_PER_SEC;

fn rows(node: &Node, name: &str) -> Vec<Row> {
    let recordings = Recordings::new(node.directories.recordings());
    let camera = name.parse().unwrap();
    let days = recordings.days(&camera).unwrap();
    days.iter().flat_map(|day| recordings.rows(&camera, *day).unwrap()).collect()
}

fn seconds(rows: &[Row]) -> f64 {
    rows.iter().map(|row| f64::from(row.duration)).sum::<f64>() / 90_000.0
}

#[test]
fn a_killed_ingest_loses_less_than_a_second_and_what_is_there_plays() {
    let node = Node::new();
    node.desire([camera("kept", &pedestrians()).decode(DecodeMode::Off).record()]);
    let mut ingest = node.start_process();
    wait_until("a segment and a half", || seconds(&rows(&node, "kept")) > 7.5);
    ingest.kill().unwrap();
    let killed = ipc::clock::utc();
    ingest.wait().unwrap();
    let recordings = Recordings::new(node.directories.recordings());
    let name = "kept".parse().unwrap();
    // As any player finds it, before anybody put it in order.
    let mut frames = 0;
    let mut paths: Vec<_> =
        rows(&node, "kept").iter().map(|row| recordings.segment(&name, row.segment)).collect();
    paths.dedup();
    assert!(paths.len() >= 2);
    for path in &paths {
        frames += ClipFrames::open(path).unwrap().map(Result::unwrap).count();
    }
    recover(&recordings, &name).unwrap();
    let kept = rows(&node, "kept");
    assert_eq!(frames as u64, kept.iter().map(|row| u64::from(row.frames)).sum::<u64>());
    let end = kept.last().unwrap().end_utc();
    assert!(killed.0.saturating_sub(end.0) < SECOND, "{} ns lost", killed.0 - end.0);
    // The next one goes on, after a gap that everybody can see.
    let ingest = node.start();
    let after = wait_until("the next one records", || {
        let all = rows(&node, "kept");
        (all.len() > kept.len() + 2).then_some(all)
    });
    assert_eq!(after[..kept.len()], kept);
    assert!(after[kept.len()].flags.has(RowFlags::DISCONTINUITY));
    assert_eq!(after[kept.len()].number, kept.last().unwrap().number + 1);
    ingest.stop();
    // Stopped in order: nothing is lost.
    let all = rows(&node, "kept");
    let path = recordings.segment(&name, all.last().unwrap().segment);
    let scanned = scan(&path).unwrap();
    assert_eq!(scanned.whole_bytes, scanned.file_bytes);
    node.assert_nothing_left();
}

#[test]
fn a_full_disk_stops_recording_and_nothing_else() {
    let node = Node::new();
    node.desire([camera("full", &pedestrians()).record()]);
    let limits = Arc::new(LimitedDisk { left: 600_000.into(), ..LimitedDisk::default() });
    let disk = Disk::limited(Arc::clone(&limits));
    let recording =
        RecordingOptions { disk, ..RecordingOptions::new(node.directories.recordings()) };
    let ingest = node.start_recording(recording);
    let mut watch = Watch::new(&node, "full");
    let first = watch.collect(1).pop().unwrap();
    wait_until("the disk is full", || limits.left.load(Ordering::SeqCst) < 120_000);
    wait_until("it was tried and given up", || {
        let before = limits.left.load(Ordering::SeqCst);
        watch.collect(12);
        limits.left.load(Ordering::SeqCst) == before
    });
    // The oldest make room for new ones, as often as those find none.
    let last = rows(&node, "full").last().map(|row| row.number);
    // Decoding never noticed: the same worker, and no frame is missing.
    let frames = watch.collect(10);
    assert_eq!(frames[0].stamp.generation, first.stamp.generation);
    limits.left.store(u64::MAX, Ordering::SeqCst);
    let new = || -> Vec<Row> {
        rows(&node, "full").into_iter().filter(|row| Some(row.number) > last).collect()
    };
    wait_until("it goes on by itself", || new().len() > 2);
    assert!(new()[0].flags.has(RowFlags::DISCONTINUITY));
    ingest.stop();
}
