//! Prints what every rival gives in the study's cases of one model on one device.

use base::Instant;
use scheduler::{Config, Scheduler, SubscriptionSpec};
use scheduler_sim::{CameraModel, Policy, RIVALS, Random, RunnerModel, World, rival};
use std::time::Duration;

const WARM_UP_S: f64 = 5.0;
const SECONDS: f64 = 20.0;

/// ResNet-50 on a T4 with 25 fps cameras at 5 fps each; `together`: all begin at once, otherwise
/// at random instants of one interval.
fn run(policy: Box<dyn Policy>, cameras: u32, together: bool, seed: u64) -> [f64; 6] {
    let mut world = World::with(policy, Config::default(), seed);
    let mut random = Random::new(seed, 0);
    let none = Duration::ZERO;
    let runner = RunnerModel { copy: none, postprocess: none, ..RunnerModel::default() };
    world.runner(Instant::ZERO, runner);
    let mut begins: Vec<(Duration, SubscriptionSpec)> = Vec::new();
    for i in 0..cameras {
        let id = format!("c{i:04}");
        let phase = Duration::from_secs_f64(random.range(0.0, 0.04));
        world.camera(&id, CameraModel { phase, ..CameraModel::default() });
        let begin = Duration::from_secs_f64(if together { 0.0 } else { random.range(0.0, 0.2) });
        begins.push((begin, World::subscription(&id, "m", Some(5.0))));
    }
    begins.sort_by_key(|(at, _)| *at);
    let mut all = Vec::new();
    for (at, spec) in begins {
        all.push(spec);
        if !together {
            world.subscribe_at(Instant::ZERO + at, all.clone());
        }
    }
    if together {
        world.subscribe(all);
    }
    world.run_until(Instant::ZERO + Duration::from_secs_f64(WARM_UP_S));
    let (skip, busy, batches) = (world.delivered.len(), world.busy[0], world.batches[0]);
    world.run_until(Instant::ZERO + Duration::from_secs_f64(WARM_UP_S + SECONDS));
    for violation in world.checker.violations() {
        println!("{violation}");
    }
    let mut ages: Vec<f64> =
        world.delivered[skip..].iter().map(|d| d.age.as_secs_f64() * 1e3).collect();
    ages.sort_by(f64::total_cmp);
    let count = ages.len().max(1);
    let mean = ages.iter().sum::<f64>() / count as f64;
    let in_time = ages.iter().filter(|a| **a <= 100.0).count() as f64 / SECONDS;
    let p99 = ages.get(count * 99 / 100).copied().unwrap_or(0.0);
    let busy = (world.busy[0] - busy).as_secs_f64() / SECONDS;
    let batch = count as f64 / (world.batches[0] - batches) as f64;
    [mean, p99, count as f64 / SECONDS, in_time, batch, busy]
}

fn main() {
    for (case, cameras, together) in [
        ("S1 random", 60, false),
        ("S1 together", 60, true),
        ("S2 random", 190, false),
        ("S2 together", 190, true),
        ("S5 random", 400, false),
    ] {
        println!("{case}: mean ms, p99 ms, results/s, in time/s, batch, busy");
        let names = std::iter::once("production").chain(RIVALS);
        for name in names {
            let policy = rival(name).unwrap_or_else(|| Box::new(Scheduler::new(Config::default())));
            let [mean, p99, results, in_time, batch, busy] = run(policy, cameras, together, 1);
            println!(
                "  {name:14} {mean:6.1} {p99:6.1} {results:7.1} {in_time:7.1} ({:3.0} %) {batch:6.2} \
                 {busy:.3}",
                in_time / (f64::from(cameras) * 5.0) * 100.0
            );
        }
    }
}
