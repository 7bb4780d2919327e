//! RTSP cameras, sound ones and ones with every fault that is known from the field. The camera is
//! `hack/fake-camera`; what is looked at is the ring, and what ingest says about the stream.

mod faults;

use crate::node::{Node, Row, Running, asset, camera_at};
use crate::watch::{Seen, Watch, wait_until};
use base::FrameFlags;
use fake_camera::{Act, Auth, Camera, Clip, Settings};
use ingest::media::{Done, Job};
use ipc::desired::DecodeMode;
use ipc::ingest_message::{Request, StreamState};
use std::time::Duration;

/// 25 pictures of 128x96, the first a key frame.
fn small() -> Clip {
    Clip::read(&asset("two_sizes.h264")).unwrap().part(0, 25)
}

/// 25 pictures of 192x144.
fn large() -> Clip {
    Clip::read(&asset("two_sizes.h264")).unwrap().part(25, 50)
}

fn settings() -> Settings {
    Settings::new(small(), 25.0)
}

/// A camera named `cam` and an ingest that keeps it.
struct Scene {
    node: Node,
    ingest: Running,
    camera: Camera,
    watch: Watch,
}

impl Scene {
    fn new(settings: Settings) -> Scene {
        Scene::with(settings, |camera| camera_at("cam", &camera.url()))
    }

    fn with(settings: Settings, row: impl Fn(&Camera) -> Row) -> Scene {
        let camera = Camera::start(settings).unwrap();
        let node = Node::new();
        node.desire([row(&camera)]);
        let ingest = node.start();
        let watch = Watch::new(&node, "cam");
        Scene { node, ingest, camera, watch }
    }

    fn live(&self) {
        self.node.wait_for("cam", StreamState::Live);
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.node.status("cam", "main").unwrap().counters;
        counters.into_iter().find(|(n, _)| n == name).unwrap().1
    }

    /// Does something and waits until the camera has done it, and frames have come since.
    fn act(&mut self, act: Act) -> Vec<Seen> {
        self.camera.act(act);
        wait_until("the camera did it", || self.camera.idle());
        self.watch.collect(12)
    }

    /// In one session all the time.
    fn assert_one_session(&self) {
        assert_eq!((self.camera.seen().plays, self.camera.seen().connections), (1, 1));
        assert_eq!(self.node.status("cam", "main").unwrap().state, StreamState::Live);
    }

    fn end(self) {
        let plays = self.camera.seen().plays;
        self.ingest.stop();
        let seen = self.camera.seen();
        assert!(seen.teardowns >= 1 && seen.plays == plays, "torn down in order: {seen:?}");
        self.node.assert_nothing_left();
    }
}

fn assert_rising(frames: &[Seen]) {
    for pair in frames.windows(2) {
        let (before, after) = (&pair[0].stamp, &pair[1].stamp);
        assert!(after.info.media > before.info.media);
        assert!(after.frame_id > before.frame_id);
    }
}

/// How far media time is from arrival.
fn apart(frame: &Seen) -> Duration {
    let info = &frame.stamp.info;
    let arrival = u128::from(info.capture_utc.0) * 90_000 / 1_000_000_000;
    let ticks = u128::from(info.media.0).abs_diff(arrival);
    Duration::from_secs_f64(ticks as f64 / 90_000.0)
}

#[test]
fn a_camera_is_decoded_into_its_ring_and_its_state_is_told() {
    let mut scene = Scene::new(settings());
    let frames = scene.watch.collect(40);
    assert_rising(&frames);
    assert!(frames.windows(2).all(|f| f[0].stamp.info.capture < f[1].stamp.info.capture));
    for frame in &frames {
        assert_eq!((frame.stamp.size.width, frame.stamp.size.height), (128, 96));
        assert!(!frame.stamp.info.flags.has(FrameFlags::CORRUPT));
        assert!(apart(frame) < Duration::from_millis(300), "{:?}", apart(frame));
    }
    let status =
        wait_until("a rate", || scene.node.status("cam", "main").filter(|status| status.fps > 0.0));
    assert_eq!((status.codec.as_str(), status.size.width), ("h264", 128));
    assert_eq!((status.state, status.reason.as_str()), (StreamState::Live, ""));
    assert!((10.0..40.0).contains(&status.fps) && status.bits_per_second > 1000, "{status:?}");
    assert_eq!(status.connects, 1);
    assert!(status.since.0 > 0 && status.last_unit.0 >= status.since.0);
    scene.end();
}

#[test]
fn over_udp() {
    let mut scene = Scene::with(settings(), |camera| camera_at("cam", &camera.url()).udp());
    assert_rising(&scene.watch.collect(30));
    scene.assert_one_session();
    scene.end();
}

#[test]
fn passwords_are_told_to_the_camera_and_to_nobody_else() {
    for auth in [
        Auth::Basic("admin".into(), "s3cret".into()),
        Auth::Digest("admin".into(), "s3cret".into()),
    ] {
        let right = Settings { auth, ..settings() };
        let mut scene =
            Scene::with(right, |camera| camera_at("cam", &camera.url_as("admin", "s3cret")));
        assert_rising(&scene.watch.collect(3));
        assert_eq!(scene.camera.seen().wrong, 0);
        let shown = format!("{:?}", scene.node.ask(&Request::Status));
        assert!(!shown.contains("s3cret"), "{shown}");
        scene.end();
    }
}

#[test]
fn a_stall_is_noticed_and_the_camera_comes_back() {
    let mut scene = Scene::new(settings());
    let before = scene.watch.collect(3);
    scene.camera.act(Act::Silence);
    let status = scene.node.wait_for("cam", StreamState::Stalled);
    assert!(status.reason.contains("stopped sending for 3 s"), "{}", status.reason);
    scene.camera.act(Act::Resume);
    scene.live();
    let after = scene.watch.collect(3);
    assert!(scene.camera.seen().plays >= 2);
    assert!(after[0].stamp.info.media > before[2].stamp.info.media);
    assert_rising(&after);
    scene.end();
}

#[test]
fn ends_resets_and_refused_connections_are_tried_again() {
    let mut scene = Scene::new(settings());
    scene.watch.collect(2);
    for (n, act) in [Act::Close, Act::HalfThenReset].into_iter().enumerate() {
        scene.camera.act(act);
        let plays = 2 + n as u32;
        wait_until("another session", || scene.camera.seen().plays == plays);
        assert_rising(&scene.watch.collect(3));
    }
    let address = scene.camera.address();
    let Scene { node, ingest, camera, mut watch } = scene;
    drop(camera);
    let status = wait_until("it says so", || {
        let status = node.status("cam", "main")?;
        status.reason.contains("Connection refused").then_some(status)
    });
    assert!(status.reason.contains(&address.to_string()), "{}", status.reason);
    let camera = Camera::start_at(address, settings()).unwrap();
    watch.glance();
    assert_rising(&watch.collect(3));
    Scene { node, ingest, camera, watch }.end();
}

#[test]
fn a_wrong_password_is_tried_slowly_and_another_one_at_once() {
    let auth = Auth::Digest("admin".into(), "right".into());
    let scene = Scene::with(Settings { auth, ..settings() }, |camera| {
        camera_at("cam", &camera.url_as("admin", "wr0ng"))
    });
    let status = scene.node.wait_for("cam", StreamState::AuthFailed);
    assert!(status.reason.contains("user or password"), "{}", status.reason);
    assert!(!status.reason.contains("wr0ng"), "{}", status.reason);
    // A plain failure would have been tried again three times by now.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((scene.camera.seen().wrong, scene.camera.seen().describes), (1, 2));
    // Somebody asks for it.
    let camera = "cam".parse().unwrap();
    assert_eq!(scene.node.ask(&Request::Reconnect { camera }).status, 200);
    wait_until("tried again", || scene.camera.seen().wrong == 2);
    scene.node.desire([camera_at("cam", &scene.camera.url_as("admin", "right"))]);
    scene.live();
    scene.end();
}

#[test]
fn without_a_password_the_reason_says_what_to_do() {
    let auth = Auth::Basic("admin".into(), "right".into());
    let scene = Scene::new(Settings { auth, ..settings() });
    let status = scene.node.wait_for("cam", StreamState::AuthFailed);
    assert!(status.reason.contains("put them into its URL"), "{}", status.reason);
    scene.ingest.stop();
}

#[test]
fn a_stale_nonce_costs_one_more_session() {
    let auth = Auth::Digest("admin".into(), "right".into());
    let camera = Camera::start(Settings { auth, ..settings() }).unwrap();
    // The first request with credentials is DESCRIBE; a nonce that is stale there is asked for
    // anew by nobody. Later ones are.
    let node = Node::new();
    node.desire([camera_at("cam", &camera.url_as("admin", "right"))]);
    let ingest = node.start();
    let mut watch = Watch::new(&node, "cam");
    watch.collect(2);
    camera.act(Act::Close);
    wait_until("it describes itself again", || camera.seen().describes >= 4);
    camera.expire_nonce();
    wait_until("it plays again", || camera.seen().plays >= 2);
    assert_rising(&watch.collect(3));
    let status = node.wait_for("cam", StreamState::Live);
    assert_eq!(status.reason, "");
    Scene { node, ingest, camera, watch }.end();
}

#[test]
fn statuses_become_reasons_and_pass() {
    let mut scene = Scene::new(settings());
    scene.watch.collect(1);
    for (status, part) in [(404, "has no stream"), (454, "forgot the session"), (453, "bandwidth")]
    {
        scene.camera.refuse(Some(status));
        scene.camera.act(Act::Close);
        wait_until("the reason", || {
            let now = scene.node.status("cam", "main")?;
            (now.state == StreamState::BackingOff && now.reason.contains(part)).then_some(())
        });
        scene.camera.refuse(None);
        scene.live();
    }
    assert_rising(&scene.watch.collect(2));
    scene.end();
}

#[test]
fn a_camera_that_does_not_answer_holds_up_nothing() {
    let scene = Scene::new(settings());
    scene.live();
    scene.camera.mute(true);
    scene.camera.act(Act::Close);
    wait_until("it is asked", || scene.camera.seen().describes >= 2);
    assert_ne!(scene.node.status("cam", "main").unwrap().state, StreamState::Live);
    // The stop does not wait for it.
    let start = std::time::Instant::now();
    scene.ingest.stop();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    scene.node.assert_nothing_left();
}

#[test]
fn another_size_is_another_generation_and_the_session_goes_on() {
    let mut scene = Scene::new(settings());
    let before = scene.watch.collect(3).pop().unwrap();
    scene.camera.act(Act::Play(large()));
    let after = scene.watch.collect_generation_after(before.stamp.generation, 5);
    assert_eq!((after[0].stamp.size.width, after[0].stamp.size.height), (192, 144));
    assert!(after[0].stamp.info.media > before.stamp.info.media);
    assert_rising(&after);
    scene.assert_one_session();
    wait_until("the new size is told", || {
        scene.node.status("cam", "main").unwrap().size.width == 192
    });
    scene.end();
}

#[test]
fn h265_and_b_frames() {
    // In order of decoding, as ffprobe -show_entries packet=pts says.
    let hevc = Clip::read(&asset("bframes.hevc")).unwrap();
    let bframes = Clip::read(&asset("bframes.h264")).unwrap();
    for clip in [hevc.shown(&HEVC_ORDER), bframes.shown(&H264_ORDER)] {
        let codec = clip.codec;
        let mut scene = Scene::new(Settings::new(clip, 25.0));
        let frames = scene.watch.collect(60);
        assert_rising(&frames);
        // Nothing is lost to the order: nearly every picture comes through.
        let first = frames[0].stamp.frame_id.0;
        let last = &frames[59].stamp;
        let lasted = (last.info.media.0 - frames[0].stamp.info.media.0) as f64 / 3600.0;
        let exported = (last.frame_id.0 - first) as f64;
        assert!(exported > lasted * 0.8, "{codec:?}: {exported} of {lasted}");
        assert!(frames.iter().all(|f| !f.stamp.info.flags.has(FrameFlags::CORRUPT)));
        scene.assert_one_session();
        assert_eq!(scene.counter("clock_steps"), 0);
        scene.end();
    }
}

#[test]
fn parameter_sets_may_be_missing_in_the_sdp() {
    let hevc = Clip::read(&asset("bframes.hevc")).unwrap();
    for clip in [small(), hevc.shown(&HEVC_ORDER)] {
        let settings = Settings { parameters_in_sdp: false, ..Settings::new(clip, 25.0) };
        let mut scene = Scene::new(settings);
        assert_rising(&scene.watch.collect(10));
        assert_eq!(scene.node.status("cam", "main").unwrap().size.width, 128);
        scene.end();
    }
}

#[test]
fn changes_reach_a_camera_that_plays_or_waits() {
    let mut scene = Scene::new(settings());
    scene.watch.collect(2);
    let url = scene.camera.url();
    // Keyframes only, and everything again: the same session.
    let before = scene.watch.collect(1).pop().unwrap();
    scene.node.desire([camera_at("cam", &url).decode(DecodeMode::Keyframes)]);
    wait_until("key frames only", || {
        scene.watch.collect(2).iter().all(|f| f.stamp.info.flags.has(FrameFlags::KEY))
    });
    scene.node.desire([camera_at("cam", &url)]);
    let first = wait_until("other frames", || {
        scene.watch.collect(1).pop().filter(|f| !f.stamp.info.flags.has(FrameFlags::KEY))
    });
    assert!(!first.stamp.info.flags.has(FrameFlags::CORRUPT), "it waited for a key frame");
    assert_eq!(first.stamp.size, before.stamp.size);
    scene.assert_one_session();
    // Somebody wants it opened anew.
    let camera = "cam".parse().unwrap();
    assert_eq!(scene.node.ask(&Request::Reconnect { camera }).status, 200);
    wait_until("another session", || scene.camera.seen().plays == 2);
    wait_until("the first one was torn down", || scene.camera.seen().teardowns == 1);
    scene.watch.collect(2);
    // Off: nothing is left of it.
    scene.node.desire([camera_at("cam", &url).decode(DecodeMode::Off)]);
    wait_until("it is torn down", || scene.camera.seen().teardowns == 2);
    scene.node.wait_for("cam", StreamState::Stopped);
    scene.end();
}

#[test]
fn two_streams_are_two_sessions_and_the_one_to_detect_on_is_decoded() {
    let sub = Camera::start(Settings::new(large(), 25.0)).unwrap();
    let mut scene =
        Scene::with(settings(), |main| camera_at("cam", &main.url()).sub(&sub.url(), &["detect"]));
    let frames = scene.watch.collect(3);
    assert_eq!(frames[0].stamp.size.width, 192);
    let main = scene.node.status("cam", "main").unwrap();
    assert_eq!(main.state, StreamState::Stopped, "nobody wants it");
    assert_eq!(scene.node.status("cam", "sub").unwrap().state, StreamState::Live);
    assert_eq!((scene.camera.seen().connections, sub.seen().plays), (0, 1));
    scene.ingest.stop();
}

#[test]
fn a_probe_describes_a_camera_and_keeps_nothing() {
    let auth = Auth::Digest("admin".into(), "right".into());
    let camera = Camera::start(Settings { auth, ..settings() }).unwrap();
    let probe = |url: String, transport: &str| {
        let job = Job::Probe { url, transport: transport.into(), file_roots: vec![] };
        ingest::media::run(job, &mut std::io::empty())
    };
    for transport in ["tcp", "udp", ""] {
        let found = probe(camera.url_as("admin", "right"), transport).unwrap();
        let Done::Probe { codec, width, fps, .. } = found else { panic!("{found:?}") };
        assert_eq!((codec.as_str(), width), ("h264", Some(128)));
        assert!((10.0..40.0).contains(&fps), "{fps}");
    }
    assert_eq!((camera.seen().plays, camera.seen().teardowns), (3, 3));
    let refused = probe(camera.url_as("admin", "wr0ng"), "tcp").unwrap_err();
    assert_eq!(refused.code, 401, "{refused}");
    assert!(!refused.message.contains("wr0ng"));
    assert_eq!(probe(camera.url(), "pigeon").unwrap_err().code, 422);
}

/// Presentation order of `bframes.h264`.
const H264_ORDER: [i64; 50] = [
    0, 4, 2, 1, 3, 8, 6, 5, 7, 9, 13, 11, 10, 12, 17, 15, 14, 16, 19, 18, 23, 21, 20, 22, 24, 25,
    29, 27, 26, 28, 30, 34, 32, 31, 33, 38, 36, 35, 37, 39, 43, 41, 40, 42, 47, 45, 44, 46, 48, 49,
];
/// Presentation order of `bframes.hevc`.
const HEVC_ORDER: [i64; 50] = [
    0, 2, 1, 5, 4, 3, 9, 7, 6, 8, 11, 10, 15, 13, 12, 14, 19, 17, 16, 18, 21, 20, 25, 23, 22, 24,
    26, 30, 28, 27, 29, 31, 35, 33, 32, 34, 39, 37, 36, 38, 42, 41, 40, 45, 44, 43, 49, 47, 46, 48,
];
