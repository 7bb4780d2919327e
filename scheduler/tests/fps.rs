//! FPS: never above the ceiling, and within 2 % of what is possible.

use base::Instant;
use scheduler::Config;
use scheduler_sim::{CameraModel, Random, RunnerModel, World};
use std::time::Duration;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

/// A device that is never the bottleneck.
fn fast() -> RunnerModel {
    RunnerModel { alpha: ms(0.5), beta: ms(0.1), deadline: ms(500.0), ..RunnerModel::default() }
}

/// Sampled frames per second of one subscription over `seconds` after two seconds of start.
fn achieved(camera: CameraModel, max_fps: f64, seconds: f64, seed: u64) -> f64 {
    let mut world = World::new(Config::default(), seed);
    world.camera("a", camera);
    world.runner(Instant::ZERO, fast());
    world.subscribe(vec![World::subscription("a", "m", Some(max_fps))]);
    world.run_until(at(2.0));
    let before = world.delivered.len();
    world.run_until(at(2.0 + seconds));
    let violations = world.checker.violations();
    assert!(violations.is_empty(), "seed {seed}, max {max_fps}: {violations:?}");
    (world.delivered.len() - before) as f64 / seconds
}

#[test]
fn achieved_fps_is_within_two_percent_of_what_is_possible() {
    let mut worst: f64 = 0.0;
    for source in [10.0, 25.0, 30.0] {
        for max in [
            0.5, 1.0, 2.0, 3.0, 4.7, 5.0, 7.0, 8.0, 9.9, 10.0, 12.0, 15.0, 20.0, 24.0, 24.6, 25.0,
            29.0, 29.9, 30.0,
        ] {
            for jitter in [0.0, 4.0] {
                let camera = CameraModel { fps: source, jitter: ms(jitter), ..Default::default() };
                // 200 s: one frame more or less is 1 % at 0.5 fps.
                let fps = achieved(camera, max, 200.0, 1);
                let possible = f64::min(source, max);
                let error = (fps - possible).abs() / possible;
                worst = worst.max(error);
                assert!(
                    error <= 0.02,
                    "source {source} fps, jitter {jitter} ms, max {max}: achieved {fps}"
                );
            }
        }
    }
    println!("largest deviation {:.2} %", worst * 100.0);
}

/// `SEED` of the environment, else another one in every run.
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test draws its seed")]
fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |since| since.as_nanos() as u64)
    })
}

#[test]
fn no_window_ever_holds_more_than_the_ceiling_allows() {
    // The checker of the world tests every window of every run.
    let seed = seed();
    println!("SEED={seed}");
    for run in 0..60 {
        let mut random = Random::new(seed, run);
        let fps = [10.0, 12.5, 15.0, 25.0, 30.0, 59.94][random.below(6) as usize];
        let mut outages = Vec::new();
        let mut from = random.range(3.0, 20.0);
        while from < 60.0 {
            // From a stall of a few frames to an absence that makes the ring stale.
            let length = [0.1, 0.5, 2.0, 5.0][random.below(4) as usize];
            outages.push((at(from), at(from + length)));
            from += length + random.range(1.0, 15.0);
        }
        let camera = CameraModel {
            fps,
            phase: ms(random.range(0.0, 100.0)),
            delay: ms(random.range(1.0, 60.0)),
            jitter: ms(random.range(0.0, 30.0)),
            drift_ppm: random.range(-300.0, 300.0),
            slots: 30,
            outages,
        };
        let max = random.range(0.5, 30.0);
        achieved(camera, max, 60.0, seed.wrapping_add(run));
    }
}

#[test]
fn a_slow_device_does_not_lift_the_ceiling_afterwards() {
    let mut world = World::new(Config::default(), 3);
    for camera in ["a", "b", "c"] {
        world.camera(camera, CameraModel { fps: 30.0, ..Default::default() });
    }
    let slow = scheduler_sim::Fault::Slow(at(5.0), at(15.0), 40);
    world.runner(Instant::ZERO, RunnerModel { alpha: ms(8.0), faults: vec![slow], ..fast() });
    let all = ["a", "b", "c"].map(|c| World::subscription(c, "m", Some(20.0)));
    world.subscribe(all.to_vec());
    world.run_until(at(30.0));
    assert_eq!(world.checker.violations(), []);
    let late = world.delivered.iter().filter(|d| d.received > at(20.0)).count();
    assert!((late as f64 / 10.0 - 60.0).abs() < 1.5, "{late} results in the last 10 s");
}

#[test]
fn without_a_ceiling_every_frame_is_taken() {
    let mut world = World::new(Config::default(), 1);
    world.camera("a", CameraModel { fps: 30.0, jitter: ms(8.0), ..Default::default() });
    world.runner(Instant::ZERO, fast());
    world.subscribe(vec![World::subscription("a", "m", None)]);
    world.run_until(at(20.0));
    let published = world.published("a");
    let report = world.scheduler.report(world.now());
    let ledger = report.subscriptions[0].ledger;
    assert!(published - ledger.sampled <= 3, "{published} published, {ledger:?}");
    assert_eq!(ledger.gated, 0);
}

/// Every tenth of a second until `end`: when, and what is said of the only subscription.
fn told(world: &mut World, end: f64) -> Vec<(f64, &'static str, f64)> {
    let tenths = (1..=(end * 10.0) as u32).map(|tenth| f64::from(tenth) / 10.0);
    let told = tenths.map(|when| {
        world.run_until(at(when));
        let report = world.scheduler.report(world.now());
        (when, report.subscriptions[0].reason, report.subscriptions[0].granted_fps)
    });
    told.collect()
}

#[test]
fn a_camera_that_begins_late_or_returns_is_not_told_as_overload() {
    let mut world = World::new(Config::default(), 3);
    let outages = vec![(at(0.0), at(6.3)), (at(20.0), at(31.0)), (at(50.0), at(52.0))];
    world.camera("a", CameraModel { fps: 10.0, outages, ..Default::default() });
    world.runner(Instant::ZERO, fast());
    world.subscribe(vec![World::subscription("a", "m", Some(5.0))]);
    for (when, reason, granted) in told(&mut world, 60.0) {
        assert_ne!(reason, "overload", "{when} s: {granted} fps granted");
        let frames = (6.4..20.0).contains(&when) || (31.1..50.0).contains(&when) || when > 52.1;
        assert!(!frames || reason.is_empty(), "{when} s: {reason}, {granted} fps granted");
        // A second for the first full one, and a frame more or less in it.
        let settled = (7.9..20.0).contains(&when) || (32.6..50.0).contains(&when) || when > 53.6;
        assert!(!settled || (4.0..=5.0).contains(&granted), "{when} s: {granted} fps granted");
    }
}

#[test]
fn a_runner_that_measures_itself_is_not_told_as_overload() {
    let mut world = World::new(Config::default(), 3);
    for id in ["a", "b"] {
        world.camera(id, CameraModel { fps: 10.0, ..Default::default() });
    }
    // A detector on a processor: 15 ms a frame, of which two cameras ask for a sixth of the time, and
    // a second for the largest batch.
    let runner =
        RunnerModel { gpu: false, alpha: ms(2.0), beta: ms(15.0), measured: false, ..fast() };
    world.runner(Instant::ZERO, runner);
    world.subscribe(["a", "b"].map(|id| World::subscription(id, "m", Some(5.0))).to_vec());
    let told = told(&mut world, 60.0);
    assert!(told.iter().all(|(_, reason, _)| *reason != "overload"), "{told:?}");
    assert!(told.iter().any(|(_, reason, _)| *reason == "profiling"), "{told:?}");
    assert_eq!(told.last().map(|(_, reason, _)| *reason), Some(""), "{told:?}");
}
