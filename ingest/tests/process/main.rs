//! Ingest and its decode workers as processes: what is in the rings, what is left of them, and
//! what happens when they are killed.
//!
//! Workers and ingest itself are this test program, started again with [`node::ENTRY`] set.
#![allow(clippy::unwrap_used)] // The helpers are tests as well.

mod bounds;
mod gstreamer;
mod node;
mod recording;
mod rtsp;
mod watch;
mod worker;

use base::FrameFlags;
use ipc::desired::DecodeMode;
use node::{Node, camera, pedestrians};
use std::process::ExitCode;
use watch::{Reference, Watch, wait_until};

/// Not a test of its own: what this program does as another process.
#[test]
fn entry() -> ExitCode {
    match std::env::var(node::ENTRY).as_deref() {
        Ok("decode") => ingest::decode_main(),
        Ok("ingest") => node::ingest_process(),
        Ok("greedy") => bounds::greedy_worker(),
        Ok("starved") => bounds::starved_worker(),
        _ => ExitCode::SUCCESS,
    }
}

#[test]
fn a_looped_clip_is_one_unbroken_line_of_exact_frames() {
    let reference = Reference::of(&pedestrians());
    let node = Node::new();
    // The loop closes two seconds after the start.
    node.desire([camera("loop", &pedestrians()).offset(28_000)]);
    let ingest = node.start();
    let mut watch = Watch::new(&node, "loop");
    let frames = watch.collect(45);
    for frame in &frames {
        assert!(!frame.stamp.info.flags.has(FrameFlags::CORRUPT));
        assert_eq!(frame.stamp.generation, frames[0].stamp.generation);
        // The place in the clip follows from the media time alone, exactly, across the loop.
        let ticks = frame.stamp.info.media.0 - frames[0].stamp.info.media.0;
        assert_eq!(ticks % 9_000, 0);
        let place = (frames[0].place(&reference) + ticks as usize / 9_000) % 300;
        assert_eq!(frame.place(&reference), place);
        assert_eq!(frame.stamp.info.flags.has(FrameFlags::KEY), place.is_multiple_of(20));
    }
    assert!(frames[0].place(&reference) >= 280, "nothing of what leads to the start is shown");
    for pair in frames.windows(2) {
        let (before, after) = (&pair[0].stamp, &pair[1].stamp);
        assert!(after.frame_id.0 > before.frame_id.0);
        assert!(after.info.capture > before.info.capture);
        assert!(after.info.decode_start >= after.info.capture);
        assert!(after.published >= after.info.decode_start);
        let wrapped = pair[1].place(&reference) < pair[0].place(&reference);
        if wrapped {
            assert!(after.info.flags.has(FrameFlags::DISCONTINUITY));
        }
    }
    let places: Vec<_> = frames.iter().map(|frame| frame.place(&reference)).collect();
    assert!(places.windows(2).any(|pair| pair[1] < pair[0]), "no loop in {places:?}");
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn two_cameras_of_one_clip_are_out_of_phase_by_their_offsets() {
    let reference = Reference::of(&pedestrians());
    let node = Node::new();
    node.desire([
        camera("phase-a", &pedestrians()),
        camera("phase-b", &pedestrians()).offset(15_050),
    ]);
    let ingest = node.start();
    let a = Watch::new(&node, "phase-a").collect(3).pop().unwrap();
    let b = Watch::new(&node, "phase-b").collect(3).pop().unwrap();
    // Media time is UTC of the due time: the same clock for both.
    let apart = b.stamp.info.media.0 as i64 - a.stamp.info.media.0 as i64;
    let content = (b.place(&reference) as i64 - a.place(&reference) as i64) * 9_000;
    // b is 15.05 s further in the clip at any moment; to a tick or two of rounding.
    let error = (content - apart - 15_050 * 90).rem_euclid(30 * 90_000);
    assert!(!(3..=30 * 90_000 - 3).contains(&error), "{error} ticks");
    let frame_phase = apart.rem_euclid(9_000);
    assert!((4_490..=4_510).contains(&frame_phase), "half a period apart: {frame_phase} ticks");
    ingest.stop();
}

#[test]
fn a_killed_worker_comes_back_and_ids_and_media_go_on() {
    let reference = Reference::of(&pedestrians());
    let node = Node::new();
    node.desire([camera("kill-a", &pedestrians()), camera("kill-b", &pedestrians())]);
    let ingest = node.start();
    let (mut a, mut b) = (Watch::new(&node, "kill-a"), Watch::new(&node, "kill-b"));
    let before = a.collect(5);
    let b_before = b.collect(1).pop().unwrap();
    let (worker, others) = (node.worker("kill-a").unwrap(), node.worker("kill-b").unwrap());
    // Stopped first, so that its last frame is seen for sure.
    node::suspend(worker);
    a.glance();
    node::kill(worker);
    let after = a.collect_generation_after(before[0].stamp.generation, 5);
    assert_ne!(node.worker("kill-a"), Some(worker));
    let (last, first) = (before.last().unwrap(), &after[0]);
    assert!(first.stamp.frame_id > last.stamp.frame_id);
    assert!(first.stamp.info.media > last.stamp.info.media);
    for frame in &after {
        assert!(!frame.stamp.info.flags.has(FrameFlags::CORRUPT), "begins at a key frame");
        let ticks = (frame.stamp.info.media.0 - before[0].stamp.info.media.0) as usize;
        let place = (before[0].place(&reference) + ticks / 9_000) % 300;
        assert_eq!(frame.place(&reference), place, "the timeline of the camera ran on");
    }
    assert_eq!(first.stamp.frame_id.0, a.last_of(before[0].stamp.generation) + 1, "without a gap");
    // Nobody else noticed.
    assert_eq!(node.worker("kill-b"), Some(others));
    let b_after = b.collect(1).pop().unwrap();
    assert_eq!(b_after.stamp.generation, b_before.stamp.generation);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_killed_ingest_takes_its_workers_along_and_the_next_one_goes_on() {
    let node = Node::new();
    node.desire([camera("orphan", &pedestrians())]);
    let mut ingest = node.start_process();
    let mut watch = Watch::new(&node, "orphan");
    let before = watch.collect(3);
    let worker = node.worker("orphan").unwrap();
    node::suspend(worker);
    watch.glance();
    ingest.kill().unwrap();
    ingest.wait().unwrap();
    wait_until("the worker is gone", || !node::alive(worker));
    assert!(node.directories.ring(&"orphan".parse().unwrap()).exists(), "the ring stays");
    // The lock of the dead one does not hold up the next.
    let ingest = node.start();
    let after = watch.collect_generation_after(before[0].stamp.generation, 3);
    assert_eq!(
        after[0].stamp.frame_id.0,
        watch.last_of(before[0].stamp.generation) + 1,
        "without a gap"
    );
    assert!(after[0].stamp.info.media > before.last().unwrap().stamp.info.media);
    assert!(after[0].stamp.generation > before[0].stamp.generation);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_worker_that_does_not_move_is_ended_and_replaced() {
    let node = Node::new();
    node.desire([camera("stall", &pedestrians()), camera("other", &pedestrians())]);
    let ingest = node.start();
    let mut watch = Watch::new(&node, "stall");
    let before = watch.collect(2);
    let worker = node.worker("stall").unwrap();
    node::suspend(worker);
    wait_until("the stopped worker is ended", || !node::alive(worker));
    let after = watch.collect_generation_after(before[0].stamp.generation, 2);
    assert!(after[0].stamp.frame_id > before[1].stamp.frame_id);
    Watch::new(&node, "other").collect(2);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn off_means_no_worker_and_no_shared_memory() {
    let node = Node::new();
    node.desire([camera("switch", &pedestrians())]);
    let ingest = node.start();
    Watch::new(&node, "switch").collect(2);
    let worker = node.worker("switch").unwrap();
    node.desire([camera("switch", &pedestrians()).decode(DecodeMode::Off)]);
    wait_until("worker and ring are gone", || {
        !node::alive(worker) && node.shm_entries().is_empty()
    });
    // And on again.
    node.desire([camera("switch", &pedestrians())]);
    Watch::new(&node, "switch").collect(2);
    node.desire([]);
    wait_until("worker and ring are gone", || {
        node.worker("switch").is_none() && node.shm_entries().is_empty()
    });
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn key_frames_only() {
    let node = Node::new();
    node.desire([camera("keys", &pedestrians()).decode(DecodeMode::Keyframes)]);
    let ingest = node.start();
    let mut watch = Watch::new(&node, "keys");
    let frames = watch.collect(3);
    for frame in &frames {
        assert!(frame.stamp.info.flags.has(FrameFlags::KEY));
    }
    let generation = frames[0].stamp.generation;
    let worker = node.worker("keys");
    node.desire([camera("keys", &pedestrians())]);
    wait_until("other frames come", || !watch.collect(1)[0].stamp.info.flags.has(FrameFlags::KEY));
    assert_eq!(node.worker("keys"), worker, "the same worker goes on");
    assert!(watch.collect(1)[0].stamp.generation >= generation);
    ingest.stop();
}

#[test]
fn a_change_of_one_camera_concerns_no_other() {
    let node = Node::new();
    let two = |deadline| {
        [camera("row-a", &pedestrians()).deadline(deadline), camera("row-b", &pedestrians())]
    };
    node.desire(two(500));
    let ingest = node.start();
    let (mut a, mut b) = (Watch::new(&node, "row-a"), Watch::new(&node, "row-b"));
    let (a_before, b_before) = (a.collect(2).pop().unwrap(), b.collect(2).pop().unwrap());
    let workers = (node.worker("row-a"), node.worker("row-b"));
    // ceil(10 * 0.65) + 2 slots, then ceil(10 * 2.15) + 2.
    assert_eq!(a_before.stamp.slots, 9);
    node.desire(two(2000));
    let a_after = a.collect_generation_after(a_before.stamp.generation, 1).pop().unwrap();
    assert_eq!(a_after.stamp.slots, 24);
    assert!(a_after.stamp.frame_id > a_before.stamp.frame_id);
    assert_eq!((node.worker("row-a"), node.worker("row-b")), workers);
    // Another clip: a new size is a new generation, the ids and the media time go on.
    let mut rows = two(2000);
    rows[0] = camera("row-a", &node::asset("bframes.mp4")).deadline(2000);
    node.desire(rows);
    let small = a.collect_generation_after(a_after.stamp.generation, 3).pop().unwrap();
    assert_eq!((small.stamp.size.width, small.stamp.size.height), (128, 96));
    assert!(small.stamp.frame_id > a_after.stamp.frame_id);
    assert!(small.stamp.info.media > a_after.stamp.info.media);
    let b_after = b.collect(1).pop().unwrap();
    assert_eq!(b_after.stamp.generation, b_before.stamp.generation);
    assert_eq!((node.worker("row-a"), node.worker("row-b")), workers);
    ingest.stop();
}

#[test]
fn b_frames_and_a_change_of_size_inside_a_stream() {
    let node = Node::new();
    node.desire([
        camera("bframes", &node::asset("bframes.mp4")),
        camera("sizes", &node::asset("two_sizes.h264")),
        camera("hevc", &node::asset("hevc.mp4")),
    ]);
    let ingest = node.start();
    for (name, path) in [("bframes", "bframes.mp4"), ("hevc", "hevc.mp4")] {
        let reference = Reference::of(&node::asset(path));
        let frames = Watch::new(&node, name).collect(60);
        for pair in frames.windows(2) {
            let ticks = pair[1].stamp.info.media.0 - pair[0].stamp.info.media.0;
            assert_eq!(ticks % 3_600, 0, "{name}: in presentation order, exactly");
            let steps = (pair[1].place(&reference) + 50 - pair[0].place(&reference)) % 50;
            assert_eq!(steps, ticks as usize / 3_600 % 50, "{name}");
        }
    }
    let mut watch = Watch::new(&node, "sizes");
    let mut widths = std::collections::BTreeMap::new();
    let mut last = None;
    wait_until("both sizes came, twice", || {
        let frame = watch.collect(1).pop().unwrap();
        if let Some((id, generation, width)) = last {
            assert!(frame.stamp.frame_id.0 > id);
            assert_eq!(frame.stamp.size.width != width, frame.stamp.generation != generation);
        }
        last = Some((frame.stamp.frame_id.0, frame.stamp.generation, frame.stamp.size.width));
        *widths.entry(frame.stamp.size.width).or_insert(0) += 1;
        widths.len() == 2 && widths.values().all(|&count| count >= 20)
    });
    assert_eq!(widths.keys().copied().collect::<Vec<_>>(), [128, 192]);
    ingest.stop();
}

#[test]
fn a_clip_that_is_missing_or_bad_concerns_only_its_camera_and_is_tried_again() {
    let node = Node::new();
    let late = node.root.path().join("late.mp4");
    node.desire([
        camera("late", &late),
        camera("colour", &node::asset("yuv444.mp4")),
        camera("fine", &pedestrians()),
    ]);
    let ingest = node.start();
    Watch::new(&node, "fine").collect(3);
    assert_eq!(node.worker("late"), None);
    let half = node.root.path().join("half.mp4");
    std::fs::copy(node::asset("bframes.mp4"), &half).unwrap();
    std::fs::rename(&half, &late).unwrap();
    Watch::new(&node, "late").collect(3);
    // Pictures that can't be exported: no ring, and no worker that eats units for nothing.
    wait_until("the worker that refused is gone", || node.worker("colour").is_none());
    assert!(!node.directories.ring(&"colour".parse().unwrap()).exists());
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_ring_that_can_not_be_made_turns_that_camera_off_until_its_row_changes() {
    let node = Node::new();
    let place = node.directories.ring(&"foreign".parse().unwrap());
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("notes.txt"), "not a ring").unwrap();
    node.desire([camera("foreign", &pedestrians()), camera("neighbour", &pedestrians())]);
    let ingest = node.start();
    let mut neighbour = Watch::new(&node, "neighbour");
    neighbour.collect(3);
    wait_until("the worker gave up", || node.worker("foreign").is_none());
    wait_until("its state says why", || {
        let status = node.status("foreign", "main").unwrap();
        status.export_reason.contains("is no ring and is left alone")
    });
    assert_eq!(node.status("neighbour", "main").unwrap().export_reason, "");
    assert_eq!(std::fs::read(place.join("notes.txt")).unwrap(), b"not a ring");
    std::fs::remove_dir_all(&place).unwrap();
    // The next attempt is half a minute away, unless the row changes.
    node.desire([
        camera("foreign", &pedestrians()).deadline(600),
        camera("neighbour", &pedestrians()),
    ]);
    Watch::new(&node, "foreign").collect(2);
    wait_until("it is over", || node.status("foreign", "main").unwrap().export_reason.is_empty());
    neighbour.collect(1);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_worker_that_talks_nonsense_or_does_not_start_concerns_only_itself() {
    let node = Node::new();
    node.desire([camera("nonsense", &pedestrians())]);
    // Answers with text, and lives on.
    let starts = node.root.path().join("starts");
    let script = "echo >> $0; echo nonsense as long as a message, and even longer than that >&0; \
                  exec sleep 600";
    let ingest = node.start_with(["sh", "-c", script, starts.to_str().unwrap()]);
    wait_until("it was ended and started again, twice", || {
        std::fs::read(&starts).is_ok_and(|lines| lines.len() >= 3)
    });
    ingest.stop();
    wait_until("none of them is left", || node.children_named("sleep").is_empty());
    node.assert_nothing_left();
    let ingest = node.start_with(["/nonexistent/vas", "decode"]);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn a_second_ingest_is_refused_and_the_first_goes_on() {
    let node = Node::new();
    node.desire([camera("single", &pedestrians())]);
    let ingest = node.start();
    let mut watch = Watch::new(&node, "single");
    watch.collect(1);
    let error = ingest::run(node.options(), ipc::stop::Stop::pair().unwrap().1).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("ingest.lock") && error.contains("stop it"), "{error}");
    watch.collect(2);
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn media_time_goes_on_after_that_of_the_ring_also_when_utc_went_back() {
    let node = Node::new();
    let camera_id: base::CameraId = "ahead".parse().unwrap();
    let picture = base::Picture {
        size: base::Size { width: 64, height: 64 },
        matrix: base::ColourMatrix::Unspecified,
        range: base::ColourRange::Unspecified,
    };
    let spec = ipc::ring::RingSpec { camera: camera_id, picture, slots: 8 };
    let mut ring = ipc::ring::RingWriter::create(&node.directories.shm, &spec).unwrap();
    // Written by an ingest whose clock was a day ahead.
    let (now, utc) = (ipc::clock::monotonic(), ipc::clock::utc());
    let media = base::MediaTime(utc.0 / 100_000 * 9 + 86_400 * base::MediaTime::RATE);
    let flags = FrameFlags::KEY;
    let (capture, capture_utc, decode_start) = (now, utc, now);
    let old = ring.generation();
    ring.begin().publish(&base::FrameInfo { media, capture, capture_utc, decode_start, flags });
    drop(ring);
    node.desire([camera("ahead", &pedestrians())]);
    let ingest = node.start();
    let frames = Watch::new(&node, "ahead").collect_generation_after(old, 2);
    assert!(frames[0].stamp.frame_id.0 > 1);
    let ahead = frames[0].stamp.info.media.0 - media.0;
    assert!(
        ahead >= 1 && (ahead - 1).is_multiple_of(9_000),
        "the next tick, or frames later: {ahead}"
    );
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn rings_that_nobody_wants_are_swept_and_wanted_ones_are_kept() {
    let node = Node::new();
    node.desire([camera("kept", &pedestrians()), camera("swept", &pedestrians())]);
    let mut ingest = node.start_process();
    let mut kept = Watch::new(&node, "kept");
    let before = kept.collect(2);
    Watch::new(&node, "swept").collect(2);
    ingest.kill().unwrap();
    ingest.wait().unwrap();
    node.desire([camera("kept", &pedestrians())]);
    let ingest = node.start();
    let after = kept.collect_generation_after(before[0].stamp.generation, 1);
    assert!(after[0].stamp.frame_id > before[1].stamp.frame_id);
    wait_until("the other ring is gone", || {
        !node.directories.ring(&"swept".parse().unwrap()).exists()
    });
    ingest.stop();
    node.assert_nothing_left();
}

#[test]
fn with_export_off_there_is_nothing_whatever_the_desired_state_says() {
    let node = Node::new();
    node.desire([camera("silent", &pedestrians())]);
    // What a killed ingest left.
    let mut killed = node.start_process();
    Watch::new(&node, "silent").collect(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let marker = node.root.path().join("started");
    let ingest = node.start_export_off(["touch".into(), marker.clone().into_os_string()]);
    wait_until("no shared memory is left", || !node.directories.shm.exists());
    ingest.stop();
    assert!(!marker.exists());
    node.assert_nothing_left();
}
