//! Stills and clips of recordings made in virtual time, judged by libavformat and libavcodec.

use super::take::{Pictures, Take};
use super::*;
use crate::recorder::tests::{Rig, units};
use crate::unit::AccessUnit;
use base::UtcNanos;
use base::time::NANOS_PER_SEC as SECOND;
use ffmpeg_next as ff;
use ipc::recording::Day;
use std::path::Path;

fn midnight() -> UtcNanos {
    Day::parse("20260201").unwrap().start()
}

/// Every picture of some units, in the order of presentation.
fn decoded(units: &[AccessUnit]) -> Vec<Vec<u8>> {
    let mut pictures = Pictures::new(units[0].codec).unwrap();
    let mut found = Vec::new();
    for (at, unit) in units.iter().enumerate() {
        pictures.submit(&unit.data, unit.key(), at);
        found.extend(std::iter::from_fn(|| pictures.find(|_| true)).map(|(_, pixels)| pixels));
    }
    pictures.decoder.finish();
    found.extend(std::iter::from_fn(|| pictures.find(|_| true)).map(|(_, pixels)| pixels));
    found
}

/// Time in seconds and luma.
type Shown = (f64, Vec<u8>);

/// Every picture that a player shows of a file.
fn shown(path: &Path) -> Vec<Shown> {
    crate::decoder::initialise();
    let mut input = ff::format::input(path).unwrap();
    let stream = input.streams().best(ff::media::Type::Video).unwrap();
    let base = f64::from(stream.time_base());
    let context = ff::codec::Context::from_parameters(stream.parameters()).unwrap();
    let mut decoder = context.decoder().video().unwrap();
    let mut found = Vec::new();
    let mut frame = ff::frame::Video::empty();
    let mut drain = |decoder: &mut ff::decoder::Video| {
        while decoder.receive_frame(&mut frame).is_ok() {
            let (width, height) = (frame.width() as usize, frame.height() as usize);
            let rows = frame.data(0).chunks(frame.stride(0)).take(height);
            let luma = rows.flat_map(|row| row[..width].to_vec()).collect();
            found.push((frame.pts().unwrap() as f64 * base, luma));
        }
    };
    for (_, packet) in input.packets() {
        decoder.send_packet(&packet).unwrap();
        drain(&mut decoder);
    }
    decoder.send_eof().unwrap();
    drain(&mut decoder);
    found
}

fn clip(rig: &Rig, from: u64, to: u64) -> Result<(Done, Vec<Shown>), Failed> {
    let output = rig.storage.recordings.root().join("clip.mp4");
    let job = Job::Clip {
        recordings: rig.storage.recordings.root().to_owned(),
        camera: rig.claim.camera.to_string(),
        start_utc_ns: from,
        end_utc_ns: to,
        thumbnail: output.with_extension("jpg"),
        output: output.clone(),
    };
    let done = run(job, &mut std::io::empty())?;
    let jpeg = std::fs::read(output.with_extension("jpg")).unwrap();
    assert_eq!(jpeg[..2], [0xff, 0xd8]);
    let moov_first = std::fs::read(&output).unwrap();
    let at = |kind: &[u8]| moov_first.windows(4).position(|w| w == kind).unwrap();
    assert!(at(b"moov") < at(b"mdat"));
    Ok((done, shown(&output)))
}

#[test]
fn a_clip_shows_its_window_and_nothing_else_through_midnight() {
    for (name, fps) in [("pedestrians.mp4", 10.0), ("bframes.mp4", 25.0), ("hevc.mp4", 25.0)] {
        let rig = Rig::new();
        let start = UtcNanos(midnight().0 - 10 * SECOND);
        let units = units(name, start, 20, |_| 0);
        rig.record(&units);
        let whole = decoded(&units);
        // On a picture, so that all that are shown are shown whole.
        let rows = rig.rows();
        let first = rows[0].start_utc.0;
        let (from, to) = (first + 5_400_000_000, first + 12_600_000_000);
        let (done, pictures) = clip(&rig, from, to).unwrap();
        let Done::Clip { start_utc_ns, end_utc_ns, duration_ms, gaps_ms, .. } = done else {
            panic!("{done:?}");
        };
        assert_eq!((start_utc_ns, end_utc_ns, gaps_ms), (from, to, 0), "{name}");
        assert_eq!(duration_ms, 7200);
        let expected = (5.4 * fps) as usize..(12.6 * fps) as usize;
        let count = pictures.len() as i64;
        assert!((count - expected.len() as i64).abs() <= 1, "{name}: {count} of {expected:?}");
        // The first one that is shown is the one of that moment, at the beginning.
        let luma = |picture: &Vec<u8>| picture[..pictures[0].1.len()].to_vec();
        let place = whole[expected.start - 1..].iter().position(|p| luma(p) == pictures[0].1);
        assert!(place.is_some_and(|at| at <= 2), "{name}: {place:?}");
        assert!(pictures[0].0.abs() < 0.11, "{name}: begins at {}", pictures[0].0);
        for pair in pictures.windows(2) {
            assert!((pair[1].0 - pair[0].0 - 1.0 / fps).abs() < 0.001, "{name}");
        }
    }
}

#[test]
fn a_clip_over_a_gap_and_other_parameters_keeps_real_time() {
    let rig = Rig::new();
    let start = UtcNanos(midnight().0 + 1000 * SECOND);
    let mut all = units("bframes.mp4", start, 6, |_| 0);
    let later = UtcNanos(start.0 + 16 * SECOND);
    for mut unit in units("pedestrians.mp4", later, 6, |_| 0) {
        unit.capture += std::time::Duration::from_secs(16);
        all.push(unit);
    }
    rig.record(&all);
    let (done, pictures) = clip(&rig, start.0 + 2 * SECOND, start.0 + 20 * SECOND).unwrap();
    let Done::Clip { duration_ms, gaps_ms, .. } = done else { panic!("{done:?}") };
    assert!((17_900..=18_000).contains(&duration_ms), "{duration_ms}");
    assert!((9_800..=10_200).contains(&gaps_ms), "{gaps_ms}");
    let small = 128 * 96;
    let (before, after): (Vec<_>, Vec<_>) = pictures.iter().partition(|(_, y)| y.len() == small);
    assert!((99..=102).contains(&before.len()), "{}", before.len());
    assert!((39..=41).contains(&after.len()), "{}", after.len());
    let first = after[0].0;
    assert!((first - 14.0).abs() < 0.2, "shown in its place: {first}");
}

#[test]
fn what_is_behind_a_gap_is_shown_in_its_place_whatever_its_media_time() {
    let rig = Rig::new();
    let start = UtcNanos(midnight().0 + 1000 * SECOND);
    let mut all = units("pedestrians.mp4", start, 4, |_| 0);
    for mut unit in units("bframes.mp4", UtcNanos(start.0 + 20 * SECOND), 4, |_| 0) {
        unit.capture += std::time::Duration::from_secs(20);
        unit.media.0 += 5 * base::MediaTime::RATE;
        all.push(unit);
    }
    rig.record(&all);
    let (_, pictures) = clip(&rig, start.0 + SECOND, start.0 + 23 * SECOND).unwrap();
    let behind = pictures.iter().find(|(_, luma)| luma.len() == 128 * 96).unwrap().0;
    assert!((behind - 19.0).abs() < 0.05, "{behind}");
}

#[test]
fn a_clip_whose_window_begins_in_a_gap_begins_behind_it() {
    let rig = Rig::new();
    let start = UtcNanos(midnight().0 + 1000 * SECOND);
    let mut all = units("pedestrians.mp4", start, 4, |_| 0);
    for mut unit in units("pedestrians.mp4", UtcNanos(start.0 + 20 * SECOND), 4, |_| 0) {
        unit.capture += std::time::Duration::from_secs(20);
        all.push(unit);
    }
    rig.record(&all);
    let behind =
        rig.rows().iter().map(|row| row.start_utc.0).find(|utc| *utc > start.0 + 10 * SECOND);
    let (from, to) = (start.0 + 8 * SECOND, start.0 + 22 * SECOND);
    let (done, pictures) = clip(&rig, from, to).unwrap();
    let Done::Clip { start_utc_ns, .. } = done else { panic!("{done:?}") };
    assert_eq!(Some(start_utc_ns), behind);
    assert!((19..=21).contains(&pictures.len()), "{}", pictures.len());
    assert_eq!(clip(&rig, from, from + 4 * SECOND).unwrap_err().code, 404, "all of it is a gap");
}

#[test]
fn the_thumbnail_of_a_clip_is_the_picture_of_its_middle() {
    let rig = Rig::new();
    let start = UtcNanos(midnight().0 + 5 * SECOND);
    rig.record(&units("pedestrians.mp4", start, 12, |_| 0));
    let root = rig.storage.recordings.root();
    let first = rig.rows()[0].start_utc.0;
    let (done, _) = clip(&rig, first + 2 * SECOND, first + 9 * SECOND).unwrap();
    let Done::Clip { start_utc_ns, end_utc_ns, .. } = done else { panic!("{done:?}") };
    let output = root.join("still.jpg");
    let job = Job::StillAt {
        recordings: root.to_owned(),
        camera: rig.claim.camera.to_string(),
        at_utc_ns: start_utc_ns.midpoint(end_utc_ns),
        output: output.clone(),
    };
    run(job, &mut std::io::empty()).unwrap();
    let read = |path| std::fs::read(path).unwrap();
    assert!(read(root.join("clip.jpg")) == read(output));
}

#[test]
fn a_clip_without_a_thumbnail_is_a_clip() {
    let rig = Rig::new();
    let start = UtcNanos(midnight().0 + 5 * SECOND);
    rig.record(&units("pedestrians.mp4", start, 6, |_| 0));
    let output = rig.storage.recordings.root().join("clip.mp4");
    let job = Job::Clip {
        recordings: rig.storage.recordings.root().to_owned(),
        camera: rig.claim.camera.to_string(),
        start_utc_ns: start.0 + SECOND,
        end_utc_ns: start.0 + 4 * SECOND,
        thumbnail: output.with_file_name("missing").join("clip.jpg"),
        output: output.clone(),
    };
    let done = run(job, &mut std::io::empty()).unwrap();
    let Done::Clip { bytes, .. } = done else { panic!("{done:?}") };
    assert_eq!(std::fs::metadata(&output).unwrap().len(), bytes);
    assert_eq!(shown(&output).len(), 30);
    // A picture that takes too long is given up.
    let (recordings, end) = (&rig.storage.recordings, UtcNanos(start.0 + 4 * SECOND));
    let take = Take::load(recordings, &rig.claim.camera, start, end).unwrap();
    let late = take.decode_until(20, Some(std::time::Instant::now())).unwrap_err();
    assert!(late.message.contains("too long"), "{late}");
}

#[test]
fn the_still_of_a_moment_is_the_picture_that_was_shown() {
    for (name, period) in [("pedestrians.mp4", 100), ("bframes.mp4", 40), ("ten_bits.mkv", 40)] {
        let rig = Rig::new();
        let start = UtcNanos(midnight().0 + 5 * SECOND);
        let mut units = units(name, start, 30, |_| 0);
        units.truncate(if name == "ten_bits.mkv" { 25 } else { 300 });
        rig.record(&units);
        let whole = decoded(&units);
        let first = rig.rows()[0].start_utc.0;
        let recordings = &rig.storage.recordings;
        for number in [0, 1, 3, 7, 19, 23, 24] {
            let at = UtcNanos(first + number * period * 1_000_000 + 20_000_000);
            let around = UtcNanos(at.0 + SECOND);
            let take = Take::load(recordings, &rig.claim.camera, at, around).unwrap();
            let (_, pixels) = take.decode(take.shown_at(at).unwrap()).unwrap();
            let found = whole.iter().position(|picture| *picture == pixels);
            assert_eq!(found, Some(number as usize), "{name}");
        }
        let output = recordings.root().join("still.jpg");
        let job = |ns: u64| Job::StillAt {
            recordings: recordings.root().to_owned(),
            camera: rig.claim.camera.to_string(),
            at_utc_ns: ns,
            output: output.clone(),
        };
        let done = run(job(first + 510_000_000), &mut std::io::empty()).unwrap();
        let Done::Still { at_utc_ns, bytes, .. } = done else { panic!("{done:?}") };
        assert!(first + 510_000_000 - at_utc_ns <= 100_000_000);
        assert_eq!(std::fs::metadata(&output).unwrap().len(), bytes);
        std::fs::remove_file(&output).unwrap();
        let failed = run(job(first - 10 * SECOND), &mut std::io::empty()).unwrap_err();
        assert_eq!(failed.code, 404);
        assert!(failed.message.contains(&first.to_string()), "{failed}");
        assert!(!output.exists());
    }
}

#[test]
fn the_newest_picture_that_can_be_decoded() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("still.jpg");
    let units = units("pedestrians.mp4", midnight(), 1, |_| 0);
    let of = |units: &[Vec<u8>], cut: usize| {
        let pictures = units.iter().enumerate();
        let pictures = pictures
            .map(|(at, unit)| PictureBytes { bytes: unit.len(), utc_ns: 1000 + at as u64 })
            .collect();
        let job = Job::StillOf { codec: Codec::H264, pictures, output: output.clone() };
        let bytes = units.concat();
        run(job, &mut &bytes[..bytes.len() - cut])
    };
    let data: Vec<_> = units.iter().map(|unit| unit.data.clone()).collect();
    let at = |outcome: Result<Done, Failed>| match outcome {
        Ok(Done::Still { at_utc_ns, width: 768, height: 576, .. }) => at_utc_ns,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(of(&data, 0)), 1009);
    let mut damaged = data.clone();
    damaged[6].truncate(9);
    assert!((1005..=1009).contains(&at(of(&damaged, 0))));
    assert_eq!(of(&data, 1).unwrap_err().code, 422);
    assert_eq!(of(&[vec![7; 100]], 0).unwrap_err().code, 404);
    assert_eq!(of(&[], 0).unwrap_err().code, 422);
}

#[test]
fn wrong_jobs_are_told_what_is_wrong() {
    let rig = Rig::new();
    let start = midnight().0;
    assert_eq!(clip(&rig, start, start).unwrap_err().code, 422);
    // Nothing is recorded in the longest that there is.
    assert_eq!(clip(&rig, start, start + 12 * 3600 * SECOND).unwrap_err().code, 404);
    let longer = clip(&rig, start, start + 12 * 3600 * SECOND + 1).unwrap_err();
    assert!(longer.code == 422 && longer.message.contains("0 to 12 hours"), "{longer}");
    let nothing = clip(&rig, start, start + SECOND).unwrap_err();
    assert_eq!(nothing.code, 404);
    assert!(nothing.message.contains("2026-02-01T00:00:00.000Z"), "{nothing}");
    let unknown = r#"{"job":"still_at","recordings":"/r","camera":"c","at":1,"output":"/o"}"#;
    assert!(serde_json::from_str::<Job>(unknown).is_err());
    let known =
        r#"{"job":"still_of","codec":"h264","pictures":[{"bytes":1,"utc_ns":2}],"output":"/o"}"#;
    serde_json::from_str::<Job>(known).unwrap();
}
