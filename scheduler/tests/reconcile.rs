//! Desired state: add, remove, change; counters, other cameras and other models are left alone.

use base::Instant;
use scheduler::{Config, SubscriptionReport, SubscriptionState};
use scheduler_sim::{CameraModel, RunnerModel, World};
use std::time::Duration;

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn world() -> World {
    let mut world = World::new(Config::default(), 9);
    for camera in ["a", "b"] {
        world.camera(camera, CameraModel::default());
    }
    world.runner(Instant::ZERO, RunnerModel::default());
    world
}

fn of(world: &World, id: &str) -> Option<SubscriptionReport> {
    let report = world.scheduler.report(world.now());
    report.subscriptions.into_iter().find(|s| s.id == id)
}

#[test]
fn a_changed_subscription_keeps_its_counters() {
    let mut world = world();
    world.subscribe(vec![World::subscription("a", "m", Some(5.0))]);
    world.run_until(at(10.0));
    let before = of(&world, "a/m").unwrap().ledger.bound;
    assert!((48..=51).contains(&before));
    world.subscribe(vec![World::subscription("a", "m", Some(10.0))]);
    world.run_until(at(20.0));
    let after = of(&world, "a/m").unwrap();
    assert!((98..=102).contains(&(after.ledger.bound - before)), "{:?}", after.ledger);
    assert!((after.granted_fps - 10.0).abs() < 0.2, "{}", after.granted_fps);
    assert_eq!(world.checker.violations().len(), 0);
}

#[test]
fn the_last_subscription_can_go_and_come_back() {
    let mut world = world();
    let both = ["a", "b"].map(|c| World::subscription(c, "m", Some(5.0)));
    world.subscribe(both.to_vec());
    world.run_until(at(3.0));
    world.subscribe(vec![both[1].clone()]);
    world.run_until(at(6.0));
    assert!(of(&world, "a/m").is_none());
    let report = world.scheduler.report(world.now());
    assert_eq!(report.cameras.len(), 1, "the agent without subscriptions is gone");
    assert_eq!(report.cameras[0].id.as_str(), "b");
    world.subscribe(vec![]);
    world.run_until(at(9.0));
    let results = world.delivered.len();
    assert!(world.scheduler.report(world.now()).cameras.is_empty());
    world.run_until(at(12.0));
    assert_eq!(world.delivered.len(), results, "an empty list removes everything");
    world.subscribe(both.to_vec());
    world.run_until(at(15.0));
    assert!(world.delivered.len() > results + 20);
}

#[test]
fn a_disabled_subscription_is_counted_as_paused() {
    let mut world = world();
    let mut spec = World::subscription("a", "m", Some(5.0));
    world.subscribe(vec![spec.clone()]);
    world.run_until(at(3.0));
    spec.enabled = false;
    world.subscribe(vec![spec.clone()]);
    world.run_until(at(6.0));
    let paused = of(&world, "a/m").unwrap();
    assert_eq!(paused.state, SubscriptionState::Paused);
    assert!(paused.ledger.unserved_paused >= 50, "{:?}", paused.ledger);
    let bound = paused.ledger.bound;
    spec.enabled = true;
    world.subscribe(vec![spec]);
    world.run_until(at(9.0));
    assert!(of(&world, "a/m").unwrap().ledger.bound >= bound + 14);
}

#[test]
fn a_change_on_one_camera_does_not_touch_another() {
    let run = |churn: bool| {
        let mut world = world();
        let a = World::subscription("a", "m", Some(5.0));
        world.subscribe(vec![a.clone()]);
        for step in 1..100 {
            world.run_until(at(f64::from(step) * 0.1));
            if churn {
                let b = World::subscription("b", "m", Some(f64::from(step % 7 + 1)));
                world.subscribe(if step % 3 == 0 { vec![a.clone()] } else { vec![a.clone(), b] });
            }
        }
        let of_a = world.delivered.iter().filter(|d| d.binding.camera.0 == 0);
        of_a.map(|d| d.binding.stamp.frame_id.0).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true), "the same frames of a are taken");
}

#[test]
fn a_start_of_many_is_spread_evenly() {
    let mut world = World::new(Config::default(), 2);
    let cameras: Vec<String> = (0..50).map(|i| format!("c{i}")).collect();
    for id in &cameras {
        // All capture at the same instants.
        world.camera(id, CameraModel { fps: 25.0, ..Default::default() });
    }
    world.runner(Instant::ZERO, RunnerModel::default());
    let all = cameras.iter().map(|c| World::subscription(c, "m", Some(5.0)));
    world.subscribe(all.collect());
    world.run_until(at(4.0));
    // 25 fps in one fifth: frames come at five instants per interval, ten subscriptions at each.
    let window = |from: f64| {
        let bound = world.delivered.iter().filter(|d| {
            let published = d.binding.stamp.published;
            published >= at(from) && published < at(from + 0.2)
        });
        let mut count = std::collections::BTreeMap::new();
        for d in bound {
            *count.entry(d.binding.stamp.published).or_insert(0) += 1;
        }
        count.into_values().collect::<Vec<i32>>()
    };
    for counts in [window(1.0), window(2.0), window(3.0)] {
        assert_eq!(counts.iter().sum::<i32>(), 50, "{counts:?}");
        assert!(counts.iter().all(|c| (9..=11).contains(c)), "{counts:?}");
    }
}

#[test]
fn overload_is_shared_by_weight_and_published() {
    let mut world = World::new(Config::default(), 2);
    let mut all = Vec::new();
    for i in 0..40 {
        let id = format!("c{i}");
        let phase = Duration::from_micros(977 * i);
        world.camera(&id, CameraModel { fps: 25.0, phase, ..Default::default() });
        let mut spec = World::subscription(&id, "m", Some(10.0));
        spec.weight = if i < 10 { 2.0 } else { 1.0 };
        all.push(spec);
    }
    // 200 frames per second at most, 400 are wanted.
    let runner = RunnerModel {
        alpha: Duration::ZERO,
        beta: Duration::from_millis(5),
        batch_max: 1,
        deadline: Duration::from_millis(500),
        ..RunnerModel::default()
    };
    world.runner(Instant::ZERO, runner);
    world.subscribe(all);
    world.run_until(at(30.0));
    let report = world.scheduler.report(world.now());
    let granted = |heavy: bool| -> Vec<f64> {
        let of = report.subscriptions.iter().enumerate().filter(|(i, _)| (*i < 10) == heavy);
        of.map(|(_, s)| s.granted_fps).collect()
    };
    let (heavy, light) = (granted(true), granted(false));
    let spread = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        v.iter().map(|x| (x - mean).abs() / mean).fold(0.0, f64::max)
    };
    assert!(spread(&heavy) < 0.03 && spread(&light) < 0.03, "{heavy:?} {light:?}");
    assert!((heavy[0] / light[0] - 2.0).abs() < 0.1, "{} and {}", heavy[0], light[0]);
    assert!(report.subscriptions.iter().all(|s| s.reason == "overload" || s.granted_fps > 9.3));
    // Age does not grow: a frame is never older than two waits for the device.
    let oldest = world.delivered.iter().map(|d| d.age).max().unwrap();
    assert!(oldest < Duration::from_millis(100), "{oldest:?}");
}

#[test]
fn the_parts_of_a_report_are_the_whole_report() {
    let mut world = World::new(Config::default(), 2);
    let cameras: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    for id in &cameras {
        world.camera(id, CameraModel::default());
    }
    world.runner(Instant::ZERO, RunnerModel::default());
    let all: Vec<_> = cameras.iter().map(|c| World::subscription(c, "m", Some(5.0))).collect();
    world.subscribe(all.clone());
    world.run_until(at(2.0));
    // Some places are free.
    world.subscribe(all.into_iter().enumerate().filter(|(i, _)| i % 3 > 0).map(|p| p.1).collect());
    world.run_until(at(4.0));
    let now = world.now();
    let whole = world.scheduler.report(now);
    assert_eq!((whole.subscriptions.len(), whole.cameras.len()), (13, 13));
    for count in [1, 7, 19, 20, 21] {
        let (mut parts, mut next) = world.scheduler.report_part(now, 0, count);
        let mut number = 1;
        while let Some(from) = next {
            let (part, after) = world.scheduler.report_part(now, from, count);
            assert!(part.subscriptions.len() <= count && part.cameras.len() <= count);
            assert!(part.runners.is_empty() && part.devices.is_empty(), "they are in the first");
            parts.subscriptions.extend(part.subscriptions);
            parts.cameras.extend(part.cameras);
            (next, number) = (after, number + 1);
        }
        assert_eq!((&parts, number), (&whole, 20_usize.div_ceil(count)));
    }
}
