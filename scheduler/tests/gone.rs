//! Runners that are gone leave nothing behind; of hung ones only that they are refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base::Instant;
use scheduler::{Config, RunnerReport, RunnerState, Steering, SubscriptionState};
use scheduler_sim::{CameraModel, Fault, RunnerModel, World};
use std::time::Duration;

fn ms(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e3)
}

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn runner(device: &str, faults: Vec<Fault>) -> RunnerModel {
    RunnerModel {
        device: device.parse().unwrap(),
        alpha: ms(4.0),
        beta: ms(2.0),
        deadline: ms(500.0),
        faults,
        ..RunnerModel::default()
    }
}

/// Twenty cameras at 25 fps, watched by `m` at 5 fps.
fn world() -> World {
    let mut world = World::new(Config { steering: Steering::On, ..Config::default() }, 3);
    let cameras: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    for (i, id) in cameras.iter().enumerate() {
        let phase = ms(i as f64 * 1.9);
        world.camera(id, CameraModel { phase, ..Default::default() });
    }
    let all = cameras.iter().map(|c| World::subscription(c, "m", Some(5.0)));
    world.subscribe(all.collect());
    world
}

fn runners(world: &World) -> Vec<RunnerReport> {
    world.scheduler.report(world.now()).runners
}

#[test]
fn a_model_that_moved_to_another_device_is_steered_there() {
    let mut world = world();
    world.runner(Instant::ZERO, runner("gpu0", vec![Fault::Crash(at(5.0), None)]));
    world.run_until(at(5.5));
    assert_eq!(runners(&world), [], "it is gone");
    let report = world.scheduler.report(world.now());
    assert_eq!((report.devices[0].load, report.devices[0].overloaded), (0.0, false));
    world.runner(at(6.0), runner("gpu1", vec![]));
    world.run_until(at(15.0));
    let now = runners(&world);
    assert_eq!((now.len(), now[0].device.as_str()), (1, "gpu1"));
    assert!(now[0].steered, "{:?}", now[0]);
}

#[test]
fn a_model_that_hangs_on_one_device_is_steered_on_the_other() {
    let mut world = world();
    world.runner(Instant::ZERO, runner("gpu0", vec![Fault::Hang(at(5.0))]));
    world.runner(at(6.0), runner("gpu1", vec![]));
    let on = |world: &World, device: &str| {
        runners(world).into_iter().find(|r| r.device.as_str() == device).unwrap()
    };
    world.run_until(at(7.5));
    let served = on(&world, "gpu0").batches;
    world.run_until(at(20.0));
    let (hung, other) = (on(&world, "gpu0"), on(&world, "gpu1"));
    assert_eq!(hung.state, RunnerState::Hung);
    assert_eq!(hung.batches, served, "what it had done is still told");
    assert!(other.steered, "{other:?}");
    let report = world.scheduler.report(world.now());
    assert!(report.subscriptions.iter().all(|s| s.state == SubscriptionState::Active));
}

#[test]
fn the_deadline_of_a_runner_that_is_gone_binds_nobody() {
    // 120 frames per second are wanted; in 150 ms a batch of 32 is never in time.
    let model = |deadline, faults| RunnerModel {
        alpha: ms(60.0),
        beta: ms(7.0),
        batch_max: 32,
        deadline: ms(deadline),
        ..runner(if deadline < 200.0 { "gpu0" } else { "gpu1" }, faults)
    };
    let planned = |moved: bool| {
        let mut world = world();
        if moved {
            let crash = Fault::Crash(at(2.0), None);
            world.runner(Instant::ZERO, model(150.0, vec![crash]));
        }
        world.runner(at(3.0), model(1000.0, vec![]));
        world.run_until(at(20.0));
        runners(&world).last().unwrap().batch_planned
    };
    let (alone, moved) = (planned(false), planned(true));
    assert!((moved / alone - 1.0).abs() < 0.1, "{moved} instead of {alone} members are planned");
}
