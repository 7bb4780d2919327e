//! What a world can do besides running one policy over constant subscriptions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base::Instant;
use scheduler::{Config, SubscriptionSpec};
use scheduler_sim::{CameraModel, Execution, Fault, Random, RunnerModel, World, rival};
use std::time::Duration;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn cameras(world: &mut World, count: u32) -> Vec<String> {
    let mut random = Random::new(1, 1);
    let mut ids = Vec::new();
    for i in 0..count {
        let phase = ms(random.range(0.0, 40.0));
        ids.push(format!("c{i:03}"));
        world.camera(&ids[i as usize], CameraModel { phase, ..CameraModel::default() });
    }
    ids
}

#[test]
fn a_model_on_several_devices_is_served_by_all_of_them() {
    let mut world = World::new(Config::default(), 1);
    let ids = cameras(&mut world, 300);
    for device in ["gpu0", "gpu1", "gpu2"] {
        let device = device.parse().unwrap();
        world.runner(Instant::ZERO, RunnerModel { device, ..RunnerModel::default() });
    }
    world.keep_executions();
    world.subscribe(ids.iter().map(|c| World::subscription(c, "m", Some(5.0))).collect());
    world.run_until(at(10.0));
    assert_eq!(world.checker.violations(), []);
    let results = world.delivered.len();
    assert!(results > 14_000, "1,500 per second are twice what one device can give: {results}");
    let executions = world.executions.as_ref().unwrap();
    for device in ["gpu0", "gpu1", "gpu2"] {
        let here: Vec<_> = executions.iter().filter(|e| e.device.as_str() == device).collect();
        assert!(here.windows(2).all(|w| w[0].end <= w[1].start), "one at a time on {device}");
        let members: u32 = here.iter().map(|e| e.batch).sum();
        assert!(members > 3_000, "{device} executed {members} frames");
    }
    let length: Duration = executions.iter().map(|e| e.end - e.start).sum();
    assert_eq!(length, world.busy.iter().sum());
}

#[test]
fn subscriptions_change_on_time_and_the_ceiling_in_force_counts() {
    for seed in 0..20 {
        let mut world = World::new(Config::default(), seed);
        let ids = cameras(&mut world, 20);
        world.runner(Instant::ZERO, RunnerModel::default());
        let mut random = Random::new(seed, 2);
        let choices = [Some(1.0), Some(5.0), Some(12.0), Some(20.0), None];
        let mut all: Vec<SubscriptionSpec> =
            ids.iter().map(|c| World::subscription(c, "m", choices[0])).collect();
        for step in 0..600u32 {
            // Some ceilings change; every second some assignments go for 50 ms.
            for spec in &mut all {
                if random.below(1 + seed % 8) == 0 {
                    spec.max_fps = choices[random.below(5) as usize];
                }
            }
            let mut now = all.clone();
            now.retain(|_| step % 20 > 0 || random.below(10) > 0);
            world.subscribe_at(at(f64::from(step) * 0.05), now);
        }
        world.run_until(at(30.0));
        assert_eq!(world.checker.violations(), [], "seed {seed}");
        assert_eq!(world.now(), at(30.0));
        assert!(world.delivered.len() > 1_000);
    }
}

#[test]
fn a_ceiling_lowered_behind_the_policys_back_is_noticed() {
    let mut world = World::new(Config::default(), 1);
    let ids = cameras(&mut world, 1);
    world.runner(Instant::ZERO, RunnerModel::default());
    world.subscribe(vec![World::subscription(&ids[0], "m", Some(10.0))]);
    world.run_until(at(5.0));
    assert_eq!(world.checker.violations(), []);
    // Only the checker learns of it.
    let now = world.now();
    world.checker.desired(now, &[World::subscription(&ids[0], "m", Some(5.0))]);
    world.run_until(at(6.0));
    assert_eq!(world.checker.violations()[0].invariant, "ceiling");
}

#[test]
fn a_measured_profile_replaces_the_line() {
    let profile = vec![(1, ms(4.0)), (8, ms(11.0)), (16, ms(27.0))];
    let model = RunnerModel { profile, batch_max: 16, ..RunnerModel::default() };
    let read = [1, 4, 8, 12, 16].map(|b| model.latency(b).as_millis());
    assert_eq!(read, [4, 7, 11, 19, 27]);
    assert_eq!(model.table().p50(12), Some(ms(19.0)));
}

/// Two models on one shared device, each with a frame at 0 ms whose batch takes 10 ms alone.
fn shared(capacity: u32, faults: Vec<Fault>) -> Vec<Execution> {
    let config = Config { capacity, ..Config::default() };
    let mut world = World::with(rival("triton-d0").unwrap(), config, 1);
    let delay = Duration::ZERO;
    world.camera("a", CameraModel { fps: 1.0, delay, ..CameraModel::default() });
    let (alpha, beta) = (ms(10.0), Duration::ZERO);
    let model = |id: &str| RunnerModel {
        model: id.parse().unwrap(),
        alpha,
        beta,
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, model("m"));
    world.runner(Instant::ZERO, RunnerModel { faults, ..model("n") });
    world.keep_executions();
    world.subscribe_at(at(0.5), ["m", "n"].map(|m| World::subscription("a", m, None)).to_vec());
    world.run_until(at(1.5));
    assert_eq!(world.checker.violations(), []);
    world.executions.unwrap()
}

#[test]
fn batches_without_a_token_share_their_device_evenly() {
    let lengths = |executions: &[Execution]| -> Vec<Duration> {
        executions.iter().map(|e| e.end - e.start).collect()
    };
    assert_eq!(lengths(&shared(1, vec![])), [ms(20.0), ms(20.0)]);
    assert_eq!(lengths(&shared(2, vec![])), [ms(10.0), ms(10.0)], "room for two");
    // For 5 ms they share it, then the other one is gone: 2.5 ms of work are done, 7.5 ms are left.
    let crash = Fault::Crash(at(1.005_05), None);
    assert_eq!(lengths(&shared(1, vec![crash])), [ms(12.5)]);
    let slow = Fault::Slow(at(0.0), at(2.0), 2);
    assert_eq!(lengths(&shared(1, vec![slow])), [ms(20.0), ms(30.0)]);
    assert_eq!(lengths(&shared(1, vec![Fault::Hang(at(0.0))])), [ms(10.0)]);
}
