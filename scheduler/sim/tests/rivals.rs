//! What holds for every rival, whatever its rule.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base::Instant;
use scheduler::{Config, SubscriptionSpec};
use scheduler_sim::{
    CameraModel, Fault, Policy, RIVALS, Random, RunnerModel, World, rival, world::Delivered,
};
use std::time::Duration;

type Rivals = World<Box<dyn Policy>>;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn empty(name: &str, seed: u64) -> Rivals {
    let config = Config { capacities: vec![("cpu".parse().unwrap(), 2)], ..Config::default() };
    World::with(rival(name).unwrap(), config, seed)
}

fn runner(model: &str, device: &str) -> RunnerModel {
    let (model, device) = (model.parse().unwrap(), device.parse().unwrap());
    RunnerModel { model, device, ..RunnerModel::default() }
}

/// What was delivered, in short.
fn digest(delivered: &[Delivered]) -> Vec<(u64, u64, u64)> {
    let short =
        |d: &Delivered| (d.binding.subscription.0, d.binding.stamp.frame_id.0, d.received.nanos());
    delivered.iter().map(short).collect()
}

/// Cameras and rates of all kinds, three models on two GPUs and a CPU, noise.
fn mixed(name: &str, seed: u64) -> Rivals {
    let mut world = empty(name, seed);
    let mut random = Random::new(seed, 3);
    let noisy = |model: &str, device: &str| RunnerModel {
        noise: 0.05,
        spikes: 0.01,
        measured: false,
        ..runner(model, device)
    };
    world.runner(Instant::ZERO, noisy("wide", "gpu0"));
    world.runner(Instant::ZERO, noisy("wide", "gpu1"));
    let profile = vec![(1, ms(2.0)), (4, ms(5.0)), (8, ms(11.0))];
    world.runner(at(0.5), RunnerModel { profile, batch_max: 8, ..noisy("small", "gpu1") });
    let (alpha, beta) = (ms(1.0), ms(10.0));
    world.runner(at(0.0), RunnerModel { gpu: false, alpha, beta, ..noisy("slow", "cpu") });
    let mut all = Vec::new();
    for i in 0..40 {
        let id = format!("c{i}");
        let fps = [10.0, 12.5, 15.0, 25.0, 30.0][random.below(5) as usize];
        let away = random.range(2.0, 10.0);
        let model = CameraModel {
            fps,
            phase: ms(random.range(0.0, 1e3 / fps)),
            delay: ms(random.range(5.0, 40.0)),
            jitter: ms(random.range(0.0, 8.0)),
            drift_ppm: random.range(-200.0, 200.0),
            slots: 30,
            outages: if i % 5 == 0 { vec![(at(away), at(away + 4.0))] } else { Vec::new() },
        };
        world.camera(&id, model);
        let max_fps = (random.below(6) > 0).then(|| random.range(0.5, 20.0));
        all.push(World::subscription(&id, "wide", max_fps));
        if i % 2 == 0 {
            all.push(World::subscription(&id, "small", Some(random.range(0.5, 5.0))));
        }
        if i % 8 == 0 {
            all.push(World::subscription(&id, "slow", Some(2.0)));
        }
    }
    world.subscribe(all);
    world
}

#[test]
fn names_are_known() {
    assert!(rival("nobody").is_none());
    assert!(RIVALS.iter().all(|name| rival(name).is_some()));
}

#[test]
fn rates_stay_below_the_ceiling_and_no_frame_comes_twice() {
    for name in RIVALS {
        for seed in 0..3 {
            let mut world = mixed(name, seed);
            world.run_until(at(20.0));
            // Ceilings, rising frame ids, capture <= published <= bound, one token at a time,
            // stages that add up.
            assert_eq!(world.checker.violations(), [], "{name}, seed {seed}");
            for model in ["wide", "small", "slow"] {
                let of = |d: &&Delivered| {
                    let id = world.scheduler.subscription_id(d.binding.subscription);
                    id.unwrap().ends_with(model)
                };
                let count = world.delivered.iter().filter(of).count();
                assert!(count > 100, "{name}, seed {seed}: {count} results of {model}");
            }
        }
    }
}

#[test]
fn a_result_is_never_younger_than_what_it_takes() {
    for name in RIVALS {
        let mut world = empty(name, 1);
        world.runner(Instant::ZERO, runner("m", "gpu0"));
        world.keep_executions();
        let mut all = Vec::new();
        for i in 0..50 {
            let id = format!("c{i}");
            world.camera(&id, CameraModel { phase: ms(f64::from(i)), ..CameraModel::default() });
            all.push(World::subscription(&id, "m", Some(5.0)));
        }
        world.subscribe(all);
        world.run_until(at(10.0));
        let least = ms(20.0) + RunnerModel::default().latency(1);
        assert!(world.delivered.iter().all(|d| d.age >= least), "{name}");
        assert!(world.delivered.iter().all(|d| d.received <= world.now()), "{name}");
        let executions = world.executions.as_ref().unwrap();
        let members: u32 = executions.iter().map(|e| e.batch).sum();
        let in_flight = members as usize - world.delivered.len();
        assert!(in_flight <= 64 * 2, "{name}: {in_flight} members without a result");
        let one_by_one = executions.windows(2).all(|w| w[0].end <= w[1].start);
        assert!(one_by_one, "{name}: a runner executes one batch at a time");
    }
}

#[test]
fn whoever_has_room_grants_every_ceiling() {
    for name in RIVALS {
        let mut world = empty(name, 1);
        let (alpha, beta, deadline) = (ms(0.5), ms(0.1), ms(1000.0));
        world.runner(Instant::ZERO, RunnerModel { alpha, beta, deadline, ..runner("m", "gpu0") });
        let mut all = Vec::new();
        for (i, max_fps) in [1.0, 2.0, 4.7, 5.0, 8.0, 12.0, 20.0, 24.0].into_iter().enumerate() {
            let id = format!("c{i}");
            let model = CameraModel { phase: ms(i as f64 * 5.0), ..CameraModel::default() };
            world.camera(&id, model);
            all.push(World::subscription(&id, "m", Some(max_fps)));
        }
        world.subscribe(all.clone());
        world.run_until(at(42.0));
        assert_eq!(world.checker.violations(), [], "{name}");
        for (i, spec) in all.iter().enumerate() {
            let mine = |d: &&Delivered| d.binding.subscription.0 == i as u64;
            let late = |d: &&Delivered| d.received > at(2.0);
            let fps = world.delivered.iter().filter(mine).filter(late).count() as f64 / 40.0;
            let max_fps = spec.max_fps.unwrap();
            // A muxer with a window of 200 ms gives nobody more than 5 fps.
            let possible = if name == "mux-new" { max_fps.min(5.0) } else { max_fps };
            assert!(fps >= possible * 0.97, "{name}: {fps} of {max_fps}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_results() {
    for name in RIVALS {
        let results = |seed| {
            let mut world = mixed(name, seed);
            world.run_until(at(5.0));
            digest(&world.delivered)
        };
        assert_eq!(results(5), results(5), "{name}");
        assert_ne!(results(5), results(6), "{name}");
    }
}

#[test]
fn assignments_come_and_go() {
    for name in RIVALS {
        let mut world = mixed(name, 1);
        let mut random = Random::new(1, 4);
        let all = world.desired().to_vec();
        for step in 1..200u32 {
            let mut now: Vec<SubscriptionSpec> = all.clone();
            now.retain(|_| random.below(4) > 0);
            for spec in &mut now {
                spec.enabled = random.below(10) > 0;
                if random.below(10) == 0 {
                    spec.max_fps = Some(random.range(0.5, 20.0));
                }
            }
            world.subscribe_at(at(f64::from(step) * 0.05), now);
        }
        world.subscribe_at(at(10.0), Vec::new());
        world.run_until(at(12.0));
        assert_eq!(world.checker.violations(), [], "{name}");
        assert!(world.delivered.len() > 500, "{name}: {} results", world.delivered.len());
        let results = world.delivered.len();
        assert!(world.delivered.iter().all(|d| d.received <= at(10.0)), "{name}: {results}");
    }
}

#[test]
fn faults_of_one_runner_do_not_end_the_others() {
    for name in RIVALS {
        let mut world = empty(name, 1);
        let faults = [
            ("steady", vec![]),
            ("hangs", vec![Fault::Hang(at(3.0))]),
            ("slow", vec![Fault::Slow(at(4.0), at(6.0), 20)]),
            ("crashes", vec![Fault::Crash(at(5.0), Some(Duration::from_secs(2)))]),
        ];
        let mut all = Vec::new();
        for (model, faults) in faults {
            let (alpha, beta) = (ms(0.5), ms(0.4));
            world.runner(
                Instant::ZERO,
                RunnerModel { faults, alpha, beta, ..runner(model, "gpu0") },
            );
            for i in 0..20 {
                all.push(World::subscription(&format!("c{i}"), model, Some(5.0)));
            }
        }
        for i in 0..20 {
            let phase = ms(f64::from(i) * 2.0);
            world.camera(&format!("c{i}"), CameraModel { phase, ..CameraModel::default() });
        }
        world.subscribe(all);
        world.run_until(at(15.0));
        assert_eq!(world.checker.violations(), [], "{name}");
        let after = |model: &str, from: f64| {
            let of = |d: &&Delivered| {
                let id = world.scheduler.subscription_id(d.binding.subscription);
                id.unwrap().ends_with(model) && d.received > at(from)
            };
            world.delivered.iter().filter(of).count()
        };
        for model in ["steady", "slow", "crashes"] {
            let count = after(model, 10.0);
            assert!(count > 300, "{name}: {count} results of {model} in the last 5 s");
        }
        assert_eq!(after("hangs", 4.0), 0, "{name}");
    }
}
