//! The defaults in short: never worse than doing less, and late frames are found soon. The long proof is
//! the example `defaults`.

use base::Instant;
use scheduler::{Config, Steering};
use scheduler_sim::report::{FAB_DEFAULTS, FAB_OFF, FAB_ON, RunReport, windows};
use scheduler_sim::{CameraModel, RunnerModel, Workload, World};
use std::time::Duration;

/// A window of 20 s that begins after the trial.
fn reports(name: &str, jitter_ms: f64, policies: &[&str]) -> Vec<RunReport> {
    let built_in = Workload::built_in(name).expect("it is listed");
    let mut workload = built_in.expect("it is tested");
    workload.seconds = 20.0;
    workload.camera.iter_mut().for_each(|c| c.jitter_ms = jitter_ms);
    let of = |policy: &&str| windows(&workload, 1, policy, &[60.0]).expect("it is known").remove(0);
    policies.iter().map(of).collect()
}

#[test]
fn three_models_are_steered_together_and_stay_so() {
    let [defaults, off] = &reports("s3", 0.0, &[FAB_DEFAULTS, FAB_OFF])[..] else { panic!() };
    // A trial that is judged model by model leaves them 20 % older than before.
    assert!(defaults.age_mean_ms < 0.97 * off.age_mean_ms, "{defaults:?} {off:?}");
    assert!(defaults.age_p99_ms < 1.05 * off.age_p99_ms, "{defaults:?} {off:?}");
}

#[test]
fn cameras_in_doubt_are_not_steered() {
    let [defaults, off, on] = &reports("s3", 15.0, &[FAB_DEFAULTS, FAB_OFF, FAB_ON])[..] else {
        panic!()
    };
    assert!(defaults.age_mean_ms < 1.01 * off.age_mean_ms, "{defaults:?} {off:?}");
    assert!(defaults.age_mean_ms < 0.9 * on.age_mean_ms, "{defaults:?} {on:?}");
}

#[test]
fn late_frames_are_found_about_as_soon_as_by_who_knows_arrivals() {
    let fair = ["nexus+fair", FAB_OFF];
    let [nexus, off] = &reports("s2", 15.0, &fair)[..] else { panic!() };
    assert!(off.age_mean_ms < 1.03 * nexus.age_mean_ms, "{off:?} {nexus:?}");
}

#[test]
fn a_frame_that_comes_early_or_late_is_found_within_a_look() {
    let ms = |value: f64| Duration::from_secs_f64(value / 1e3);
    let mut world = World::new(Config { steering: Steering::Off, ..Config::default() }, 1);
    world.camera("a", CameraModel { jitter: ms(15.0), ..CameraModel::default() });
    let runner = RunnerModel { alpha: ms(0.5), beta: ms(0.1), ..RunnerModel::default() };
    let path = ms(0.1) + runner.copy + runner.alpha + runner.beta + runner.postprocess;
    world.runner(Instant::ZERO, runner);
    world.subscribe(vec![World::subscription("a", "m", None)]);
    world.run_until(Instant::ZERO + Duration::from_secs(60));
    let delivered = &world.delivered[100..];
    let found: Duration = delivered
        .iter()
        .map(|d| (d.received - d.binding.stamp.published).saturating_sub(path))
        .sum();
    let mean = found / delivered.len() as u32;
    assert!(mean < ms(0.8), "frames are found {mean:?} after they came");
}
