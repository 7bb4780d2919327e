//! What cameras do wrong while they play.

use super::{Scene, apart, assert_rising, large, settings, small};
use crate::node::camera_at;
use crate::watch::wait_until;
use base::FrameFlags;
use fake_camera::{Act, Settings};
use ipc::ingest_message::StreamState;
use std::time::Duration;

#[test]
fn odd_timestamps_are_no_reason_to_reconnect() {
    // The 32 bits wrap after a second.
    let first_timestamp = u32::MAX - 90_000;
    let mut scene = Scene::new(Settings { first_timestamp, ..settings() });
    let mut frames = scene.watch.collect(40);
    for act in [
        Act::Repeat(1),
        Act::Repeat(5),
        Act::Stray(-900_000),
        Act::Stray(450_000),
        Act::Step(-90_000 * 3600),
        Act::Step(-45_000),
        // A jump of more than ten seconds.
        Act::Step(90_000 * 12),
        Act::Step(90_000 * 3600),
        // A clock that was set says so in its reports.
        Act::Report(-3600),
        Act::Report(86_400),
    ] {
        frames.extend(scene.act(act));
    }
    assert_rising(&frames);
    let last = frames.last().unwrap();
    assert!(apart(last) < Duration::from_secs(1), "{:?}", apart(last));
    assert_eq!(scene.counter("clock_steps"), 4);
    scene.assert_one_session();
    scene.end();
}

#[test]
fn after_lost_packets_frames_are_corrupt_until_the_next_key_frame() {
    for udp in [false, true] {
        let mut scene = Scene::with(settings(), |camera| {
            let row = camera_at("cam", &camera.url());
            if udp { row.udp() } else { row }
        });
        scene.watch.collect(2);
        let mut seen = [false; 3];
        // The loss may hit a key frame's own packets or none that matter: try until it shows.
        wait_until("corrupt frames, then a key frame, then sound ones", || {
            if scene.camera.idle() && !seen[0] {
                scene.camera.act(Act::Lose(3));
            }
            let frame = scene.watch.collect(1).pop().unwrap();
            let flags = frame.stamp.info.flags;
            let corrupt = flags.has(FrameFlags::CORRUPT);
            seen[0] |= corrupt;
            if seen[0] && flags.has(FrameFlags::KEY) && !corrupt {
                seen[1] = true;
            }
            if seen[1] && !corrupt {
                seen[2] = true;
            }
            seen[2]
        });
        assert!(scene.counter("packets_lost") >= 3);
        scene.assert_one_session();
        scene.end();
    }
}

#[test]
fn a_session_that_begins_inside_a_group_waits_for_the_key_frame() {
    let mut scene = Scene::new(Settings { first_unit: 13, ..settings() });
    let frames = scene.watch.collect(3);
    assert!(frames.iter().all(|f| !f.stamp.info.flags.has(FrameFlags::CORRUPT)));
    assert_eq!(scene.counter("before_key"), 12);
    scene.end();
}

#[test]
fn a_camera_that_lies_about_its_rate_stays_in_step() {
    let mut scene = Scene::new(Settings { stamped_fps: 25.0, fps: 20.0, ..settings() });
    let start = scene.watch.collect(1).pop().unwrap();
    let frames = wait_until("eight seconds", || {
        let frames = scene.watch.collect(10);
        let lasted = frames[0].stamp.info.capture - start.stamp.info.capture;
        (lasted > Duration::from_secs(8)).then_some(frames)
    });
    assert_rising(&frames);
    // By the stamps alone it would be 1.6 s off. The machine may be late by more than the line.
    let nearest = frames.iter().map(apart).min().unwrap();
    assert!(nearest < Duration::from_millis(100), "{nearest:?}");
    let status = scene.node.status("cam", "main").unwrap();
    assert!((15.0..22.5).contains(&status.fps), "measured, not declared: {}", status.fps);
    scene.assert_one_session();
    scene.end();
}

#[test]
fn packets_of_other_senders_are_left_out() {
    let mut scene = Scene::new(settings());
    scene.watch.collect(2);
    let frames = scene.act(Act::Foreign(20));
    assert_rising(&frames);
    assert!(scene.counter("unreadable") >= 10);
    scene.assert_one_session();
    scene.end();
}

#[test]
fn a_server_that_sends_a_dead_session_s_packets_is_left_alone_until_that_expires() {
    let packet = b"$\x07\x00\x04abcd".to_vec();
    // An old live555: what comes on a foreign channel belongs to a session that ended.
    let tool = "LIVE555 Streaming Media v2013.04.08";
    let scene = Scene::new(Settings { tool, ..settings() });
    scene.live();
    scene.camera.act(Act::Noise(packet.clone()));
    let status = scene.node.wait_for("cam", StreamState::BackingOff);
    assert!(status.reason.contains("packets of a session that ended"), "{}", status.reason);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(scene.camera.seen().plays, 1, "it would have been tried twice by now");
    scene.ingest.stop();
    scene.node.assert_nothing_left();
    // Any other server: left out.
    let mut scene = Scene::new(settings());
    scene.watch.collect(2);
    assert_rising(&scene.act(Act::Noise(packet)));
    scene.assert_one_session();
    scene.end();
}

#[test]
fn a_burst_at_the_beginning_is_taken() {
    let mut scene = Scene::new(Settings { burst: 50, ..settings() });
    let frames = scene.watch.collect(30);
    assert_rising(&frames);
    scene.camera.act(Act::Close);
    wait_until("another session", || scene.camera.seen().plays == 2);
    let after = scene.watch.collect(30);
    assert_rising(&after);
    assert!(after[0].stamp.info.media > frames[29].stamp.info.media);
    scene.end();
}

#[test]
fn nonsense_from_a_camera_costs_pictures_but_no_session() {
    let mut scene = Scene::new(settings());
    let mut frames = scene.watch.collect(2);
    let noise = |length: u32| -> Vec<u8> {
        (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect()
    };
    let nal = |first: u8, length| [&[first][..], &noise(length)].concat();
    for act in [
        // Garbage as slices, as a key frame, as parameter sets, as types that don't exist.
        Act::Nals(vec![nal(0x41, 3000)]),
        Act::Nals(vec![nal(0x65, 3000)]),
        Act::Nals(vec![nal(0x67, 40), nal(0x68, 10), nal(0x65, 100)]),
        Act::Nals(vec![nal(0x1f, 50), nal(0x00, 50), nal(0x7e, 50)]),
        // Payloads that are none: empty, forbidden, fragments without a beginning or an end.
        Act::Payloads(vec![vec![], vec![0xff], vec![0x1c], vec![0x1c, 0x05, 1, 2], vec![0x18, 0]]),
        Act::Payloads(vec![vec![0x1c, 0x85, 9, 9], vec![0x1c, 0x85, 9, 9]]),
        Act::Payloads(vec![vec![0x1a, 1, 2, 3], vec![0x41, 0, 0, 2, 7]]),
        // More than any picture.
        Act::Nals(vec![nal(0x41, 20 << 20)]),
        Act::Endless(20 << 20),
    ] {
        frames.extend(scene.act(act));
    }
    assert_rising(&frames);
    assert!(scene.counter("unreadable") > 0);
    scene.assert_one_session();
    wait_until("sound frames again", || {
        !scene.watch.collect(1)[0].stamp.info.flags.has(FrameFlags::CORRUPT)
    });
    scene.end();
}

/// VAS_SEED=n repeats one.
#[test]
fn whatever_a_camera_does_its_frames_rise_and_it_comes_back() {
    let given = std::env::var("VAS_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed: u64 = given.unwrap_or(u64::from(std::process::id()) << 20 | 1);
    println!("VAS_SEED={seed}");
    seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |bound: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % bound
    };
    let mut scene = Scene::new(Settings { fps: 50.0, stamped_fps: 50.0, ..settings() });
    let mut frames = scene.watch.collect(2);
    for round in 0..24 {
        let most = 1 << (1 + random(12));
        let size = random(most);
        let mut bytes = || (0..size).map(|_| random(256) as u8).collect::<Vec<u8>>();
        let (one, two, three) = (bytes(), bytes(), bytes());
        let act = match random(10) {
            // Not often: each makes the pause before the next session longer.
            _ if round == 8 => Act::Close,
            _ if round == 16 => Act::HalfThenReset,
            0 => Act::Step(random(1 << 40) as i64 - (1 << 39)),
            1 => Act::Repeat(random(40) as u32),
            2 => Act::Stray(random(1 << 32) as i64 - (1 << 31)),
            3 => Act::Lose(random(30) as u32),
            4 => Act::Foreign(random(30) as u32),
            5 => Act::Report(random(1 << 32) as i64 - (1 << 31)),
            6 => Act::Play(if random(2) == 0 { small() } else { large() }),
            7 => Act::Nals(vec![one, two, three]),
            8 => Act::Payloads(vec![one, two, three]),
            _ => Act::Gaps(random(1 << 14) as u16, random(4) as u32),
        };
        scene.camera.act(act);
        wait_until("the camera did it", || scene.camera.idle());
        frames.extend(scene.watch.collect(3));
    }
    assert_rising(&frames);
    scene.live();
    scene.end();
}

#[test]
fn what_is_no_rtsp_ends_the_session_and_the_next_one_begins() {
    let mut scene = Scene::new(settings());
    scene.watch.collect(2);
    scene.camera.act(Act::Noise(b"\x00\x01HTTP/1.1 200 OK\r\n\r\nnonsense".to_vec()));
    wait_until("another session", || scene.camera.seen().plays == 2);
    assert_rising(&scene.watch.collect(3));
    scene.end();
}

#[test]
fn a_failure_inside_the_library_costs_a_session_at_most() {
    let mut scene = Scene::new(settings());
    let before = scene.watch.collect(2);
    // retina 0.4.21 adds lost packets up in 16 bits, and panics where overflow is checked.
    let after = scene.act(Act::Gaps(30_000, 4));
    assert!(after[0].stamp.info.media > before[1].stamp.info.media);
    assert!(scene.camera.seen().plays <= 2);
    scene.live();
    scene.end();
}
